//! GGUF files of speech models, from the files of other programs.
//!
//! In this order, each importing only what stands before it:
//!
//! - `array`: the arrays of weights, and writing them.
//! - `bytes`: reading numbers from front to back, without trust.
//! - `flat`: reading FlatBuffers, without trust.
//! - `graph`: the constants and matrices of a graph in the form of ONNX Runtime.
//! - [`moonshine`]: what they are called in a Moonshine, and its GGUF file.
//! - `whisper`: the GGUF file of a Whisper.
//! - [`ctranslate2`]: a Whisper's weights in the form of CTranslate2.
//! - [`whisper_cpp`]: a Whisper's weights in the form of whisper.cpp.
//! - [`package`]: which of these the files at a place are.

mod array;
mod bytes;
pub mod ctranslate2;
mod flat;
mod graph;
pub mod moonshine;
pub mod package;
mod whisper;
pub mod whisper_cpp;

use std::io;
use std::path::{Path, PathBuf};

/// The reason why a model cannot be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// A file has another form.
    #[error("{file} is not in the form of {form}")]
    Form {
        /// The file.
        file: &'static str,
        /// The program whose form it should have.
        form: &'static str,
    },
    /// A file points outside of itself, or ends too early.
    #[error("{0} is damaged: it ends too early, or points outside of itself")]
    Damaged(&'static str),
    /// Something of the model is not there.
    #[error("the model has no {0}")]
    Missing(String),
    /// The model is of another family, or in another form than published ones.
    #[error("this is no {family}: {why}")]
    Family {
        /// The family.
        family: &'static str,
        /// The difference.
        why: String,
    },
    /// Numbers have a type that is not read here.
    #[error("{what} has numbers of type {number}, which is not read")]
    Type {
        /// The tensor.
        what: String,
        /// The form's number of the type.
        number: u32,
    },
    /// Something has another size than the rest.
    #[error("{what} has {found} values, and not {expected}")]
    Size {
        /// The tensor or list.
        what: String,
        /// Its number of values.
        found: usize,
        /// The number that fits.
        expected: usize,
    },
    /// A value is infinite, not a number, or too large for the format.
    #[error("{0} holds a value that the format cannot hold")]
    Value(String),
    /// There is no model that is known here.
    #[error("{} is no ggml-*.bin of whisper.cpp, and no folder with a model.bin of CTranslate2 or the .ort files of Moonshine", .0.display())]
    Unknown(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The output fails.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

impl ConvertError {
    /// The error of reading `path`.
    fn read(path: &Path) -> impl Fn(io::Error) -> ConvertError {
        move |error| ConvertError::Read {
            path: path.to_owned(),
            error,
        }
    }
}

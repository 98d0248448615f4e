//! GGUF files of speech models, from the files of other programs.
//!
//! In this order, each importing only what stands before it:
//!
//! - `flat`: reading FlatBuffers, without trust.
//! - `graph`: the constants and matrices of a graph in the form of ONNX Runtime.
//! - [`moonshine`]: what they are called in a Moonshine, and its GGUF file.

mod flat;
mod graph;
pub mod moonshine;

use std::io;

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
    /// The output fails.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

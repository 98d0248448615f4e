//! Errors of reading a model.

use core::fmt;

use super::Family;
use crate::gguf::{GgufError, Name};
use crate::quant::GgmlType;
use crate::speech::mel::MelError;

/// Reason why a GGUF file is not a model that this crate runs.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ModelError {
    /// The file itself is broken.
    Gguf(GgufError),
    /// The features of sound that it describes cannot be computed.
    Mel(MelError),
    /// `general.architecture` is not a supported family.
    UnsupportedArchitecture(Name),
    /// The file is one of several parts of a model.
    SplitFile {
        /// Number of parts.
        parts: u64,
    },
    /// A metadata value that the family needs is missing or has the wrong type; the field is its
    /// key without the architecture.
    MissingMetadata(&'static str),
    /// A whole number is out of its range.
    OutOfRange {
        /// Its key without the architecture, or a name of the number.
        key: &'static str,
        /// The value, as stored or derived.
        value: u64,
    },
    /// A number is NaN or out of its range.
    FloatOutOfRange {
        /// Its key without the architecture.
        key: &'static str,
        /// The value, as stored.
        value: f32,
    },
    /// Query heads cannot be divided evenly among KV heads.
    HeadsDoNotDivide {
        /// Query heads.
        heads: u64,
        /// KV heads.
        kv_heads: u64,
    },
    /// The file asks for a feature of the family that is not implemented.
    UnsupportedFeature(&'static str),
    /// A metadata value that would change the results is not implemented in this family; the field
    /// is its key without the architecture.
    UnsupportedMetadata(&'static str),
    /// A tensor that the family needs is missing.
    MissingTensor {
        /// Name of the tensor, after the number of its layer.
        name: &'static str,
        /// Layer of the tensor, if it belongs to one.
        layer: Option<LayerName>,
    },
    /// A tensor's shape does not fit the model.
    BadShape {
        /// Name of the tensor, after the number of its layer.
        name: &'static str,
        /// Layer of the tensor, if it belongs to one.
        layer: Option<LayerName>,
        /// Rows and columns that the model needs.
        expected: (usize, usize),
        /// Rows and columns that the file has.
        found: (usize, usize),
    },
    /// This crate does not compute with the tensor's format.
    UnsupportedFormat {
        /// Name of the tensor, after the number of its layer.
        name: &'static str,
        /// Layer of the tensor, if it belongs to one.
        layer: Option<LayerName>,
        /// ggml's number for the format.
        ggml_type: u32,
    },
    /// The given table of layers does not have the model's number of layers.
    LayerCount {
        /// Number of the model's layers.
        model: usize,
        /// Number of entries in the table.
        given: usize,
    },
}

/// A layer, as the names of its tensors begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LayerName {
    /// Beginning of the names: `blk.` in files with one stack of layers.
    pub stack: &'static str,
    /// Number of the layer in its stack.
    pub layer: usize,
}

/// Writes a tensor's name with its layer.
struct Tensor(&'static str, Option<LayerName>);

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(LayerName { stack, layer }) => write!(f, "{stack}{layer}.{}", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ModelError::Gguf(error) => error.fmt(f),
            ModelError::Mel(error) => error.fmt(f),
            ModelError::UnsupportedArchitecture(name) => {
                write!(
                    f,
                    "the model's architecture {name} is not one of the supported ones:"
                )?;
                for (i, family) in Family::ALL.into_iter().enumerate() {
                    write!(f, "{} {}", if i == 0 { "" } else { "," }, family.name())?;
                }
                Ok(())
            }
            ModelError::SplitFile { parts } => write!(
                f,
                "the file is one of {parts} parts of a model: join them to one file first"
            ),
            ModelError::MissingMetadata(key) => {
                write!(f, "the model's metadata lacks a usable {key}")
            }
            ModelError::OutOfRange { key, value } => {
                write!(f, "the model's {key} is {value}, which is out of range")
            }
            ModelError::FloatOutOfRange { key, value } => {
                write!(f, "the model's {key} is {value:?}, which is out of range")
            }
            ModelError::HeadsDoNotDivide { heads, kv_heads } => write!(
                f,
                "the model's {heads} query heads cannot be divided evenly among {kv_heads} KV heads"
            ),
            ModelError::UnsupportedFeature(what) => {
                write!(f, "the model needs {what}, which is not supported")
            }
            ModelError::UnsupportedMetadata(key) => {
                write!(f, "the model's {key} has a value that is not supported")
            }
            ModelError::MissingTensor { name, layer } => {
                write!(f, "the model lacks the tensor {}", Tensor(name, layer))
            }
            ModelError::BadShape {
                name,
                layer,
                expected,
                found,
            } => write!(
                f,
                "the tensor {} is {} x {}, but the model needs {} x {}",
                Tensor(name, layer),
                found.0,
                found.1,
                expected.0,
                expected.1
            ),
            ModelError::UnsupportedFormat {
                name,
                layer,
                ggml_type,
            } => {
                write!(f, "the tensor {} has the format ", Tensor(name, layer))?;
                match GgmlType::of(ggml_type) {
                    Some(known) => f.write_str(known.name)?,
                    None => write!(f, "number {ggml_type}")?,
                }
                f.write_str(", which is not supported")
            }
            ModelError::LayerCount { model, given } => {
                write!(
                    f,
                    "the model has {model} layers, but the given table has {given}"
                )
            }
        }
    }
}

impl core::error::Error for ModelError {}

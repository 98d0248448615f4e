//! Errors of reading a model's tokenizer.

use core::fmt;

pub use crate::gguf::Name;

/// A metadata entry that a tokenizer is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "each variant is the entry that `Field::key` names"
)]
pub enum Field {
    Model,
    Pre,
    Tokens,
    Scores,
    TokenTypes,
    Merges,
    AddBos,
    AddEos,
    AddSpacePrefix,
}

impl Field {
    /// Key of the entry in a GGUF file.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Model => "tokenizer.ggml.model",
            Self::Pre => "tokenizer.ggml.pre",
            Self::Tokens => "tokenizer.ggml.tokens",
            Self::Scores => "tokenizer.ggml.scores",
            Self::TokenTypes => "tokenizer.ggml.token_type",
            Self::Merges => "tokenizer.ggml.merges",
            Self::AddBos => "tokenizer.ggml.add_bos_token",
            Self::AddEos => "tokenizer.ggml.add_eos_token",
            Self::AddSpacePrefix => "tokenizer.ggml.add_space_prefix",
        }
    }
}

/// Reason why a GGUF file's metadata is not a tokenizer that this crate can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum TokenizerError {
    /// The entry is absent.
    Missing(Field),
    /// The entry has another type than the specification's.
    WrongType(Field),
    /// `tokenizer.ggml.model` is neither `gpt2` (byte-level BPE) nor `llama` or `bpe`
    /// (SentencePiece).
    UnknownModel(Name),
    /// `tokenizer.ggml.pre` names a pre-tokenizer that this crate does not have.
    UnknownPreTokenizer(Name),
    /// The entry has fewer elements than there are tokens.
    TooFew {
        /// The short entry.
        field: Field,
        /// Number of its elements.
        found: usize,
        /// Number of tokens.
        tokens: usize,
    },
    /// There is no token, or the entry has more bytes or elements than 32-bit indices can address.
    BadSize(Field),
    /// The file's strings share their hashes far more often than chance allows, and a search would
    /// not be bounded.
    Crowded {
        /// The entry whose strings collide.
        field: Field,
        /// The element for which there was no place.
        index: usize,
    },
    /// The memory given is too small for the index and the smallest window of text.
    OutOfMemory {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The memory given does not start at a multiple of [`crate::arena::ALIGN`].
    Misaligned,
}

impl fmt::Display for TokenizerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Missing(field) => write!(f, "the model has no {}", field.key()),
            Self::WrongType(field) => write!(f, "the model's {} has the wrong type", field.key()),
            Self::UnknownModel(name) => {
                write!(
                    f,
                    "the tokenizer model {name} is unknown: it must be \"gpt2\", \"llama\" or \"bpe\""
                )
            }
            Self::UnknownPreTokenizer(name) => write!(f, "the pre-tokenizer {name} is unknown"),
            Self::TooFew {
                field,
                found,
                tokens,
            } => {
                write!(
                    f,
                    "the model's {} has {found} elements for {tokens} tokens",
                    field.key()
                )
            }
            Self::BadSize(field) => write!(f, "the model's {} is empty or too large", field.key()),
            Self::Crowded { field, index } => {
                write!(
                    f,
                    "element {index} of the model's {} cannot be indexed",
                    field.key()
                )
            }
            Self::OutOfMemory { needed, given } => {
                write!(
                    f,
                    "the tokenizer needs {needed} bytes of memory and was given {given}"
                )
            }
            Self::Misaligned => write!(f, "the tokenizer's memory is not aligned to 64 bytes"),
        }
    }
}

impl core::error::Error for TokenizerError {}

//! Errors of a stream.

use core::fmt;

/// Reason why a stream cannot start or continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum StreamError {
    /// The arena is shorter than planned, or not aligned to [`crate::arena::ALIGN`].
    Arena {
        /// Bytes that the plan takes.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The plan was made for another model.
    OtherModel,
    /// The plan was made for another number of workers.
    Workers {
        /// Workers planned for.
        planned: usize,
        /// Workers given.
        given: usize,
    },
    /// The buffer for attention weights has another length than layers x heads x slots.
    Probe {
        /// Values that it must hold.
        needed: usize,
        /// Values that it holds.
        given: usize,
    },
    /// No token was fed.
    NoTokens,
    /// The values are not a whole number of embedding rows.
    Rows {
        /// Values of a row.
        width: usize,
        /// Values given.
        given: usize,
    },
    /// The model has no encoder.
    NoEncoder,
    /// A sound has no samples, or an encoder's input no frames.
    NothingToHear,
    /// The model has an encoder, and nothing was encoded yet.
    NoSource,
    /// A sample of a sound is NaN or infinite, or so large that its power is.
    SoundNotFinite,
    /// The encoder has fewer positions than these frames take.
    SourceTooLong {
        /// Frames given.
        frames: usize,
        /// Largest number of frames.
        most: usize,
    },
    /// The recompute policy keeps token ids, and rows of embeddings have none.
    RowsRecomputed,
    /// A token is not in the vocabulary.
    TokenOutOfRange {
        /// The token.
        token: u32,
        /// Tokens of the vocabulary.
        vocab: usize,
    },
    /// The dense policy keeps all tokens, and the cache has no room for these.
    Full {
        /// Number of tokens that the cache holds.
        capacity: usize,
    },
    /// A number of the forward pass is NaN or infinite, as damaged weights make it.
    NotFinite {
        /// Number of tokens fed before the pass in which it was found.
        position: u64,
    },
    /// The plan has no scratch for a choice that is not greedy.
    NotForSampling {
        /// Entries of scratch that sampling needs: one for each token of the vocabulary.
        needed: usize,
        /// Entries planned.
        given: usize,
    },
    /// The policy is not sink, the only one that can pin and evict tokens on request.
    NotSink,
    /// Too many tokens to pin: no slot would be left, or some tokens have been evicted.
    Pin {
        /// Tokens fed.
        tokens: u64,
        /// Largest number of tokens that can be pinned, before the first eviction.
        most: usize,
    },
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            StreamError::Arena { needed, given } => {
                write!(
                    f,
                    "the arena must be aligned and {needed} bytes long; it has {given}"
                )
            }
            StreamError::OtherModel => write!(f, "the plan was made for another model"),
            StreamError::Workers { planned, given } => {
                write!(
                    f,
                    "the plan was made for {planned} workers, not for {given}"
                )
            }
            StreamError::Probe { needed, given } => {
                write!(
                    f,
                    "the buffer for attention weights must hold {needed} values; it holds {given}"
                )
            }
            StreamError::NoTokens => write!(f, "at least one token is needed"),
            StreamError::Rows { width, given } => {
                write!(f, "{given} values are not whole rows of {width}")
            }
            StreamError::NoEncoder => write!(f, "the model has no encoder"),
            StreamError::NothingToHear => write!(f, "there is no sound to encode"),
            StreamError::NoSource => {
                write!(
                    f,
                    "the model's encoder must get its input before tokens are fed"
                )
            }
            StreamError::SoundNotFinite => {
                write!(
                    f,
                    "the sound has samples that are no numbers, or much too large"
                )
            }
            StreamError::SourceTooLong { frames, most } => {
                write!(
                    f,
                    "{frames} frames are too many for the encoder, which takes {most}"
                )
            }
            StreamError::RowsRecomputed => write!(
                f,
                "the recompute policy keeps token ids and cannot take rows of embeddings"
            ),
            StreamError::TokenOutOfRange { token, vocab } => {
                write!(f, "token {token} is not in the vocabulary of {vocab}")
            }
            StreamError::Full { capacity } => write!(
                f,
                "the dense cache is full: it holds {capacity} tokens; the sink policy streams without end"
            ),
            StreamError::NotFinite { position } => write!(
                f,
                "after {position} tokens the model computes NaN or infinity: its file is damaged"
            ),
            StreamError::NotForSampling { needed, given } => write!(
                f,
                "sampling at a temperature above 0 needs scratch of {needed} entries, and the plan has {given}: plan with `Options::sampling`"
            ),
            StreamError::NotSink => write!(
                f,
                "only the sink policy can pin and evict tokens on request"
            ),
            StreamError::Pin { tokens, most } => {
                write!(
                    f,
                    "{tokens} tokens cannot be pinned; the cache has room for {most}"
                )
            }
        }
    }
}

impl core::error::Error for StreamError {}

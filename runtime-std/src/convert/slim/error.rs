//! Errors of slim conversions.

use brooklet_core::stream::StreamError;

use super::solve::NoConvergence;
use crate::Error;

/// The reason why a model cannot be analysed or converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlimError {
    /// The engine fails while it reads the calibration text.
    #[error(transparent)]
    Model(#[from] Error),
    /// The value projections are gone.
    #[error("the file lacks attn_v.weight, which a conversion has left out: convert the original")]
    ValuesDropped,
    /// The family's attention does not allow it.
    #[error(
        "slim attention cannot be used with {0}: it has QK norm, soft-capped scores, score biases (ALiBi), sliding-window layers or layers of unlike rotation"
    )]
    Family(&'static str),
    /// Query heads share keys.
    #[error(
        "slim attention needs as many key columns as the model has columns: this one has {key_columns} for {columns} \
         ({heads} heads share {kv_heads}); its cache of keys and values is smaller already"
    )]
    SharedKeys {
        /// Columns of all key heads.
        key_columns: usize,
        /// Columns of the model.
        columns: usize,
        /// Query heads.
        heads: usize,
        /// KV heads.
        kv_heads: usize,
    },
    /// The calibration text is too short.
    #[error(
        "the calibration text has {tokens} tokens: at least {least} are needed, as many as the model has columns"
    )]
    Text {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens that are needed.
        least: usize,
    },
    /// A layer cannot be solved.
    #[error("layer {layer}: {error}")]
    Layer {
        /// The layer.
        layer: usize,
        /// The reason.
        error: NoConvergence,
    },
}

impl From<StreamError> for SlimError {
    fn from(error: StreamError) -> Self {
        SlimError::Model(error.into())
    }
}

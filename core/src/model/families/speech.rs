//! Facts that the families of speech models have in common.

use crate::const_fn::tri;
use crate::model::ModelError;
use crate::model::config::{MAX_LAYERS, vocabulary};
use crate::model::design::Design;
use crate::model::facts::Facts;

/// Reads a number of layers.
pub(super) const fn layers(facts: &Facts<'_>, key: &'static str) -> Result<usize, ModelError> {
    let layers = tri!(facts.dim(key));
    if layers > MAX_LAYERS {
        return Err(ModelError::OutOfRange {
            key,
            value: layers as u64,
        });
    }
    Ok(layers)
}

/// Reads the size of the vocabulary, which the metadata must state as the embedding has it.
pub(super) const fn stated_vocabulary(
    facts: &Facts<'_>,
    design: &Design,
) -> Result<usize, ModelError> {
    let vocab = tri!(vocabulary(facts.file, design));
    let stated = tri!(facts.dim("decoder.vocab_size"));
    if stated != vocab {
        return Err(ModelError::OutOfRange {
            key: "decoder.vocab_size",
            value: stated as u64,
        });
    }
    Ok(vocab)
}

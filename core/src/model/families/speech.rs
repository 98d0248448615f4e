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

/// Refuses an output matrix that the metadata deny, and the lack of one that they announce.
pub(super) const fn check_output(facts: &Facts<'_>) -> Result<(), ModelError> {
    let is_tied = tri!(facts.flag("decoder.tie_word_embeddings", true));
    if is_tied == facts.file.tensor("dec.lm_head.weight").is_some() {
        return Err(ModelError::UnsupportedFeature(
            "an output matrix that its metadata deny, or the lack of one that they announce",
        ));
    }
    Ok(())
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

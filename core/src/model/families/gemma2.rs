//! Gemma 2 (Gemma Team, arXiv 2408.00118, section 2): every other layer attends to a local window
//! only, scores and logits are soft-capped, sublayers are normed before and after, GEGLU, and an
//! embedding scaled by the root of its width.
//!
//! Files hold the norms' weights with 1 already added.

use super::qwen2;
use crate::const_fn::tri;
use crate::model::design::{Design, FeedForwardKind, Norms};
use crate::model::facts::Facts;
use crate::model::{Config, ModelError};

pub(super) const DESIGN: Design = Design {
    norms: Norms::Around,
    feed_forward: FeedForwardKind::GeGlu,
    scaled_embedding: true,
    ..qwen2::DESIGN
};

/// Number of layers of the model of 27 billion parameters. Its queries are scaled by their share of
/// the model's width (section 2, table 1) and not by the width of a head; the metadata does not say
/// so.
const LAYERS_OF_27B: usize = 46;

pub(super) const fn complete(facts: &Facts<'_>, mut config: Config) -> Result<Config, ModelError> {
    config.kinds = tri!(facts.local_layers(config.kinds, 2, None));
    if config.rope_scale != 1.0 && config.kinds.smallest_window().is_some() {
        // Here local layers would be scaled, too, other than in all other families.
        return Err(ModelError::UnsupportedFeature(
            "scaled positions in layers with a local window",
        ));
    }
    config.score_cap = tri!(facts.soft_cap("attn_logit_softcapping", 50.0));
    config.logit_cap = tri!(facts.soft_cap("final_logit_softcapping", 30.0));
    if config.layers == LAYERS_OF_27B {
        config.query_scale_of = config.d_model / config.heads;
    }
    Ok(config)
}

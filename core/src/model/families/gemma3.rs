//! Gemma 3 (Gemma Team, arXiv 2503.19786, section 2): five layers that attend to a local window for
//! each layer that attends to all tokens, with separate rotary bases; queries and keys are normed
//! by head instead of Gemma 2's soft caps.
//!
//! Files hold the norms' weights with 1 already added.

use super::gemma2;
use crate::const_fn::tri;
use crate::model::design::{Design, QueryKeyNorm};
use crate::model::facts::Facts;
use crate::model::{Config, ModelError};

pub(super) const DESIGN: Design = Design {
    query_key_norm: QueryKeyNorm::EachHead,
    ..gemma2::DESIGN
};

/// Rotary base of local layers (section 2.1), for files that have none.
const LOCAL_THETA: f32 = 10_000.0;

/// Number of layers of the model of 27 billion parameters. Its queries are scaled by their share of
/// the model's width; the metadata does not say so.
const LAYERS_OF_27B: usize = 62;

pub(super) const fn complete(facts: &Facts<'_>, mut config: Config) -> Result<Config, ModelError> {
    config.kinds = tri!(facts.local_layers(config.kinds, 6, Some(LOCAL_THETA)));
    config.logit_cap = tri!(facts.soft_cap("final_logit_softcapping", 0.0));
    if config.layers == LAYERS_OF_27B {
        config.query_scale_of = config.d_model / config.heads;
    }
    Ok(config)
}

//! MPT (MosaicML, "Introducing MPT-7B", 2023): GPT-2's layers with ALiBi (Press et al., arXiv
//! 2108.12409) instead of learned positions, exact GELU, and no biases.
//!
//! Distances, not positions, lower the scores, so sinks and windows stream such a model
//! (StreamingLLM, arXiv 2309.17453, section 3.2). What some of MPT's files have beside this is
//! refused: learned positions, clamped projections, normed queries and keys, scaled activations.

use super::gpt2;
use crate::const_fn::tri;
use crate::features::OfFamilies;
use crate::model::design::{Design, FeedForwardKind, Positions};
use crate::model::facts::Facts;
use crate::model::{Config, ModelError};
use crate::nn::alibi::Slopes;

pub(super) const DESIGN: Design = Design {
    feed_forward: FeedForwardKind::Gelu,
    positions: Positions::Alibi,
    ..gpt2::DESIGN
};

pub(super) const fn complete(facts: &Facts<'_>, mut config: Config) -> Result<Config, ModelError> {
    let key = "attention.max_alibi_bias";
    let value = tri!(facts.float(key, Some(0.0), 0.0, Slopes::MOST_BIAS as f32));
    let bias = value as u32;
    if bias as f32 != value {
        return Err(ModelError::FloatOutOfRange { key, value });
    }
    let file = facts.file;
    if bias == 0 || file.tensor("position_embd.weight").is_some() {
        return Err(ModelError::UnsupportedFeature(
            "positions other than ALiBi in an mpt model",
        ));
    }
    if tri!(facts.float("attention.clamp_kqv", Some(0.0), 0.0, f32::MAX)) != 0.0 {
        return Err(ModelError::UnsupportedFeature(
            "clamped queries, keys and values",
        ));
    }
    // These are in all layers or in none.
    if file.layer_tensor(0, "attn_q_norm.weight").is_some() {
        return Err(ModelError::UnsupportedFeature(
            "normed queries and keys in an mpt model",
        ));
    }
    if file.layer_tensor(0, "ffn.act.scales").is_some() {
        return Err(ModelError::UnsupportedFeature(
            "scales of its activations (AWQ)",
        ));
    }
    config.alibi = OfFamilies::some(Slopes::new(config.heads, bias));
    Ok(config)
}

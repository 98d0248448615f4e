//! Phi-3, Phi-3.5 and Phi-4-mini (Abdin et al., arXiv 2404.14219, section 2): Llama's layers with
//! fused projections. For long contexts every frequency is divided by its own factor (LongRoPE,
//! Ding et al., arXiv 2402.13753), chosen once by the size of the cache.

use super::qwen2;
use crate::const_fn::{or, tri};
use crate::model::design::{Design, FusedGate};
use crate::model::facts::Facts;
use crate::model::{Config, ModelError};

pub(super) const DESIGN: Design = Design {
    fused_qkv: true,
    fused_gate: FusedGate::First,
    ..qwen2::DESIGN
};

pub(super) const fn complete(facts: &Facts<'_>, mut config: Config) -> Result<Config, ModelError> {
    // All layers were trained to see at most this number of tokens, so it is the trained context.
    let window = or(tri!(facts.optional_dim("attention.sliding_window")), 0);
    if window > 0 && window < config.context {
        config.context = window;
    }
    config.rope_short_context = or(
        tri!(facts.optional_dim("rope.scaling.original_context_length")),
        config.context,
    );
    Ok(config)
}

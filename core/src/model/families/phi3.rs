//! Phi-3 and its kin (Abdin et al., arXiv 2404.14219, section 2): Llama's layers with fused projections; for long contexts every frequency
//! divided by a factor of its own (LongRoPE, Ding et al., arXiv 2402.13753), chosen once by how much the cache holds.

use super::qwen2;
use crate::const_fn::{or, tri};
use crate::model::design::Design;
use crate::model::facts::Facts;
use crate::model::{Config, ModelError};

pub(super) const DESIGN: Design = Design {
    fused_qkv: true,
    fused_gate: true,
    ..qwen2::DESIGN
};

pub(super) const fn complete(facts: &Facts<'_>, mut config: Config) -> Result<Config, ModelError> {
    // All layers were trained to see so many tokens at most: a cache that holds no more is what they know.
    let window = or(tri!(facts.optional_dim("attention.sliding_window")), 0);
    if window > 0 && window < config.context {
        config.context = window;
    }
    config.rope_short_context = or(
        tri!(facts.optional_dim("rope.scaling.original_context_length")),
        config.context,
    );
    config.rope_magnitude = tri!(facts.float("rope.scaling.attn_factor", Some(1.0), 0.1, 10.0));
    Ok(config)
}

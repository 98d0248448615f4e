//! GPT-NeoX and Pythia (Black et al., arXiv 2204.06745, section 2; Biderman et al., arXiv
//! 2304.01373): attention and feed-forward in parallel, both on the layer's input; a quarter of
//! each head rotated; LayerNorm, GELU, and biases everywhere.

use super::qwen2;
use crate::const_fn::tri;
use crate::model::design::{Design, FeedForwardKind, NormKind};
use crate::model::facts::Facts;
use crate::model::{Config, ModelError};

pub(super) const DESIGN: Design = Design {
    norm: NormKind::Layer,
    feed_forward: FeedForwardKind::Gelu,
    fused_qkv: true,
    ..qwen2::DESIGN
};

pub(super) const fn complete(facts: &Facts<'_>, mut config: Config) -> Result<Config, ModelError> {
    config.design.parallel_residual = tri!(facts.flag("use_parallel_residual", true));
    Ok(config)
}

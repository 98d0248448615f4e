//! GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.3): learned positions, LayerNorm before each
//! sublayer, GELU in its tanh form, and biases everywhere.
//!
//! A learned position is part of what a token's key is made of, so that no cache can be renumbered: neither sinks nor a window stream such
//! a model. What it can do without end is a window that is computed afresh.

use super::llama;
use crate::model::design::{Design, FeedForwardKind, NormKind, Positions};

pub(super) const DESIGN: Design = Design {
    norm: NormKind::Layer,
    feed_forward: FeedForwardKind::GeluTanh,
    positions: Positions::Learned,
    fused_qkv: true,
    ..llama::DESIGN
};

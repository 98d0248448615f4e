//! GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section
//! 2.3): learned positions, LayerNorm before each sublayer, GELU in its tanh form, and biases
//! everywhere.
//!
//! A learned position is part of the input of a token's key, so no token in a cache can get a new
//! position: neither sinks nor a window can stream such a model. Only the recompute policy runs it
//! without end.

use super::llama;
use crate::model::design::{Design, FeedForwardKind, NormKind, Positions};

pub(super) const DESIGN: Design = Design {
    norm: NormKind::Layer,
    feed_forward: FeedForwardKind::GeluTanh,
    positions: Positions::Learned,
    fused_qkv: true,
    ..llama::DESIGN
};

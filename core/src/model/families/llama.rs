//! Llama 1 to 3, SmolLM2, TinyLlama (Touvron et al., arXiv 2302.13971, section 2.2).
//!
//! Norms by the root mean square before each sublayer, rotary positions on interleaved pairs (as
//! the files store the projections), multi-head, grouped-query or multi-query attention with or
//! without biases, SwiGLU, and an output matrix that is separate or the embedding.

use crate::model::Naming;
use crate::model::design::{
    Design, FeedForwardKind, FusedGate, NormKind, Norms, Positions, QueryKeyNorm,
};
use crate::nn::rope::Pairs;

pub(super) const DESIGN: Design = Design {
    norm: NormKind::Rms,
    norms: Norms::Before,
    query_key_norm: QueryKeyNorm::None,
    feed_forward: FeedForwardKind::SwiGlu,
    parallel_residual: false,
    positions: Positions::Rotary(Pairs::Neighbours),
    scaled_embedding: false,
    fused_qkv: false,
    fused_gate: FusedGate::No,
    gated_biases: false,
    naming: Naming::Blocks,
};

//! How a family puts its layers together: what the section "architecture" of its paper says, as data.

use super::weights::QUERY;
use crate::gguf::Gguf;
use crate::nn::rope::Pairs;

/// How a row is normed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum NormKind {
    /// By its root mean square (Zhang and Sennrich, arXiv 1910.07467, equation 4).
    Rms,
    /// By mean and variance, with a bias (Ba et al., arXiv 1607.06450, equation 4).
    Layer,
}

/// Where a sublayer (attention, feed-forward) is normed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Norms {
    /// What goes in: `x + f(norm(x))`.
    Before,
    /// What comes out: `x + norm(f(x))`.
    After,
    /// Both: `x + norm(f(norm(x)))`.
    Around,
}

impl Norms {
    /// Whether what goes in is normed.
    pub const fn before(self) -> bool {
        matches!(self, Norms::Before | Norms::Around)
    }

    /// Whether what comes out is normed.
    pub const fn after(self) -> bool {
        matches!(self, Norms::After | Norms::Around)
    }
}

/// Which columns of queries and keys are normed together, before they are rotated (always by their root mean square).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum QueryKeyNorm {
    /// They are not normed.
    None,
    /// Each head's, with one weight for all heads.
    EachHead,
    /// Those of all heads.
    AllHeads,
}

/// What a feed-forward layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum FeedForward {
    /// `down·(silu(gate·x) ⊙ up·x)` (SwiGLU, Shazeer, arXiv 2002.05202, equation 6).
    SwiGlu,
    /// `down·(gelu(gate·x) ⊙ up·x)` (GEGLU, the same equation) with the tanh form of GELU.
    GeGlu,
    /// `down·gelu(up·x + b) + b'` (GELU, Hendrycks and Gimpel, arXiv 1606.08415, section 2).
    Gelu,
    /// The same with GELU's tanh form.
    GeluTanh,
}

impl FeedForward {
    /// Whether there is a gate beside `up`.
    pub const fn gated(self) -> bool {
        matches!(self, FeedForward::SwiGlu | FeedForward::GeGlu)
    }
}

/// How a model knows where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Positions {
    /// Queries and keys are rotated (RoPE): scores depend on distances only, so that a stream has no end.
    Rotary(Pairs),
    /// A row for every position is added to the embedding: there are as many as there are rows.
    Learned,
}

/// What is the same for all models of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Design {
    /// How rows are normed.
    pub norm: NormKind,
    /// Where sublayers are normed.
    pub norms: Norms,
    /// Whether queries and keys are normed, too.
    pub query_key_norm: QueryKeyNorm,
    /// What a feed-forward layer computes.
    pub feed_forward: FeedForward,
    /// How positions come in.
    pub positions: Positions,
    /// Whether the embedding is multiplied by `sqrt(d_model)`.
    pub scaled_embedding: bool,
    /// Whether queries, keys and values come of one tensor, `attn_qkv`, in this order.
    pub fused_qkv: bool,
    /// Whether gate and up are one tensor, `ffn_up`, in this order.
    pub fused_gate: bool,
}

impl Design {
    /// Whether queries, keys and values of layer `layer` of a file are one tensor: where they may be, and have none of their own.
    pub const fn fuses_qkv(&self, file: &Gguf<'_>, layer: usize) -> bool {
        self.fused_qkv && file.layer_tensor(layer, QUERY).is_none()
    }
}

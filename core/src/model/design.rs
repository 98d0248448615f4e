//! How a family puts its layers together: what the section "architecture" of its paper says, as data.

use super::names::QUERY;
use crate::cache::MAX_REACHES;
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

/// Equation of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum FeedForwardKind {
    /// `down·(silu(gate·x) ⊙ up·x)` (SwiGLU, Shazeer, arXiv 2002.05202, equation 6).
    SwiGlu,
    /// `down·(gelu(gate·x) ⊙ up·x)` (GEGLU, the same equation) with the tanh form of GELU.
    GeGlu,
    /// `down·gelu(up·x + b) + b'` (GELU, Hendrycks and Gimpel, arXiv 1606.08415, section 2).
    Gelu,
    /// The same with GELU's tanh form.
    GeluTanh,
}

impl FeedForwardKind {
    /// Whether there is a gate beside `up`.
    pub const fn gated(self) -> bool {
        matches!(self, FeedForwardKind::SwiGlu | FeedForwardKind::GeGlu)
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

/// Settings of a layer's attention that may differ from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LayerKind {
    /// Tokens that the layer was trained to see, the newest included; `None` for all.
    pub window: Option<usize>,
    /// Base of the rotary frequencies; `None` where queries and keys are not rotated (NoPE).
    pub rotation: Option<f32>,
}

/// The kinds of a model's layers: the last of every `period` layers is of one kind, the others are
/// of another.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LayerKinds {
    kinds: [LayerKind; LayerKinds::MOST],
    period: usize,
}

impl LayerKinds {
    /// Most kinds.
    pub const MOST: usize = MAX_REACHES;

    /// One kind for all layers.
    pub const fn all(kind: LayerKind) -> LayerKinds {
        LayerKinds {
            kinds: [kind; LayerKinds::MOST],
            period: 1,
        }
    }

    /// The last of every `period` layers (at least 1) of kind `last`, the others of kind `others`.
    pub const fn alternating(last: LayerKind, others: LayerKind, period: usize) -> LayerKinds {
        LayerKinds {
            kinds: [last, others],
            period,
        }
    }

    /// The kinds that there are; kind 0 is that of the last layer of a period.
    pub const fn list(&self) -> &[LayerKind] {
        let count = if self.period == 1 { 1 } else { LayerKinds::MOST };
        let (kinds, _) = self.kinds.split_at(count);
        kinds
    }

    /// Index of layer `layer`'s kind in [`LayerKinds::list`].
    pub const fn index(&self, layer: usize) -> usize {
        if layer % self.period == self.period - 1 {
            0
        } else {
            1
        }
    }

    /// Kind of layer `layer`.
    pub const fn of(&self, layer: usize) -> LayerKind {
        self.kinds[self.index(layer)]
    }

    /// Index of the first kind whose layers see all tokens; 0 if there is none.
    pub(crate) const fn first_full(&self) -> usize {
        match (self.kinds[0].window, self.list()[self.list().len() - 1].window) {
            (Some(_), None) => 1,
            _ => 0,
        }
    }

    /// The smallest window of any kind; `None` if all layers see all tokens.
    pub const fn smallest_window(&self) -> Option<usize> {
        let of_others = self.list()[self.list().len() - 1].window;
        match (self.kinds[0].window, of_others) {
            (Some(a), Some(b)) => Some(if a < b { a } else { b }),
            (Some(window), None) | (None, Some(window)) => Some(window),
            (None, None) => None,
        }
    }
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
    /// Equation of a feed-forward layer.
    pub feed_forward: FeedForwardKind,
    /// Attention and feed-forward both take what enters the layer (parallel residual).
    pub parallel_residual: bool,
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

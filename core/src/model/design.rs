//! Structure of a family's layers: the section "architecture" of its paper, as data.

use super::names::{Naming, QUERY};
use crate::cache::MAX_REACHES;
use crate::gguf::Gguf;
use crate::nn::rope::Pairs;

/// Kind of a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum NormKind {
    /// By its root mean square (Zhang and Sennrich, arXiv 1910.07467, equation 4).
    Rms,
    /// By mean and variance, with a bias (Ba et al., arXiv 1607.06450, equation 4).
    Layer,
}

/// Place of the norm of a sublayer (attention, feed-forward).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Norms {
    /// The input is normed: `x + f(norm(x))`.
    Before,
    /// The output is normed: `x + norm(f(x))`.
    After,
    /// Both are normed: `x + norm(f(norm(x)))`.
    Around,
}

impl Norms {
    /// Returns true if the input is normed.
    pub const fn before(self) -> bool {
        matches!(self, Norms::Before | Norms::Around)
    }

    /// Returns true if the output is normed.
    pub const fn after(self) -> bool {
        matches!(self, Norms::After | Norms::Around)
    }
}

/// Columns of queries and keys that are normed together, before they are rotated (always by their
/// root mean square).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum QueryKeyNorm {
    /// They are not normed.
    None,
    /// The columns of each head, with one weight for all heads.
    EachHead,
    /// The columns of all heads.
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
    /// Returns true if there is a gate beside `up`.
    pub const fn gated(self) -> bool {
        matches!(self, FeedForwardKind::SwiGlu | FeedForwardKind::GeGlu)
    }
}

/// Place of a feed-forward layer's gate in the tensor `ffn_up` of files that have no `ffn_gate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum FusedGate {
    /// It is never there.
    No,
    /// Its rows come before those of `up`.
    First,
    /// Its rows come after those of `up`.
    Last,
}

/// Source of the positions of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Positions {
    /// Queries and keys are rotated (RoPE): scores depend on distances only, so a stream has no
    /// end.
    Rotary(Pairs),
    /// A row for every position is added to the embedding: the number of rows is the largest number
    /// of positions.
    Learned,
    /// Scores fall with the distance of query and key ([`ALiBi`](crate::nn::alibi)): nothing is
    /// rotated, and a stream has no end.
    Alibi,
}

/// Settings of a layer's attention that may differ from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LayerKind {
    /// Number of tokens that the layer was trained to see, including the newest; `None` for all.
    pub window: Option<usize>,
    /// Base of the rotary frequencies; `None` if queries and keys are not rotated (NoPE).
    pub rotation: Option<f32>,
}

/// The kinds of a model's layers: in each period of `period` layers, the last is of one kind and
/// the others are of another.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LayerKinds {
    kinds: [LayerKind; LayerKinds::MOST],
    period: usize,
}

impl LayerKinds {
    /// Largest number of kinds.
    pub const MOST: usize = MAX_REACHES;

    /// One kind for all layers.
    pub const fn all(kind: LayerKind) -> LayerKinds {
        LayerKinds {
            kinds: [kind; LayerKinds::MOST],
            period: 1,
        }
    }

    /// Creates periods of `period` layers (at least 1): the last is of kind `last`, the others of
    /// kind `others`.
    pub const fn alternating(last: LayerKind, others: LayerKind, period: usize) -> LayerKinds {
        LayerKinds {
            kinds: [last, others],
            period,
        }
    }

    /// The kinds in use; kind 0 is that of the last layer of a period.
    pub const fn list(&self) -> &[LayerKind] {
        let count = if self.period == 1 {
            1
        } else {
            LayerKinds::MOST
        };
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
        match (
            self.kinds[0].window,
            self.list()[self.list().len() - 1].window,
        ) {
            (Some(_), None) => 1,
            _ => 0,
        }
    }

    /// Returns true if all kinds rotate in the same way, or none does.
    pub const fn rotate_alike(&self) -> bool {
        let others = self.list()[self.list().len() - 1];
        match (self.kinds[0].rotation, others.rotation) {
            (Some(a), Some(b)) => a.to_bits() == b.to_bits(),
            (None, None) => true,
            _ => false,
        }
    }

    /// Smallest window of any kind; `None` if all layers attend to all kept tokens.
    pub const fn smallest_window(&self) -> Option<usize> {
        let of_others = self.list()[self.list().len() - 1].window;
        match (self.kinds[0].window, of_others) {
            (Some(a), Some(b)) => Some(if a < b { a } else { b }),
            (Some(window), None) | (None, Some(window)) => Some(window),
            (None, None) => None,
        }
    }
}

/// Structure that all models of a family share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Design {
    /// Kind of the norms.
    pub norm: NormKind,
    /// Place of the sublayers' norms.
    pub norms: Norms,
    /// Norm of queries and keys.
    pub query_key_norm: QueryKeyNorm,
    /// Equation of a feed-forward layer.
    pub feed_forward: FeedForwardKind,
    /// True if attention and feed-forward both take the layer's input (parallel residual).
    pub parallel_residual: bool,
    /// Source of positions.
    pub positions: Positions,
    /// True if the embedding is multiplied by `sqrt(d_model)`.
    pub scaled_embedding: bool,
    /// True if queries, keys and values may be one tensor, `attn_qkv`, in this order.
    pub fused_qkv: bool,
    /// Place of the gate in the tensor `ffn_up`, if that may hold both.
    pub fused_gate: FusedGate,
    /// True if gated feed-forward layers have biases.
    pub gated_biases: bool,
    /// Names of the tensors.
    pub naming: Naming,
}

impl Design {
    /// Returns true if queries, keys and values of layer `layer` are one tensor in `file`: the
    /// design allows it, and the file has no separate query tensor.
    pub const fn fuses_qkv(&self, file: &Gguf<'_>, layer: usize) -> bool {
        self.fused_qkv && file.layer_tensor(layer, QUERY).is_none()
    }
}

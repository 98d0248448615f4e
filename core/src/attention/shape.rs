//! The numbers of a layer's attention, and its exact cache layouts side by side: the elements kept
//! of a token, and the multiply-adds.
//!
//! All numbers are counted, none is measured. In practice rounding decides how many rank-correction
//! channels `k+r` needs, and a conversion finds that number. The functions are `const`, so that a
//! board can call them at compile time.

use crate::cache::{Columns, Layout};
use crate::nn::rope::Pairs;

/// Numbers of a layer's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Shape {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Elements of a head that are rotated between their projection and the dot product (RoPE); 0
    /// for none.
    pub rope_dim: usize,
    /// Pairs of elements that are rotated together.
    pub rope_pairs: Pairs,
}

/// Reason why a layout is the smallest exact one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Reason {
    /// There are so few KV heads that no other layout is smaller.
    FewHeads,
    /// RoPE rotates the keys: values can be derived from keys; no other derivation is possible.
    Rotated,
    /// Keys are not rotated: keys and values follow from the input, and no matrix is inverted.
    NotRotated,
}

impl Reason {
    /// Text of the reason, as the end of a sentence.
    pub const fn text(self) -> &'static str {
        match self {
            Reason::FewHeads => "there are so few KV heads that no other layout is smaller",
            Reason::Rotated => {
                "keys are rotated, so values follow from keys, but keys do not follow from the input"
            }
            Reason::NotRotated => {
                "keys are not rotated, so keys and values follow from the input, and no matrix is inverted"
            }
        }
    }
}

impl Shape {
    /// Columns of all query heads together.
    pub const fn query_columns(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of all KV heads' keys together; values have the same number.
    pub const fn kv_columns(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Number of query heads that share a KV head.
    pub const fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Columns from which the size of a cache follows.
    pub const fn columns(&self) -> Columns {
        Columns {
            kv: self.kv_columns(),
            input: self.d_model,
        }
    }

    /// Returns true if keys are rotated between their projection and the dot product.
    pub const fn is_rotated(&self) -> bool {
        self.rope_dim > 0
    }

    /// Layout k+r with the fewest rank-correction channels that are enough to compute values from
    /// keys, for a `W_K` of full rank: the dimensions of the input that keys lack, at most the
    /// columns of the values. The rank is 0 for multi-head attention.
    pub const fn least_rank(&self) -> Layout {
        let lacking = self.d_model.saturating_sub(self.kv_columns());
        let rank = if lacking < self.kv_columns() {
            lacking
        } else {
            self.kv_columns()
        };
        Layout::KR {
            rank: if rank > u16::MAX as usize {
                u16::MAX
            } else {
                rank as u16
            },
        }
    }

    /// The layouts to compare, with k+r at its least rank.
    pub const fn layouts(&self) -> [Layout; 3] {
        [Layout::Kv, self.least_rank(), Layout::X]
    }

    /// Returns true if `layout` is exact for this model (`k+r`: from its least rank on).
    pub const fn allows(&self, layout: Layout) -> bool {
        !(self.is_rotated() && matches!(layout, Layout::X))
    }

    /// Number of elements kept of a token in a layer.
    pub const fn elements(&self, layout: Layout) -> usize {
        layout.elements(self.columns())
    }

    /// Number of multiply-adds of one token's attention in a layer with `slots` tokens in the
    /// cache, including the projections of keys and values and the sum of values; sums first
    /// (equation 5 of slim attention, arXiv 2503.05840, second order). The projections of the query
    /// and of the output are the same in every layout and are not counted. Rotating a key counts as
    /// two per element.
    pub const fn products(&self, layout: Layout, slots: usize) -> u64 {
        let (d, q, e, n) = (
            self.d_model as u64,
            self.query_columns() as u64,
            self.kv_columns() as u64,
            slots as u64,
        );
        let heads = self.heads as u64;
        match layout {
            Layout::Kv => 2 * d * e + 2 * n * q,
            Layout::KR { rank } => {
                let kept = e + rank as u64;
                let rotation = if self.is_rotated() { 2 * n * e } else { 0 };
                d * kept + n * q + rotation + n * kept * heads + kept * q
            }
            // Each head's query goes through W_K's transpose, its sum through W_V; keys and values
            // are never computed.
            Layout::X => q * d + 2 * n * d * heads + d * q,
        }
    }

    /// Smallest exact layout, with the reason; [`Layout::Kv`] if no other layout is smaller.
    pub const fn pick(&self) -> (Layout, Reason) {
        let (other, reason) = if self.is_rotated() {
            (self.least_rank(), Reason::Rotated)
        } else {
            (Layout::X, Reason::NotRotated)
        };
        if self.elements(other) < self.elements(Layout::Kv) {
            (other, reason)
        } else {
            (Layout::Kv, Reason::FewHeads)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn mha(d_model: usize, heads: usize, head_dim: usize, rotated: bool) -> Shape {
        Shape {
            d_model,
            heads,
            kv_heads: heads,
            head_dim,
            rope_dim: if rotated { head_dim } else { 0 },
            rope_pairs: Pairs::Neighbours,
        }
    }

    // In `const`, as on a board.
    const CODE_LLAMA: (Layout, Reason) = mha(4096, 32, 128, true).pick();

    #[test]
    fn picks_follow_from_rotation_and_heads() {
        assert_eq!(CODE_LLAMA, (Layout::KR { rank: 0 }, Reason::Rotated));
        let whisper = mha(512, 8, 64, false);
        assert_eq!(whisper.pick(), (Layout::X, Reason::NotRotated));
        let smollm2 = Shape {
            kv_heads: 3,
            ..mha(576, 9, 64, true)
        };
        assert_eq!(smollm2.pick(), (Layout::Kv, Reason::FewHeads));
        // Gemma 2 9B: 16 heads of 256 share 8; its values lack 1536 of the input's 3584 dimensions.
        let gemma2 = Shape {
            kv_heads: 8,
            ..mha(3584, 16, 256, true)
        };
        assert_eq!(gemma2.pick().0, Layout::KR { rank: 1536 });
        assert_eq!(gemma2.elements(gemma2.least_rank()), 3584);
        assert_eq!(gemma2.elements(Layout::Kv), 4096);
    }

    #[test]
    fn wide_projections_need_no_channels() {
        // T5-11B: 128 heads of 128 for a model of 1024 columns: the paper's 32 times.
        let t5 = mha(1024, 128, 128, false);
        assert_eq!(t5.least_rank(), Layout::KR { rank: 0 });
        assert_eq!(t5.elements(t5.least_rank()), 16384);
        assert_eq!(t5.elements(Layout::Kv) / t5.elements(Layout::X), 32);
        assert!(!mha(1024, 128, 128, true).allows(Layout::X));
    }

    #[test]
    fn products_are_counted_as_the_paper_counts_them() {
        // Table 2 of the paper for a vanilla layer: 8d² + 4nd operations, two a multiply-add, with
        // the projections of query and output.
        let a = mha(512, 8, 64, false);
        assert_eq!(
            2 * (a.products(Layout::Kv, 1000) + 2 * 512 * 512),
            8 * 512 * 512 + 4 * 1000 * 512
        );
        // Optimised slim attention: 8d² + 2nd(h + 1).
        assert_eq!(
            2 * (a.products(a.least_rank(), 1000) + 2 * 512 * 512),
            8 * 512 * 512 + 2 * 1000 * 512 * 9
        );
    }
}

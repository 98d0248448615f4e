//! The exact layouts of a model's cache side by side: what each keeps of a token, what it costs to compute with, and which to take.
//!
//! All of it is counted, none of it measured: rounding decides how many further channels `k+r` needs in practice, which is for a
//! conversion to find out. `const`, so that a board may ask while it is compiled.

/// What decides which layouts are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Attention {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Whether keys are rotated between their projection and the dot product (RoPE).
    pub rotated: bool,
}

/// What is kept of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ExactLayout {
    /// Keys and values.
    Kv,
    /// Keys, and as many further channels as exact values take ([`Attention::least_rank`]).
    KR,
    /// The layer's input.
    X,
}

impl ExactLayout {
    /// Every layout.
    pub const ALL: [ExactLayout; 3] = [ExactLayout::Kv, ExactLayout::KR, ExactLayout::X];

    /// `kv`, `k+r` or `x`.
    pub const fn name(self) -> &'static str {
        match self {
            ExactLayout::Kv => "kv",
            ExactLayout::KR => "k+r",
            ExactLayout::X => "x",
        }
    }
}

/// Why a layout is the one to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Reason {
    /// Key and value heads are so few that nothing is smaller.
    FewHeads,
    /// Keys are rotated: values follow from keys, nothing else does from anything.
    Rotated,
    /// Keys are not rotated: keys and values follow from the input, and no matrix is inverted.
    NotRotated,
}

impl Reason {
    /// The end of a sentence.
    pub const fn text(self) -> &'static str {
        match self {
            Reason::FewHeads => "key and value heads are so few that nothing is smaller",
            Reason::Rotated => "keys are rotated, so values follow from keys, but keys not from the input",
            Reason::NotRotated => {
                "keys are not rotated, so both follow from the input, and no matrix is inverted"
            }
        }
    }
}

impl Attention {
    /// Columns of all query heads together.
    pub const fn query_columns(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of all key heads together; as many for values.
    pub const fn kv_columns(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Fewest further channels with which values follow from keys, for a `W_K` of full rank: what keys lack of the input's dimensions,
    /// at most all of the values'. 0 for multi-head attention.
    pub const fn least_rank(&self) -> usize {
        let lacking = self.d_model.saturating_sub(self.kv_columns());
        if lacking < self.kv_columns() {
            lacking
        } else {
            self.kv_columns()
        }
    }

    /// Whether `layout` is exact for this model.
    pub const fn allows(&self, layout: ExactLayout) -> bool {
        !(self.rotated && matches!(layout, ExactLayout::X))
    }

    /// Elements kept of a token in a layer.
    pub const fn elements(&self, layout: ExactLayout) -> usize {
        match layout {
            ExactLayout::Kv => 2 * self.kv_columns(),
            ExactLayout::KR => self.kv_columns() + self.least_rank(),
            ExactLayout::X => self.d_model,
        }
    }

    /// Multiply-adds of one token's attention in a layer, projections of keys and values and the sum of values included, with `slots`
    /// tokens in the cache; sums first (the paper's equation 5, second order). The query's and the output's projections are the same
    /// in every layout and not counted; rotating a key counts two an element.
    pub const fn products(&self, layout: ExactLayout, slots: usize) -> u64 {
        let (d, q, e, n) = (
            self.d_model as u64,
            self.query_columns() as u64,
            self.kv_columns() as u64,
            slots as u64,
        );
        let heads = self.heads as u64;
        match layout {
            ExactLayout::Kv => 2 * d * e + 2 * n * q,
            ExactLayout::KR => self.products_with_rank(self.least_rank(), slots),
            // Each head's query goes through W_K's transpose, its sum through W_V; keys and values are never computed.
            ExactLayout::X => q * d + 2 * n * d * heads + d * q,
        }
    }

    /// As [`Attention::products`] for keys and `rank` further channels.
    pub const fn products_with_rank(&self, rank: usize, slots: usize) -> u64 {
        let (q, n, heads) = (self.query_columns() as u64, slots as u64, self.heads as u64);
        let kept = (self.kv_columns() + rank) as u64;
        let rotation = if self.rotated {
            2 * n * self.kv_columns() as u64
        } else {
            0
        };
        self.d_model as u64 * kept + n * q + rotation + n * kept * heads + kept * q
    }

    /// The smallest exact layout, and why; [`ExactLayout::Kv`] where another is not smaller.
    pub const fn pick(&self) -> (ExactLayout, Reason) {
        let (other, reason) = if self.rotated {
            (ExactLayout::KR, Reason::Rotated)
        } else {
            (ExactLayout::X, Reason::NotRotated)
        };
        if self.elements(other) < self.elements(ExactLayout::Kv) {
            (other, reason)
        } else {
            (ExactLayout::Kv, Reason::FewHeads)
        }
    }

    /// The same model's attention over an encoder's output, whose keys are never rotated.
    pub const fn cross(mut self) -> Attention {
        self.rotated = false;
        self
    }
}

/// Elements of the caches of an encoder-decoder model, whose encoder gives `frames` vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderDecoder {
    /// A decoder layer's attention.
    pub attention: Attention,
    /// Decoder layers.
    pub layers: usize,
    /// Vectors that the encoder gives.
    pub frames: usize,
    /// Tokens that the decoder keeps.
    pub context: usize,
}

impl EncoderDecoder {
    /// Keys and values of the encoder's output, for every layer.
    pub const fn cross_kv(&self) -> usize {
        self.frames * self.attention.elements(ExactLayout::Kv) * self.layers
    }

    /// Keys and values of the decoder's tokens.
    pub const fn self_kv(&self) -> usize {
        self.context * self.attention.elements(ExactLayout::Kv) * self.layers
    }

    /// The encoder's output itself, once for all layers: layout `e`.
    pub const fn encoded(&self) -> usize {
        self.frames * self.attention.d_model
    }

    /// The decoder's tokens in their smallest exact layout.
    pub const fn self_smallest(&self) -> usize {
        self.context * self.attention.elements(self.attention.pick().0) * self.layers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn mha(d_model: usize, heads: usize, head_dim: usize, rotated: bool) -> Attention {
        Attention {
            d_model,
            heads,
            kv_heads: heads,
            head_dim,
            rotated,
        }
    }

    // In `const`, as a board asks.
    const CODE_LLAMA: (ExactLayout, Reason) = mha(4096, 32, 128, true).pick();

    #[test]
    fn picks_follow_from_rotation_and_heads() {
        assert_eq!(CODE_LLAMA, (ExactLayout::KR, Reason::Rotated));
        let whisper = mha(512, 8, 64, false);
        assert_eq!(whisper.pick(), (ExactLayout::X, Reason::NotRotated));
        let smollm2 = Attention {
            kv_heads: 3,
            ..mha(576, 9, 64, true)
        };
        assert_eq!(smollm2.pick(), (ExactLayout::Kv, Reason::FewHeads));
        // Gemma 2 9B: 16 heads of 256 share 8; its values lack 1536 of the input's 3584 dimensions.
        let gemma2 = Attention {
            kv_heads: 8,
            ..mha(3584, 16, 256, true)
        };
        assert_eq!(
            (gemma2.least_rank(), gemma2.elements(ExactLayout::KR)),
            (1536, 3584)
        );
        assert_eq!(gemma2.elements(ExactLayout::Kv), 4096);
        assert_eq!(gemma2.pick().0, ExactLayout::KR);
    }

    #[test]
    fn wide_projections_need_no_channels() {
        // T5-11B: 128 heads of 128 for a model of 1024 columns: the paper's 32 times.
        let t5 = mha(1024, 128, 128, false);
        assert_eq!((t5.least_rank(), t5.elements(ExactLayout::KR)), (0, 16384));
        assert_eq!(t5.elements(ExactLayout::Kv) / t5.elements(ExactLayout::X), 32);
        assert!(!mha(1024, 128, 128, true).allows(ExactLayout::X));
    }

    #[test]
    fn products_are_counted_as_the_paper_counts_them() {
        // Table 2 of the paper for a vanilla layer: 8d² + 4nd operations, two a product, with the projections of query and output.
        let a = mha(512, 8, 64, false);
        assert_eq!(
            2 * (a.products(ExactLayout::Kv, 1000) + 2 * 512 * 512),
            8 * 512 * 512 + 4 * 1000 * 512
        );
        // Optimised slim attention: 8d² + 2nd(h + 1).
        assert_eq!(
            2 * (a.products(ExactLayout::KR, 1000) + 2 * 512 * 512),
            8 * 512 * 512 + 2 * 1000 * 512 * 9
        );
    }
}

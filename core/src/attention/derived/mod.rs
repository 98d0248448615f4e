//! Attention over caches from which values are computed: layouts k+r and x.
//!
//! *k+r* is slim attention (Graef and Wasielewski, arXiv 2503.05840), made to work in low
//! precision. Where keys and values have as many columns as the model, `V = K·W_K⁻¹·W_V`. With a
//! few rank-correction channels `R` of the input beside the keys, `V = K·A + R·B` for an `A` that
//! amplifies K's rounding less (this project's own step). The paper's equation 5 has two orders of
//! evaluation for head `i` and softmax weights `p`:
//!
//! - `(p·[K R])·[A B]_i`, sums first: for a few rows;
//! - `p·([K R]·[A B]_i)`, values first: for a chunk whose rows share the values.
//!
//! The order with fewer multiply-adds is chosen for each pass by counting. Keys are cached without
//! rotation and without their mean. The mean is added before keys are rotated, and its value, the
//! offset, is added to each output.
//!
//! *x* caches the layer's input `X`. If nothing comes between the projection of a key and its dot
//! product (no RoPE, no norm), `K = X·W_K` and `V = X·W_V` both follow from `X`, and no matrix is
//! inverted. With scale `s`, scores are `s·(q_i·W_K,iᵀ)·Xᵀ`: each query is multiplied once by
//! `W_K`'s transpose and is then as wide as an input. The output is `(p·X)·W_V,i + b_V,i`, in
//! either order. A key bias adds the same to all scores of a row, so softmax cancels it.
//!
//! The values of the first sinks are kept exactly: their weights are large, and so their errors
//! would be large.

mod fold;
mod job;

use super::Shape;
use super::geometry::Geometry;
use super::step::{Attend, Caches, Step};
use crate::kernels::attend::{MAX_ROWS, TILE};
use crate::quant::F32;
use crate::tensor::Matrix;
use job::Layer;

/// Heads, and their columns in a cached row.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Query heads.
    queries: usize,
    /// Query heads that share a part of the map.
    group: usize,
    /// Columns of a head's values, and so of its output.
    width: usize,
    /// Columns of a cached row, rank-correction channels not counted.
    cached: usize,
    /// True if a head scores the whole row instead of its own columns: rows are inputs.
    scores_rows: bool,
}

impl Heads {
    /// Creates heads over a cache of keys.
    pub(crate) const fn over_keys(shape: &Shape) -> Heads {
        Heads {
            queries: shape.heads,
            group: shape.group(),
            width: shape.head_dim,
            cached: shape.kv_columns(),
            scores_rows: false,
        }
    }

    /// Creates heads over a cache of inputs.
    pub(crate) const fn over_inputs(shape: &Shape) -> Heads {
        Heads {
            cached: shape.d_model,
            scores_rows: true,
            ..Heads::over_keys(shape)
        }
    }

    /// Columns of a cached row, rank-correction channels not counted.
    pub(crate) const fn cached(&self) -> usize {
        self.cached
    }

    /// Columns of a head's query.
    const fn query_width(&self) -> usize {
        if self.scores_rows {
            self.cached
        } else {
            self.width
        }
    }

    /// Columns of all values.
    const fn value_columns(&self) -> usize {
        self.queries / self.group * self.width
    }

    /// First column of head `head`'s values.
    const fn value_column(&self, head: usize) -> usize {
        head / self.group * self.width
    }

    /// First column that head `head` scores, and the number of columns.
    const fn scored(&self, head: usize) -> (usize, usize) {
        if self.scores_rows {
            (0, self.cached)
        } else {
            (self.value_column(head), self.width)
        }
    }
}

/// The matrix from which one layer's values are computed.
#[derive(Clone, Copy)]
pub(crate) struct ValueMap<'a> {
    /// `value columns x (cached columns + rank)`: row `j` is column `j` of `[A B]`, or of `W_V`.
    pub(crate) map: Matrix<'a>,
    /// Mean of the cached rows, subtracted before they are rounded; empty for none.
    pub(crate) mean: &'a [F32],
    /// Term added to each output, one for each value column: the mean times `A`, or `W_V`'s bias;
    /// empty for none.
    pub(crate) offset: &'a [F32],
    /// Number of rank-correction channels.
    pub(crate) rank: usize,
}

/// Numbers of slots on which the size of a worker's scratch depends.
#[derive(Clone, Copy)]
pub(crate) struct ScratchSlots {
    /// Slots of the ring.
    pub(crate) capacity: usize,
    /// Largest number of tokens in a chunk.
    pub(crate) chunk: usize,
    /// First sinks whose values are kept exactly.
    pub(crate) exact_sinks: usize,
}

/// Number of floats of a worker's scratch for a layer with `rank` channels.
pub(crate) const fn scratch_floats(heads: &Heads, rank: usize, slots: ScratchSlots) -> usize {
    let ScratchSlots {
        capacity,
        chunk,
        exact_sinks,
    } = slots;
    let of_chunk = if chunk > 1 { chunk.div_ceil(TILE) } else { 0 };
    let sizes = Sizes {
        head: heads.width,
        query: heads.query_width(),
        mapped: heads.cached.saturating_add(rank),
        ring: capacity.div_ceil(TILE),
        chunk: of_chunk,
        exact_sinks,
    };
    let sums_first = sizes.sums_first(MAX_ROWS);
    if values_first(
        chunk,
        capacity.saturating_add(chunk),
        sizes.mapped,
        sizes.head,
    ) {
        let both = sizes.values_first();
        if both > sums_first { both } else { sums_first }
    } else {
        sums_first
    }
}

/// Returns true if computing values first takes fewer multiply-adds, for `rows` rows of a head that
/// attend to `slots` slots: equation 5 of the paper, counted.
const fn values_first(rows: usize, slots: usize, mapped: usize, head: usize) -> bool {
    let sums = (rows as u128) * (mapped as u128) * (slots as u128 + head as u128);
    let values = (slots as u128) * (head as u128) * (mapped as u128 + rows as u128);
    values < sums
}

/// Sizes on which scratch depends; rings and chunks in tiles.
#[derive(Clone, Copy)]
struct Sizes {
    head: usize,
    /// Columns of a query.
    query: usize,
    mapped: usize,
    ring: usize,
    chunk: usize,
    exact_sinks: usize,
}

impl Sizes {
    /// Number of weights in a row.
    const fn stride(self) -> usize {
        self.ring.saturating_add(self.chunk).saturating_mul(TILE)
    }

    const fn of_rows(self, rows: usize, summed: usize) -> usize {
        self.stride()
            .saturating_add(self.query)
            .saturating_add(summed)
            .saturating_add(self.exact_sinks)
            .saturating_mul(rows)
    }

    /// Number of floats for `rows` rows when sums come first.
    const fn sums_first(self, rows: usize) -> usize {
        self.of_rows(rows, self.mapped)
    }

    /// Number of floats for a head when values come first.
    const fn values_first(self) -> usize {
        self.of_rows(MAX_ROWS, self.head)
            .saturating_add(self.stride().saturating_mul(self.head))
            .saturating_add(self.mapped.saturating_mul(self.head))
    }
}

/// Attends for the tokens from `step.wanted` on, of `tokens` tokens: over keys, or over inputs if
/// there is a key projection `keys`, through whose transpose the queries go first.
pub(super) fn run(
    attend: &Attend<'_>,
    geometry: &Geometry<'_>,
    keys: Option<&Matrix<'_>>,
    values: &ValueMap<'_>,
    caches: &Caches<'_>,
    step: &mut Step<'_>,
    tokens: usize,
) {
    let heads = match keys {
        Some(keys) => {
            fold::queries(attend, keys, step, tokens);
            Heads::over_inputs(attend.shape)
        }
        None => Heads::over_keys(attend.shape),
    };
    let layer = Layer {
        attend,
        heads: &heads,
        geometry,
        values,
        caches,
    };
    layer.run(step, tokens);
}

//! Attention over a cache of keys alone: slim attention (Graef and Wasielewski, arXiv 2503.05840), made to work in low precision.
//!
//! Where keys and values have as many columns as the model, `V = K·W_K⁻¹·W_V`; with a few further channels `R` of the input beside
//! the keys, `V = K·A + R·B` for an `A` that amplifies K's rounding less (this project's own step). The paper's equation 5 has two
//! orders of evaluation for head `i` and softmax weights `p`:
//!
//! - `(p·[K R])·[A B]_i`, sums first: for a few rows;
//! - `p·([K R]·[A B]_i)`, values first: for a chunk whose rows share the values.
//!
//! Which takes fewer multiplications is counted for each pass. Keys are cached without rotation and without their mean, which is
//! added before they are rotated and whose values, the offset, are added to each output.
//!
//! The values of the first sinks are kept as they are: their weights are large, and so would be their errors.
//!
//! The same code attends over inputs (`inputs`): each head then scores all columns of a row with a query as wide.

mod job;
mod write;

use super::geometry::Geometry;
use crate::cache::{Ring, SlimCache};
use crate::compute::Compute;
use crate::kernels::attend::{MAX_ROWS, TILE};
use crate::model::Config;
use crate::quant::F32;
use crate::tensor::Matrix;
pub(super) use job::Layer;

/// Heads, and what of a cached row they see.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Query heads.
    pub(crate) queries: usize,
    /// Query heads that share a part of the map.
    pub(crate) group: usize,
    /// Columns of a head's values, and so of its output.
    pub(crate) width: usize,
    /// Columns of a cached row, further channels not counted.
    pub(crate) cached: usize,
    /// Whether a head scores all of a row, not its own columns: rows are inputs, and queries went through `W_K`'s transpose.
    pub(crate) score_rows: bool,
}

impl Heads {
    /// Of a cache of keys.
    pub(crate) const fn of_keys(config: &Config) -> Heads {
        Heads {
            queries: config.heads,
            group: config.group(),
            width: config.head_dim,
            cached: config.kv_columns(),
            score_rows: false,
        }
    }

    /// Columns of a head's query.
    const fn query_width(&self) -> usize {
        if self.score_rows { self.cached } else { self.width }
    }

    /// Columns of all heads' outputs.
    const fn out_columns(&self) -> usize {
        self.queries * self.width
    }

    /// Columns of all values.
    const fn value_columns(&self) -> usize {
        self.queries / self.group * self.width
    }

    /// First column of head `head`'s values.
    const fn value_column(&self, head: usize) -> usize {
        head / self.group * self.width
    }

    /// First column that head `head` scores, and how many.
    const fn scored(&self, head: usize) -> (usize, usize) {
        if self.score_rows {
            (0, self.cached)
        } else {
            (self.value_column(head), self.width)
        }
    }
}

/// What makes one layer's values of its keys.
#[derive(Clone, Copy)]
pub(crate) struct ValueMap<'a> {
    /// `value columns x (key columns + rank)`: row `j` is column `j` of `[A B]`.
    pub(crate) map: Matrix<'a>,
    /// The keys' mean, and what values have of it; empty for none.
    pub(crate) mean: &'a [F32],
    /// The mean times `A`: as many values as value columns, or empty.
    pub(crate) offset: &'a [F32],
    /// Further channels.
    pub(crate) rank: usize,
}

/// The activations that attention reads and writes, token after token.
pub(crate) struct Step<'a> {
    /// `tokens x query columns`; scaled and rotated in place.
    pub(crate) queries: &'a mut [f32],
    /// What queries are multiplied with.
    pub(crate) scale: f32,
    /// The same for the sinks; empty if there are none.
    pub(crate) sink_queries: &'a mut [f32],
    /// `tokens x key columns`; the mean is taken off in place.
    pub(crate) keys: &'a mut [f32],
    /// `tokens x rank`.
    pub(crate) channels: &'a [f32],
    /// Values of those of the tokens that are first sinks, from the first token on.
    pub(crate) sink_values: &'a [f32],
    /// `tokens x columns of all heads' values`.
    pub(crate) attended: &'a mut [f32],
    /// Scratch of all workers.
    pub(crate) scratch: &'a mut [f32],
    /// Kernel scratch of all workers.
    pub(crate) kernel_scratch: &'a mut [u8],
    /// Values of a smaller softmax weight are left out; 0 for none.
    pub(crate) least_weight: f32,
    /// Angles of each token at its absolute position: `tokens x pairs`.
    pub(crate) angles: &'a [[f32; 2]],
    /// Angles at its position within the cache; empty if there are no sinks.
    pub(crate) sink_angles: &'a [[f32; 2]],
    /// Tokens before this one need no output.
    pub(crate) first: usize,
    /// Where softmax weights are added up, `heads x slots`; empty if nobody looks.
    pub(crate) probe: &'a mut [f32],
}

/// The caches of one layer.
pub struct Caches<'a> {
    /// Sinks and window.
    pub ring: SlimCache<'a>,
    /// Where a chunk's keys lie until it is committed; `None` for a single token.
    pub chunk: Option<SlimCache<'a>>,
    /// Sinks whose values are kept as they are.
    pub exact_sinks: usize,
}

/// Floats of a worker's scratch for a layer with `rank` channels.
pub(crate) const fn scratch_floats(
    heads: &Heads,
    rank: usize,
    (capacity, chunk, exact_sinks): (usize, usize, usize),
) -> usize {
    let tokens = if chunk > 1 { chunk.div_ceil(TILE) } else { 0 };
    let shape = Shape {
        head: heads.width,
        query: heads.query_width(),
        mapped: heads.cached.saturating_add(rank),
        ring: capacity.div_ceil(TILE),
        chunk: tokens,
        exact_sinks,
    };
    let sums_first = shape.sums_first(MAX_ROWS);
    if values_first(chunk, capacity.saturating_add(chunk), shape.mapped, shape.head) {
        let both = shape.values_first();
        if both > sums_first { both } else { sums_first }
    } else {
        sums_first
    }
}

/// Whether making values first takes fewer multiplications, for `rows` rows of a head that attend to `slots` slots: equation 5 of
/// the paper, counted.
const fn values_first(rows: usize, slots: usize, mapped: usize, head: usize) -> bool {
    let sums = (rows as u128) * (mapped as u128) * (slots as u128 + head as u128);
    let values = (slots as u128) * (head as u128) * (mapped as u128 + rows as u128);
    values < sums
}

/// Sizes that scratch depends on; rings and chunks in tiles.
#[derive(Clone, Copy)]
struct Shape {
    head: usize,
    /// Columns of a query.
    query: usize,
    mapped: usize,
    ring: usize,
    chunk: usize,
    exact_sinks: usize,
}

impl Shape {
    /// Weights of a row.
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

    /// Floats for `rows` rows whose sums come first.
    const fn sums_first(self, rows: usize) -> usize {
        self.of_rows(rows, self.mapped)
    }

    /// Floats for a head whose values come first.
    const fn values_first(self) -> usize {
        self.of_rows(MAX_ROWS, self.head)
            .saturating_add(self.stride().saturating_mul(self.head))
            .saturating_add(self.mapped.saturating_mul(self.head))
    }
}

/// Attends; `ring` says where the tokens will be, and is not advanced.
pub(crate) fn attend(
    compute: &Compute<'_>,
    heads: &Heads,
    ring: &Ring,
    geometry: &Geometry<'_>,
    values: &ValueMap<'_>,
    caches: &mut Caches<'_>,
    step: &mut Step<'_>,
) {
    let tokens = step.keys.len() / heads.cached;
    write::rotate(compute, heads, geometry, values, step, tokens);
    write::sink_values(heads, ring, caches, step);
    write::tokens(compute, heads, ring, caches, step, tokens);
    if step.first < tokens {
        let layer = Layer {
            compute,
            heads,
            ring,
            geometry,
            values,
            caches,
        };
        layer.run_jobs(step, tokens);
    }
    if let Some(chunk) = &caches.chunk {
        write::commit(compute, ring, &mut caches.ring, chunk, tokens);
    }
}

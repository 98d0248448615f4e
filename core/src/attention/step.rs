//! Common parts of all layouts: preparing the tokens of a pass, writing them to the cache, dividing
//! heads and tokens into jobs, and committing a chunk.

use core::ops::Range;

use super::derived::{self, ValueMap};
use super::geometry::Geometry;
use super::{Shape, kv};
use crate::arena::{Columns, Shared};
use crate::cache::{LayerCache, Ring};
use crate::features::{FAMILIES, OfFamilies};
use crate::kernels::{Isa, Rotate};
use crate::nn::alibi::Slopes;
use crate::nn::rope::Pairs;
use crate::quant::F32;
use crate::tensor::Matrix;
use crate::workers::Compute;

/// Largest number of token ranges that attend as separate jobs.
pub(super) const MAX_RANGES: usize = 4;

/// Activations that attention reads and writes, for all tokens.
pub(crate) struct Step<'a> {
    /// `tokens x query columns`; scaled and rotated in place.
    pub(crate) queries: &'a mut [f32],
    /// The same for the sinks; empty without sinks.
    pub(crate) sink_queries: &'a mut [f32],
    /// `tokens x heads·d_model`, for [`Values::OfInputs`]; empty for others.
    pub(crate) wide_queries: &'a mut [f32],
    /// `tokens x columns` of the cache's first plane: keys (rotated in place, or the mean
    /// subtracted) or inputs.
    pub(crate) rows: &'a mut [f32],
    /// `tokens x columns` of the plane beside it: values, or rank-correction channels.
    pub(crate) beside: &'a [f32],
    /// Values of those tokens that are first sinks, from the first token on; empty for
    /// [`Values::Cached`].
    pub(crate) sink_values: &'a [f32],
    /// `tokens x query columns`: the output.
    pub(crate) attended: &'a mut [f32],
    /// Scratch of all workers.
    pub(crate) scratch: &'a mut [f32],
    /// Kernel scratch of all workers.
    pub(crate) kernel_scratch: &'a mut [u8],
    /// Factor of the queries.
    pub(crate) scale: f32,
    /// Scores `s` become `cap·tanh(s/cap)`; 0 for none.
    pub(crate) score_cap: f32,
    /// Slopes of the scores' linear biases, for [`Values::Cached`]; `None` for none.
    pub(crate) alibi: OfFamilies<Slopes>,
    /// Smallest softmax weight whose value is added; 0 adds all.
    pub(crate) least_weight: f32,
    /// Angles of each token at its absolute position: `tokens x pairs`.
    pub(crate) angles: &'a [[f32; 2]],
    /// Angles at its position within the cache; empty if there are no sinks.
    pub(crate) sink_angles: &'a [[f32; 2]],
    /// Index of the first token that needs an output: earlier tokens are only written to the cache.
    pub(crate) wanted: usize,
    /// Sums of softmax weights, `heads x slots`; empty without a probe.
    pub(crate) probe: &'a mut [f32],
}

/// The caches of one layer.
pub(crate) struct Caches<'a> {
    /// Sinks and window.
    pub(crate) ring: LayerCache<'a>,
    /// A chunk's tokens until they are committed; `None` for a single token.
    pub(crate) chunk: Option<LayerCache<'a>>,
    /// Number of first sinks whose values are kept exactly, in layouts that compute values.
    pub(crate) exact_sinks: usize,
}

/// Source of the values of cached tokens.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    /// They are cached: layout kv.
    Cached,
    /// They are computed from cached keys: layout k+r.
    OfKeys(ValueMap<'a>),
    /// They are computed from cached inputs: layout x.
    OfInputs {
        /// `kv_heads·head_dim x d_model`: the key projection.
        keys: Matrix<'a>,
        /// The value projection.
        map: ValueMap<'a>,
    },
}

/// One layer's attention in one pass.
pub(crate) struct Attend<'a> {
    pub(crate) compute: &'a Compute<'a>,
    pub(crate) shape: &'a Shape,
    /// Ring of the tokens' slots; not advanced.
    pub(crate) ring: &'a Ring,
    /// Needed for keys that are rotated when they are read, and for inputs; unused by
    /// [`Values::Cached`].
    pub(crate) geometry: Option<&'a Geometry<'a>>,
    pub(crate) values: Values<'a>,
}

impl Attend<'_> {
    /// Writes the tokens of `step` to the caches and attends to all kept tokens.
    pub(crate) fn run(&self, caches: &mut Caches<'_>, step: &mut Step<'_>) {
        let tokens = step.queries.len() / self.shape.query_columns();
        self.write(caches, step, tokens);
        if step.wanted < tokens {
            self.attend(caches, step, tokens);
        }
        if let Some(chunk) = &caches.chunk {
            for (slots, first) in self.ring.chunk_slots().runs(tokens) {
                self.commit(&mut caches.ring, slots, chunk, first);
            }
        }
    }

    /// Attends to all kept tokens; the queries are scaled and rotated.
    fn attend(&self, caches: &Caches<'_>, step: &mut Step<'_>, tokens: usize) {
        match (self.values, self.geometry) {
            (Values::Cached, _) => kv::run(self, caches, step, tokens),
            (Values::OfKeys(map), Some(geometry)) => {
                derived::run(self, geometry, None, &map, caches, step, tokens);
            }
            (Values::OfInputs { keys, map }, Some(geometry)) if FAMILIES => {
                derived::run(self, geometry, Some(&keys), &map, caches, step, tokens);
            }
            (Values::OfKeys(_) | Values::OfInputs { .. }, _) => {
                unreachable!("a pass has a geometry if any layer computes values")
            }
        }
    }

    /// Attends to rows that are all in the cache and that every query sees, as those of an encoder:
    /// scales the queries, and writes nothing. Nothing is rotated.
    pub(crate) fn to_source(&self, source: LayerCache<'_>, step: &mut Step<'_>) {
        let columns = self.shape.query_columns();
        let tokens = step.queries.len() / columns;
        for q in &mut step.queries[step.wanted * columns..] {
            *q *= step.scale;
        }
        let caches = Caches {
            ring: source,
            chunk: None,
            exact_sinks: 0,
        };
        self.attend(&caches, step, tokens);
    }

    /// Prepares all tokens and writes them: one to the ring, several to the chunk's store.
    fn write(&self, caches: &mut Caches<'_>, step: &mut Step<'_>, tokens: usize) {
        let kv_columns = self.shape.kv_columns();
        for (i, value) in step.sink_values.chunks_exact(kv_columns).enumerate() {
            let slot = self.ring.slot(self.ring.position() + i as u64);
            caches.ring.write_sink_value(slot, value);
        }
        let prepare = Prepare::new(self, step, tokens);
        if let Some(chunk) = &mut caches.chunk {
            return self.write_chunk(&prepare, chunk, step, tokens);
        }
        let token = Token {
            index: 0,
            row: step.rows,
            query: step.queries,
            sink_query: step.sink_queries,
        };
        prepare.write(
            token,
            &mut caches.ring,
            self.ring.slot(self.ring.position()),
        );
    }

    /// Writes the tokens of a chunk to its store, whose slots are the tokens. Not inlined: the
    /// parts would lie on a board's stack while a token attends.
    #[inline(never)]
    fn write_chunk(
        &self,
        prepare: &Prepare<'_>,
        chunk: &mut LayerCache<'_>,
        step: &mut Step<'_>,
        tokens: usize,
    ) {
        let (width, columns) = (step.rows.len() / tokens, self.shape.query_columns());
        let sink_columns = if step.sink_queries.is_empty() {
            0
        } else {
            columns
        };
        let (mut parts, cut) = chunk.parts(0..tokens);
        let (len, each) = (parts.len(), cut.each);
        let parts = Shared::new(&mut parts, len, 1);
        let rows = Shared::new(step.rows, tokens * width, each * width);
        let queries = Shared::new(step.queries, tokens * columns, each * columns);
        let sink_queries = Shared::new(
            step.sink_queries,
            (tokens * sink_columns).max(1),
            (each * sink_columns).max(1),
        );
        self.compute.threads.run(len, &|_, index| {
            let (mut part, mut rows, mut queries) =
                (parts.take(index), rows.take(index), queries.take(index));
            let mut sink_queries = (sink_columns > 0).then(|| sink_queries.take(index));
            for slot in 0..each.min(tokens - index * each) {
                let token = Token {
                    index: index * each + slot,
                    row: &mut rows[slot * width..][..width],
                    query: &mut queries[slot * columns..][..columns],
                    sink_query: sink_queries
                        .as_deref_mut()
                        .map_or(&mut [][..], |rows| &mut rows[slot * columns..][..columns]),
                };
                prepare.write(token, &mut part[0], slot);
            }
        });
    }

    /// Copies the chunk's tokens from `first` on to `slots` of the ring. Not inlined, as
    /// [`Attend::write_chunk`].
    #[inline(never)]
    fn commit(
        &self,
        ring: &mut LayerCache<'_>,
        slots: Range<usize>,
        chunk: &LayerCache<'_>,
        first: usize,
    ) {
        if slots.is_empty() {
            return;
        }
        let (mut parts, cut) = ring.parts(slots.clone());
        let len = parts.len();
        let parts = Shared::new(&mut parts, len, 1);
        self.compute.threads.run(len, &|_, index| {
            let start = cut.start + index * cut.each;
            let mut part = parts.take(index);
            for slot in slots.start.max(start)..slots.end.min(start + cut.each) {
                part[0].copy(slot - start, chunk, first + slot - slots.start);
            }
        });
    }
}

/// Rounds rows of `columns` and `beside` values to the cache's element types and writes them to its
/// slots from `first` on, on all workers.
pub(crate) fn write_source(
    compute: &Compute<'_>,
    cache: &mut LayerCache<'_>,
    first: usize,
    (rows, columns): (&[f32], usize),
    beside: &[f32],
) {
    let tokens = rows.len() / columns;
    let beside_columns = beside.len() / tokens;
    let (mut parts, cut) = cache.parts(first..first + tokens);
    let len = parts.len();
    let parts = Shared::new(&mut parts, len, 1);
    compute.threads.run(len, &|_, index| {
        let start = cut.start + index * cut.each;
        let mut part = parts.take(index);
        for slot in first.max(start)..(first + tokens).min(start + cut.each) {
            let token = slot - first;
            let row = &rows[token * columns..][..columns];
            let beside = &beside[token * beside_columns..][..beside_columns];
            part[0].write(compute.isa, slot - start, row, beside);
        }
    });
}

/// One token on its way to the cache.
struct Token<'t> {
    index: usize,
    row: &'t mut [f32],
    query: &'t mut [f32],
    sink_query: &'t mut [f32],
}

/// Change of a row before it is written.
#[derive(Clone, Copy)]
enum RowStep<'a> {
    /// Rotation at the token's absolute position.
    Rotate,
    /// Subtraction of the mean; empty for none.
    Centre(&'a [F32]),
}

/// Preparation of a token before it is written and attends.
struct Prepare<'a> {
    isa: Isa,
    head_dim: usize,
    pairs: usize,
    order: Pairs,
    rows: RowStep<'a>,
    scale: f32,
    angles: &'a [[f32; 2]],
    sink_angles: &'a [[f32; 2]],
    beside: &'a [f32],
    /// Columns of a token in `beside`.
    columns: usize,
    wanted: usize,
}

impl<'a> Prepare<'a> {
    fn new(attend: &Attend<'a>, step: &Step<'a>, tokens: usize) -> Self {
        Prepare {
            isa: attend.compute.isa,
            head_dim: attend.shape.head_dim,
            pairs: attend.shape.rope_dim / 2,
            order: attend.shape.rope_pairs,
            rows: match attend.values {
                Values::Cached => RowStep::Rotate,
                Values::OfKeys(map) | Values::OfInputs { map, .. } => RowStep::Centre(map.mean),
            },
            scale: step.scale,
            angles: step.angles,
            sink_angles: step.sink_angles,
            beside: step.beside,
            columns: step.beside.len() / tokens,
            wanted: step.wanted,
        }
    }

    /// Writes the token to `slot`, and rotates and scales its queries.
    fn write(&self, token: Token<'_>, cache: &mut LayerCache<'_>, slot: usize) {
        let at = |angles: &'a [[f32; 2]]| &angles[token.index * self.pairs..][..self.pairs];
        match self.rows {
            RowStep::Rotate => {
                self.rotate(token.row, at(self.angles));
            }
            RowStep::Centre(mean) => {
                for (x, mean) in token.row.iter_mut().zip(mean) {
                    *x -= mean.to_f32();
                }
            }
        }
        let beside = &self.beside[token.index * self.columns..][..self.columns];
        cache.write(self.isa, slot, token.row, beside);
        if token.index < self.wanted {
            return;
        }
        for q in token.query.iter_mut() {
            *q *= self.scale;
        }
        if !token.sink_query.is_empty() {
            token.sink_query.copy_from_slice(token.query);
            let angles = at(self.sink_angles);
            self.rotate(token.sink_query, angles);
        }
        self.rotate(token.query, at(self.angles));
    }

    /// Rotates heads by a token's angles.
    fn rotate(&self, heads: &mut [f32], angles: &[[f32; 2]]) {
        self.isa.run(Rotate {
            heads,
            head_dim: self.head_dim,
            table: angles,
            pairs: self.order,
        });
    }
}

/// Division of a pass's outputs into jobs.
pub(super) struct Split {
    /// Query heads of a job; the last job may have fewer.
    pub(super) heads: usize,
    /// Ranges of tokens, at most [`MAX_RANGES`].
    pub(super) ranges: usize,
    /// Number of which a range's tokens are a multiple.
    pub(super) multiple: usize,
}

/// The part of a step that one job computes.
pub(super) struct JobPart<'p> {
    pub(super) tokens: Range<usize>,
    /// Query heads.
    pub(super) heads: Range<usize>,
    /// One row for each token, with the columns of the heads.
    pub(super) attended: Columns<'p, f32>,
    pub(super) scratch: Columns<'p, f32>,
    pub(super) kernel_scratch: Columns<'p, u8>,
    /// `heads x slots`.
    pub(super) probe: Option<Columns<'p, f32>>,
}

/// The queries of all tokens, shared by the jobs of a pass.
#[derive(Clone, Copy)]
pub(super) struct Queries<'a> {
    /// `tokens x columns`.
    pub(super) window: &'a [f32],
    /// The same for the sinks.
    pub(super) sinks: &'a [f32],
}

/// Calls `job` for every part of `step`, on all workers.
pub(super) fn run_jobs(
    attend: &Attend<'_>,
    step: &mut Step<'_>,
    tokens: usize,
    split: &Split,
    job: &(dyn Fn(Queries<'_>, JobPart<'_>) + Sync),
) {
    let (shape, threads) = (attend.shape, attend.compute.threads);
    let (columns, slots, workers) = (
        shape.query_columns(),
        attend.ring.capacity(),
        threads.workers(),
    );
    let (heads, wanted) = (split.heads, step.wanted);
    let range = (tokens - wanted)
        .div_ceil(split.ranges)
        .next_multiple_of(split.multiple);
    let attended: heapless::Vec<_, MAX_RANGES> = step.attended[wanted * columns..]
        .chunks_mut(range * columns)
        .map(|part| Shared::new(part, columns, heads * shape.head_dim))
        .collect();
    let scratch_len = step.scratch.len();
    let scratch = Shared::new(step.scratch, scratch_len, scratch_len / workers);
    let kernel_len = step.kernel_scratch.len();
    let kernel_scratch = Shared::new(step.kernel_scratch, kernel_len, kernel_len / workers);
    let probing = !step.probe.is_empty();
    let probe = Shared::new(
        step.probe,
        if probing { shape.heads * slots } else { 1 },
        heads * slots,
    );
    let window = if step.wide_queries.is_empty() {
        &*step.queries
    } else {
        &*step.wide_queries
    };
    let queries = Queries {
        window,
        sinks: if step.sink_queries.is_empty() {
            window
        } else {
            &*step.sink_queries
        },
    };
    let head_jobs = shape.heads.div_ceil(heads);
    threads.run(head_jobs * attended.len(), &|worker, index| {
        // The last tokens see the most: the jobs that take longest come first.
        let (part, index) = (attended.len() - 1 - index / head_jobs, index % head_jobs);
        let start = wanted + part * range;
        let part = JobPart {
            tokens: start..tokens.min(start + range),
            heads: index * heads..shape.heads.min((index + 1) * heads),
            attended: attended[part].take(index),
            scratch: scratch.take(worker),
            kernel_scratch: kernel_scratch.take(worker),
            probe: probing.then(|| probe.take(index)),
        };
        job(queries, part);
    });
}

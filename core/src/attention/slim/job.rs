//! How heads and tokens are divided among workers, and what each job does: scores, softmax, and equation 5 in one order or the other.

use core::ops::Range;

use super::super::MAX_RANGES;
use super::super::geometry::{Geometry, Of};
use super::{Caches, Heads, Shape, Step, ValueMap, values_first};
use crate::arena::{Columns, Shared};
use crate::cache::{Ring, SlimCache};
use crate::compute::Compute;
use crate::kernels::attend::{HIDDEN, MAX_ROWS, Map, RawKeys, Summed, TILE, TileStore, TileWeights, Tiles};
use crate::kernels::{self, Input, Product, vector};

/// A row: one query head of one token.
#[derive(Clone, Copy)]
struct Row<'a> {
    query: &'a [f32],
    sink_query: &'a [f32],
    /// How many tokens of the chunk it sees; 0 without a chunk.
    chunk_tokens: usize,
    /// Slots in use once those tokens are in their places.
    live: usize,
    /// Its token's position.
    position: u64,
}

/// What is left of a row's softmax weights when the first sinks' are taken out.
#[derive(Clone, Copy, Default)]
struct Weighed {
    /// 1 over the sum of all weights.
    inverse: f32,
    /// Sum of the first sinks' weights.
    of_sinks: f32,
}

/// All that the jobs of a layer share.
pub(in super::super) struct Layer<'a> {
    pub(in super::super) compute: &'a Compute<'a>,
    pub(in super::super) heads: &'a Heads,
    pub(in super::super) ring: &'a Ring,
    pub(in super::super) geometry: &'a Geometry<'a>,
    pub(in super::super) values: &'a ValueMap<'a>,
    pub(in super::super) caches: &'a Caches<'a>,
}

impl Layer<'_> {
    /// Attends for the last of `tokens` tokens, from `step.first` on.
    pub(in super::super) fn run_jobs(&self, step: &mut Step<'_>, tokens: usize) {
        let (all, compute) = (self.heads, self.compute);
        let (head, columns, slots) = (all.width, all.out_columns(), self.ring.capacity());
        let query = all.query_width();
        let workers = compute.threads.workers();
        let shape = self.shape();
        let scratch_len = step.scratch.len();
        let live = self.live().saturating_add(tokens);
        let rows = (tokens - step.first).saturating_mul(all.group);
        let by_head = tokens > 1
            && values_first(rows, live, shape.mapped, head)
            && shape.values_first() <= scratch_len / workers;
        // Heads of a job: one KV head's if values come first, which its queries share; else as many as balance.
        let heads = if by_head {
            all.group
        } else {
            all.queries.div_ceil(workers).min(MAX_ROWS)
        };
        let probing = !step.probe.is_empty();
        let head_jobs = all.queries.div_ceil(heads);
        // A probe's sums are over tokens, in their order; values are made once for all tokens.
        let ranges = if workers == 1 || probing || by_head {
            1
        } else {
            (tokens - step.first).min(MAX_RANGES)
        };
        let range = (tokens - step.first).div_ceil(ranges);
        let attended: heapless::Vec<_, MAX_RANGES> = step.attended[step.first * columns..]
            .chunks_mut(range * columns)
            .map(|part| Shared::new(part, columns, heads * head))
            .collect();
        let scratch = Shared::new(step.scratch, scratch_len, scratch_len / workers);
        let kernel_len = step.kernel_scratch.len();
        let kernel_scratch = Shared::new(step.kernel_scratch, kernel_len, kernel_len / workers);
        let probe = Shared::new(
            step.probe,
            if probing { all.queries * slots } else { 1 },
            heads * slots,
        );
        let (queries, first) = (&*step.queries, step.first);
        let sink_queries = if step.sink_queries.is_empty() {
            queries
        } else {
            &*step.sink_queries
        };
        let (has_chunk, least_weight) = (self.caches.chunk.is_some(), step.least_weight);
        compute.threads.run(head_jobs * attended.len(), &|worker, job| {
            // The last tokens see most: those that take longest come first.
            let (part, index) = (attended.len() - 1 - job / head_jobs, job % head_jobs);
            let first = first + part * range;
            let row = |token: usize, head_index: usize| {
                let at = (token * all.queries + head_index) * query;
                Row {
                    query: &queries[at..][..query],
                    sink_query: &sink_queries[at..][..query],
                    chunk_tokens: if has_chunk { token + 1 } else { 0 },
                    live: self.ring.used_after(token + 1),
                    position: self.ring.position() + token as u64,
                }
            };
            let mut scratch = scratch.take(worker);
            let mut kernel_scratch = kernel_scratch.take(worker);
            let mut probe = probing.then(|| probe.take(index));
            let mut out = attended[part].take(index);
            let mut job = Job {
                layer: self,
                shape,
                least_weight,
                heads: index * heads..all.queries.min((index + 1) * heads),
                scratch: &mut scratch,
                kernel_scratch: &mut kernel_scratch,
                probe: probe.as_deref_mut().unwrap_or_default(),
            };
            let tokens = first..tokens.min(first + range);
            if by_head {
                job.values_first(tokens, &row, &mut out);
            } else {
                job.sums_first(tokens, &row, &mut out);
            }
        });
    }

    /// Slots of the ring that are in use while the pass attends.
    fn live(&self) -> usize {
        self.ring.used_after(usize::from(self.caches.chunk.is_none()))
    }

    fn shape(&self) -> Shape {
        Shape {
            head: self.heads.width,
            query: self.heads.query_width(),
            mapped: self.heads.cached + self.values.rank,
            ring: self.ring.capacity().div_ceil(TILE),
            chunk: self
                .caches
                .chunk
                .as_ref()
                .map_or(0, |chunk| chunk.capacity().div_ceil(TILE)),
            exact_sinks: self.caches.exact_sinks,
        }
    }

    /// Scores of some queries of one head, to the rows of `weights`.
    fn scores(&self, head: usize, rows: &[Row<'_>], weights: &mut [f32], turned: &mut [f32]) {
        let pairs = self.geometry.lanes.len();
        let (column, width) = self.heads.scored(head);
        let shape = self.shape();
        let queries: heapless::Vec<&[f32], MAX_ROWS> = rows.iter().map(|row| row.query).collect();
        let sink_queries: heapless::Vec<&[f32], MAX_ROWS> = rows.iter().map(|row| row.sink_query).collect();
        let seen = rows.iter().map(|row| row.chunk_tokens).max().unwrap_or(0);
        let ring = self.caches.ring.stores().0;
        let chunk = self.caches.chunk.as_ref().map(|chunk| chunk.stores().0);
        for placed in &self.geometry.runs {
            let slots = placed.run.slots.clone();
            let (store, slots, at, queries) = match (placed.of, chunk) {
                (Of::Sinks, _) => (ring, slots, 0, &sink_queries),
                (Of::Window, _) => (ring, slots, 0, &queries),
                (Of::Chunk, Some(chunk)) => (chunk, 0..seen, shape.ring * TILE, &queries),
                (Of::Chunk, None) => continue,
            };
            let keys = RawKeys {
                store,
                head: (column, width),
                // Under inputs' mean every row's score changes by the same.
                mean: if self.heads.score_rows {
                    &[]
                } else {
                    self.values.mean.get(column..column + width).unwrap_or_default()
                },
                pairs: self.geometry.pairs,
                lanes: self.geometry.lanes,
            };
            vector::raw_scores(
                self.compute.isa,
                &keys,
                slots,
                &self.geometry.bases[placed.base * pairs..],
                queries,
                (&mut weights[at..], shape.stride()),
                turned,
            );
        }
    }

    /// Turns a row's scores into softmax weights in the places where values are: what the chunk replaces in the ring is in the chunk.
    /// The first sinks' weights go to `of_sinks`. What weighs less than `least` becomes nothing.
    fn weigh(
        &self,
        row: &Row<'_>,
        (weights, least): (&mut [f32], f32),
        of_sinks: &mut [f32],
        probe: &mut [f32],
    ) -> Weighed {
        let (ring, chunk) = weights.split_at_mut(self.shape().ring * TILE);
        let replaced = self.ring.chunk_slots().runs(row.chunk_tokens);
        for (slots, first) in replaced.clone() {
            let len = slots.len();
            ring[slots].copy_from_slice(&chunk[first..][..len]);
        }
        let (run, evicted) = self.ring.evicted_slots(row.position);
        for (slots, _) in run.runs(evicted) {
            ring[slots].fill(HIDDEN);
        }
        let inverse = vector::softmax(self.compute.isa, &mut ring[..row.live]);
        if least > 0.0 {
            vector::leave_out(self.compute.isa, &mut ring[..row.live], least / inverse);
        }
        // The exponential ends at e^-87; what is evicted weighs nothing at all.
        for (slots, _) in run.runs(evicted) {
            ring[slots].fill(0.0);
        }
        ring[row.live..].fill(0.0);
        for (sum, weight) in probe.iter_mut().zip(&ring[..row.live]) {
            *sum += weight * inverse;
        }
        for (kept, weight) in of_sinks.iter_mut().zip(ring.iter_mut()) {
            *kept = core::mem::take(weight);
        }
        chunk[row.chunk_tokens..].fill(0.0);
        for (slots, first) in replaced {
            chunk[first..][..slots.len()].copy_from_slice(&ring[slots.clone()]);
            ring[slots].fill(0.0);
        }
        Weighed {
            inverse,
            of_sinks: of_sinks.iter().sum(),
        }
    }

    /// What is summed for rows that see `seen` tokens of the chunk at most.
    fn summed<'s>(&self, ring: TileStore<'s>, chunk: Option<TileStore<'s>>, seen: usize) -> Summed<'s> {
        Summed {
            ring,
            ring_tiles: self.live().div_ceil(TILE),
            chunk: chunk.map(|chunk| (chunk, seen.div_ceil(TILE))),
        }
    }

    /// Completes a head's output: adds what the first sinks and the mean give, and divides by the sum of weights.
    fn finish(&self, head: usize, weighed: Weighed, of_sinks: &[f32], out: &mut [f32]) {
        let column = self.heads.value_column(head);
        let values = self
            .caches
            .ring
            .sink_values()
            .chunks_exact(self.heads.value_columns());
        for (weight, value) in of_sinks.iter().zip(values) {
            for (out, value) in out.iter_mut().zip(&value[column..]) {
                *out += weight * value;
            }
        }
        for out in out.iter_mut() {
            *out *= weighed.inverse;
        }
        let rest = 1.0 - weighed.of_sinks * weighed.inverse;
        for (out, offset) in out.iter_mut().zip(self.values.offset.iter().skip(column)) {
            *out += rest * offset.to_f32();
        }
    }
}

/// Some heads of some tokens.
struct Job<'j, 'a> {
    layer: &'j Layer<'a>,
    shape: Shape,
    least_weight: f32,
    heads: Range<usize>,
    scratch: &'j mut [f32],
    kernel_scratch: &'j mut [u8],
    /// `heads x slots`, or empty.
    probe: &'j mut [f32],
}

impl Job<'_, '_> {
    /// Head `index`'s part of the probe.
    fn probe_of(probe: &mut [f32], slots: usize, index: usize) -> &mut [f32] {
        probe
            .get_mut(index * slots..(index + 1) * slots)
            .unwrap_or_default()
    }

    /// For each token the sums of all heads over the keys' columns, then each head's product with its part of the map.
    fn sums_first<'r>(
        &mut self,
        tokens: Range<usize>,
        row: &dyn Fn(usize, usize) -> Row<'r>,
        out: &mut Columns<'_, f32>,
    ) {
        let (layer, shape) = (self.layer, self.shape);
        let (isa, slots, width) = (layer.compute.isa, layer.ring.capacity(), shape.head);
        let (rows, keys) = (self.heads.len(), layer.heads.cached);
        let (weights, rest) = self.scratch.split_at_mut(rows * shape.stride());
        let (turned, rest) = rest.split_at_mut(shape.query);
        let (sums, rest) = rest.split_at_mut(rows * shape.mapped);
        let of_sinks = &mut rest[..rows * shape.exact_sinks];
        let first = tokens.start;
        let chunk = layer.caches.chunk.as_ref().map(SlimCache::stores);
        let (ring_keys, ring_channels) = layer.caches.ring.stores();
        let group = layer.heads.group;
        for token in tokens {
            let mut weighed = [Weighed::default(); MAX_ROWS];
            for (i, head) in self.heads.clone().enumerate() {
                let row = row(token, head);
                let weights = &mut weights[i * shape.stride()..][..shape.stride()];
                layer.scores(head, &[row], weights, turned);
                let of_sinks = &mut of_sinks[i * shape.exact_sinks..][..shape.exact_sinks];
                weighed[i] = layer.weigh(
                    &row,
                    (weights, self.least_weight),
                    of_sinks,
                    Self::probe_of(self.probe, slots, i),
                );
            }
            let weights = TileWeights {
                weights,
                stride: shape.stride(),
                chunk_at: shape.ring * TILE,
                skips: self.least_weight > 0.0,
            };
            let seen = token + 1;
            let summed = layer.summed(ring_keys, chunk.map(|(keys, _)| keys), seen);
            vector::tile_sums(isa, &summed, weights, (sums, shape.mapped));
            if let Some(ring_channels) = ring_channels {
                let summed = layer.summed(ring_channels, chunk.and_then(|(_, channels)| channels), seen);
                vector::tile_sums(isa, &summed, weights, (&mut sums[keys..], shape.mapped));
            }
            let row = out.row_mut(token - first);
            for (i, head) in self.heads.clone().enumerate() {
                let out = &mut row[i * width..][..width];
                let column = head / group * width;
                kernels::matmul(
                    isa,
                    Product {
                        weights: &layer.values.map,
                        rows: column..column + width,
                        activations: Input::F32(&sums[i * shape.mapped..][..shape.mapped]),
                        out: &mut Columns::all(out, width),
                        scratch: self.kernel_scratch,
                    },
                );
                let of_sinks = &of_sinks[i * shape.exact_sinks..][..shape.exact_sinks];
                layer.finish(head, weighed[i], of_sinks, out);
            }
        }
    }

    /// For one KV head the values of all slots, then the sums of its queries over them.
    fn values_first<'r>(
        &mut self,
        tokens: Range<usize>,
        row: &dyn Fn(usize, usize) -> Row<'r>,
        out: &mut Columns<'_, f32>,
    ) {
        let (layer, shape) = (self.layer, self.shape);
        let (isa, slots, width) = (layer.compute.isa, layer.ring.capacity(), shape.head);
        let group = layer.heads.group;
        let kv_column = self.heads.start / group * width;
        let keys = layer.heads.cached;
        let (weights, rest) = self.scratch.split_at_mut(MAX_ROWS * shape.stride());
        let (turned, rest) = rest.split_at_mut(MAX_ROWS * shape.query);
        let (sums, rest) = rest.split_at_mut(MAX_ROWS * width);
        let (of_sinks, rest) = rest.split_at_mut(MAX_ROWS * shape.exact_sinks);
        let (ring_values, rest) = rest.split_at_mut(shape.ring * TILE * width);
        let (chunk_values, rest) = rest.split_at_mut(shape.chunk * TILE * width);
        let map = &mut rest[..shape.mapped * width];
        for (row, map) in map.chunks_exact_mut(shape.mapped).enumerate() {
            layer.values.map.dequantize_row(kv_column + row, map);
        }
        let expand = |store: &SlimCache<'_>, tiles: usize, values: &mut [f32]| {
            let (of_keys, of_channels) = store.stores();
            let map = |at| Map {
                rows: map,
                stride: shape.mapped,
                at,
            };
            vector::expand(isa, &of_keys, 0..tiles, map(0), values, false);
            if let Some(channels) = of_channels {
                vector::expand(isa, &channels, 0..tiles, map(keys), values, true);
            }
        };
        expand(&layer.caches.ring, layer.live().div_ceil(TILE), ring_values);
        if let Some(chunk) = &layer.caches.chunk {
            expand(chunk, tokens.end.div_ceil(TILE), chunk_values);
        }
        let plane = |values| {
            TileStore::F32(Tiles {
                elements: values,
                scales: &[],
                capacity: <[f32]>::len(values) / width,
                columns: width,
            })
        };
        let first = tokens.start;
        for (i, head) in self.heads.clone().enumerate() {
            for start in tokens.clone().step_by(MAX_ROWS) {
                let rows: heapless::Vec<Row<'_>, MAX_ROWS> = (start..tokens.end.min(start + MAX_ROWS))
                    .map(|token| row(token, head))
                    .collect();
                layer.scores(head, &rows, weights, turned);
                let mut weighed = [Weighed::default(); MAX_ROWS];
                for (r, row) in rows.iter().enumerate() {
                    let weights = &mut weights[r * shape.stride()..][..shape.stride()];
                    let of_sinks = &mut of_sinks[r * shape.exact_sinks..][..shape.exact_sinks];
                    weighed[r] = layer.weigh(
                        row,
                        (weights, self.least_weight),
                        of_sinks,
                        Self::probe_of(self.probe, slots, i),
                    );
                }
                let weights = TileWeights {
                    weights: &weights[..rows.len() * shape.stride()],
                    stride: shape.stride(),
                    chunk_at: shape.ring * TILE,
                    skips: self.least_weight > 0.0,
                };
                let of_chunk = layer.caches.chunk.is_some().then(|| plane(&*chunk_values));
                let summed = layer.summed(plane(&*ring_values), of_chunk, start + rows.len());
                vector::tile_sums(isa, &summed, weights, (sums, width));
                for (r, weighed) in weighed[..rows.len()].iter().enumerate() {
                    let out = &mut out.row_mut(start + r - first)[i * width..][..width];
                    out.copy_from_slice(&sums[r * width..][..width]);
                    let of_sinks = &of_sinks[r * shape.exact_sinks..][..shape.exact_sinks];
                    layer.finish(head, *weighed, of_sinks, out);
                }
            }
        }
    }
}

//! One job: scores, softmax, and equation 5 of slim attention in one of its two orders.

use core::ops::Range;

use super::super::geometry::{Geometry, Of};
use super::super::step::{Attend, Caches, JobPart, MAX_RANGES, Queries, Split, Step, run_jobs};
use super::{Heads, Sizes, ValueMap, values_first};
use crate::arena::Columns;
use crate::cache::LayerCache;
use crate::kernels::attend::{
    Expand, HIDDEN, MAX_ROWS, Map, RawKeys, RotatedScores, SlotSums, Summed, TILE, TileStore,
    TileWeights, Tiles,
};
use crate::kernels::{self, Input, LeaveOut, Product, Softmax};

/// A row: one query head of one token.
#[derive(Clone, Copy)]
struct Row<'a> {
    query: &'a [f32],
    sink_query: &'a [f32],
    /// Number of tokens of the chunk that it sees; 0 without a chunk.
    chunk_tokens: usize,
    /// Number of slots in use once those tokens are in their places.
    live: usize,
    /// Position of its token.
    position: u64,
}

/// Sums of a row's softmax weights.
#[derive(Clone, Copy, Default)]
struct Weighed {
    /// 1 over the sum of all weights.
    inverse: f32,
    /// Sum of the first sinks' weights.
    of_sinks: f32,
}

/// Data that all jobs of a layer share.
pub(super) struct Layer<'a> {
    pub(super) attend: &'a Attend<'a>,
    pub(super) heads: &'a Heads,
    pub(super) geometry: &'a Geometry<'a>,
    pub(super) values: &'a ValueMap<'a>,
    pub(super) caches: &'a Caches<'a>,
}

impl Layer<'_> {
    /// Attends for the tokens from `step.wanted` on, of `tokens` tokens.
    pub(super) fn run(&self, step: &mut Step<'_>, tokens: usize) {
        let (all, workers) = (self.heads, self.attend.compute.threads.workers());
        let sizes = self.sizes();
        let wanted = tokens - step.wanted;
        let live = self.live().saturating_add(tokens);
        let by_head = tokens > 1
            && values_first(
                wanted.saturating_mul(all.group),
                live,
                sizes.mapped,
                all.width,
            )
            && sizes.values_first() <= step.scratch.len() / workers;
        // A probe's sums are over tokens, in their order; with values first, values are computed
        // once for all tokens.
        let one_range = workers == 1 || !step.probe.is_empty() || by_head;
        let split = Split {
            // With values first, the queries of one KV head share its values; otherwise a job takes
            // as many heads as balance.
            heads: if by_head {
                all.group
            } else {
                all.queries.div_ceil(workers).min(MAX_ROWS)
            },
            ranges: if one_range { 1 } else { wanted.min(MAX_RANGES) },
            multiple: 1,
        };
        let least_weight = step.least_weight;
        run_jobs(self.attend, step, tokens, &split, &|queries, part| {
            self.run_job(by_head, least_weight, queries, part);
        });
    }

    fn run_job(&self, by_head: bool, least_weight: f32, queries: Queries<'_>, part: JobPart<'_>) {
        let (ring, width) = (self.attend.ring, self.heads.query_width());
        let row = |token: usize, head: usize| {
            let at = (token * self.heads.queries + head) * width;
            Row {
                query: &queries.window[at..][..width],
                sink_query: &queries.sinks[at..][..width],
                chunk_tokens: if self.caches.chunk.is_some() {
                    token + 1
                } else {
                    0
                },
                live: ring.used_after(token + 1),
                position: ring.position() + token as u64,
            }
        };
        let JobPart {
            tokens,
            heads,
            mut attended,
            mut scratch,
            mut kernel_scratch,
            mut probe,
        } = part;
        let mut job = Job {
            layer: self,
            sizes: self.sizes(),
            least_weight,
            heads,
            scratch: &mut scratch,
            kernel_scratch: &mut kernel_scratch,
            probe: probe.as_deref_mut().unwrap_or_default(),
        };
        if by_head {
            job.values_first(tokens, &row, &mut attended);
        } else {
            job.sums_first(tokens, &row, &mut attended);
        }
    }

    /// Number of the ring's slots that are in use while the pass attends.
    fn live(&self) -> usize {
        self.attend
            .ring
            .used_after(usize::from(self.caches.chunk.is_none()))
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            head: self.heads.width,
            query: self.heads.query_width(),
            mapped: self.heads.cached + self.values.rank,
            ring: self.attend.ring.capacity().div_ceil(TILE),
            chunk: self
                .caches
                .chunk
                .as_ref()
                .map_or(0, |chunk| chunk.capacity().div_ceil(TILE)),
            exact_sinks: self.caches.exact_sinks,
        }
    }

    /// Writes the scores of some queries of one head to the rows of `weights`.
    fn scores(&self, head: usize, rows: &[Row<'_>], weights: &mut [f32], turned: &mut [f32]) {
        let pairs = self.geometry.lanes.len();
        let (column, width) = self.heads.scored(head);
        let sizes = self.sizes();
        let queries: heapless::Vec<&[f32], MAX_ROWS> = rows.iter().map(|row| row.query).collect();
        let sink_queries: heapless::Vec<&[f32], MAX_ROWS> =
            rows.iter().map(|row| row.sink_query).collect();
        let seen = rows.iter().map(|row| row.chunk_tokens).max().unwrap_or(0);
        let ring = self.caches.ring.tiles().0;
        let chunk = self.caches.chunk.as_ref().map(|chunk| chunk.tiles().0);
        for placed in &self.geometry.runs {
            let slots = placed.run.slots.clone();
            let (store, slots, at, queries) = match (placed.of, chunk) {
                (Of::Sinks, _) => (ring, slots, 0, &sink_queries),
                (Of::Window, _) => (ring, slots, 0, &queries),
                (Of::Chunk, Some(chunk)) => (chunk, 0..seen, sizes.ring * TILE, &queries),
                (Of::Chunk, None) => continue,
            };
            let keys = RawKeys {
                store,
                head: (column, width),
                // With inputs, the mean adds the same to all scores of a row, so it is left out.
                mean: if self.heads.scores_rows {
                    &[]
                } else {
                    self.values
                        .mean
                        .get(column..column + width)
                        .unwrap_or_default()
                },
                pairs: self.geometry.pairs,
                lanes: self.geometry.lanes,
            };
            self.attend.compute.isa.run(RotatedScores {
                keys: &keys,
                slots,
                bases: &self.geometry.bases[placed.base * pairs..],
                queries,
                out: &mut weights[at..],
                stride: sizes.stride(),
                scratch: turned,
            });
        }
    }

    /// Turns a row's scores into softmax weights, each at the place of its value: the weights of
    /// the chunk's tokens are in the chunk's part, and the ring slots that those tokens replace
    /// have none. The first sinks' weights go to `of_sinks`. Weights under `least` become zero.
    fn weigh(
        &self,
        row: &Row<'_>,
        (weights, least): (&mut [f32], f32),
        of_sinks: &mut [f32],
        probe: &mut [f32],
    ) -> Weighed {
        let (ring, chunk) = weights.split_at_mut(self.sizes().ring * TILE);
        let replaced = self.attend.ring.chunk_slots().runs(row.chunk_tokens);
        for (slots, first) in replaced.clone() {
            let len = slots.len();
            ring[slots].copy_from_slice(&chunk[first..][..len]);
        }
        let (run, evicted) = self.attend.ring.evicted_slots(row.position);
        for (slots, _) in run.runs(evicted) {
            ring[slots].fill(HIDDEN);
        }
        let isa = self.attend.compute.isa;
        let scores = &mut ring[..row.live];
        let inverse = isa.run(Softmax { scores });
        if least > 0.0 {
            isa.run(LeaveOut {
                weights: &mut ring[..row.live],
                least: least / inverse,
            });
        }
        // The exponential ends at e^-87; the weight of an evicted slot must be exactly zero.
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

    /// Sources of the sums, for rows that see at most `seen` tokens of the chunk.
    fn summed<'s>(
        &self,
        ring: TileStore<'s>,
        chunk: Option<TileStore<'s>>,
        seen: usize,
    ) -> Summed<'s> {
        Summed {
            ring,
            ring_tiles: self.live().div_ceil(TILE),
            chunk: chunk.map(|chunk| (chunk, seen.div_ceil(TILE))),
        }
    }

    /// Completes a head's output: adds the values of the first sinks, divides by the sum of
    /// weights, and adds the offset.
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
    sizes: Sizes,
    least_weight: f32,
    heads: Range<usize>,
    scratch: &'j mut [f32],
    kernel_scratch: &'j mut [u8],
    /// `heads x slots`, or empty.
    probe: &'j mut [f32],
}

impl Job<'_, '_> {
    /// Part of the probe for head `index`.
    fn probe_of(probe: &mut [f32], slots: usize, index: usize) -> &mut [f32] {
        probe
            .get_mut(index * slots..(index + 1) * slots)
            .unwrap_or_default()
    }

    /// Computes for each token the sums of all heads over the keys' columns, then each head's
    /// product with its part of the map.
    fn sums_first<'r>(
        &mut self,
        tokens: Range<usize>,
        row: &dyn Fn(usize, usize) -> Row<'r>,
        out: &mut Columns<'_, f32>,
    ) {
        let (layer, sizes) = (self.layer, self.sizes);
        let (isa, slots, width) = (
            layer.attend.compute.isa,
            layer.attend.ring.capacity(),
            sizes.head,
        );
        let (rows, keys) = (self.heads.len(), layer.heads.cached);
        let (weights, rest) = self.scratch.split_at_mut(rows * sizes.stride());
        let (turned, rest) = rest.split_at_mut(sizes.query);
        let (sums, rest) = rest.split_at_mut(rows * sizes.mapped);
        let of_sinks = &mut rest[..rows * sizes.exact_sinks];
        let first = tokens.start;
        let chunk = layer.caches.chunk.as_ref().map(LayerCache::tiles);
        let (ring_keys, ring_channels) = layer.caches.ring.tiles();
        let group = layer.heads.group;
        for token in tokens {
            let mut weighed = [Weighed::default(); MAX_ROWS];
            for (i, head) in self.heads.clone().enumerate() {
                let row = row(token, head);
                let weights = &mut weights[i * sizes.stride()..][..sizes.stride()];
                layer.scores(head, &[row], weights, turned);
                let of_sinks = &mut of_sinks[i * sizes.exact_sinks..][..sizes.exact_sinks];
                weighed[i] = layer.weigh(
                    &row,
                    (weights, self.least_weight),
                    of_sinks,
                    Self::probe_of(self.probe, slots, i),
                );
            }
            let weights = TileWeights {
                weights,
                stride: sizes.stride(),
                chunk_at: sizes.ring * TILE,
                skips: self.least_weight > 0.0,
            };
            let seen = token + 1;
            let summed = layer.summed(ring_keys, chunk.map(|(keys, _)| keys), seen);
            isa.run(SlotSums {
                summed: &summed,
                weights,
                out: sums,
                stride: sizes.mapped,
            });
            if let Some(ring_channels) = ring_channels {
                let summed = layer.summed(
                    ring_channels,
                    chunk.and_then(|(_, channels)| channels),
                    seen,
                );
                isa.run(SlotSums {
                    summed: &summed,
                    weights,
                    out: &mut sums[keys..],
                    stride: sizes.mapped,
                });
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
                        activations: Input::F32(&sums[i * sizes.mapped..][..sizes.mapped]),
                        out: &mut Columns::all(out, width),
                        scratch: self.kernel_scratch,
                    },
                );
                let of_sinks = &of_sinks[i * sizes.exact_sinks..][..sizes.exact_sinks];
                layer.finish(head, weighed[i], of_sinks, out);
            }
        }
    }

    /// Computes for one KV head the values of all slots, then the sums of its queries over them.
    fn values_first<'r>(
        &mut self,
        tokens: Range<usize>,
        row: &dyn Fn(usize, usize) -> Row<'r>,
        out: &mut Columns<'_, f32>,
    ) {
        let (layer, sizes) = (self.layer, self.sizes);
        let (isa, slots, width) = (
            layer.attend.compute.isa,
            layer.attend.ring.capacity(),
            sizes.head,
        );
        let group = layer.heads.group;
        let kv_column = self.heads.start / group * width;
        let keys = layer.heads.cached;
        let (weights, rest) = self.scratch.split_at_mut(MAX_ROWS * sizes.stride());
        let (turned, rest) = rest.split_at_mut(MAX_ROWS * sizes.query);
        let (sums, rest) = rest.split_at_mut(MAX_ROWS * width);
        let (of_sinks, rest) = rest.split_at_mut(MAX_ROWS * sizes.exact_sinks);
        let (ring_values, rest) = rest.split_at_mut(sizes.ring * TILE * width);
        let (chunk_values, rest) = rest.split_at_mut(sizes.chunk * TILE * width);
        let map = &mut rest[..sizes.mapped * width];
        for (row, map) in map.chunks_exact_mut(sizes.mapped).enumerate() {
            layer.values.map.dequantize_row(kv_column + row, map);
        }
        let expand = |store: &LayerCache<'_>, tiles: usize, values: &mut [f32]| {
            let (of_keys, of_channels) = store.tiles();
            let map = |at| Map {
                rows: map,
                stride: sizes.mapped,
                at,
            };
            isa.run(Expand {
                store: &of_keys,
                tiles: 0..tiles,
                map: map(0),
                out: values,
                add: false,
            });
            if let Some(channels) = of_channels {
                isa.run(Expand {
                    store: &channels,
                    tiles: 0..tiles,
                    map: map(keys),
                    out: values,
                    add: true,
                });
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
                let rows: heapless::Vec<Row<'_>, MAX_ROWS> = (start
                    ..tokens.end.min(start + MAX_ROWS))
                    .map(|token| row(token, head))
                    .collect();
                layer.scores(head, &rows, weights, turned);
                let mut weighed = [Weighed::default(); MAX_ROWS];
                for (r, row) in rows.iter().enumerate() {
                    let weights = &mut weights[r * sizes.stride()..][..sizes.stride()];
                    let of_sinks = &mut of_sinks[r * sizes.exact_sinks..][..sizes.exact_sinks];
                    weighed[r] = layer.weigh(
                        row,
                        (weights, self.least_weight),
                        of_sinks,
                        Self::probe_of(self.probe, slots, i),
                    );
                }
                let weights = TileWeights {
                    weights: &weights[..rows.len() * sizes.stride()],
                    stride: sizes.stride(),
                    chunk_at: sizes.ring * TILE,
                    skips: self.least_weight > 0.0,
                };
                let of_chunk = layer.caches.chunk.is_some().then(|| plane(&*chunk_values));
                let summed = layer.summed(plane(&*ring_values), of_chunk, start + rows.len());
                isa.run(SlotSums {
                    summed: &summed,
                    weights,
                    out: sums,
                    stride: width,
                });
                for (r, weighed) in weighed[..rows.len()].iter().enumerate() {
                    let out = &mut out.row_mut(start + r - first)[i * width..][..width];
                    out.copy_from_slice(&sums[r * width..][..width]);
                    let of_sinks = &of_sinks[r * sizes.exact_sinks..][..sizes.exact_sinks];
                    layer.finish(head, *weighed, of_sinks, out);
                }
            }
        }
    }
}

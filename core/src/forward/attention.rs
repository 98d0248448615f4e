//! Attention of one layer of a pass: from its normed inputs to the output of its heads.

use super::{At, optional, quantized};
use crate::attention::derived::ValueMap;
use crate::attention::{Attend, Caches, Shape, Step, Values};
use crate::cache::{CacheMemory, CacheShape, ChunkShape, Layout};
use crate::features::FAMILIES;
use crate::model::{Attention, Linear, SlimWeights};
use crate::nn::math;
use crate::plan::Buffers;
use crate::tensor::Matrix;
use crate::workers::Activations;

/// Returns the source of keys and values that are computed from kept inputs.
pub(super) fn of_inputs<'w>(key: &Linear<'w>, value: &Linear<'w>) -> Values<'w> {
    Values::OfInputs {
        keys: key.weight,
        map: ValueMap {
            map: value.weight,
            mean: &[],
            offset: optional(value.bias),
            rank: 0,
        },
    }
}

impl Attention<'_> {
    /// Matrices that take the normed input.
    pub(super) fn takers(&self) -> [&Matrix<'_>; 3] {
        let key = &self.key.weight;
        [
            &self.query.weight,
            key,
            self.value.as_ref().map_or(key, |value| &value.weight),
        ]
    }
}

/// Numbers of a layer's attention in one pass.
struct Numbers {
    shape: Shape,
    cache: CacheShape,
    /// Number of tokens at the start of the pass that are first sinks, whose values are kept
    /// exactly.
    sinks: usize,
}

impl At<'_> {
    fn numbers(&self) -> Numbers {
        let config = self.config();
        let cache = self.pass.plan.cache_shape(self.index);
        let exact_sinks = if cache.layout.derives_values() {
            cache.exact_sinks as u64
        } else {
            0
        };
        Numbers {
            shape: config.shape_of(config.kinds.of(self.index)),
            cache,
            sinks: exact_sinks
                .saturating_sub(self.reach.ring.position())
                .min(self.pass.tokens as u64) as usize,
        }
    }

    /// Computes `attended = attention(normed)`: projects queries and the rows that the layout
    /// keeps, writes the cache, and attends.
    pub(super) fn attention(
        &self,
        weights: &Attention<'_>,
        caches: &mut CacheMemory<'_>,
        b: &mut Buffers<'_>,
        probe: &mut [f32],
    ) {
        let (pass, config, ring) = (self.pass, self.config(), &self.reach.ring);
        let (tokens, options) = (pass.tokens, pass.plan.options());
        let n = self.numbers();
        let values = match (n.cache.layout, &weights.slim, &weights.value) {
            (Layout::Kv, _, Some(value)) => self.project_kv(&n, weights, value, b),
            (Layout::KR { .. }, Some(slim), _) => self.project_kr(&n, weights, slim, b),
            (Layout::X, _, Some(value)) if FAMILIES => self.project_x(&n, weights, value, b),
            _ => unreachable!("the plan refuses layouts for which a layer lacks a matrix"),
        };
        let (kv, d) = (n.shape.kv_columns(), n.shape.d_model);
        let (rows, beside) = match n.cache.layout {
            Layout::Kv => (&mut b.keys[..tokens * kv], &b.values[..tokens * kv]),
            Layout::KR { rank } => (
                &mut b.keys[..tokens * kv],
                &b.channels[..tokens * rank as usize],
            ),
            Layout::X => (&mut b.normed[..tokens * d], &[][..]),
        };
        let (columns, sink_values) = (n.shape.query_columns(), n.sinks * kv);
        // A cache keeps finite numbers only, and a softmax makes them of any scores. What is lost
        // there shows in the residual stream, which is looked at after the pass.
        let is_finite = math::all_finite(&b.queries[..tokens * columns])
            && math::all_finite(rows)
            && math::all_finite(beside)
            && math::all_finite(&b.values[..sink_values]);
        if !is_finite {
            b.residual[0] = f32::NAN;
        }
        let chunk = (tokens > 1).then_some(ChunkShape {
            tokens,
            most: options.chunk,
        });
        let (ring_cache, chunk_cache) = caches.layer(self.index, &n.cache, chunk);
        let sink_rows = if ring.sinks() == 0 { 0 } else { tokens };
        let pairs = n.shape.rope_dim / 2;
        let attend = Attend {
            compute: pass.compute,
            shape: &n.shape,
            ring,
            geometry: pass.geometry,
            values,
        };
        let mut caches = Caches {
            ring: ring_cache,
            chunk: chunk_cache,
            // Slots that are no sinks, or no longer, take other tokens in turn.
            exact_sinks: n.cache.exact_sinks.min(ring.sinks()),
        };
        let wide = match n.cache.layout {
            Layout::X => tokens * n.shape.heads * d,
            Layout::Kv | Layout::KR { .. } => 0,
        };
        attend.run(
            &mut caches,
            &mut Step {
                queries: &mut b.queries[..tokens * columns],
                sink_queries: &mut b.sink_queries[..sink_rows * columns],
                wide_queries: &mut b.wide_queries[..wide],
                rows,
                beside,
                sink_values: &b.values[..sink_values],
                attended: &mut b.attended[..tokens * columns],
                scratch: &mut b.hidden[..pass.plan.scores()],
                kernel_scratch: b.kernel_scratch,
                scale: 1.0 / math::sqrt(config.query_scale_of as f32),
                score_cap: config.score_cap,
                alibi: config.alibi,
                least_weight: options.least_weight(),
                angles: &self.reach.angles[..tokens * pairs],
                sink_angles: &self.reach.sink_angles[..sink_rows * pairs],
                wanted: self.wanted,
                probe: self.probe(probe),
            },
        );
    }

    /// Projects queries, keys and values of all tokens, in layout kv.
    fn project_kv<'w>(
        &self,
        n: &Numbers,
        weights: &Attention<'w>,
        value: &Linear<'w>,
        b: &mut Buffers<'_>,
    ) -> Values<'w> {
        let (compute, tokens) = (self.pass.compute, self.pass.tokens);
        let (columns, kv, d) = (
            n.shape.query_columns(),
            n.shape.kv_columns(),
            n.shape.d_model,
        );
        let queries = &mut b.queries[..tokens * columns];
        let keys = &mut b.keys[..tokens * kv];
        let values = &mut b.values[..tokens * kv];
        let (query, key) = (&weights.query, &weights.key);
        compute.linear(
            quantized(&b.normed[..tokens * d], b.activations, d),
            [
                (&query.weight, &mut *queries),
                (&key.weight, &mut *keys),
                (&value.weight, &mut *values),
            ],
            b.kernel_scratch,
        );
        compute.add_bias(queries, optional(query.bias));
        compute.add_bias(keys, optional(key.bias));
        compute.add_bias(values, optional(value.bias));
        for (rows, norm) in [(queries, weights.query_norm), (keys, weights.key_norm)] {
            if let Some(norm) = norm.filter(|_| FAMILIES) {
                compute.norm_rows(rows, norm, self.config().norm_eps);
            }
        }
        Values::Cached
    }

    /// Projects queries, keys and rank-correction channels of all tokens, and values of the first
    /// sinks, in layout k+r.
    fn project_kr<'w>(
        &self,
        n: &Numbers,
        weights: &Attention<'w>,
        slim: &SlimWeights<'w>,
        b: &mut Buffers<'_>,
    ) -> Values<'w> {
        let (compute, tokens) = (self.pass.compute, self.pass.tokens);
        let (columns, kv, d) = (
            n.shape.query_columns(),
            n.shape.kv_columns(),
            n.shape.d_model,
        );
        let queries = &mut b.queries[..tokens * columns];
        let keys = &mut b.keys[..tokens * kv];
        let channels = &mut b.channels[..tokens * slim.rank()];
        let values = &mut b.values[..n.sinks * kv];
        let input = |rows: usize| quantized(&b.normed[..rows * d], b.activations, d);
        let (query, key) = (&weights.query, &weights.key);
        let layers = [(&query.weight, &mut *queries), (&key.weight, &mut *keys)];
        compute.linear(input(tokens), layers, b.kernel_scratch);
        compute.add_bias(queries, optional(query.bias));
        compute.add_bias(keys, optional(key.bias));
        if let Some(weight) = &slim.channels {
            compute.linear(input(tokens), [(weight, &mut *channels)], b.kernel_scratch);
        }
        let map = slim.value_map();
        match &weights.value {
            _ if n.sinks == 0 => {}
            Some(value) => {
                let layers = [(&value.weight, &mut *values)];
                compute.linear(input(n.sinks), layers, b.kernel_scratch);
            }
            None => {
                let cached = CachedRows { keys, channels };
                self.values_of_keys(&map, cached, values, b.hidden, b.kernel_scratch);
            }
        }
        Values::OfKeys(map)
    }

    /// Projects queries of all tokens and values of the first sinks, in layout x; the inputs are
    /// the kept rows.
    fn project_x<'w>(
        &self,
        n: &Numbers,
        weights: &Attention<'w>,
        value: &Linear<'w>,
        b: &mut Buffers<'_>,
    ) -> Values<'w> {
        let (compute, tokens) = (self.pass.compute, self.pass.tokens);
        let (kv, d) = (n.shape.kv_columns(), n.shape.d_model);
        let queries = &mut b.queries[..tokens * n.shape.query_columns()];
        let values = &mut b.values[..n.sinks * kv];
        let input = |rows: usize| quantized(&b.normed[..rows * d], b.activations, d);
        let query = &weights.query;
        compute.linear(
            input(tokens),
            [(&query.weight, &mut *queries)],
            b.kernel_scratch,
        );
        compute.add_bias(queries, optional(query.bias));
        if n.sinks > 0 {
            let layers = [(&value.weight, &mut *values)];
            compute.linear(input(n.sinks), layers, b.kernel_scratch);
            compute.add_bias(values, optional(value.bias));
        }
        of_inputs(&weights.key, value)
    }

    /// Computes the values of the first tokens from their keys and channels by the map, before
    /// these are rounded: as exact as the map.
    fn values_of_keys(
        &self,
        map: &ValueMap<'_>,
        cached: CachedRows<'_>,
        values: &mut [f32],
        row: &mut [f32],
        scratch: &mut [u8],
    ) {
        let compute = self.pass.compute;
        let (columns, rank) = (self.config().kv_columns(), map.rank);
        let row = &mut row[..columns + rank];
        for (token, value) in values.chunks_exact_mut(columns).enumerate() {
            let (key, channel) = row.split_at_mut(columns);
            key.copy_from_slice(&cached.keys[token * columns..][..columns]);
            for (key, mean) in key.iter_mut().zip(map.mean) {
                *key -= mean.to_f32();
            }
            channel.copy_from_slice(&cached.channels[token * rank..][..rank]);
            let input = Activations {
                values: row,
                quantized: &[],
            };
            compute.linear(input, [(&map.map, &mut *value)], scratch);
            compute.add_bias(value, map.offset);
        }
    }

    /// Returns the layer's part of the probe; empty if there is no probe. In the probe every layer
    /// has as many slots as one that attends to all kept tokens.
    fn probe<'p>(&self, probe: &'p mut [f32]) -> &'p mut [f32] {
        let heads = self.config().heads;
        let len = heads * self.pass.plan.capacity();
        match probe.get_mut(self.index * len..(self.index + 1) * len) {
            Some(part) => &mut part[..heads * self.reach.ring.capacity()],
            None => &mut [],
        }
    }
}

/// Rows that layout k+r keeps, before they are rounded.
struct CachedRows<'r> {
    /// `tokens x kv columns`.
    keys: &'r [f32],
    /// `tokens x rank`.
    channels: &'r [f32],
}

impl<'w> SlimWeights<'w> {
    fn value_map(&self) -> ValueMap<'w> {
        ValueMap {
            map: self.map,
            mean: optional(self.mean),
            offset: optional(self.offset),
            rank: self.rank(),
        }
    }
}

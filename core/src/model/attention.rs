//! Attention of one layer of one pass: from its normed inputs to what its heads attended to.

use super::forward::{Buffers, Pass, optional, quantized};
use super::{Config, Layer, SlimWeights};
use crate::attention::geometry::Geometry;
use crate::attention::{kv, slim};
use crate::cache::{KvCache, Ring, SlimCache, SlimShape};
use crate::compute::Activations;
use crate::nn::math;

impl Pass<'_> {
    fn ring(&self) -> &Ring {
        &self.reach.ring
    }

    /// What queries are multiplied with.
    fn query_scale(&self) -> f32 {
        1.0 / math::sqrt(self.config.query_scale_of as f32)
    }

    /// Norms queries and keys, in families that do.
    fn norm_heads(&self, layer: &Layer<'_>, queries: &mut [f32], keys: &mut [f32]) {
        for (rows, weight) in [(queries, layer.query_norm), (keys, layer.key_norm)] {
            if let Some(weight) = weight.filter(|_| cfg!(feature = "families")) {
                self.compute.norm_rows(rows, weight, self.config.norm_eps);
            }
        }
    }

    pub(super) fn kv_attention(&self, layer: &Layer<'_>, b: &mut Buffers<'_>) {
        let Some(value) = &layer.value else {
            unreachable!("the plan refuses keys and values where a layer has none");
        };
        let (config, ring, tokens) = (self.config, self.ring(), self.tokens);
        let (query_columns, kv_columns) = (config.query_columns(), config.kv_columns());
        let sink_rows = if ring.sinks() == 0 { 0 } else { tokens };
        let pairs = config.rope_dim / 2;
        let queries = &mut b.queries[..tokens * query_columns];
        let keys = &mut b.keys[..tokens * kv_columns];
        let values = &mut b.values[..tokens * kv_columns];
        self.compute.linear(
            quantized(
                &b.normed[..tokens * config.d_model],
                b.activations,
                config.d_model,
            ),
            [
                (&layer.query, &mut *queries),
                (&layer.key, &mut *keys),
                (value, &mut *values),
            ],
            b.scratch,
        );
        self.compute.add_bias(queries, optional(layer.query_bias));
        self.compute.add_bias(keys, optional(layer.key_bias));
        self.compute.add_bias(values, optional(layer.value_bias));
        self.norm_heads(layer, queries, keys);
        let carve = |memory, slots| {
            let cache = KvCache::carve(memory, self.options.cache_type, slots, kv_columns);
            planned(cache)
        };
        let mut caches = kv::Caches {
            ring: carve(&mut b.cache[self.cache.clone()], ring.capacity()),
            chunk: (tokens > 1).then(|| carve(b.chunk_cache, tokens)),
        };
        kv::attend(
            self.compute,
            config,
            ring,
            &mut caches,
            &mut kv::Step {
                queries,
                sink_queries: &mut b.sink_queries[..sink_rows * query_columns],
                keys,
                values,
                attended: &mut b.attended[..tokens * query_columns],
                scores: b.scores,
                scale: self.query_scale(),
                score_cap: config.score_cap,
                least_weight: self.options.least_weight(),
                angles: &self.reach.angles[..tokens * pairs],
                sink_angles: &self.reach.sink_angles[..sink_rows * pairs],
                first: self.first,
                probe: layer_probe(b.probe, config, self.slots, ring, self.index),
            },
        );
    }

    pub(super) fn slim_attention(
        &self,
        layer: &Layer<'_>,
        weights: &SlimWeights<'_>,
        geometry: &Geometry<'_>,
        b: &mut Buffers<'_>,
    ) {
        let (config, ring, tokens, d) = (self.config, self.ring(), self.tokens, self.config.d_model);
        let (query_columns, kv_columns) = (config.query_columns(), config.kv_columns());
        let sink_rows = if ring.sinks() == 0 { 0 } else { tokens };
        let (pairs, rank) = (config.rope_dim / 2, weights.rank());
        let exact_sinks = self.options.policy.sinks();
        // Only the first sinks' values are needed.
        let sinks = (exact_sinks as u64)
            .saturating_sub(ring.position())
            .min(tokens as u64) as usize;
        let queries = &mut b.queries[..tokens * query_columns];
        let keys = &mut b.keys[..tokens * kv_columns];
        let values = &mut b.values[..sinks * kv_columns];
        let channels = &mut b.channels[..tokens * rank];
        let input = |rows: usize| quantized(&b.normed[..rows * d], b.activations, d);
        let layers = [(&layer.query, &mut *queries), (&layer.key, &mut *keys)];
        self.compute.linear(input(tokens), layers, b.scratch);
        self.compute.add_bias(queries, optional(layer.query_bias));
        self.compute.add_bias(keys, optional(layer.key_bias));
        if let Some(weights) = &weights.channels {
            self.compute
                .linear(input(tokens), [(weights, &mut *channels)], b.scratch);
        }
        match &layer.value {
            _ if sinks == 0 => {}
            Some(value) => self
                .compute
                .linear(input(sinks), [(value, &mut *values)], b.scratch),
            None => self.values_of_keys(weights, (keys, channels), values, b.scores, b.scratch),
        }
        let carve = |memory, capacity, exact_sinks| {
            planned(SlimCache::carve(
                memory,
                SlimShape {
                    cache_type: self.options.cache_type,
                    capacity,
                    columns: kv_columns,
                    value_columns: kv_columns,
                    rank,
                    exact_sinks,
                },
            ))
        };
        if tokens > 1 {
            // What lies past the tokens is multiplied by a weight of zero, and must be a number.
            b.chunk_cache.fill(0);
        }
        let mut caches = slim::Caches {
            ring: carve(&mut b.cache[self.cache.clone()], ring.capacity(), exact_sinks),
            chunk: (tokens > 1).then(|| carve(b.chunk_cache, self.options.chunk, 0)),
            exact_sinks,
        };
        slim::attend(
            self.compute,
            &slim::Heads::of_keys(config),
            ring,
            geometry,
            &slim::ValueMap {
                map: weights.map,
                mean: optional(weights.mean),
                offset: optional(weights.offset),
                rank,
            },
            &mut caches,
            &mut slim::Step {
                queries,
                scale: self.query_scale(),
                sink_queries: &mut b.sink_queries[..sink_rows * query_columns],
                keys,
                channels,
                sink_values: values,
                attended: &mut b.attended[..tokens * query_columns],
                scratch: b.scores,
                kernel_scratch: b.scratch,
                least_weight: self.options.least_weight(),
                angles: &self.reach.angles[..tokens * pairs],
                sink_angles: &self.reach.sink_angles[..sink_rows * pairs],
                first: self.first,
                probe: layer_probe(b.probe, config, self.slots, ring, self.index),
            },
        );
    }

    /// Values of the first tokens as the map makes them of their keys and channels before these are rounded: as exact as the map.
    fn values_of_keys(
        &self,
        weights: &SlimWeights<'_>,
        (keys, channels): (&[f32], &[f32]),
        values: &mut [f32],
        row: &mut [f32],
        scratch: &mut [u8],
    ) {
        let (columns, rank) = (self.config.kv_columns(), weights.rank());
        let row = &mut row[..columns + rank];
        for (token, value) in values.chunks_exact_mut(columns).enumerate() {
            let (key, channel) = row.split_at_mut(columns);
            key.copy_from_slice(&keys[token * columns..][..columns]);
            for (key, mean) in key.iter_mut().zip(optional(weights.mean)) {
                *key -= mean.to_f32();
            }
            channel.copy_from_slice(&channels[token * rank..][..rank]);
            let input = Activations {
                values: row,
                quantized: &[],
            };
            self.compute.linear(input, [(&weights.map, &mut *value)], scratch);
            self.compute.add_bias(value, optional(weights.offset));
        }
    }
}

/// Layer `index`'s part of the probe; empty if there is none.
fn layer_probe<'a>(
    probe: &'a mut [f32],
    config: &Config,
    slots: usize,
    ring: &Ring,
    index: usize,
) -> &'a mut [f32] {
    let len = config.heads * slots;
    match probe.get_mut(index * len..(index + 1) * len) {
        Some(part) => &mut part[..config.heads * ring.capacity()],
        None => &mut [],
    }
}

/// A cache that the plan has the bytes of.
fn planned<C>(cache: Option<C>) -> C {
    match cache {
        Some(cache) => cache,
        None => unreachable!("the plan gives every layer the bytes of its cache"),
    }
}

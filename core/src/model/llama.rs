//! The llama family: Llama 1 to 3, SmolLM2, TinyLlama (Touvron et al., arXiv 2302.13971).
//!
//! Pre-norm with RMSNorm, rotary positions on interleaved pairs, multi-head, grouped-query or multi-query attention with or without
//! biases, SwiGLU, an output matrix of its own or the embedding.

use core::ops::Range;

use super::{Config, Layer, Model, SlimWeights};
use crate::attention::geometry::Geometry;
use crate::attention::{kv, slim};
use crate::cache::{KvCache, Ring, SlimCache, SlimShape};
use crate::compute::{Activations, Compute, Quantized};
use crate::kernels::Q8Activation;
use crate::nn::math;
use crate::plan::{Layout, Options, layer_bytes};
use crate::quant::F32;
use crate::tensor::Matrix;

/// Who wants to see what enters a layer's attention: called with the layer, and its tokens' normed rows.
pub type Visit<'v> = dyn FnMut(usize, &[f32]) + Send + 'v;

/// The buffers of a forward pass, as the plan carved them; shapes are for a whole chunk of `T` tokens.
pub(crate) struct Buffers<'a> {
    /// All layers' caches.
    pub(crate) cache: &'a mut [u8],
    /// One layer's chunk; empty for one token at a time.
    pub(crate) chunk_cache: &'a mut [u8],
    /// `T x d_model`.
    pub(crate) residual: &'a mut [f32],
    /// `T x d_model`.
    pub(crate) normed: &'a mut [f32],
    /// `T x query columns`.
    pub(crate) queries: &'a mut [f32],
    /// `T x query columns`, or empty.
    pub(crate) sink_queries: &'a mut [f32],
    /// `T x kv columns`.
    pub(crate) keys: &'a mut [f32],
    /// `T x kv columns`.
    pub(crate) values: &'a mut [f32],
    /// `T x rank`, of the layer with most further channels.
    pub(crate) channels: &'a mut [f32],
    /// `T x query columns`.
    pub(crate) attended: &'a mut [f32],
    /// `T x ff`.
    pub(crate) gate: &'a mut [f32],
    /// `T x ff`.
    pub(crate) up: &'a mut [f32],
    /// `T x widest/32`, or empty.
    pub(crate) activations: &'a mut [Q8Activation],
    /// All workers' attention scratch.
    pub(crate) scores: &'a mut [f32],
    /// All workers' kernel scratch.
    pub(crate) scratch: &'a mut [u8],
    /// `T x pairs`.
    pub(crate) angles: &'a mut [[f32; 2]],
    /// `T x pairs`, or empty.
    pub(crate) sink_angles: &'a mut [[f32; 2]],
    /// `layers x heads x slots`, or empty: where attention weights are added up.
    pub(crate) probe: &'a mut [f32],
    /// Who wants to see layers' inputs.
    pub(crate) inputs: Option<&'a mut Visit<'a>>,
}

/// Runs `tokens` through all layers. Afterwards rows `wanted..` of the normed residual are in `buffers.normed`, quantised in
/// `buffers.activations` from the start (row 0 of it is token `wanted`), ready for the output matrix. The ring is not advanced.
pub(crate) fn forward(
    compute: &Compute<'_>,
    model: &Model<'_>,
    options: &Options,
    (ring, geometry): (&Ring, Option<&Geometry<'_>>),
    buffers: &mut Buffers<'_>,
    tokens: &[u32],
    wanted: usize,
) {
    let config = &model.config;
    let d = config.d_model;
    for (token, row) in tokens.iter().zip(buffers.residual.chunks_exact_mut(d)) {
        model.embedding.dequantize_row(*token as usize, row);
    }
    let last = model.layers.len() - 1;
    let mut at = 0;
    for (index, layer) in model.layers.iter().enumerate() {
        // The last layer's output is needed for the wanted tokens only; of the others it still caches keys and values.
        let first = if index == last { wanted } else { 0 };
        let layout = options.layout_of(config, index);
        let bytes = layer_bytes(
            config,
            (layout, options.cache_type),
            ring.capacity(),
            options.policy.sinks(),
        );
        let pass = Pass {
            compute,
            config,
            options,
            ring,
            geometry,
            index,
            cache: at..at + bytes,
            tokens: tokens.len(),
            first,
        };
        at += bytes;
        pass.layer(layer, layout, buffers);
    }
    let rows = wanted * d..tokens.len() * d;
    let (residual, normed) = (&mut buffers.residual[rows.clone()], &mut buffers.normed[rows]);
    compute.norm(
        residual,
        true,
        model.output_norm.blocks(0..1),
        config.rms_eps,
        normed,
        Quantized::wanted_by(&[&model.output], buffers.activations),
    );
}

/// One layer of one pass.
struct Pass<'a> {
    compute: &'a Compute<'a>,
    config: &'a Config,
    options: &'a Options,
    ring: &'a Ring,
    /// For layers whose keys are rotated as they are read.
    geometry: Option<&'a Geometry<'a>>,
    index: usize,
    /// Where the layer's cache lies.
    cache: Range<usize>,
    tokens: usize,
    /// Tokens before this one have no output.
    first: usize,
}

impl Pass<'_> {
    /// Between layers, `b.normed` holds the last feed-forward's output, which is yet to be added to `b.residual`: the norm that comes
    /// next does it, on all workers, while the row is at hand.
    fn layer(&self, layer: &Layer<'_>, layout: Layout, b: &mut Buffers<'_>) {
        let (compute, tokens) = (self.compute, self.tokens);
        let d = self.config.d_model;
        let value = layer.value.as_ref().unwrap_or(&layer.key);
        let takers = [&layer.query, &layer.key, value];
        compute.norm(
            &mut b.residual[..tokens * d],
            self.index > 0,
            norm(&layer.attention_norm),
            self.config.rms_eps,
            &mut b.normed[..tokens * d],
            Quantized::wanted_by(&takers, b.activations),
        );
        if let Some(visit) = &mut b.inputs {
            visit(self.index, &b.normed[..tokens * d]);
        }
        match (layout, &layer.slim, self.geometry) {
            (Layout::Slim { .. }, Some(weights), Some(geometry)) => {
                self.slim_attention(layer, weights, geometry, b);
            }
            _ => self.kv_attention(layer, b),
        }
        self.feed_forward(layer, b);
    }

    fn kv_attention(&self, layer: &Layer<'_>, b: &mut Buffers<'_>) {
        let Some(value) = &layer.value else {
            unreachable!("the plan refuses keys and values where a layer has none");
        };
        let (config, ring, tokens) = (self.config, self.ring, self.tokens);
        let (query_columns, kv_columns) = (config.query_columns(), config.kv_columns());
        let sink_rows = if b.sink_queries.is_empty() { 0 } else { tokens };
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
                least_weight: self.options.least_weight(),
                angles: &b.angles[..tokens * pairs],
                sink_angles: &b.sink_angles[..sink_rows * pairs],
                first: self.first,
                probe: layer_probe(b.probe, config, ring, self.index),
            },
        );
    }

    fn slim_attention(
        &self,
        layer: &Layer<'_>,
        weights: &SlimWeights<'_>,
        geometry: &Geometry<'_>,
        b: &mut Buffers<'_>,
    ) {
        let (config, ring, tokens, d) = (self.config, self.ring, self.tokens, self.config.d_model);
        let (query_columns, kv_columns) = (config.query_columns(), config.kv_columns());
        let sink_rows = if b.sink_queries.is_empty() { 0 } else { tokens };
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
                scale: 1.0 / math::sqrt(config.head_dim as f32),
                sink_queries: &mut b.sink_queries[..sink_rows * query_columns],
                keys,
                channels,
                sink_values: values,
                attended: &mut b.attended[..tokens * query_columns],
                scratch: b.scores,
                kernel_scratch: b.scratch,
                least_weight: self.options.least_weight(),
                angles: &b.angles[..tokens * pairs],
                sink_angles: &b.sink_angles[..sink_rows * pairs],
                first: self.first,
                probe: layer_probe(b.probe, config, ring, self.index),
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

    /// The output projection and the feed-forward layer, of the tokens that have an output.
    fn feed_forward(&self, layer: &Layer<'_>, b: &mut Buffers<'_>) {
        let (compute, tokens, first) = (self.compute, self.tokens, self.first);
        let (d, ff, eps) = (self.config.d_model, self.config.ff, self.config.rms_eps);
        let query_columns = self.config.query_columns();
        if first == tokens {
            return;
        }

        let residual = &mut b.residual[first * d..tokens * d];
        let normed = &mut b.normed[first * d..tokens * d];
        let attended = &mut b.attended[first * query_columns..tokens * query_columns];
        compute.quantize(
            attended,
            query_columns,
            Quantized::wanted_by(&[&layer.attention_output], b.activations),
        );
        compute.linear(
            quantized(attended, b.activations, query_columns),
            [(&layer.attention_output, &mut *normed)],
            b.scratch,
        );
        compute.add_bias(normed, optional(layer.attention_output_bias));

        let gate = &mut b.gate[first * ff..tokens * ff];
        let up = &mut b.up[first * ff..tokens * ff];
        let takers = [&layer.gate, &layer.up];
        compute.norm(
            residual,
            true,
            norm(&layer.ff_norm),
            eps,
            normed,
            Quantized::wanted_by(&takers, b.activations),
        );
        compute.linear(
            quantized(normed, b.activations, d),
            [(&layer.gate, &mut *gate), (&layer.up, &mut *up)],
            b.scratch,
        );
        compute.swiglu(gate, up, ff, Quantized::wanted_by(&[&layer.down], b.activations));
        compute.linear(
            quantized(gate, b.activations, ff),
            [(&layer.down, &mut *normed)],
            b.scratch,
        );
    }
}

fn norm<'w>(weight: &Matrix<'w>) -> &'w [F32] {
    weight.blocks(0..1)
}

fn optional(row: Option<Matrix<'_>>) -> &[F32] {
    row.map_or(&[], |row| row.blocks(0..1))
}

/// The f32 rows, with as much of the int8 buffer as belongs to them.
pub(crate) fn quantized<'a>(values: &'a [f32], buffer: &'a [Q8Activation], width: usize) -> Activations<'a> {
    let blocks = values.len() / width * (width / crate::quant::BLOCK);
    Activations {
        values,
        quantized: &buffer[..blocks.min(buffer.len())],
    }
}

/// Layer `index`'s part of the probe; empty if there is none.
fn layer_probe<'a>(probe: &'a mut [f32], config: &Config, ring: &Ring, index: usize) -> &'a mut [f32] {
    let len = config.heads * ring.capacity();
    probe.get_mut(index * len..(index + 1) * len).unwrap_or_default()
}

/// A cache that the plan has the bytes of.
fn planned<C>(cache: Option<C>) -> C {
    match cache {
        Some(cache) => cache,
        None => unreachable!("the plan gives every layer the bytes of its cache"),
    }
}

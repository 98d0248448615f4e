//! The llama family: Llama 1 to 3, SmolLM2, TinyLlama (Touvron et al., arXiv 2302.13971).
//!
//! Pre-norm with RMSNorm, rotary positions on interleaved pairs, multi-head, grouped-query or multi-query attention, SwiGLU, an
//! output matrix of its own or the embedding.

use super::{Config, Layer, Model};
use crate::attention::{self, Caches, Step};
use crate::cache::{LayerCache, Ring};
use crate::compute::{Activations, Compute, Quantized};
use crate::kernels::Q8Activation;
use crate::plan::{CacheType, layer_bytes};
use crate::quant::F32;

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
}

/// Runs `tokens` through all layers. Afterwards rows `wanted..` of the normed residual are in `buffers.normed`, quantised in
/// `buffers.activations` from the start (row 0 of it is token `wanted`), ready for the output matrix. The ring is not advanced.
pub(crate) fn forward(
    compute: &Compute<'_>,
    model: &Model<'_>,
    cache_type: CacheType,
    ring: &Ring,
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
    for (index, layer) in model.layers.iter().enumerate() {
        // The last layer's output is needed for the wanted tokens only; of the others it still caches keys and values.
        let first = if index == last { wanted } else { 0 };
        layer_forward(
            compute,
            config,
            layer,
            (index, cache_type, ring),
            buffers,
            tokens.len(),
            first,
        );
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

/// One layer. Between layers, `b.normed` holds the last feed-forward's output, which is yet to be added to `b.residual`: the norm
/// that comes next does it, on all workers, while the row is at hand.
fn layer_forward(
    compute: &Compute<'_>,
    config: &Config,
    layer: &Layer<'_>,
    (index, cache_type, ring): (usize, CacheType, &Ring),
    b: &mut Buffers<'_>,
    tokens: usize,
    first: usize,
) {
    let (d, ff, eps) = (config.d_model, config.ff, config.rms_eps);
    let (query_columns, kv_columns) = (config.query_columns(), config.kv_columns());
    let pairs = config.rope_dim / 2;
    let sink_rows = if b.sink_queries.is_empty() { 0 } else { tokens };

    let residual = &mut b.residual[..tokens * d];
    let normed = &mut b.normed[..tokens * d];
    let queries = &mut b.queries[..tokens * query_columns];
    let keys = &mut b.keys[..tokens * kv_columns];
    let values = &mut b.values[..tokens * kv_columns];
    let takers = [&layer.query, &layer.key, &layer.value];
    compute.norm(
        residual,
        index > 0,
        norm(&layer.attention_norm),
        eps,
        normed,
        Quantized::wanted_by(&takers, b.activations),
    );
    let input = quantized(normed, b.activations, d);
    compute.linear(
        input,
        [
            (&layer.query, &mut *queries),
            (&layer.key, &mut *keys),
            (&layer.value, &mut *values),
        ],
        b.scratch,
    );

    let mut caches = layer_caches(b.cache, b.chunk_cache, config, (index, cache_type, ring), tokens);
    attention::attend(
        compute,
        config,
        ring,
        &mut caches,
        &mut Step {
            queries,
            sink_queries: &mut b.sink_queries[..sink_rows * query_columns],
            keys,
            values,
            attended: &mut b.attended[..tokens * query_columns],
            scores: b.scores,
            angles: &b.angles[..tokens * pairs],
            sink_angles: &b.sink_angles[..sink_rows * pairs],
            first,
            probe: layer_probe(b.probe, config, ring, index),
        },
    );
    if first == tokens {
        return;
    }

    let residual = &mut residual[first * d..];
    let normed = &mut normed[first * d..];
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

fn norm<'w>(weight: &crate::tensor::Matrix<'w>) -> &'w [F32] {
    weight.blocks(0..1)
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

/// Layer `index`'s part of the caches. A chunk's lives for one pass, and has as many slots as there are tokens.
fn layer_caches<'a>(
    cache: &'a mut [u8],
    chunk_cache: &'a mut [u8],
    config: &Config,
    (index, cache_type, ring): (usize, CacheType, &Ring),
    tokens: usize,
) -> Caches<'a> {
    let carve =
        |memory: &'a mut [u8], slots| match LayerCache::carve(memory, cache_type, slots, config.kv_columns())
        {
            Some(cache) => cache,
            None => unreachable!("the plan gives every layer the bytes of its cache"),
        };
    let bytes = layer_bytes(config, cache_type, ring.capacity());
    Caches {
        ring: carve(&mut cache[index * bytes..][..bytes], ring.capacity()),
        chunk: (tokens > 1).then(|| carve(chunk_cache, tokens)),
    }
}

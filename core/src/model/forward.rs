//! The forward pass of every family: what its [`Design`](super::Design) says, layer by layer.

use core::ops::Range;

use super::{Config, Layer, Model, Norm, NormKind};
use crate::attention::geometry::Geometry;
use crate::attention::reach::Reach;
use crate::compute::{Activations, Add, Compute, Quantized};
use crate::kernels::Q8Activation;
use crate::kernels::vector::Scaling;
use crate::nn::math;
use crate::plan::{Layout, Options, layer_bytes};
use crate::quant::F32;

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
    /// `T x ff`; empty where the feed-forward layer is not gated.
    pub(crate) up: &'a mut [f32],
    /// `T x widest/32`, or empty.
    pub(crate) activations: &'a mut [Q8Activation],
    /// All workers' attention scratch.
    pub(crate) scores: &'a mut [f32],
    /// All workers' kernel scratch.
    pub(crate) scratch: &'a mut [u8],
    /// `layers x heads x slots`, or empty: where attention weights are added up.
    pub(crate) probe: &'a mut [f32],
    /// Who wants to see layers' inputs.
    pub(crate) inputs: Option<&'a mut Visit<'a>>,
}

/// Where the tokens of a pass are, for layers that attend to all that is kept and for local ones.
pub(crate) struct Reaches<'a> {
    pub(crate) global: &'a Reach<'a>,
    pub(crate) local: Option<&'a Reach<'a>>,
    /// For layers whose keys are rotated as they are read.
    pub(crate) geometry: Option<&'a Geometry<'a>>,
}

/// Runs `tokens` through all layers. Afterwards rows `wanted..` of the normed residual are in `buffers.normed`, quantised in
/// `buffers.activations` from the start (row 0 of it is token `wanted`), ready for the output matrix. The rings are not advanced.
pub(crate) fn forward(
    compute: &Compute<'_>,
    model: &Model<'_>,
    options: &Options,
    reaches: &Reaches<'_>,
    buffers: &mut Buffers<'_>,
    tokens: &[u32],
    wanted: usize,
) {
    let config = &model.config;
    embed(model, reaches.global.ring.position(), buffers, tokens);
    let last = model.layers.len() - 1;
    let (mut at, mut add) = (0, Add::Nothing);
    for (index, layer) in model.layers.iter().enumerate() {
        let layout = options.layout_of(config, index);
        let reach = match (config.local_window(index), reaches.local) {
            (Some(_), Some(local)) => local,
            _ => reaches.global,
        };
        let bytes = layer_bytes(
            config,
            (layout, options.cache_type),
            reach.ring.capacity(),
            options.policy.sinks(),
        );
        let pass = Pass {
            compute,
            config,
            options,
            reach,
            slots: reaches.global.ring.capacity(),
            geometry: reaches.geometry,
            index,
            cache: at..at + bytes,
            tokens: tokens.len(),
            // The last layer's output is needed for the wanted tokens only; of the others it still caches keys and values.
            first: if index == last { wanted } else { 0 },
        };
        at += bytes;
        pass.layer(layer, layout, add, buffers);
        add = Add::First(scaling(config, layer.ff_post_norm.as_ref()));
    }
    let (d, rows) = (config.d_model, wanted..tokens.len());
    let rows = rows.start * d..rows.end * d;
    compute.norm(
        (&mut buffers.residual[rows.clone()], &mut buffers.normed[rows], d),
        add,
        scaling(config, Some(&model.output_norm)),
        Quantized::wanted_by(&[&model.output], buffers.activations),
    );
}

/// Writes the tokens' embeddings to the residual stream; the first one is at `position`.
fn embed(model: &Model<'_>, position: u64, b: &mut Buffers<'_>, tokens: &[u32]) {
    let config = &model.config;
    let scale = if config.design.scaled_embedding {
        math::sqrt(config.d_model as f32)
    } else {
        1.0
    };
    let rows = b.residual.chunks_exact_mut(config.d_model);
    for (index, (token, row)) in tokens.iter().zip(rows).enumerate() {
        model.embedding.dequantize_row(*token as usize, row);
        if scale != 1.0 {
            row.iter_mut().for_each(|x| *x *= scale);
        }
        if let Some(positions) = &model.positions {
            // The rows that attention will write before it reads any.
            let learned = &mut b.normed[..config.d_model];
            positions.dequantize_row(position as usize + index, learned);
            row.iter_mut().zip(learned).for_each(|(x, p)| *x += *p);
        }
    }
}

/// One layer of one pass.
pub(super) struct Pass<'a> {
    pub(super) compute: &'a Compute<'a>,
    pub(super) config: &'a Config,
    pub(super) options: &'a Options,
    /// What the layer sees.
    pub(super) reach: &'a Reach<'a>,
    /// Slots of a layer that is not local.
    pub(super) slots: usize,
    /// For layers whose keys are rotated as they are read.
    pub(super) geometry: Option<&'a Geometry<'a>>,
    pub(super) index: usize,
    /// Where the layer's cache lies.
    pub(super) cache: Range<usize>,
    pub(super) tokens: usize,
    /// Tokens before this one have no output.
    pub(super) first: usize,
}

impl Pass<'_> {
    /// Between layers, `b.normed` holds the last feed-forward's output, which is yet to be added to `b.residual`: the norm that comes
    /// next does it as `add` says, on all workers, while the row is at hand.
    fn layer(&self, layer: &Layer<'_>, layout: Layout, add: Add<'_>, b: &mut Buffers<'_>) {
        let (compute, tokens) = (self.compute, self.tokens);
        let d = self.config.d_model;
        let value = layer.value.as_ref().unwrap_or(&layer.key);
        let takers = [&layer.query, &layer.key, value];
        compute.norm(
            (&mut b.residual[..tokens * d], &mut b.normed[..tokens * d], d),
            add,
            scaling(self.config, layer.attention_norm.as_ref()),
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
        if self.first < tokens {
            self.attention_output(layer, b);
            self.feed_forward(layer, b);
        }
    }
}

/// What a norm does with a row.
pub(super) fn scaling<'w>(config: &Config, norm: Option<&Norm<'w>>) -> Option<Scaling<'w>> {
    norm.map(|norm| Scaling {
        centred: config.design.norm == NormKind::Layer,
        weight: norm.weight,
        bias: optional(norm.bias),
        eps: config.norm_eps,
    })
}

/// A row that may be absent: then it is empty.
pub(super) fn optional(row: Option<&[F32]>) -> &[F32] {
    row.unwrap_or_default()
}

/// The f32 rows, with as much of the int8 buffer as belongs to them.
pub(crate) fn quantized<'a>(values: &'a [f32], buffer: &'a [Q8Activation], width: usize) -> Activations<'a> {
    let blocks = values.len() / width * (width / crate::quant::BLOCK);
    Activations {
        values,
        quantized: &buffer[..blocks.min(buffer.len())],
    }
}

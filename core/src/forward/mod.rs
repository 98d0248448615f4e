//! The forward pass of every family, as its [`Design`](crate::model::Design) describes it. For a
//! model whose sublayers are normed before and run one after the other:
//!
//! ```text
//! x = embedding(tokens)
//! for each layer:
//!     x += attention(norm(x))
//!     x += cross_attention(norm(x), e)     if there is an encoder, whose output is e
//!     x += feed_forward(norm(x))
//! logits = output(norm(x))
//! ```
//!
//! and for an encoder, whose rows all see each other:
//!
//! ```text
//! x = stem(frames) + positions
//! for each layer:
//!     x += attention(norm(x))
//!     x += feed_forward(norm(x))
//! e = norm(x)
//! ```
//!
//! One fusion: a sublayer's output waits in `normed`, and the next norm adds it to `x` when it
//! reads the row ([`Pending`]), on all workers.

mod attention;
mod encoder;
mod feed_forward;
mod source;
mod stem;

use core::ops::Range;

use crate::attention::geometry::Geometry;
use crate::cache::{CacheMemory, Reach, Reaches};
use crate::kernels::Scaling;
use crate::model::{Config, Layer, Model, Norm, NormKind};
use crate::nn::math;
use crate::plan::{Buffers, Plan};
use crate::quant::{BLOCK, F32, Q8Activation};
use crate::tensor::Matrix;
use crate::workers::{Activations, Compute, NormRows, Pending, Quantized};

/// Callback for the input of a layer's attention: called with the layer, and its tokens' normed
/// rows.
pub type Visit<'v> = dyn FnMut(usize, &[f32]) + Send + 'v;

/// Input of a pass: one row of the residual stream for each token.
#[derive(Clone, Copy)]
pub(crate) enum Input<'i> {
    /// Token ids: their embeddings.
    Tokens(&'i [u32]),
    /// Rows of `d_model` values, like embeddings (scaled, if the model scales them).
    Rows(&'i [f32]),
}

impl<'i> Input<'i> {
    /// Number of tokens, in a model whose rows are `width` wide.
    pub(crate) const fn tokens(self, width: usize) -> usize {
        match self {
            Input::Tokens(tokens) => tokens.len(),
            Input::Rows(rows) => rows.len() / width,
        }
    }

    /// Returns tokens `range` of the input.
    pub(crate) fn part(self, range: Range<usize>, width: usize) -> Input<'i> {
        match self {
            Input::Tokens(tokens) => Input::Tokens(&tokens[range]),
            Input::Rows(rows) => Input::Rows(&rows[range.start * width..range.end * width]),
        }
    }
}

/// Observers of a pass.
#[derive(Default)]
pub(crate) struct Watch<'a> {
    /// Sums of attention weights, `layers x heads x slots`; empty for none.
    pub(crate) probe: &'a mut [f32],
    /// Observer of the layers' inputs.
    pub(crate) inputs: Option<&'a mut Visit<'a>>,
}

/// A model with the tokens of a pass.
pub(crate) struct Pass<'p> {
    pub(crate) compute: &'p Compute<'p>,
    pub(crate) model: &'p Model<'p>,
    pub(crate) plan: &'p Plan,
    /// Ring and angles of each kind of layer.
    pub(crate) reaches: &'p Reaches<'p>,
    /// Needed for keys that are rotated when they are read.
    pub(crate) geometry: Option<&'p Geometry<'p>>,
    /// Number of tokens in the pass.
    pub(crate) tokens: usize,
    /// Index of the first token that has an output.
    pub(crate) wanted: usize,
}

/// One layer of a pass.
struct At<'p> {
    pass: &'p Pass<'p>,
    index: usize,
    reach: &'p Reach<'p>,
    /// Index of the first token that needs an output of the layer: earlier tokens are only cached.
    wanted: usize,
}

impl Pass<'_> {
    /// Runs `input` through all layers. Afterwards rows `wanted..` of the normed residual stream
    /// are in `b.normed`, and their int8 form is at the start of `b.activations` (row 0 of it is
    /// token `wanted`), ready for the output matrix. The rings are not advanced. Returns false if a
    /// number was NaN or infinite: it goes from wherever it arises to the residual stream.
    pub(crate) fn run(
        &self,
        input: Input<'_>,
        caches: &mut CacheMemory<'_>,
        b: &mut Buffers<'_>,
        watch: &mut Watch<'_>,
    ) -> bool {
        let (model, config) = (self.model, &self.model.config);
        self.embed(input, b);
        let mut pending = Pending::Nothing;
        let last = model.layers.len() - 1;
        for (index, layer) in model.layers.iter().enumerate() {
            let at = At {
                pass: self,
                index,
                reach: self.reaches.of(config.kinds.index(index)),
                // In the last layer only the wanted tokens' outputs are needed.
                wanted: if index == last { self.wanted } else { 0 },
            };
            at.layer(layer, pending, caches, b, watch);
            pending = Pending::Before(scaling(config, layer.feed_forward.post_norm.as_ref()));
        }
        let output_norm = Some(&model.output_norm);
        self.norm(self.wanted, pending, output_norm, &[&model.output], b);
        math::all_finite(&b.residual[self.rows(0, config.d_model)])
    }

    /// Writes the input's rows to the residual stream.
    fn embed(&self, input: Input<'_>, b: &mut Buffers<'_>) {
        let (model, config) = (self.model, &self.model.config);
        let d = config.d_model;
        match input {
            Input::Rows(input) => b.residual[..input.len()].copy_from_slice(input),
            Input::Tokens(tokens) => {
                let scale = if config.design.scaled_embedding {
                    math::sqrt(d as f32)
                } else {
                    1.0
                };
                let rows = b.residual.chunks_exact_mut(d);
                for (token, row) in tokens.iter().zip(rows) {
                    model.embedding.dequantize_row(*token as usize, row);
                    if scale != 1.0 {
                        row.iter_mut().for_each(|x| *x *= scale);
                    }
                }
            }
        }
        if let Some(positions) = &model.positions {
            let first = self.reaches.of(0).ring.position() as usize;
            let rows = &mut b.residual[..self.tokens * d];
            // Attention's norm will overwrite this row before anything reads it.
            add_positions(positions, first, rows, &mut b.normed[..d]);
        }
    }

    /// Adds the pending output to the residual stream and norms it, for the tokens from `first` on:
    /// `x += pending`, `normed = norm(x)`, quantised if any of `takers` is quantised.
    fn norm(
        &self,
        first: usize,
        pending: Pending<'_>,
        norm: Option<&Norm<'_>>,
        takers: &[&Matrix<'_>],
        b: &mut Buffers<'_>,
    ) {
        let config = &self.model.config;
        let rows = self.rows(first, config.d_model);
        self.compute.norm(
            NormRows {
                x: &mut b.residual[rows.clone()],
                normed: &mut b.normed[rows],
                width: config.d_model,
            },
            pending,
            scaling(config, norm),
            Quantized::wanted_by(takers, b.activations),
        );
    }

    /// Range of the values of the tokens from `first` on, in rows of `width`.
    fn rows(&self, first: usize, width: usize) -> Range<usize> {
        first * width..self.tokens * width
    }
}

impl At<'_> {
    fn config(&self) -> &Config {
        &self.pass.model.config
    }

    /// Runs one layer: `x += attention(norm(x))`, `x += cross_attention(norm(x), e)` if it has one,
    /// `x += feed_forward(norm(x))`.
    fn layer(
        &self,
        layer: &Layer<'_>,
        pending: Pending<'_>,
        caches: &mut CacheMemory<'_>,
        b: &mut Buffers<'_>,
        watch: &mut Watch<'_>,
    ) {
        let (pass, attention, feed_forward) = (self.pass, &layer.attention, &layer.feed_forward);
        pass.norm(0, pending, attention.norm.as_ref(), &attention.takers(), b);
        if let Some(visit) = &mut watch.inputs {
            visit(self.index, &b.normed[pass.rows(0, self.config().d_model)]);
        }
        self.attention(attention, caches, b, watch.probe);
        if self.wanted < pass.tokens {
            self.attention_output(&attention.output, b);
            let mut pending = if self.config().design.parallel_residual {
                Pending::After
            } else {
                Pending::Before(scaling(self.config(), attention.post_norm.as_ref()))
            };
            if let Some(cross) = layer.cross.get() {
                let norm = cross.norm.as_ref();
                pass.norm(self.wanted, pending, norm, &[&cross.query.weight], b);
                self.cross_attention(cross, caches, b);
                self.attention_output(&cross.output, b);
                pending = Pending::Before(None);
            }
            let norm = feed_forward.norm.as_ref();
            pass.norm(self.wanted, pending, norm, &feed_forward.takers(), b);
            self.feed_forward(feed_forward, b);
        }
    }
}

/// Adds learned positions, those from `first` on, to rows as wide as the scratch row `learned`.
fn add_positions(positions: &Matrix<'_>, first: usize, rows: &mut [f32], learned: &mut [f32]) {
    for (index, row) in rows.chunks_exact_mut(learned.len()).enumerate() {
        positions.dequantize_row(first + index, learned);
        row.iter_mut().zip(&*learned).for_each(|(x, p)| *x += *p);
    }
}

/// Factors and terms of a norm.
fn scaling<'w>(config: &Config, norm: Option<&Norm<'w>>) -> Option<Scaling<'w>> {
    norm.map(|norm| Scaling {
        centred: config.design.norm == NormKind::Layer,
        weight: norm.weight,
        bias: optional(norm.bias),
        eps: config.norm_eps,
    })
}

/// Returns a row that may be absent; empty if it is.
fn optional(row: Option<&[F32]>) -> &[F32] {
    row.unwrap_or_default()
}

/// Pairs f32 rows with the part of the int8 buffer that belongs to them.
pub(crate) fn quantized<'a>(
    values: &'a [f32],
    buffer: &'a [Q8Activation],
    width: usize,
) -> Activations<'a> {
    let blocks = values.len() / width * (width / BLOCK);
    Activations {
        values,
        quantized: &buffer[..blocks.min(buffer.len())],
    }
}

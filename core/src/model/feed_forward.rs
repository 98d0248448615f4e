//! The second half of a layer: the projection of what its heads attended to, and the feed-forward layer.

use super::forward::{Buffers, Pass, optional, quantized, scaling};
use super::{FeedForward, Layer};
use crate::compute::{Add, Quantized};
use crate::kernels::vector::Activation;

impl Pass<'_> {
    /// Projects what the heads attended to into `b.normed`, for the tokens that have an output.
    pub(super) fn attention_output(&self, layer: &Layer<'_>, b: &mut Buffers<'_>) {
        let (compute, d, columns) = (self.compute, self.config.d_model, self.config.query_columns());
        let normed = &mut b.normed[self.first * d..self.tokens * d];
        let attended = &mut b.attended[self.first * columns..self.tokens * columns];
        let taker = Quantized::wanted_by(&[&layer.attention_output], b.activations);
        compute.quantize(attended, columns, taker);
        let input = quantized(attended, b.activations, columns);
        compute.linear(input, [(&layer.attention_output, &mut *normed)], b.scratch);
        compute.add_bias(normed, optional(layer.attention_output_bias));
    }

    /// The feed-forward layer, of the tokens that have an output; attention's, which lies in `b.normed`, goes into the residual stream.
    pub(super) fn feed_forward(&self, layer: &Layer<'_>, b: &mut Buffers<'_>) {
        let (compute, config) = (self.compute, self.config);
        let (d, ff) = (config.d_model, config.ff);
        let rows = |width: usize| self.first * width..self.tokens * width;
        let residual = &mut b.residual[rows(d)];
        let normed = &mut b.normed[rows(d)];
        let add = if config.parallel_residual {
            Add::Last
        } else {
            Add::First(scaling(config, layer.attention_post_norm.as_ref()))
        };
        let takers = [layer.gate.as_ref().unwrap_or(&layer.up), &layer.up];
        compute.norm(
            (residual, &mut *normed, d),
            add,
            scaling(config, layer.ff_norm.as_ref()),
            Quantized::wanted_by(&takers, b.activations),
        );
        let input = quantized(normed, b.activations, d);
        let hidden = &mut b.gate[rows(ff)];
        let up = match &layer.gate {
            Some(gate) => {
                let up = &mut b.up[rows(ff)];
                compute.linear(input, [(gate, &mut *hidden), (&layer.up, &mut *up)], b.scratch);
                &*up
            }
            None => {
                compute.linear(input, [(&layer.up, &mut *hidden)], b.scratch);
                compute.add_bias(hidden, optional(layer.up_bias));
                &[]
            }
        };
        let activation = match config.design.feed_forward {
            FeedForward::SwiGlu => Activation::Silu,
            FeedForward::GeGlu | FeedForward::GeluTanh => Activation::GeluTanh,
            FeedForward::Gelu => Activation::Gelu,
        };
        let taker = Quantized::wanted_by(&[&layer.down], b.activations);
        compute.activate(activation, hidden, up, ff, taker);
        let input = quantized(hidden, b.activations, ff);
        compute.linear(input, [(&layer.down, &mut *normed)], b.scratch);
        compute.add_bias(normed, optional(layer.down_bias));
    }
}

//! The feed-forward layer, and before it the projection of attention's output.

use super::{At, optional, quantized};
use crate::features::FAMILIES;
use crate::kernels::Activation;
use crate::model::{FeedForward, FeedForwardKind, Linear};
use crate::plan::Buffers;
use crate::tensor::Matrix;
use crate::workers::Quantized;

impl FeedForward<'_> {
    /// Matrices that take the normed input.
    pub(super) fn takers(&self) -> [&Matrix<'_>; 2] {
        [
            self.gate
                .as_ref()
                .map_or(&self.up.weight, |gate| &gate.weight),
            &self.up.weight,
        ]
    }
}

impl At<'_> {
    /// Projects the output of the heads: `normed = output·attended + bias`, for the tokens that
    /// need an output.
    pub(super) fn attention_output(&self, output: &Linear<'_>, b: &mut Buffers<'_>) {
        let (pass, compute, columns) =
            (self.pass, self.pass.compute, self.config().query_columns());
        let normed = &mut b.normed[pass.rows(self.wanted, self.config().d_model)];
        let attended = &mut b.attended[pass.rows(self.wanted, columns)];
        let taker = Quantized::wanted_by(&[&output.weight], b.activations);
        compute.quantize(attended, columns, taker);
        let input = quantized(attended, b.activations, columns);
        compute.linear(input, [(&output.weight, &mut *normed)], b.kernel_scratch);
        compute.add_bias(normed, optional(output.bias));
    }

    /// Computes `normed = down·f(gate·normed, up·normed) + bias`, for the tokens that need an
    /// output.
    pub(super) fn feed_forward(&self, layer: &FeedForward<'_>, b: &mut Buffers<'_>) {
        let (pass, compute, config) = (self.pass, self.pass.compute, self.config());
        let normed = &mut b.normed[pass.rows(self.wanted, config.d_model)];
        let hidden = &mut b.hidden[pass.rows(self.wanted, config.ff)];
        let input = quantized(normed, b.activations, config.d_model);
        let up = match &layer.gate {
            Some(gate) => {
                let up = &mut b.queries[pass.rows(self.wanted, config.ff)];
                let layers = [(&gate.weight, &mut *hidden), (&layer.up.weight, &mut *up)];
                compute.linear(input, layers, b.kernel_scratch);
                if FAMILIES {
                    compute.add_bias(hidden, optional(gate.bias));
                    compute.add_bias(up, optional(layer.up.bias));
                }
                &*up
            }
            None => {
                let layers = [(&layer.up.weight, &mut *hidden)];
                compute.linear(input, layers, b.kernel_scratch);
                compute.add_bias(hidden, optional(layer.up.bias));
                &[]
            }
        };
        let activation = match layer.kind {
            FeedForwardKind::SwiGlu => Activation::Silu,
            FeedForwardKind::GeGlu | FeedForwardKind::GeluTanh => Activation::GeluTanh,
            FeedForwardKind::Gelu => Activation::Gelu,
        };
        let down = &layer.down;
        let taker = Quantized::wanted_by(&[&down.weight], b.activations);
        compute.activate(activation, hidden, up, config.ff, taker);
        let input = quantized(hidden, b.activations, config.ff);
        compute.linear(input, [(&down.weight, &mut *normed)], b.kernel_scratch);
        compute.add_bias(normed, optional(down.bias));
    }
}

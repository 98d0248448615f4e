//! The stem of an encoder: convolutions over log-mel features (Radford et al., arXiv 2212.04356,
//! section 2.2) or over samples (Jeffries et al., arXiv 2410.15608, section 3.1).
//!
//! A convolution is a linear layer of the frames beside each other. Its outputs are computed a few
//! at a time, from those of the convolution before it: what two of these parts have in common is
//! computed twice, and no buffer grows with the sound.

use core::ops::Range;

use super::{Pass, add_positions, optional};
use crate::cache::CacheMemory;
use crate::kernels::Activation;
use crate::model::{Convolution, Encoder, Linear, Norm, Stem, WIDTHS};
use crate::nn::math;
use crate::plan::{Buffers, ROWS_OF_SAMPLES, stem_hidden_of_samples};
use crate::workers::{Activations, Quantized};

/// Frames of `channels` values, some of those of a whole sound.
struct Frames<'f> {
    values: &'f [f32],
    channels: usize,
    /// Index of the first frame of `values`, in frames of the sound.
    first: usize,
}

impl Frames<'_> {
    /// Writes the frames that `convolution` sees for its output `at` to `row`, channel by channel;
    /// a frame that is not there is zero.
    fn beside_each_other(&self, convolution: Convolution, at: usize, row: &mut [f32]) {
        let Convolution {
            kernel,
            stride,
            reach,
        } = convolution;
        for k in 0..kernel {
            let frame = (at * stride + k).checked_sub(reach + self.first);
            let frame = frame.and_then(|i| self.values.chunks_exact(self.channels).nth(i));
            for c in 0..self.channels {
                row[c * kernel + k] = frame.map_or(0.0, |frame| frame[c]);
            }
        }
    }
}

/// The frames that outputs `outputs` of a convolution see, of `count` in all.
fn seen(convolution: Convolution, outputs: Range<usize>, count: usize) -> Range<usize> {
    let Convolution {
        kernel,
        stride,
        reach,
    } = convolution;
    let first = (outputs.start * stride).saturating_sub(reach);
    first..count.min((outputs.end - 1) * stride + kernel - reach)
}

/// A convolution, with its weights and the function that follows.
struct Step<'s, 'w> {
    convolution: Convolution,
    weights: &'s Linear<'w>,
    activation: Activation,
}

impl Pass<'_> {
    /// Writes the rows of the encoder's first layer to the source's residual stream, and returns
    /// their number. `frames` has rows of as many values as the encoder's input.
    pub(crate) fn stem(
        &self,
        encoder: &Encoder<'_>,
        frames: &[f32],
        caches: &mut CacheMemory<'_>,
        b: &mut Buffers<'_>,
    ) -> usize {
        let rows = &mut *caches.source.rows;
        match &encoder.stem {
            Stem::Features {
                convolutions,
                positions,
                ..
            } => {
                let count = self.stem_of_features(convolutions, frames, rows, b);
                let d = self.model.config.d_model;
                add_positions(positions, 0, &mut rows[..count * d], &mut b.normed[..d]);
                count
            }
            Stem::Samples {
                first,
                norm,
                others,
            } => self.stem_of_samples(first, norm, others, frames, rows, b),
        }
    }

    /// Writes `gelu(conv(gelu(conv(frames))))` to `rows`, and returns the number of rows.
    fn stem_of_features(
        &self,
        weights: &[Linear<'_>; 2],
        frames: &[f32],
        out: &mut [f32],
        b: &mut Buffers<'_>,
    ) -> usize {
        let d = self.model.config.d_model;
        let [first, second] = Convolution::OF_FEATURES;
        let channels = weights[0].weight.cols() / first.kernel;
        let count = first.outputs(frames.len() / channels);
        let rows = second.outputs(count);
        let frames = Frames {
            values: frames,
            channels,
            first: 0,
        };
        for start in (0..rows).step_by(self.plan.options().chunk) {
            let outputs = start..rows.min(start + self.plan.options().chunk);
            let middle = seen(second, outputs.clone(), count);
            let hidden = &mut b.stem_hidden[..middle.len() * d];
            let memory = (&mut *b.stem_input, &mut *b.kernel_scratch);
            let step = Step {
                convolution: first,
                weights: &weights[0],
                activation: Activation::Gelu,
            };
            self.convolve(&step, &frames, middle.clone(), memory, hidden);
            let hidden = Frames {
                values: hidden,
                channels: d,
                first: middle.start,
            };
            let memory = (&mut *b.stem_input, &mut *b.kernel_scratch);
            let step = Step {
                convolution: second,
                weights: &weights[1],
                activation: Activation::Gelu,
            };
            let out = &mut out[outputs.start * d..outputs.end * d];
            self.convolve(&step, &hidden, outputs, memory, out);
        }
        rows
    }

    /// Writes `gelu(conv(gelu(conv(norm(tanh(conv(samples)))))))` to `out`, and returns the number
    /// of rows. The norm is one of all values of the whole sound, so that the first convolution is
    /// computed twice: for the mean and variance, and for what follows. It is a fiftieth of the
    /// encoder's work.
    fn stem_of_samples(
        &self,
        first: &Linear<'_>,
        norm: &Norm<'_>,
        others: &[Linear<'_>; 2],
        samples: &[f32],
        out: &mut [f32],
        b: &mut Buffers<'_>,
    ) -> usize {
        let (d, wide) = (
            self.model.config.d_model,
            WIDTHS * self.model.config.d_model,
        );
        let [of_samples, second, third] = Convolution::OF_SAMPLES;
        let count = of_samples.outputs(samples.len());
        let middle_count = second.outputs(count);
        let rows = third.outputs(middle_count);
        let samples = Frames {
            values: samples,
            channels: 1,
            first: 0,
        };
        let (narrow, wider) = b.stem_hidden.split_at_mut(stem_hidden_of_samples(d).0);
        let step = Step {
            convolution: of_samples,
            weights: first,
            activation: Activation::Tanh,
        };
        let mut moments = Moments::default();
        for start in (0..count).step_by(narrow.len() / d) {
            let frames = start..count.min(start + narrow.len() / d);
            let hidden = &mut narrow[..frames.len() * d];
            let memory = (&mut *b.stem_input, &mut *b.kernel_scratch);
            self.convolve(&step, &samples, frames, memory, hidden);
            moments.add(hidden);
        }
        let (mean, inverse) = moments.mean_and_inverse(self.model.config.norm_eps);
        for start in (0..rows).step_by(ROWS_OF_SAMPLES) {
            let outputs = start..rows.min(start + ROWS_OF_SAMPLES);
            let middle = seen(third, outputs.clone(), middle_count);
            let frames = seen(second, middle.clone(), count);
            let hidden = &mut narrow[..frames.len() * d];
            let memory = (&mut *b.stem_input, &mut *b.kernel_scratch);
            self.convolve(&step, &samples, frames.clone(), memory, hidden);
            for row in hidden.chunks_exact_mut(d) {
                for (c, x) in row.iter_mut().enumerate() {
                    let bias = norm.bias.map_or(0.0, |bias| bias[c].to_f32());
                    *x = (*x - mean) * inverse * norm.weight[c].to_f32() + bias;
                }
            }
            let frames = Frames {
                values: hidden,
                channels: d,
                first: frames.start,
            };
            let hidden = &mut wider[..middle.len() * wide];
            let memory = (&mut *b.stem_input, &mut *b.kernel_scratch);
            let step = Step {
                convolution: second,
                weights: &others[0],
                activation: Activation::Gelu,
            };
            self.convolve(&step, &frames, middle.clone(), memory, hidden);
            let hidden = Frames {
                values: hidden,
                channels: wide,
                first: middle.start,
            };
            let memory = (&mut *b.stem_input, &mut *b.kernel_scratch);
            let step = Step {
                convolution: third,
                weights: &others[1],
                activation: Activation::Gelu,
            };
            let out = &mut out[outputs.start * d..outputs.end * d];
            self.convolve(&step, &hidden, outputs, memory, out);
        }
        rows
    }

    /// Computes `out = f(conv(frames) + bias)`: the outputs `outputs`.
    fn convolve(
        &self,
        step: &Step<'_, '_>,
        frames: &Frames<'_>,
        outputs: Range<usize>,
        (input, scratch): (&mut [f32], &mut [u8]),
        out: &mut [f32],
    ) {
        let weight = &step.weights.weight;
        let (columns, width, chunk) = (weight.cols(), weight.rows(), self.plan.options().chunk);
        for (part, out) in out.chunks_mut(chunk * width).enumerate() {
            let rows = input[..out.len() / width * columns].chunks_exact_mut(columns);
            for (row, at) in rows.zip(outputs.start + part * chunk..) {
                frames.beside_each_other(step.convolution, at, row);
            }
            let input = Activations {
                values: &input[..out.len() / width * columns],
                quantized: &[],
            };
            let layers = [(weight, &mut *out)];
            self.compute.linear(input, layers, scratch);
            self.compute.add_bias(out, optional(step.weights.bias));
            let unused = Quantized {
                buffer: &mut [],
                wanted: false,
            };
            self.compute
                .activate(step.activation, out, &[], width, unused);
        }
    }
}

/// Sums from which the mean and variance of all values follow.
#[derive(Default)]
struct Moments {
    count: usize,
    sum: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, values: &[f32]) {
        self.count += values.len();
        for x in values {
            let x = f64::from(*x);
            self.sum += x;
            self.squares += x * x;
        }
    }

    /// The mean, and 1 over the square root of the variance and `eps`.
    fn mean_and_inverse(&self, eps: f32) -> (f32, f32) {
        let count = self.count.max(1) as f64;
        let mean = self.sum / count;
        let variance = (self.squares / count - mean * mean).max(0.0);
        (mean as f32, 1.0 / math::sqrt(variance as f32 + eps))
    }
}

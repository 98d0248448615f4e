//! The stem of an encoder: two convolutions over frames, the second of which takes every second
//! frame (Radford et al., arXiv 2212.04356, section 2.2).
//!
//! A convolution is a linear layer of the frames beside each other: of frames `t - 1`, `t` and
//! `t + 1`, with zeros before the first frame and after the last one.

use core::ops::Range;

use super::{Pass, add_positions, optional};
use crate::cache::CacheMemory;
use crate::kernels::Activation;
use crate::model::{Encoder, EncoderConfig, Linear};
use crate::plan::Buffers;
use crate::workers::{Activations, Quantized};

/// Frames around the one at which a convolution's output is.
const REACH: usize = EncoderConfig::KERNEL / 2;

/// Frames of `channels` values, some of those of a whole sound.
struct Frames<'f> {
    values: &'f [f32],
    channels: usize,
    /// Index of the first frame of `values`, in frames of the sound.
    first: usize,
}

impl Frames<'_> {
    /// Writes frames `at - 1`, `at` and `at + 1` to `row`, channel by channel; a frame that is not
    /// there is zero.
    fn beside_each_other(&self, at: usize, row: &mut [f32]) {
        for k in 0..EncoderConfig::KERNEL {
            let frame = (at + k).checked_sub(REACH + self.first);
            let frame = frame.and_then(|i| self.values.chunks_exact(self.channels).nth(i));
            for c in 0..self.channels {
                row[c * EncoderConfig::KERNEL + k] = frame.map_or(0.0, |frame| frame[c]);
            }
        }
    }
}

impl Pass<'_> {
    /// Writes `x = gelu(conv(gelu(conv(frames)))) + positions` to the source's residual stream, and
    /// returns the number of its rows. `frames` has rows of the encoder's mel bands.
    pub(crate) fn stem(
        &self,
        encoder: &Encoder<'_>,
        frames: &[f32],
        caches: &mut CacheMemory<'_>,
        b: &mut Buffers<'_>,
    ) -> usize {
        let (d, stride) = (self.model.config.d_model, EncoderConfig::STRIDE);
        let channels = encoder.stem[0].weight.cols() / EncoderConfig::KERNEL;
        let frames = Frames {
            values: frames,
            channels,
            first: 0,
        };
        let count = frames.values.len() / channels;
        let rows = count.div_ceil(stride);
        let chunk = self.plan.options().chunk;
        for start in (0..rows).step_by(chunk) {
            let end = rows.min(start + chunk);
            // The second convolution sees a frame before its first one and one after its last.
            let first = (start * stride).saturating_sub(REACH);
            let last = count.min((end - 1) * stride + REACH + 1);
            let hidden = &mut b.stem_hidden[..(last - first) * d];
            for (at, out) in (first..last)
                .step_by(chunk)
                .zip(hidden.chunks_mut(chunk * d))
            {
                let of_frames = at..last.min(at + chunk);
                let memory = (&mut *b.stem_input, &mut *b.kernel_scratch);
                self.convolve(&encoder.stem[0], &frames, (of_frames, 1), memory, out);
            }
            let hidden = Frames {
                values: hidden,
                channels: d,
                first,
            };
            let out = &mut caches.source.rows[start * d..end * d];
            let memory = (&mut *b.stem_input, &mut *b.kernel_scratch);
            self.convolve(&encoder.stem[1], &hidden, (start..end, stride), memory, out);
            add_positions(&encoder.positions, start, out, &mut b.normed[..d]);
        }
        rows
    }

    /// Computes `out = gelu(conv(frames) + bias)` at frames `outputs·stride`.
    fn convolve(
        &self,
        conv: &Linear<'_>,
        frames: &Frames<'_>,
        (outputs, stride): (Range<usize>, usize),
        (input, scratch): (&mut [f32], &mut [u8]),
        out: &mut [f32],
    ) {
        let (columns, width) = (conv.weight.cols(), conv.weight.rows());
        let input = &mut input[..outputs.len() * columns];
        for (at, row) in outputs.zip(input.chunks_exact_mut(columns)) {
            frames.beside_each_other(at * stride, row);
        }
        let input = Activations {
            values: input,
            quantized: &[],
        };
        let layers = [(&conv.weight, &mut *out)];
        self.compute.linear(input, layers, scratch);
        self.compute.add_bias(out, optional(conv.bias));
        let unused = Quantized {
            buffer: &mut [],
            wanted: false,
        };
        self.compute
            .activate(Activation::Gelu, out, &[], width, unused);
    }
}

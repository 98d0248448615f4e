//! An encoder: the stack of layers that sees its whole input, and whose output the cross-attention
//! of the other layers reads.

use super::names::Stack;
use super::tensors::Tensors;
use super::{Config, Layer, Linear, ModelError, Norm};
use crate::const_fn::tri;
use crate::gguf::Gguf;
use crate::quant::F32;
use crate::speech::mel::MelShape;
use crate::tensor::Matrix;

/// Facts of an encoder. Its layers have the width, the heads and the feed-forward layers of the
/// decoder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct EncoderConfig {
    /// Number of layers.
    pub layers: usize,
    /// Largest number of rows of its output.
    pub positions: usize,
    /// Input frames: log-mel features of sound. There are [`EncoderConfig::STRIDE`] frames for each
    /// row of the output.
    pub frames: MelShape,
}

impl EncoderConfig {
    /// Number of input frames for each row of the output: the stride of the second convolution.
    pub const STRIDE: usize = 2;

    /// Number of neighbouring frames that a convolution of the stem sees at once.
    pub const KERNEL: usize = 3;

    /// Largest number of input frames.
    pub const fn most_frames(&self) -> usize {
        self.positions.saturating_mul(EncoderConfig::STRIDE)
    }

    /// Number of samples that the largest number of frames takes.
    pub const fn most_samples(&self) -> usize {
        self.most_frames().saturating_mul(self.frames.hop())
    }
}

/// An encoder's weights.
#[derive(Clone, Copy)]
pub struct Encoder<'w> {
    /// One entry for each layer.
    pub layers: &'w [Layer<'w>],
    /// Convolutions over frames, each followed by GELU: `d_model x (mels·3)` with stride 1, then
    /// `d_model x (d_model·3)` with stride 2. Column `c·3 + k` belongs to channel `c` of frame
    /// `k - 1` around the output's.
    pub stem: [Linear<'w>; 2],
    /// `positions x d_model`: row `i` is added to the stem's output at position `i`.
    pub positions: Matrix<'w>,
    /// Norm of the output.
    pub norm: Norm<'w>,
    /// `mels x bins`: the weights of a spectrum's bins in each mel band.
    pub filters: &'w [F32],
    /// `n_fft`: factors of a frame's samples.
    pub window: &'w [F32],
}

impl<'w> Encoder<'w> {
    pub(super) const fn read(
        file: &Gguf<'w>,
        config: &Config,
        facts: &EncoderConfig,
        layers: &'w [Layer<'w>],
    ) -> Result<Encoder<'w>, ModelError> {
        let of = Tensors::of_model(file, config.design.naming, Stack::Encoder);
        let (d, kernel) = (config.d_model, EncoderConfig::KERNEL);
        let (bands, bins) = (facts.frames.mels(), facts.frames.bins());
        let first = ["enc.conv.0.weight", "enc.conv.0.bias"];
        let second = ["enc.conv.1.weight", "enc.conv.1.bias"];
        Ok(Encoder {
            layers,
            stem: [
                tri!(Linear::read_convolution(&of, first, d, bands, kernel)),
                tri!(Linear::read_convolution(&of, second, d, d, kernel)),
            ],
            positions: tri!(of.matrix("position_embd.weight", facts.positions, d)),
            norm: tri!(of.output_norm(config.design.norm, d)),
            filters: tri!(of.rows_of_f32("frontend.mel_filterbank", bands, bins)),
            window: tri!(of.rows_of_f32("frontend.window", 1, facts.frames.n_fft())),
        })
    }
}

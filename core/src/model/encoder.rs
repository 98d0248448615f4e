//! An encoder: the stack of layers that sees its whole input, and whose output the cross-attention
//! of the other layers reads.

use super::names::Stack;
use super::tensors::Tensors;
use super::{Config, FeedForwardKind, Layer, Linear, ModelError, Norm, NormKind};
use crate::const_fn::tri;
use crate::gguf::Gguf;
use crate::quant::F32;
use crate::speech::SAMPLE_RATE;
use crate::speech::mel::MelShape;
use crate::tensor::Matrix;

/// Facts of an encoder. Its layers have the width, the heads and the widths of the feed-forward
/// layers of the decoder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct EncoderConfig {
    /// Number of layers.
    pub layers: usize,
    /// Largest number of rows of its output.
    pub positions: usize,
    /// Part of a sound that it sees.
    pub input: EncoderInput,
    /// Equation of its feed-forward layers.
    pub feed_forward: FeedForwardKind,
}

/// The part of a sound that an encoder sees, and with it the convolutions before its first layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum EncoderInput {
    /// Log-mel features, by two convolutions; learned positions.
    Features(MelShape),
    /// Samples, by three convolutions. Queries and keys are rotated
    /// as the decoder's are.
    Samples,
}

/// A convolution over frames: its output at `i` is a linear function of frames `i·stride - reach`
/// to `i·stride - reach + kernel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Convolution {
    /// Number of frames that it sees at once.
    pub(crate) kernel: usize,
    /// Distance of these frames from one output to the next.
    pub(crate) stride: usize,
    /// Number of frames of zeros before the first frame and after the last one.
    pub(crate) reach: usize,
}

impl Convolution {
    /// Whisper's (Radford et al., arXiv 2212.04356, section 2.2).
    pub(crate) const OF_FEATURES: [Convolution; 2] = [
        Convolution {
            kernel: 3,
            stride: 1,
            reach: 1,
        },
        Convolution {
            kernel: 3,
            stride: 2,
            reach: 1,
        },
    ];

    /// Moonshine's (Jeffries et al., arXiv 2410.15608, section 3.1): 384 samples for each row.
    pub(crate) const OF_SAMPLES: [Convolution; 3] = [
        Convolution {
            kernel: 127,
            stride: 64,
            reach: 0,
        },
        Convolution {
            kernel: 7,
            stride: 3,
            reach: 0,
        },
        Convolution {
            kernel: 3,
            stride: 2,
            reach: 0,
        },
    ];

    /// Number of outputs of `frames` frames.
    pub(crate) const fn outputs(self, frames: usize) -> usize {
        match (frames + 2 * self.reach).checked_sub(self.kernel) {
            Some(last) => last / self.stride + 1,
            None => 0,
        }
    }

    /// Smallest number of frames that has `outputs` outputs, if none is beyond the first and last.
    pub(crate) const fn frames(self, outputs: usize) -> usize {
        match outputs.checked_sub(1) {
            Some(last) => last.saturating_mul(self.stride).saturating_add(self.kernel),
            None => 0,
        }
    }
}

/// Number of features of a frame after the second of the convolutions of samples, in widths of the
/// model.
pub(crate) const WIDTHS: usize = 2;

impl EncoderConfig {
    /// Number of values in a row of the encoder's input: mel bands, or one sample.
    pub const fn input_width(&self) -> usize {
        match &self.input {
            EncoderInput::Features(mel) => mel.mels(),
            EncoderInput::Samples => 1,
        }
    }

    /// Samples between two rows of the input.
    pub const fn hop(&self) -> usize {
        match &self.input {
            EncoderInput::Features(mel) => mel.hop(),
            EncoderInput::Samples => 1,
        }
    }

    /// Number of rows of the output, for an input of `frames` rows.
    pub const fn rows(&self, frames: usize) -> usize {
        match &self.input {
            EncoderInput::Features(_) => {
                let [first, second] = Convolution::OF_FEATURES;
                second.outputs(first.outputs(frames))
            }
            EncoderInput::Samples => {
                let [first, second, third] = Convolution::OF_SAMPLES;
                third.outputs(second.outputs(first.outputs(frames)))
            }
        }
    }

    /// Largest number of rows of the input.
    pub const fn most_frames(&self) -> usize {
        match &self.input {
            EncoderInput::Features(_) => self
                .positions
                .saturating_mul(Convolution::OF_FEATURES[1].stride),
            // Samples after the last row's are heard by none.
            EncoderInput::Samples => EncoderConfig::samples(self.positions.saturating_add(1)) - 1,
        }
    }

    /// Smallest number of rows of the input; a shorter input is followed by zeros.
    pub const fn least_frames(&self) -> usize {
        match &self.input {
            EncoderInput::Features(_) => 1,
            EncoderInput::Samples => EncoderConfig::samples(1),
        }
    }

    /// Smallest number of samples of which there are `rows` rows of the output.
    const fn samples(rows: usize) -> usize {
        let [first, second, third] = Convolution::OF_SAMPLES;
        first.frames(second.frames(third.frames(rows)))
    }

    /// Number of samples that the largest number of frames takes.
    pub const fn most_samples(&self) -> usize {
        self.most_frames().saturating_mul(self.hop())
    }

    /// Seconds of the longest sound.
    pub const fn most_seconds(&self) -> usize {
        self.most_samples() / SAMPLE_RATE
    }
}

/// An encoder's weights.
#[derive(Clone, Copy)]
pub struct Encoder<'w> {
    /// One entry for each layer.
    pub layers: &'w [Layer<'w>],
    /// The convolutions before the first layer.
    pub stem: Stem<'w>,
    /// Norm of the output.
    pub norm: Norm<'w>,
}

/// Convolutions, from an encoder's input to the rows of its first layer. Column `c·kernel + k` of a
/// matrix belongs to value `c` of the `k`-th frame that the convolution sees at once.
#[derive(Clone, Copy)]
pub enum Stem<'w> {
    /// Of log-mel features.
    Features {
        /// `d_model x (mels·3)`, then `d_model x (d_model·3)`; GELU follows each.
        convolutions: [Linear<'w>; 2],
        /// `positions x d_model`: row `i` is added to the output at position `i`.
        positions: Matrix<'w>,
        /// `mels x bins`: the weights of a spectrum's bins in each mel band.
        filters: &'w [F32],
        /// `n_fft`: factors of a frame's samples.
        window: &'w [F32],
    },
    /// Of samples.
    Samples {
        /// `d_model x 127`; tanh follows.
        first: Linear<'w>,
        /// Factors and terms of each value of a frame, after all values of all frames were brought
        /// to mean 0 and variance 1 (Wu and He, arXiv 1803.08494, equation 1, with one group).
        norm: Norm<'w>,
        /// `2·d_model x (d_model·7)`, then `d_model x (2·d_model·3)`; GELU follows each.
        others: [Linear<'w>; 2],
    },
}

impl<'w> Encoder<'w> {
    pub(super) const fn read(
        file: &Gguf<'w>,
        config: &Config,
        facts: &EncoderConfig,
        layers: &'w [Layer<'w>],
    ) -> Result<Encoder<'w>, ModelError> {
        let of = Tensors::of_model(file, config.design.naming, Stack::Encoder);
        Ok(Encoder {
            layers,
            stem: tri!(Stem::read(&of, config.d_model, facts)),
            norm: tri!(of.output_norm(config.design.norm, config.d_model)),
        })
    }
}

impl<'w> Stem<'w> {
    const fn read(
        of: &Tensors<'_, 'w>,
        d: usize,
        facts: &EncoderConfig,
    ) -> Result<Stem<'w>, ModelError> {
        let names = [
            ["enc.conv.0.weight", "enc.conv.0.bias"],
            ["enc.conv.1.weight", "enc.conv.1.bias"],
            ["enc.conv.2.weight", "enc.conv.2.bias"],
        ];
        match &facts.input {
            EncoderInput::Features(mel) => {
                let [first, second] = Convolution::OF_FEATURES;
                let (bands, bins) = (mel.mels(), mel.bins());
                Ok(Stem::Features {
                    convolutions: [
                        tri!(Linear::read_convolution(
                            of,
                            names[0],
                            d,
                            bands,
                            first.kernel
                        )),
                        tri!(Linear::read_convolution(of, names[1], d, d, second.kernel)),
                    ],
                    positions: tri!(of.matrix("position_embd.weight", facts.positions, d)),
                    filters: tri!(of.rows_of_f32("frontend.mel_filterbank", bands, bins)),
                    window: tri!(of.rows_of_f32("frontend.window", 1, mel.n_fft())),
                })
            }
            EncoderInput::Samples => {
                let [first, second, third] = Convolution::OF_SAMPLES;
                let wide = WIDTHS * d;
                let norm = ["enc.conv.norm.weight", "enc.conv.norm.bias"];
                Ok(Stem::Samples {
                    first: tri!(Linear::read_convolution(of, names[0], d, 1, first.kernel)),
                    norm: tri!(of.present_norm(NormKind::Layer, norm, d)),
                    others: [
                        tri!(Linear::read_convolution(
                            of,
                            names[1],
                            wide,
                            d,
                            second.kernel
                        )),
                        tri!(Linear::read_convolution(
                            of,
                            names[2],
                            d,
                            wide,
                            third.kernel
                        )),
                    ],
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_samples_belong_together() {
        let config = EncoderConfig {
            layers: 1,
            positions: 1248,
            input: EncoderInput::Samples,
            feed_forward: FeedForwardKind::Gelu,
        };
        assert_eq!(config.least_frames(), 895);
        assert_eq!(
            [894, 895, 895 + 383, 895 + 384].map(|n| config.rows(n)),
            [0, 1, 1, 2]
        );
        assert_eq!(config.rows(config.most_frames()), 1248);
        assert_eq!(config.rows(config.most_frames() + 1), 1249);
        assert_eq!(config.most_seconds(), 30);
        let mel = MelShape::new(400, 160, 80).unwrap();
        let config = EncoderConfig {
            positions: 1500,
            input: EncoderInput::Features(mel),
            ..config
        };
        assert_eq!(
            [1, 2, 3, 3000].map(|frames| config.rows(frames)),
            [1, 1, 2, 1500]
        );
        assert_eq!(config.most_samples(), 480_000);
    }
}

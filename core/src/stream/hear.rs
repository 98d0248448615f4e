//! From sound to what cross-attention reads.

use super::{Stream, StreamError};
use crate::features::OfFamilies;
use crate::forward::Pass;
use crate::model::{EncoderInput, Model, Stem};
use crate::plan::Buffers;
use crate::speech::mel::{self, LogMel};

impl Stream<'_> {
    /// Encodes `frames`, rows of as many values as the encoder's input has
    /// ([`EncoderConfig::input_width`](crate::model::EncoderConfig::input_width)), and keeps what
    /// cross-attention reads of them until the next call. Tokens that were fed before are not
    /// forgotten: [`Stream::reset`] does that.
    ///
    /// # Errors
    /// [`StreamError::NoEncoder`]; [`StreamError::NothingToHear`] without frames, or with fewer
    /// than give one row
    /// ([`EncoderConfig::least_frames`](crate::model::EncoderConfig::least_frames));
    /// [`StreamError::Rows`] if they are not whole; [`StreamError::SourceTooLong`] if there are
    /// more than the model's positions take. Then nothing has changed. [`StreamError::NotFinite`]:
    /// then nothing is encoded.
    pub fn encode(&mut self, frames: &[f32]) -> Result<(), StreamError> {
        let encoder = self.model.encoder.get();
        let (Some(encoder), Some(facts)) = (encoder, self.model.config.encoder.get()) else {
            return Err(StreamError::NoEncoder);
        };
        let (width, given) = (facts.input_width(), frames.len());
        if !given.is_multiple_of(width) {
            return Err(StreamError::Rows { width, given });
        }
        match given / width {
            frames if frames < facts.least_frames() => return Err(StreamError::NothingToHear),
            frames if frames > facts.most_frames() => {
                return Err(StreamError::SourceTooLong {
                    frames,
                    most: facts.most_frames(),
                });
            }
            _ => {}
        }
        let pass = Pass {
            compute: &self.compute,
            model: &self.model,
            plan: &self.plan,
            reaches: &self.reaches,
            geometry: None,
            tokens: 0,
            wanted: 0,
        };
        let (caches, b) = (&mut self.caches, &mut self.buffers);
        let rows = pass.stem(encoder, frames, caches, b);
        if pass.encode(encoder, rows, caches, b) {
            Ok(())
        } else {
            Err(StreamError::NotFinite { position: 0 })
        }
    }

    /// Encodes a sound: its log-mel features if the encoder sees those, and then
    /// [`Stream::encode`]. The sound has one channel of
    /// [`SAMPLE_RATE`](crate::speech::SAMPLE_RATE) samples a second, from -1 to 1. It is followed
    /// by zeros: for features up to the longest sound that the encoder takes, else up to the
    /// shortest.
    ///
    /// # Errors
    /// As [`Stream::encode`], for the frames that the samples begin;
    /// [`StreamError::SoundNotFinite`] if a sample is NaN or infinite; then nothing has changed.
    pub fn hear(&mut self, samples: &[f32]) -> Result<(), StreamError> {
        let Some(facts) = self.model.config.encoder.get() else {
            return Err(StreamError::NoEncoder);
        };
        if samples.len() > facts.most_samples() {
            return Err(StreamError::SourceTooLong {
                frames: samples.len().div_ceil(facts.hop()),
                most: facts.most_frames(),
            });
        }
        if samples.is_empty() {
            return Err(StreamError::NothingToHear);
        }
        if samples.iter().any(|sample| !sample.is_finite()) {
            return Err(StreamError::SoundNotFinite);
        }
        let Some(front_end) = self.front_end.get() else {
            return self.hear_samples(samples, facts.least_frames());
        };
        let padded = facts.most_samples();
        let features = core::mem::take(&mut self.buffers.features);
        let scratch = &mut *self.buffers.mel_scratch;
        self.compute
            .log_mel(front_end, (samples, padded), scratch, features);
        // The power of samples far beyond 1 may be infinite.
        let encoded = if features.iter().all(|x| x.is_finite()) {
            mel::normalise(features);
            self.encode(features)
        } else {
            Err(StreamError::SoundNotFinite)
        };
        self.buffers.features = features;
        encoded
    }

    /// Encodes samples, followed by zeros if they are fewer than `least`.
    fn hear_samples(&mut self, samples: &[f32], least: usize) -> Result<(), StreamError> {
        if samples.len() >= least {
            return self.encode(samples);
        }
        let features = core::mem::take(&mut self.buffers.features);
        let (sound, zeros) = features.split_at_mut(samples.len());
        sound.copy_from_slice(samples);
        zeros.fill(0.0);
        let encoded = self.encode(features);
        self.buffers.features = features;
        encoded
    }
}

/// Creates the transform from sound to features, for an encoder that sees those.
pub(super) fn front_end<'a>(
    model: &Model<'a>,
    buffers: &mut Buffers<'a>,
) -> OfFamilies<LogMel<'a>> {
    let (Some(encoder), Some(facts)) = (model.encoder.get(), model.config.encoder.get()) else {
        return OfFamilies::NONE;
    };
    let (
        Stem::Features {
            filters, window, ..
        },
        EncoderInput::Features(shape),
    ) = (encoder.stem, facts.input)
    else {
        return OfFamilies::NONE;
    };
    let twiddles = core::mem::take(&mut buffers.mel_twiddles);
    let spans = core::mem::take(&mut buffers.mel_spans);
    match LogMel::new(shape, filters, window, twiddles, spans) {
        Ok(front_end) => OfFamilies::some(front_end),
        Err(_) => unreachable!("the model's tensors have the shapes of its facts"),
    }
}

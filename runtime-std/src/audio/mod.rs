//! Sounds as a model hears them: one channel, [`RATE`] samples a second, block by block.
//!
//! A [`Sound`] is a file or a pipe that is decoded while it is read. Its memory does not grow with
//! its length: it holds a packet, a block of the resampler, and what the container says of itself
//! at its start (tags, and in MP4 files the table of packets, a few bytes a packet).
//!
//! ```
//! use brooklet::audio::{AudioError, RATE, RawFormat, Sound};
//!
//! # fn main() -> Result<(), AudioError> {
//! let pipe: &[u8] = &[0, 0, 0, 64, 0, 128];
//! let mut sound = Sound::raw(pipe, RawFormat::S16le);
//! let mut block = [0.0; RATE as usize];
//! let count = sound.read(&mut block)?;
//! assert_eq!(block[..count], [0.0, 0.5, -1.0]);
//! # Ok(())
//! # }
//! ```
//!
//! # Formats
//!
//! WAV (integers of 8 to 32 bits, f32, f64, A-law, mu-law), FLAC, MP3, Vorbis in Ogg, AAC-LC and
//! ALAC in MP4 and AAC-LC alone (ADTS), and any of these codecs in Matroska and WebM. Which it is
//! is read from the bytes, not from the name. The decoders are [`symphonia`]'s.
//!
//! Channels become one by their mean, before resampling; samples that a codec has added at the
//! start and the end are dropped where the container counts them (not so AAC: it starts with 1024
//! or more of them).
//!
//! # Modules, lowest first
//!
//! - `error`: what may go wrong.
//! - `resample`: from any rate to [`RATE`].
//! - `raw`, `decode`: from bytes to samples, without and with a container.

mod decode;
mod error;
mod raw;
mod resample;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use symphonia::core::io::{MediaSource, ReadOnlySource};

use decode::Decoder;
pub use error::AudioError;
use raw::Raw;
pub use raw::RawFormat;
use resample::Resampler;

/// Samples a second of every sound.
pub const RATE: u32 = 16_000;

/// Lowest sample rate of a file, in Hz.
const LOWEST_RATE: u32 = 1_000;

/// Highest sample rate of a file, in Hz.
const HIGHEST_RATE: u32 = 384_000;

/// Largest magnitude of a sample that is taken for a sound. Full scale is 1; some programs write
/// floating-point numbers on the scale of integers.
const LOUDEST: f32 = 1e10;

/// A sound that is read once, from its start to its end.
///
/// After an error that is [`AudioError::Damaged`] it may be read on: silence stands for what was
/// lost, so that times stay right. After any other error it is at its end.
pub struct Sound {
    source: Source,
    /// Samples from `next` on have not been read.
    ready: Vec<f32>,
    next: usize,
    /// The error that comes after the samples that are ready.
    fault: Option<AudioError>,
    ended: bool,
}

enum Source {
    Raw { raw: Raw, samples: u64 },
    Coded(Box<Coded>),
}

/// A sound file, and how far it was read.
struct Coded {
    decoder: Decoder,
    /// The samples of one packet.
    mono: Vec<f32>,
    /// The sample rate of the packets; 0 before the first.
    rate: u32,
    /// `None` if the packets have the right rate.
    resampler: Option<Resampler>,
    /// Frames decoded, in packets and in place of them.
    frames: u64,
}

impl Sound {
    /// Opens a sound file.
    ///
    /// # Errors
    /// If the file cannot be read, is no sound file, or has a codec that cannot be decoded.
    pub fn open(path: &Path) -> Result<Sound, AudioError> {
        let file = File::open(path)?;
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
        }
        let sound = Sound::coded(Box::new(file)).map(Sound::begun);
        let is_cut = match &sound {
            Ok(sound) => sound.ready.is_empty() && (sound.ended || sound.fault.is_some()),
            Err(error) => matches!(
                error,
                AudioError::Damaged { .. }
                    | AudioError::Truncated { .. }
                    | AudioError::Unsupported { .. }
            ),
        };
        // Of a file that is cut off, the decoders for MP4 and Matroska read nothing, because they
        // look at its end first; of a pipe they read what is there.
        if is_cut && kind.is_file() {
            let piped = Sound::stream(File::open(path)?).map(Sound::begun);
            if let Ok(piped) = piped
                && !piped.ready.is_empty()
            {
                return Ok(piped);
            }
        }
        sound
    }

    /// Opens a sound file that arrives through a pipe, such as standard input. An MP4 file whose
    /// table of packets stands at its end cannot be read like this.
    ///
    /// # Errors
    /// As [`Sound::open`].
    pub fn stream(reader: impl Read + Send + Sync + 'static) -> Result<Sound, AudioError> {
        Sound::coded(Box::new(ReadOnlySource::new(reader)))
    }

    /// A sound of samples without a container, one channel at [`RATE`].
    pub fn raw(reader: impl Read + Send + 'static, format: RawFormat) -> Sound {
        Sound::new(Source::Raw {
            raw: Raw::new(Box::new(reader), format),
            samples: 0,
        })
    }

    fn coded(source: Box<dyn MediaSource>) -> Result<Sound, AudioError> {
        Ok(Sound::new(Source::Coded(Box::new(Coded {
            decoder: Decoder::open(source)?,
            mono: Vec::new(),
            rate: 0,
            resampler: None,
            frames: 0,
        }))))
    }

    /// This sound with its first samples, or an error, ready.
    fn begun(mut self) -> Sound {
        while self.ready.is_empty() && self.fault.is_none() && !self.ended {
            self.fill();
        }
        self
    }

    fn new(source: Source) -> Sound {
        Sound {
            source,
            ready: Vec::new(),
            next: 0,
            fault: None,
            ended: false,
        }
    }

    /// Reads samples until `out` is full or the sound ends, and returns their number: 0 at the end,
    /// and from then on. Full scale is 1, which decoded samples may exceed a little.
    ///
    /// # Errors
    /// After all samples before the fault were read (before damage, all but what the resampler
    /// sees ahead, 16 ms): if the sound is damaged, cut off, or cannot be read, if a sample is no
    /// number, or if the sample rate is too low, too high or changes.
    pub fn read(&mut self, out: &mut [f32]) -> Result<usize, AudioError> {
        let mut count = 0;
        while count < out.len() {
            let ready = &self.ready[self.next..];
            if !ready.is_empty() {
                let now = ready.len().min(out.len() - count);
                out[count..count + now].copy_from_slice(&ready[..now]);
                count += now;
                self.next += now;
                continue;
            }
            if self.fault.is_some() && count > 0 {
                break;
            }
            if let Some(fault) = self.fault.take() {
                return Err(fault);
            }
            if self.ended {
                break;
            }
            self.fill();
        }
        Ok(count)
    }

    /// The length, if the container tells it: a claim, for MP3 files often an estimate.
    pub fn seconds(&self) -> Option<f64> {
        match &self.source {
            Source::Raw { .. } => None,
            Source::Coded(coded) => coded.decoder.seconds(),
        }
    }

    /// Makes samples ready, or notes an error or the end.
    fn fill(&mut self) {
        self.ready.clear();
        self.next = 0;
        let more = match &mut self.source {
            Source::Raw { raw, samples } => {
                let read = raw.read(&mut self.ready);
                let sound = cut_at_noise(&mut self.ready);
                *samples += self.ready.len() as u64;
                let seconds = *samples as f64 / f64::from(RATE);
                match read {
                    _ if !sound => Err(AudioError::Sample { seconds }),
                    Ok(more) => Ok(more),
                    Err(error) => Err(raw::explain(error, seconds)),
                }
            }
            Source::Coded(coded) => coded.read(&mut self.ready),
        };
        self.ended |= !matches!(more, Ok(true) | Err(AudioError::Damaged { .. }));
        self.fault = more.err();
    }
}

impl Coded {
    /// Appends the samples of one packet to `out`, perhaps none; returns false at the end.
    fn read(&mut self, out: &mut Vec<f32>) -> Result<bool, AudioError> {
        let read = match self.decoder.next(&mut self.mono) {
            Ok(Some(rate)) => self.take(rate, out).map(|()| true),
            Ok(None) => match self.decoder.promised() {
                Some(promised) if self.seconds() < promised => Err(AudioError::Truncated {
                    seconds: self.seconds(),
                }),
                _ => Ok(false),
            },
            Err(fault) => {
                let error = fault.at(self.seconds());
                if matches!(error, AudioError::Damaged { .. }) {
                    self.mono.resize(self.decoder.lost(), 0.0);
                    self.push(out);
                }
                Err(error)
            }
        };
        let goes_on = matches!(read, Ok(true) | Err(AudioError::Damaged { .. }));
        if !goes_on && let Some(resampler) = &mut self.resampler {
            resampler.finish(out);
        }
        read
    }

    /// Takes the samples of a packet.
    fn take(&mut self, rate: u32, out: &mut Vec<f32>) -> Result<(), AudioError> {
        if self.rate == 0 {
            self.rate = rate;
            if rate != RATE {
                self.resampler = Some(Resampler::new(rate)?);
            }
        }
        if self.rate != rate {
            return Err(AudioError::Rate { rate });
        }
        let sound = cut_at_noise(&mut self.mono);
        self.push(out);
        let seconds = self.seconds();
        sound.then_some(()).ok_or(AudioError::Sample { seconds })
    }

    /// Brings the samples of a packet to [`RATE`].
    fn push(&mut self, out: &mut Vec<f32>) {
        self.frames += self.mono.len() as u64;
        match &mut self.resampler {
            Some(resampler) => resampler.push(&self.mono, out),
            None => out.extend_from_slice(&self.mono),
        }
    }

    /// The time up to which the sound was decoded.
    fn seconds(&self) -> f64 {
        self.frames as f64 / f64::from(self.rate.max(1))
    }
}

/// Cuts off the samples from the first on that is not a number of a sound; returns false if there
/// is one.
fn cut_at_noise(samples: &mut Vec<f32>) -> bool {
    let sound = |sample: &f32| sample.abs() <= LOUDEST;
    let end = samples.iter().position(|sample| !sound(sample));
    samples.truncate(end.unwrap_or(samples.len()));
    end.is_none()
}

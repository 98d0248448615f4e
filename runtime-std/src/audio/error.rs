//! Errors of sounds, each one sentence. They do not name the file: whoever opens it does.

use std::io;

use super::{HIGHEST_RATE, LOUDEST, LOWEST_RATE, RATE};

/// The reason why a sound cannot be opened or read on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AudioError {
    /// The bytes are in no known container.
    #[error("this is not a sound file of a known kind: WAV, FLAC, MP3, Ogg, M4A, MP4 or Matroska")]
    NotSound,
    /// The container is known, but there is no sound in it.
    #[error("there is no sound in this file")]
    NoTrack,
    /// The sound has a codec that cannot be decoded.
    #[error("the sound is coded as {codec}, which cannot be decoded")]
    Codec {
        /// The codec's name; printable.
        codec: String,
    },
    /// The sound uses a part of its container or codec that cannot be decoded.
    #[error("a part of the format cannot be decoded, {seconds:.1} s into the sound: {part}")]
    Unsupported {
        /// The time in the sound at which the part was met.
        seconds: f64,
        /// The part, in the decoder's words.
        part: &'static str,
    },
    /// The sample rate is too low, too high, or not always the same.
    #[error(
        "samples at {rate} Hz cannot be brought to {RATE} Hz: the rate must be from {LOWEST_RATE} to {HIGHEST_RATE} Hz, and stay the same"
    )]
    Rate {
        /// Samples a second.
        rate: u32,
    },
    /// The bytes at one place of the sound do not make sense.
    #[error("the sound is damaged at {seconds:.1} s: {fault}")]
    Damaged {
        /// The time in the sound of the first damaged sample.
        seconds: f64,
        /// The fault, in the decoder's words.
        fault: &'static str,
    },
    /// The bytes end before the sound does.
    #[error("the sound is not whole: it ends after {seconds:.1} s")]
    Truncated {
        /// Length of what was there.
        seconds: f64,
    },
    /// A sample in floating point is NaN, infinite, or too large for a sound.
    #[error(
        "the sample at {seconds:.4} s is not a number of a sound: NaN, infinite, or over {LOUDEST:e}"
    )]
    Sample {
        /// The time of the first such sample.
        seconds: f64,
    },
    /// The bytes cannot be read.
    #[error("the sound cannot be read: {0}")]
    Io(#[from] io::Error),
}

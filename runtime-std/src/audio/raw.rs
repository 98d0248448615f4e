//! Samples without a container, as other programs write them to a pipe.

use std::io::{self, Read};

use super::AudioError;

/// The form of samples without a container: one channel at [`super::RATE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawFormat {
    /// Signed integers of 16 bits, little-endian; full scale is 32768.
    S16le,
    /// IEEE 754 numbers of 32 bits, little-endian; full scale is 1.
    F32le,
}

impl RawFormat {
    /// Bytes of a sample.
    fn width(self) -> usize {
        match self {
            RawFormat::S16le => 2,
            RawFormat::F32le => 4,
        }
    }
}

/// Bytes that are read at once: a quarter of a second in f32.
const BYTES: usize = 16 << 10;

/// A reader of samples without a container.
pub struct Raw {
    reader: Box<dyn Read + Send>,
    format: RawFormat,
    /// Bytes of a sample that has not arrived whole lie at the start.
    bytes: Vec<u8>,
    held: usize,
}

impl Raw {
    pub fn new(reader: Box<dyn Read + Send>, format: RawFormat) -> Self {
        Raw {
            reader,
            format,
            bytes: vec![0; BYTES],
            held: 0,
        }
    }

    /// Appends to `out` the samples of one read, which may be none; returns false at the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the bytes end within a sample, else the reader's.
    pub fn read(&mut self, out: &mut Vec<f32>) -> io::Result<bool> {
        let new = match self.reader.read(&mut self.bytes[self.held..]) {
            Ok(0) if self.held > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(false),
            // No more than the buffer holds, whatever the reader claims.
            Ok(new) => new.min(self.bytes.len() - self.held),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        };
        let end = self.held + new;
        let whole = end - end % self.format.width();
        match self.format {
            RawFormat::S16le => {
                let (samples, _) = self.bytes[..whole].as_chunks();
                out.extend(
                    samples
                        .iter()
                        .map(|&s| f32::from(i16::from_le_bytes(s)) / 32768.0),
                );
            }
            RawFormat::F32le => {
                let (samples, _) = self.bytes[..whole].as_chunks();
                out.extend(samples.iter().map(|&sample| f32::from_le_bytes(sample)));
            }
        }
        self.bytes.copy_within(whole..end, 0);
        self.held = end - whole;
        Ok(true)
    }
}

/// The error of the reader, `seconds` into the sound.
pub fn explain(error: io::Error, seconds: f64) -> AudioError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => AudioError::Truncated { seconds },
        _ => AudioError::Io(error),
    }
}

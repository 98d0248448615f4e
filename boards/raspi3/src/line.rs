//! Lines that a person types at a serial port, put together from bytes as they come.

use core::fmt;

use heapless::{String, Vec};

/// Longest line, in bytes.
pub const LONGEST: usize = 256;

/// Why a line is not handed out. What came of it is dropped up to its end; the next line starts clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// It has more than [`LONGEST`] bytes.
    TooLong,
    /// It is not UTF-8.
    NotText,
    /// Bytes of it were lost or damaged on the wire.
    Damaged,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineError::TooLong => write!(f, "the line is longer than {LONGEST} bytes"),
            LineError::NotText => write!(f, "the line is not UTF-8"),
            LineError::Damaged => write!(f, "bytes of the line were lost or damaged on the wire"),
        }
    }
}

impl core::error::Error for LineError {}

/// The line that is being typed.
#[derive(Debug, Default)]
pub struct LineReader {
    bytes: Vec<u8, LONGEST>,
    fault: Option<LineError>,
}

impl LineReader {
    /// Nothing typed.
    pub const fn new() -> Self {
        LineReader {
            bytes: Vec::new(),
            fault: None,
        }
    }

    /// Takes the next byte; the line that it ends, if it ends one. Carriage return, line feed or both end a line; an empty one is
    /// none.
    pub fn push(&mut self, byte: u8) -> Option<Result<String<LONGEST>, LineError>> {
        if !matches!(byte, b'\r' | b'\n') {
            if self.bytes.push(byte).is_err() {
                self.fault.get_or_insert(LineError::TooLong);
            }
            return None;
        }
        let bytes = core::mem::take(&mut self.bytes);
        match self.fault.take() {
            Some(fault) => Some(Err(fault)),
            None if bytes.is_empty() => None,
            None => Some(String::from_utf8(bytes).map_err(|_| LineError::NotText)),
        }
    }

    /// Marks the line as one of which bytes are missing.
    pub fn lose(&mut self) {
        self.fault.get_or_insert(LineError::Damaged);
    }
}

//! Tokens back to bytes, and bytes to text that never shows half a character.

use super::bytes::Unspelled;
use super::spm::{SPACE, byte_of};

/// Bytes of one token. They need not be whole characters: feed them to a [`Utf8Stream`].
#[derive(Clone)]
pub struct Piece<'a> {
    form: Form,
    text: &'a [u8],
    /// Remaining bytes of a character that spells no byte.
    pending: &'a [u8],
}

/// Form in which the file stores a token's string.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// The bytes themselves.
    Plain,
    /// One character for each byte.
    Mapped,
    /// With U+2581 for spaces.
    Escaped,
    /// `<0xXX>`.
    Byte,
}

impl<'a> Piece<'a> {
    pub(super) fn new(form: Form, text: &'a [u8]) -> Self {
        Piece {
            form,
            text,
            pending: &[],
        }
    }

    /// Takes the next `len` bytes of the string.
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.text.split_at(len.min(self.text.len()));
        self.text = rest;
        head
    }
}

impl Iterator for Piece<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if let Some((&byte, rest)) = self.pending.split_first() {
            self.pending = rest;
            return Some(byte);
        }
        match self.form {
            Form::Plain => self.take(1).first().copied(),
            Form::Byte => {
                let all = self.take(self.text.len());
                byte_of(all)
            }
            Form::Escaped if self.text.starts_with(&SPACE) => {
                self.take(SPACE.len());
                Some(b' ')
            }
            Form::Escaped => self.take(1).first().copied(),
            Form::Mapped => {
                let mut rest = Unspelled(self.text);
                let byte = rest.next()?;
                let spelled = self.take(self.text.len() - rest.0.len());
                byte.or_else(|| {
                    self.pending = &spelled[1..];
                    spelled.first().copied()
                })
            }
        }
    }
}

/// Joins bytes into text: holds back the start of a character until the rest arrives, and replaces
/// bytes that are not UTF-8 by U+FFFD, as the standard library's `from_utf8_lossy` does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8Stream {
    held: [u8; 4],
    len: usize,
}

impl Utf8Stream {
    /// Creates a stream that holds nothing back.
    pub const fn new() -> Self {
        Utf8Stream {
            held: [0; 4],
            len: 0,
        }
    }

    /// Takes `bytes` and calls `emit` with each character that is now complete.
    pub fn push(&mut self, bytes: impl IntoIterator<Item = u8>, emit: &mut dyn FnMut(&str)) {
        for byte in bytes {
            self.held[self.len] = byte;
            self.len += 1;
            self.flush(emit);
        }
    }

    /// Ends the text: the start of a character that is held back becomes U+FFFD.
    pub fn finish(&mut self, emit: &mut dyn FnMut(&str)) {
        if self.len > 0 {
            emit("\u{FFFD}");
            self.len = 0;
        }
    }

    /// Emits every character that is complete, and U+FFFD for bytes that are certainly broken.
    fn flush(&mut self, emit: &mut dyn FnMut(&str)) {
        while self.len > 0 {
            let broken = match core::str::from_utf8(&self.held[..self.len]) {
                Ok(text) => {
                    emit(text);
                    self.len
                }
                Err(error) => match error.error_len() {
                    // Only the start of the held bytes can be broken: whole characters are never
                    // held back.
                    Some(broken) => {
                        emit("\u{FFFD}");
                        broken
                    }
                    None => return,
                },
            };
            self.held.copy_within(broken..self.len, 0);
            self.len -= broken;
        }
    }
}

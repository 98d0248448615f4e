//! A bounds-checked little-endian cursor that also runs in `const`.

use super::GgufError;
use crate::const_fn::tri;

/// A position in untrusted bytes. `pos` never passes `bytes.len()`.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) pos: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn at(bytes: &'a [u8], pos: usize) -> Self {
        let pos = if pos > bytes.len() { bytes.len() } else { pos };
        Reader { bytes, pos }
    }

    /// Number of remaining bytes.
    pub(super) const fn left(&self) -> usize {
        self.bytes.len() - self.pos
    }

    /// Returns the next `n` bytes.
    pub(super) const fn take(&mut self, n: usize) -> Result<&'a [u8], GgufError> {
        if n > self.left() {
            return Err(GgufError::Truncated { offset: self.pos });
        }
        let (_, rest) = self.bytes.split_at(self.pos);
        let (head, _) = rest.split_at(n);
        self.pos += n;
        Ok(head)
    }

    const fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let bytes = tri!(self.take(N));
        match bytes.first_chunk::<N>() {
            Some(chunk) => Ok(*chunk),
            None => Err(GgufError::Truncated { offset: self.pos }),
        }
    }

    pub(super) const fn u8(&mut self) -> Result<u8, GgufError> {
        let b = tri!(self.array::<1>());
        Ok(b[0])
    }

    pub(super) const fn u16(&mut self) -> Result<u16, GgufError> {
        Ok(u16::from_le_bytes(tri!(self.array())))
    }

    pub(super) const fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(tri!(self.array())))
    }

    pub(super) const fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(tri!(self.array())))
    }

    /// Reads a 64-bit count of items; fails unless the rest of the file has at least `min_bytes`
    /// (not 0) for each of them.
    pub(super) const fn count(&mut self, min_bytes: usize) -> Result<usize, GgufError> {
        let offset = self.pos;
        let n = tri!(self.u64());
        let most = self.left() / min_bytes;
        if n > most as u64 {
            return Err(GgufError::CountTooLarge { offset });
        }
        Ok(n as usize)
    }

    /// Reads a GGUF string: 64-bit length, then bytes (UTF-8 by the specification; callers that
    /// need UTF-8 check it).
    pub(super) const fn string(&mut self) -> Result<&'a [u8], GgufError> {
        let n = tri!(self.count(1));
        self.take(n)
    }

    /// Reads a string that must be UTF-8: a key or a tensor name.
    pub(super) const fn name(&mut self) -> Result<&'a str, GgufError> {
        let bytes = tri!(self.string());
        match core::str::from_utf8(bytes) {
            Ok(s) => Ok(s),
            Err(_) => Err(GgufError::NameNotUtf8 {
                offset: self.pos - bytes.len(),
            }),
        }
    }
}

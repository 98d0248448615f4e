//! Little-endian numbers that are read from front to back, without trust in what they say.

/// The bytes that are left.
pub(super) struct Bytes<'b>(pub(super) &'b [u8]);

impl<'b> Bytes<'b> {
    /// The next `len` bytes; `None` if there are fewer.
    pub(super) fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (part, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(part)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.as_array().copied()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A number that is a length or a count.
    pub(super) fn count(&mut self) -> Option<usize> {
        usize::try_from(self.u32()?).ok()
    }
}

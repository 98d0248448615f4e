//! The start of a text found in a file, for messages.

use core::fmt;

/// The start of a name found in a file, kept for an error's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Name {
    bytes: [u8; 24],
    len: usize,
}

impl Name {
    /// Keeps the first bytes of `name`.
    pub(crate) const fn new(name: &[u8]) -> Self {
        let mut bytes = [0; 24];
        let mut len = 0;
        while len < name.len() && len < bytes.len() {
            bytes[len] = name[len];
            len += 1;
        }
        Name { bytes, len }
    }
}

/// Writes the name in quotes, with everything escaped that is not plain ASCII.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.bytes[..self.len].escape_ascii())
    }
}

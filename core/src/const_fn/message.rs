//! Sentences with numbers, built in `const` code for compile errors.
//!
//! `panic!` in a `const` context takes a `&str` but formats nothing. A [`Message`] collects text
//! and numbers in a fixed buffer:
//!
//! ```
//! use brooklet_core::const_fn::Message;
//! const MESSAGE: Message<16> = Message::new().text("layer ").number(12);
//! assert_eq!(MESSAGE.as_str(), "layer 12");
//! ```

/// Most decimal digits of a `usize`.
const MAX_DIGITS: usize = usize::MAX.ilog10() as usize + 1;

/// Text of at most `N` bytes. Longer text is cut off between characters, so that a message never
/// fails.
#[derive(Clone, Copy)]
pub struct Message<const N: usize> {
    bytes: [u8; N],
    len: usize,
    full: bool,
}

impl<const N: usize> Message<N> {
    /// Creates an empty message.
    pub const fn new() -> Self {
        Message {
            bytes: [0; N],
            len: 0,
            full: false,
        }
    }

    /// Returns the message followed by `text`.
    pub const fn text(mut self, text: &str) -> Self {
        let text = text.as_bytes();
        let mut fits = if self.full { 0 } else { N - self.len };
        if fits < text.len() {
            self.full = true;
            // Back to the first byte of a character: all others look like 10xxxxxx.
            while fits > 0 && text[fits] & 0xC0 == 0x80 {
                fits -= 1;
            }
        } else {
            fits = text.len();
        }
        let mut i = 0;
        while i < fits {
            self.bytes[self.len] = text[i];
            self.len += 1;
            i += 1;
        }
        self
    }

    /// Returns the message followed by `value` in decimal.
    pub const fn number(self, value: usize) -> Self {
        let mut digits = [0u8; MAX_DIGITS];
        let mut start = MAX_DIGITS;
        let mut rest = value;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let (_, digits) = digits.split_at(start);
        match core::str::from_utf8(digits) {
            Ok(digits) => self.text(digits),
            Err(_) => self,
        }
    }

    /// Returns the collected text.
    pub const fn as_str(&self) -> &str {
        let (text, _) = self.bytes.split_at(self.len);
        match core::str::from_utf8(text) {
            Ok(text) => text,
            Err(_) => "",
        }
    }
}

impl<const N: usize> Default for Message<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        for value in [0, 7, 10, 99, 100, 65_536, usize::MAX - 1, usize::MAX] {
            assert_eq!(
                Message::<20>::new().number(value).as_str(),
                format!("{value}")
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_cut_between_characters() {
        assert_eq!(Message::<4>::new().text("abc").text("é").as_str(), "abc");
        assert_eq!(
            Message::<5>::new().text("abc").text("é").text("x").as_str(),
            "abcé"
        );
        assert_eq!(Message::<3>::new().text("é€").text("x").as_str(), "é");
        assert_eq!(Message::<0>::new().text("€").as_str(), "");
    }
}

//! GPT-2's spelling of bytes: every byte is written as one printable character in
//! `tokenizer.ggml.tokens` and `tokenizer.ggml.merges`, so that even a token that is half a
//! character can be written as text.
//!
//! Source: `bytes_to_unicode` of OpenAI's `gpt-2` repository (`encoder.py`). The 188 printable
//! bytes of Latin-1 are written as themselves; the others, in order, as U+0100, U+0101, ... Both
//! directions are computed here, without a table.

use super::unicode::first_char;

/// Byte that the character `code` spells, if it spells one.
const fn byte(code: u32) -> Option<u8> {
    Some(match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => code as u8,
        0x100..=0x120 => (code - 0x100) as u8,
        0x121..=0x142 => (code - 0x121) as u8 + 0x7F,
        0x143 => 0xAD,
        _ => return None,
    })
}

/// Iterator over the bytes that a spelled token or half of a merge stands for; `None` for a
/// character that spells no byte.
#[derive(Clone)]
pub(super) struct Unspelled<'a>(pub(super) &'a [u8]);

impl Unspelled<'_> {
    /// Returns the next byte; the same as [`Iterator::next`], for `const` code.
    pub(super) const fn next_byte(&mut self) -> Option<Option<u8>> {
        let (code, len) = first_char(self.0);
        if len == 0 {
            return None;
        }
        (_, self.0) = self.0.split_at(len);
        Some(byte(code))
    }
}

impl Iterator for Unspelled<'_> {
    type Item = Option<u8>;

    fn next(&mut self) -> Option<Option<u8>> {
        self.next_byte()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_one_to_one_and_in_order() {
        let mut spelled = [0; 256];
        for code in 0..0x400 {
            if let Some(byte) = byte(code) {
                assert_eq!(spelled[usize::from(byte)], 0);
                spelled[usize::from(byte)] = code;
            }
        }
        // The order of the 68 unprintable bytes is the order of OpenAI's loop.
        let mut next = 0x100;
        for (byte, &code) in spelled.iter().enumerate() {
            let printable = matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
            assert_eq!(code as usize, if printable { byte } else { next });
            next += usize::from(!printable);
        }
        assert_eq!(next, 0x100 + 68);
    }

    #[test]
    fn unspells_until_the_end() {
        let mut bytes = Unspelled("Ġa€".as_bytes());
        assert_eq!(bytes.next(), Some(Some(b' ')));
        assert_eq!(bytes.next(), Some(Some(b'a')));
        assert_eq!(bytes.next(), Some(None));
        assert_eq!(bytes.next(), None);
    }
}

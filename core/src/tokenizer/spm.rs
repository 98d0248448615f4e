//! SentencePiece as Llama 2 uses it: characters are the initial symbols, spaces are U+2581, and the
//! pair that makes the token with the highest score is merged first. Characters without a token
//! fall back to their bytes.
//!
//! Source: Kudo and Richardson, "SentencePiece" (2018); llama.cpp's `llm_tokenizer_spm_session` for
//! bytes that are not UTF-8 and for vocabularies without byte tokens.

use super::index::Index;
use super::merge::{Chunk, NEVER, Rules};
use super::vocab::Vocab;

/// U+2581, which stands for a space.
pub(super) const SPACE: [u8; 3] = [0xE2, 0x96, 0x81];

/// Rules that merge the characters of one piece.
pub(super) struct Spm<'a> {
    pub(super) vocab: Vocab<'a>,
    pub(super) index: Index<'a>,
}

impl Rules for Spm<'_> {
    fn symbol(&self, text: &[u8]) -> usize {
        character_len(text.first().copied().unwrap_or(0)).min(text.len())
    }

    fn priority(&self, pair: &[u8], _middle: usize) -> u32 {
        match self.index.token(pair) {
            Some(token) => rank(self.vocab.score(token)),
            None => NEVER,
        }
    }

    fn whole(&self, _piece: &[u8]) -> Option<u32> {
        None
    }

    fn emit(&self, symbol: &[u8], out: &mut dyn FnMut(u32)) {
        match self.index.token(symbol) {
            Some(token) => out(token),
            None => symbol
                .iter()
                .filter_map(|&byte| self.byte(byte))
                .for_each(out),
        }
    }
}

impl Spm<'_> {
    /// Token of a byte: `<0xXX>`, else the byte itself, else the unknown token.
    fn byte(&self, byte: u8) -> Option<u32> {
        const HEX: [u8; 16] = *b"0123456789ABCDEF";
        let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
        self.index
            .token(&[b'<', b'0', b'x', high, low, b'>'])
            .or_else(|| self.index.token(&[byte]))
            .or(self.vocab.unknown)
    }
}

/// Byte that a token `<0xXX>` stands for.
pub(super) fn byte_of(text: &[u8]) -> Option<u8> {
    let [b'<', b'0', b'x', high, low, b'>'] = text else {
        return None;
    };
    let digit = |c: u8| char::from(c).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

/// Number that is lower for a higher score, below [`NEVER`]; the largest such number for NaN.
fn rank(score: f32) -> u32 {
    if score.is_nan() {
        return NEVER - 1;
    }
    // Adding 0 makes -0 equal to 0. The bits of floats order as integers once the negative ones are
    // flipped.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    };
    !ascending
}

/// Number of bytes of the character that `lead` starts, by its high bits alone; 1 for a byte that
/// starts none.
fn character_len(lead: u8) -> usize {
    match lead >> 4 {
        0xC | 0xD => 2,
        0xE => 3,
        0xF => 4,
        _ => 1,
    }
}

/// A text with escaped spaces, cut into characters.
#[derive(Clone, Copy)]
pub(super) struct Escaped<'t> {
    text: &'t [u8],
    /// Remaining bytes of an escaped space.
    space: &'static [u8],
}

impl<'t> Escaped<'t> {
    /// Escapes `text`, with a space before it if `prefix` is true.
    pub(super) fn new(text: &'t [u8], prefix: bool) -> Self {
        Escaped {
            text,
            space: if prefix { &SPACE } else { &[] },
        }
    }

    fn byte(&mut self) -> Option<u8> {
        if let Some((&byte, rest)) = self.space.split_first() {
            self.space = rest;
            return Some(byte);
        }
        let (&byte, rest) = self.text.split_first()?;
        self.text = rest;
        if byte != b' ' {
            return Some(byte);
        }
        self.space = &SPACE[1..];
        Some(SPACE[0])
    }

    /// Returns the next character.
    fn chunk(&mut self) -> Option<Chunk> {
        let lead = self.byte()?;
        let mut bytes = [lead, 0, 0, 0];
        let mut len = 1;
        while len < character_len(lead) {
            let Some(byte) = self.byte() else { break };
            bytes[len] = byte;
            len += 1;
        }
        Some(Chunk { bytes, len })
    }

    /// Returns true if nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.space.is_empty()
    }

    /// Iterates over the characters up to the next place where no merge can happen: before a space
    /// that follows a non-space, if `cut` says that no token has such a place inside; otherwise all
    /// characters.
    pub(super) fn word(&mut self, cut: bool) -> impl Iterator<Item = Chunk> {
        let mut after_word = false;
        core::iter::from_fn(move || {
            let mut ahead = *self;
            let chunk = ahead.chunk()?;
            let space = chunk.bytes[..chunk.len] == SPACE;
            if cut && after_word && space {
                return None;
            }
            after_word = !space;
            *self = ahead;
            Some(chunk)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_as_scores() {
        let scores = [
            f32::INFINITY,
            1e9,
            1.0,
            1e-30,
            0.0,
            -1e-30,
            -1.0,
            -1e9,
            f32::NEG_INFINITY,
        ];
        assert!(scores.is_sorted_by(|&a, &b| rank(a) < rank(b)));
        assert_eq!(rank(0.0), rank(-0.0));
        assert!(rank(f32::NEG_INFINITY) < rank(f32::NAN));
        assert!(rank(-f32::NAN) < NEVER);
    }

    #[test]
    fn byte_tokens_are_read() {
        assert_eq!(byte_of(b"<0x0A>"), Some(10));
        assert_eq!(byte_of(b"<0xFF>"), Some(255));
        for other in [&b"<0x0G>"[..], b"<0x0A", b"", b"<0x0AB>", b"<s>"] {
            assert_eq!(byte_of(other), None);
        }
    }
}

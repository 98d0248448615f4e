//! Byte-level BPE: every byte is an initial symbol, merges are a ranked list.
//!
//! Source: OpenAI's `gpt-2` repository (`encoder.py`); llama.cpp's `llm_tokenizer_bpe_session` for
//! vocabularies with holes.

use super::index::Index;
use super::merge::{Chunk, Rules};
use super::unicode::{first_char, spell};

/// Rules that merge the bytes of one piece.
pub(super) struct Bpe<'a> {
    pub(super) index: Index<'a>,
    pub(super) ignores_merges: bool,
}

impl Rules for Bpe<'_> {
    fn symbol(&self, _text: &[u8]) -> usize {
        1
    }

    fn priority(&self, pair: &[u8], middle: usize) -> u32 {
        self.index.rank(pair, middle)
    }

    fn whole(&self, piece: &[u8]) -> Option<u32> {
        self.index.token(piece).filter(|_| self.ignores_merges)
    }

    /// A symbol without a token (a merge may name one) falls back to its bytes. A byte without a
    /// token is left out, as in llama.cpp: some vocabularies lack bytes that no text has.
    fn emit(&self, symbol: &[u8], out: &mut dyn FnMut(u32)) {
        match self.index.token(symbol) {
            Some(token) => out(token),
            None => symbol
                .chunks(1)
                .filter_map(|byte| self.index.token(byte))
                .for_each(out),
        }
    }
}

/// Iterates over the characters of a piece as UTF-8, with U+FFFD for every byte that belongs to
/// none.
pub(super) fn characters(mut piece: &[u8]) -> impl Iterator<Item = Chunk> {
    core::iter::from_fn(move || {
        let (code, len) = first_char(piece);
        piece = piece.get(len..).filter(|_| len > 0)?;
        let (bytes, len) = spell(code);
        Some(Chunk { bytes, len })
    })
}

//! Finding tokens and merges by their bytes: hash tables over the mapped file, built once in caller-owned memory.
//!
//! A table holds no strings, only where in the file they stand. A slot is one `u32`: 0, or a number plus 1 in the low
//! bits and part of the string's hash in the bits that are left, so that few wrong strings are compared. For tokens the
//! number is the id; for merges it is the merge's offset in the file, which orders merges by rank as well as its number
//! would. Slots are filled by linear probing, two thirds full.
//!
//! Searches are bounded: no string is further than [`PROBES`] slots from its place, or the file is refused (a file made
//! to collide; by chance it does not happen).

use super::bytes::Unspelled;
use super::error::{Field, TokenizerError};
use super::merge::NEVER;
use super::vocab::{Kind, Model, Vocab};
use crate::gguf::Array;

/// Farthest that a string may stand from its place in a table.
const PROBES: usize = 512;

/// An open-addressing hash table of numbers below `1 << bits`, minus one.
#[derive(Clone, Copy)]
struct Table<S> {
    slots: S,
    bits: u32,
}

impl<S: AsRef<[u32]>> Table<S> {
    /// A table for numbers of at most `largest`, over slots of any content.
    fn new(slots: S, largest: u32) -> Self {
        // `largest + 1` must fit; arrays of 2^32 - 1 elements or bytes were refused.
        let bits = u32::BITS - largest.saturating_add(1).leading_zeros();
        Table { slots, bits }
    }

    /// The slot of this hash and number.
    fn slot(&self, hash: u32, number: u32) -> u32 {
        (u64::from(hash) << self.bits) as u32 | (number + 1)
    }

    /// The places to look at, in order.
    fn places(&self, hash: u32) -> impl Iterator<Item = usize> + use<S> {
        let len = self.slots.as_ref().len();
        let first = ((u64::from(hash) * len as u64) >> 32) as usize;
        (first..len).chain(0..first).take(PROBES)
    }

    /// The first number with this hash that `is_it` accepts.
    fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        for place in self.places(hash) {
            let slot = self.slots.as_ref()[place];
            if slot == 0 {
                return None;
            }
            let number = (slot & ((1u64 << self.bits) - 1) as u32).wrapping_sub(1);
            if self.slot(hash, number) == slot && is_it(number) {
                return Some(number);
            }
        }
        None
    }
}

impl Table<&mut [u32]> {
    /// Puts a number in; whether there was room near its place.
    fn insert(&mut self, hash: u32, number: u32) -> bool {
        let place = self.places(hash).find(|&place| self.slots[place] == 0);
        if let Some(place) = place {
            self.slots[place] = self.slot(hash, number);
        }
        place.is_some()
    }
}

/// A hash that is fed byte by byte: FNV-1a (Fowler, Noll, Vo), with MurmurHash3's finalizer (Appleby).
#[derive(Clone, Copy)]
struct Hash(u32);

impl Hash {
    const START: Hash = Hash(0x811C_9DC5);

    fn step(self, value: u32) -> Self {
        Hash((self.0 ^ value).wrapping_mul(0x0100_0193))
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        bytes.iter().fold(self, |hash, &byte| hash.step(byte.into()))
    }

    /// Between the halves of a merge: no byte.
    fn middle(self) -> Self {
        self.step(0x100)
    }

    fn finish(self) -> u32 {
        let h = self.0 ^ (self.0 >> 16);
        let h = h.wrapping_mul(0x85EB_CA6B);
        let h = (h ^ (h >> 13)).wrapping_mul(0xC2B2_AE35);
        h ^ (h >> 16)
    }
}

/// How the file spells strings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// One character for each byte ([`super::bytes`]).
    Mapped,
    /// As they are.
    Plain,
}

impl Spelling {
    /// Goes on hashing the bytes that `text` spells; `None` if it spells none or cannot be read.
    fn hash(self, hash: Hash, text: &[u8]) -> Option<Hash> {
        if text.is_empty() {
            return None;
        }
        match self {
            Self::Plain => Some(hash.bytes(text)),
            Self::Mapped => Unspelled(text).try_fold(hash, |hash, byte| Some(hash.step(byte?.into()))),
        }
    }

    /// Whether `text` spells `bytes`.
    fn is(self, text: &[u8], bytes: &[u8]) -> bool {
        match self {
            Self::Plain => text == bytes,
            Self::Mapped => Unspelled(text).eq(bytes.iter().map(|&byte| Some(byte))),
        }
    }
}

/// The halves of a merge: the text around the first space that is not its first character.
fn halves(merge: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = 1 + merge.get(1..)?.iter().position(|&byte| byte == b' ')?;
    Some((&merge[..space], &merge[space + 1..]))
}

/// Where tokens and merges stand in the file.
#[derive(Clone, Copy)]
pub(super) struct Index<'a> {
    strings: Array<'a>,
    merges: Option<Array<'a>>,
    spelling: Spelling,
    /// For each token id, where its string stands after the start of the array.
    offsets: &'a [u32],
    tokens: Table<&'a [u32]>,
    ranks: Table<&'a [u32]>,
    /// Bytes of the longest indexed token, and of the longest indexed merge, as spelled: no string longer than these is
    /// looked up.
    longest_token: usize,
    longest_merge: usize,
}

impl<'a> Index<'a> {
    /// Builds the index of `vocab`: `offsets` has a place for each token, `tokens` and `ranks` have [`table_len`](super::vocab::table_len) of the
    /// tokens and of the merges.
    ///
    /// Control and unknown tokens, empty ones and those that cannot be spelled are not in it: text never becomes one of
    /// them by merging. Of equal tokens the first counts, and of equal merges. Merges without two halves that spell
    /// bytes are left out: they could never apply.
    pub(super) fn build(
        vocab: &Vocab<'a>,
        offsets: &'a mut [u32],
        tokens: &'a mut [u32],
        ranks: &'a mut [u32],
    ) -> Result<Self, TokenizerError> {
        let (spelling, merges) = match vocab.model {
            Model::Bpe { merges, .. } => (Spelling::Mapped, Some(merges)),
            Model::Spm { .. } => (Spelling::Plain, None),
        };
        locate(vocab.tokens, offsets)?;
        let mut index = Index {
            strings: vocab.tokens,
            merges,
            spelling,
            offsets,
            tokens: Table::new(&[], 0),
            ranks: Table::new(&[], 0),
            longest_token: 0,
            longest_merge: 0,
        };
        index.add_tokens(vocab, tokens)?;
        index.add_merges(ranks)?;
        Ok(index)
    }

    fn add_tokens(&mut self, vocab: &Vocab<'a>, slots: &'a mut [u32]) -> Result<(), TokenizerError> {
        slots.fill(0);
        let mut table = Table::new(slots, self.offsets.len() as u32 - 1);
        for id in 0..self.offsets.len() {
            let text = self.text(id as u32);
            if matches!(vocab.kind(id as u32, text), Kind::Control | Kind::Unknown) {
                continue;
            }
            let Some(hash) = self.spelling.hash(Hash::START, text) else {
                continue;
            };
            let hash = hash.finish();
            if table.find(hash, |other| self.text(other) == text).is_some() {
                continue;
            }
            if !table.insert(hash, id as u32) {
                let field = Field::Tokens;
                return Err(TokenizerError::Crowded { field, index: id });
            }
            self.longest_token = self.longest_token.max(text.len());
        }
        self.tokens = Table {
            slots: table.slots,
            bits: table.bits,
        };
        Ok(())
    }

    fn add_merges(&mut self, slots: &'a mut [u32]) -> Result<(), TokenizerError> {
        slots.fill(0);
        let Some(merges) = self.merges else {
            return Ok(());
        };
        let mut table = Table::new(slots, last_offset(merges, Field::Merges)?);
        let mut elements = merges.elements();
        for index in 0..merges.len() {
            let offset = (elements.position() - merges.start()) as u32;
            let text = elements
                .next_value()
                .and_then(|value| value.as_bytes())
                .unwrap_or(&[]);
            let hash = halves(text).and_then(|(left, right)| {
                let hash = self.spelling.hash(Hash::START, left)?.middle();
                self.spelling.hash(hash, right)
            });
            let Some(hash) = hash.map(Hash::finish) else {
                continue;
            };
            if table
                .find(hash, |other| merges.string_at(other as usize) == Some(text))
                .is_some()
            {
                continue;
            }
            if !table.insert(hash, offset) {
                let field = Field::Merges;
                return Err(TokenizerError::Crowded { field, index });
            }
            self.longest_merge = self.longest_merge.max(text.len());
        }
        self.ranks = Table {
            slots: table.slots,
            bits: table.bits,
        };
        Ok(())
    }

    /// The string of token `id` as the file has it; nothing if there is no such token.
    pub(super) fn text(&self, id: u32) -> &'a [u8] {
        self.offsets
            .get(id as usize)
            .and_then(|&offset| self.strings.string_at(offset as usize))
            .unwrap_or(&[])
    }

    /// The token that spells `bytes`.
    pub(super) fn token(&self, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > self.longest_token {
            return None;
        }
        let hash = Hash::START.bytes(bytes).finish();
        self.tokens
            .find(hash, |id| self.spelling.is(self.text(id), bytes))
    }

    /// The rank of merging `pair[..middle]` with `pair[middle..]`: the lowest is merged first. [`NEVER`] if no merge
    /// names them.
    pub(super) fn rank(&self, pair: &[u8], middle: usize) -> u32 {
        let Some(merges) = self.merges.filter(|_| pair.len() < self.longest_merge) else {
            return NEVER;
        };
        let (left, right) = pair.split_at(middle);
        let hash = Hash::START.bytes(left).middle().bytes(right).finish();
        let found = self.ranks.find(hash, |offset| {
            let merge = merges.string_at(offset as usize).and_then(halves);
            merge.is_some_and(|(l, r)| self.spelling.is(l, left) && self.spelling.is(r, right))
        });
        found.unwrap_or(NEVER)
    }
}

/// Writes down where each string of `strings` stands after the array's start.
fn locate(strings: Array<'_>, offsets: &mut [u32]) -> Result<(), TokenizerError> {
    last_offset(strings, Field::Tokens)?;
    let mut elements = strings.elements();
    for offset in offsets {
        *offset = (elements.position() - strings.start()) as u32;
        elements.next_value();
    }
    Ok(())
}

/// Where the last string of `strings` ends after the array's start, if 32 bits can say so with one number to spare.
fn last_offset(strings: Array<'_>, field: Field) -> Result<u32, TokenizerError> {
    let mut elements = strings.elements();
    while elements.next_value().is_some() {}
    u32::try_from(elements.position() - strings.start())
        .ok()
        .filter(|&end| end < u32::MAX - 1)
        .ok_or(TokenizerError::BadSize(field))
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec::Vec;

    use super::super::tests::{Meta, file, with};
    use super::*;
    use crate::tokenizer::vocab::table_len;

    #[test]
    fn a_file_made_to_collide_is_refused() {
        let len = PROBES + 100;
        let slots = table_len(len) as u64;
        let in_first_slot = |text: &Vec<u8>| (u64::from(Hash::START.bytes(text).finish()) * slots) >> 32 == 0;
        let numbers = (0..).map(|i: u32| i.to_string().into_bytes());
        let tokens: Vec<Vec<u8>> = numbers.filter(in_first_slot).take(len).collect();
        let file = file(&[("model", Meta::Str("llama")), ("tokens", Meta::Strings(tokens))]);
        let (field, index) = (Field::Tokens, PROBES);
        let error = with(&file, 64, |_| ()).unwrap_err();
        assert_eq!(error, TokenizerError::Crowded { field, index });
    }

    #[test]
    fn slots_hold_the_largest_number() {
        for largest in [0, 1, 2, 254, 255, 256, u32::MAX - 2] {
            let mut slots = [0; 4];
            let mut table = Table::new(&mut slots[..], largest);
            assert!(table.insert(0xDEAD_BEEF, largest));
            assert_eq!(table.find(0xDEAD_BEEF, |number| number == largest), Some(largest));
            assert_eq!(table.find(0xDEAD_BEEF, |number| number != largest), None);
        }
    }

    #[test]
    fn halves_are_around_the_first_inner_space() {
        assert_eq!(halves(b"a b"), Some((&b"a"[..], &b"b"[..])));
        assert_eq!(halves(b"  b c"), Some((&b" "[..], &b"b c"[..])));
        for bad in [&b""[..], b" ", b"ab", b" ab"] {
            assert_eq!(halves(bad), None);
        }
    }
}

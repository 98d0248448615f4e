//! Finding tokens and merges by their bytes: hash tables over the mapped file, filled once
//! ([`super::build`]).
//!
//! A table holds no strings, only their places in the file. A slot is one `u32`: 0, or a number
//! plus 1 in the low bits and part of the string's hash in the remaining bits, so that few wrong
//! strings are compared. For tokens the number is the id; for merges it is the merge's offset in
//! the file, which has the same order as the rank. Slots are filled by linear probing, two thirds
//! full.
//!
//! Searches are bounded: each string is at most [`PROBES`] slots from its place, or the file is
//! refused. Only a file that is made to collide is refused; chance does not do it.

use super::bytes::Unspelled;
use super::merge::NEVER;
use super::vocab::Vocab;
use crate::gguf::Array;

/// Largest distance of a string from its place in a table.
pub(super) const PROBES: usize = 512;

/// Layout of a table's numbers in its slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots {
    /// Low bits of a slot that hold a number plus 1.
    bits: u32,
}

impl Slots {
    /// Creates the layout for numbers of at most `largest`.
    pub(super) const fn new(largest: u32) -> Self {
        // `largest + 1` must fit; arrays of 2^32 - 1 elements or bytes were refused.
        Slots {
            bits: u32::BITS - largest.saturating_add(1).leading_zeros(),
        }
    }

    /// Slot of this hash and number.
    pub(super) const fn with(self, hash: u32, number: u32) -> u32 {
        ((hash as u64) << self.bits) as u32 | (number + 1)
    }

    /// Number in a slot, if the slot has this hash.
    pub(super) const fn number(self, slot: u32, hash: u32) -> Option<u32> {
        let number = (slot & ((1u64 << self.bits) - 1) as u32).wrapping_sub(1);
        if slot != 0 && self.with(hash, number) == slot {
            Some(number)
        } else {
            None
        }
    }

    /// Place of probe number `probe`, of at most [`PROBES`], in a table of `len` slots.
    pub(super) const fn place(hash: u32, probe: usize, len: usize) -> usize {
        let first = ((hash as u64 * len as u64) >> 32) as usize;
        let place = first + probe;
        if place < len { place } else { place - len }
    }
}

/// An open-addressing hash table of numbers.
#[derive(Clone, Copy)]
struct Table<'a> {
    slots: &'a [u32],
    of: Slots,
}

impl Table<'_> {
    /// Returns the first number with this hash that `is_it` accepts.
    fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        for probe in 0..PROBES.min(self.slots.len()) {
            let slot = self.slots[Slots::place(hash, probe, self.slots.len())];
            if slot == 0 {
                return None;
            }
            if let Some(number) = self.of.number(slot, hash)
                && is_it(number)
            {
                return Some(number);
            }
        }
        None
    }
}

/// A hash of single bytes: FNV-1a (Fowler, Noll, Vo), with MurmurHash3's finalizer (Appleby).
#[derive(Clone, Copy)]
pub(super) struct Hash(u32);

impl Hash {
    pub(super) const START: Hash = Hash(0x811C_9DC5);

    const fn step(self, value: u32) -> Self {
        Hash((self.0 ^ value).wrapping_mul(0x0100_0193))
    }

    const fn bytes(mut self, bytes: &[u8]) -> Self {
        let mut i = 0;
        while i < bytes.len() {
            self = self.step(bytes[i] as u32);
            i += 1;
        }
        self
    }

    /// Finishes the hash after all of `bytes`.
    pub(super) const fn of_all(self, bytes: &[u8]) -> u32 {
        self.bytes(bytes).finish()
    }

    /// Marks the boundary between the halves of a merge, by a value that is no byte.
    pub(super) const fn middle(self) -> Self {
        self.step(0x100)
    }

    pub(super) const fn finish(self) -> u32 {
        let h = self.0 ^ (self.0 >> 16);
        let h = h.wrapping_mul(0x85EB_CA6B);
        let h = (h ^ (h >> 13)).wrapping_mul(0xC2B2_AE35);
        h ^ (h >> 16)
    }
}

/// Spelling of strings in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// One character for each byte ([`super::bytes`]).
    Mapped,
    /// The bytes themselves.
    Plain,
}

impl Spelling {
    /// Continues the hash with the bytes that `text` spells; `None` if it spells none or cannot be
    /// read.
    pub(super) const fn hash(self, mut hash: Hash, text: &[u8]) -> Option<Hash> {
        if text.is_empty() {
            return None;
        }
        match self {
            Self::Plain => Some(hash.bytes(text)),
            Self::Mapped => {
                let mut rest = Unspelled(text);
                while let Some(byte) = rest.next_byte() {
                    match byte {
                        Some(byte) => hash = hash.step(byte as u32),
                        None => return None,
                    }
                }
                Some(hash)
            }
        }
    }

    /// Returns true if `text` spells `bytes`.
    fn is(self, text: &[u8], bytes: &[u8]) -> bool {
        match self {
            Self::Plain => text == bytes,
            Self::Mapped => Unspelled(text).eq(bytes.iter().map(|&byte| Some(byte))),
        }
    }
}

/// Splits a merge into its halves, at the first space that is not its first character.
pub(super) const fn halves(merge: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut space = 1;
    while space < merge.len() {
        if merge[space] == b' ' {
            let (left, right) = merge.split_at(space);
            let (_, right) = right.split_at(1);
            return Some((left, right));
        }
        space += 1;
    }
    None
}

/// Returns the string of token `id` as the file has it, by the offsets of the strings; empty if
/// there is no such token.
pub(super) const fn text_at<'a>(strings: Array<'a>, offsets: &[u32], id: u32) -> &'a [u8] {
    if (id as usize) < offsets.len()
        && let Some(text) = strings.string_at(offsets[id as usize] as usize)
    {
        return text;
    }
    &[]
}

/// Results of filling the tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) tokens: Slots,
    pub(super) ranks: Slots,
    /// Bytes of the longest indexed token and of the longest indexed merge, as spelled: longer
    /// strings are not looked up.
    pub(super) longest_token: usize,
    pub(super) longest_merge: usize,
}

/// Places of tokens and merges in the file.
#[derive(Clone, Copy)]
pub(super) struct Index<'a> {
    strings: Array<'a>,
    merges: Option<Array<'a>>,
    spelling: Spelling,
    /// For each token id, the offset of its string from the start of the array.
    offsets: &'a [u32],
    tokens: Table<'a>,
    ranks: Table<'a>,
    longest_token: usize,
    longest_merge: usize,
}

impl<'a> Index<'a> {
    /// Creates an index over tables that [`super::build`] filled for `vocab`.
    pub(super) const fn over(
        vocab: &Vocab<'a>,
        extent: Extent,
        offsets: &'a [u32],
        tokens: &'a [u32],
        ranks: &'a [u32],
    ) -> Self {
        Index {
            strings: vocab.tokens,
            merges: vocab.merges(),
            spelling: vocab.spelling(),
            offsets,
            tokens: Table {
                slots: tokens,
                of: extent.tokens,
            },
            ranks: Table {
                slots: ranks,
                of: extent.ranks,
            },
            longest_token: extent.longest_token,
            longest_merge: extent.longest_merge,
        }
    }

    /// Returns the string of token `id` as the file has it; empty if there is no such token.
    pub(super) fn text(&self, id: u32) -> &'a [u8] {
        text_at(self.strings, self.offsets, id)
    }

    /// Returns the token that spells `bytes`.
    pub(super) fn token(&self, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > self.longest_token {
            return None;
        }
        let hash = Hash::START.of_all(bytes);
        self.tokens
            .find(hash, |id| self.spelling.is(self.text(id), bytes))
    }

    /// Rank of merging `pair[..middle]` with `pair[middle..]`: the lowest is merged first.
    /// [`NEVER`] if no merge names them.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_hold_the_largest_number() {
        for largest in [0, 1, 2, 254, 255, 256, u32::MAX - 2] {
            let of = Slots::new(largest);
            let slot = of.with(0xDEAD_BEEF, largest);
            assert_eq!(of.number(slot, 0xDEAD_BEEF), Some(largest));
            let table = Table {
                slots: &[0, slot, 0][1..2],
                of,
            };
            assert_eq!(
                table.find(0xDEAD_BEEF, |number| number == largest),
                Some(largest)
            );
            assert_eq!(table.find(0xDEAD_BEEF, |number| number != largest), None);
        }
        assert_eq!(Slots::new(9).number(0, 0), None);
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

//! Checks that no name is there twice, and that no two tensors share a part of their data.
//!
//! There is no memory that grows with the file, and `const` code has none at all. So a block of
//! entries is held at a time, and all later entries are looked up in it: one pass over the entries
//! for each block, of which real files have one or two.

use super::GgufError;
use super::reader::Reader;
use super::tensors::Entry;
use crate::const_fn::{same, tri};

/// Number of names that are held at a time.
pub(super) const NAMES: usize = 512;

/// Number of places of their table: a power of two, twice as many as names.
const PLACES: usize = 2 * NAMES;

/// Number of ranges that are held at a time.
const RANGES: usize = 256;

/// A block of names of the file, in a table by their hashes.
pub(super) struct Names<'a> {
    bytes: &'a [u8],
    /// Positions of the names in the file, in the order of the entries.
    positions: [usize; NAMES],
    len: usize,
    /// One more than the index of a name; 0 for none.
    places: [u16; PLACES],
}

impl<'a> Names<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Names {
            bytes,
            positions: [0; NAMES],
            len: 0,
            places: [0; PLACES],
        }
    }

    /// Looks `name` up, which stands at `position`, and holds it if it is new and there is room.
    /// Returns the index in the block of an equal name.
    pub(super) const fn meet(&mut self, name: &str, position: usize) -> Option<usize> {
        let mut place = hash(name.as_bytes()) % PLACES;
        // Half of the places are free.
        while self.places[place] != 0 {
            let index = self.places[place] as usize - 1;
            // The name was read before, so there is no error.
            if let Ok(held) = Reader::at(self.bytes, self.positions[index]).string()
                && same(held, name.as_bytes())
            {
                return Some(index);
            }
            place = (place + 1) % PLACES;
        }
        if self.len < NAMES {
            self.positions[self.len] = position;
            self.len += 1;
            self.places[place] = self.len as u16;
        }
        None
    }
}

/// Hash of a name: FNV-1a (Fowler, Noll and Vo), of 32 bits.
const fn hash(name: &[u8]) -> usize {
    let mut hash = 0x811C_9DC5u32;
    let mut i = 0;
    while i < name.len() {
        hash = (hash ^ name[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    hash as usize
}

/// Checks that no two of the `count` tensors of a checked table have one name.
pub(super) const fn names_of_tensors(table: Reader<'_>, count: usize) -> Result<(), GgufError> {
    let (mut first, mut next_block) = (0, table);
    while first < count {
        let mut names = Names::new(table.bytes);
        let mut r = next_block;
        let mut tensor = first;
        while tensor < count {
            if tensor == first + NAMES {
                next_block = r;
            }
            let position = r.pos;
            let entry = tri!(Entry::read(&mut r, tensor));
            if let Some(index) = names.meet(entry.name, position) {
                return Err(GgufError::DuplicateTensor {
                    tensor,
                    first: first + index,
                });
            }
            tensor += 1;
        }
        first += NAMES;
    }
    Ok(())
}

/// Bytes of the tensor data that a tensor takes: those from `start` to before `end`.
#[derive(Clone, Copy)]
struct Range {
    tensor: usize,
    start: usize,
    end: usize,
}

impl Range {
    const fn of(entry: &Entry<'_>, tensor: usize) -> Result<Range, GgufError> {
        let len = match tri!(entry.byte_len(tensor)) {
            Some(len) => len,
            None => 0,
        };
        Ok(Range {
            tensor,
            start: entry.offset,
            end: entry.offset.saturating_add(len),
        })
    }

    const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Returns an error if both share bytes and are not one range: two tensors may have the same
    /// data.
    const fn beside(self, other: Range) -> Result<(), GgufError> {
        let is_same = self.start == other.start && self.end == other.end;
        if is_same || self.end <= other.start || other.end <= self.start {
            return Ok(());
        }
        let (tensor, other) = if self.tensor > other.tensor {
            (self.tensor, other.tensor)
        } else {
            (other.tensor, self.tensor)
        };
        Err(GgufError::OverlappingTensors { tensor, other })
    }
}

/// Checks that no two of the `count` tensors of a checked table share a part of their data. Tensors
/// whose size is not known count as empty.
pub(super) const fn data_of_tensors(table: Reader<'_>, count: usize) -> Result<(), GgufError> {
    // Real files are in the order of their data: then every tensor need be compared with the last
    // one only.
    let mut last = Range {
        tensor: 0,
        start: 0,
        end: 0,
    };
    let mut r = table;
    let mut tensor = 0;
    while tensor < count {
        let range = tri!(Range::of(&tri!(Entry::read(&mut r, tensor)), tensor));
        if !range.is_empty() {
            if range.start < last.start {
                return data_in_any_order(table, count);
            }
            tri!(range.beside(last));
            last = range;
        }
        tensor += 1;
    }
    Ok(())
}

/// Does the same for tensors in any order.
const fn data_in_any_order(table: Reader<'_>, count: usize) -> Result<(), GgufError> {
    let (mut first, mut next_block) = (0, table);
    while first < count {
        // Sorted; none shares bytes with another.
        let mut held = [Range {
            tensor: 0,
            start: 0,
            end: 0,
        }; RANGES];
        let mut len = 0;
        let mut r = next_block;
        let mut tensor = first;
        while tensor < count {
            if tensor == first + RANGES {
                next_block = r;
            }
            let range = tri!(Range::of(&tri!(Entry::read(&mut r, tensor)), tensor));
            if !range.is_empty() {
                let at = place(&held, len, range.start);
                if at > 0 {
                    tri!(range.beside(held[at - 1]));
                }
                if at < len {
                    tri!(range.beside(held[at]));
                }
                let is_new = at == 0 || held[at - 1].start != range.start;
                if is_new && tensor < first + RANGES {
                    let mut i = len;
                    while i > at {
                        held[i] = held[i - 1];
                        i -= 1;
                    }
                    held[at] = range;
                    len += 1;
                }
            }
            tensor += 1;
        }
        first += RANGES;
    }
    Ok(())
}

/// Number of the first `len` of `held`, which are sorted, that start at `start` or before it.
const fn place(held: &[Range; RANGES], len: usize, start: usize) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if held[middle].start <= start {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

//! FlatBuffers: tables whose fields are found by their number in a schema (the *FlatBuffers
//! internals* of that project). Every offset is checked: a buffer that points outside of itself
//! has no such field.

use std::ops::Range;

/// Most tables and texts of a vector: some times those of real files.
const MOST_TABLES: usize = 1 << 14;
const MOST_TEXTS: usize = 1 << 8;

/// A table.
#[derive(Clone, Copy)]
pub(super) struct Table<'b> {
    buffer: &'b [u8],
    start: usize,
    /// The table's list of offsets, without its two lengths.
    fields: &'b [u8],
}

/// Reads `N` bytes at `at`.
fn bytes<const N: usize>(buffer: &[u8], at: usize) -> Option<[u8; N]> {
    buffer.get(at..)?.first_chunk().copied()
}

fn u32_at(buffer: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes(buffer, at)?) as usize)
}

/// The place to which the offset at `at` points.
fn target(buffer: &[u8], at: usize) -> Option<usize> {
    at.checked_add(u32_at(buffer, at)?)
}

impl<'b> Table<'b> {
    /// The table at the root of a buffer.
    pub(super) fn root(buffer: &'b [u8]) -> Option<Table<'b>> {
        Table::at(buffer, target(buffer, 0)?)
    }

    fn at(buffer: &'b [u8], start: usize) -> Option<Table<'b>> {
        let back = i32::from_le_bytes(bytes(buffer, start)?);
        let list = usize::try_from(i64::try_from(start).ok()? - i64::from(back)).ok()?;
        let len = u16::from_le_bytes(bytes(buffer, list)?).into();
        Some(Table {
            buffer,
            start,
            fields: buffer.get(list..list.checked_add(len)?)?.get(4..)?,
        })
    }

    /// Place of field `field`.
    fn field(&self, field: usize) -> Option<usize> {
        let offset = u16::from_le_bytes(bytes(self.fields, 2 * field)?);
        (offset != 0).then_some(self.start + usize::from(offset))
    }

    /// A number of 32 bits; 0 if it is absent.
    pub(super) fn number(&self, field: usize) -> i32 {
        let number = || bytes(self.buffer, self.field(field)?);
        number().map_or(0, i32::from_le_bytes)
    }

    /// A table in this one.
    pub(super) fn table(&self, field: usize) -> Option<Table<'b>> {
        Table::at(self.buffer, target(self.buffer, self.field(field)?)?)
    }

    /// The bytes of a vector of elements of `width` bytes; none if it is absent.
    pub(super) fn vector(&self, field: usize, width: usize) -> Option<&'b [u8]> {
        let range = self.range(field, width)?;
        self.buffer.get(range)
    }

    /// The place of a vector's elements; an empty one if it is absent.
    fn range(&self, field: usize, width: usize) -> Option<Range<usize>> {
        let Some(at) = self.field(field) else {
            return Some(0..0);
        };
        let at = target(self.buffer, at)?;
        let len = u32_at(self.buffer, at)?.checked_mul(width)?;
        Some(at + 4..(at + 4).checked_add(len)?)
    }

    /// A text; empty if it is absent.
    pub(super) fn text(&self, field: usize) -> Option<&'b str> {
        std::str::from_utf8(self.vector(field, 1)?).ok()
    }

    /// The places of the elements of a vector of offsets, of at most `most`: elements may share
    /// their bytes, so that a small file might stand for any number of them.
    fn places(
        &self,
        field: usize,
        most: usize,
    ) -> Option<impl Iterator<Item = Option<usize>> + use<'b>> {
        let range = self.range(field, 4)?;
        (range.len() / 4 <= most).then_some(())?;
        let offsets = self.buffer.get(range.clone())?.as_chunks::<4>().0;
        let starts = range.step_by(4).zip(offsets);
        Some(starts.map(|(at, offset)| at.checked_add(u32::from_le_bytes(*offset) as usize)))
    }

    /// The tables of a vector.
    pub(super) fn tables(&self, field: usize) -> Option<Vec<Table<'b>>> {
        self.places(field, MOST_TABLES)?
            .map(|at| Table::at(self.buffer, at?))
            .collect()
    }

    /// The texts of a vector.
    pub(super) fn texts(&self, field: usize) -> Option<Vec<&'b str>> {
        self.places(field, MOST_TEXTS)?
            .map(|at| {
                let (at, len) = (at?, u32_at(self.buffer, at?)?);
                std::str::from_utf8(self.buffer.get(at + 4..)?.get(..len)?).ok()
            })
            .collect()
    }
}

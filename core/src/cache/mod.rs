//! The cache of one layer: keys and values of the sinks and of a ring, in f32, f16 or q8_0.
//!
//! A slot holds one token. Token `t` (counted from the last reset) takes slot `t` while there are empty ones; then the window's
//! slots are a ring, so that the oldest window token is overwritten and the sinks, the first slots, never are: eviction moves no
//! byte. Whole messages can be evicted at once, which moves none either: the ring knows where what it keeps begins. Keys are
//! stored already rotated at their absolute position. Where in a plane an element lies is [`crate::kernels::attend`]'s layout.
//!
//! This is the layout `kv`; other layouts of a slot (keys only, or the input of the projections) have their place beside it:
//! they differ in what [`LayerCache::write`] stores and in the kernel that reads it, not in how slots are chosen.

use core::ops::Range;

use crate::arena::Carver;
use crate::kernels::attend::{Planes, SlotRun, Store, TILE};
use crate::kernels::{Isa, vector};
use crate::plan::CacheType;
use crate::quant::BLOCK;

/// Which slot a token takes, and which tokens are kept: the sinks, and all from [`Ring::window_start`] on.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    sinks: usize,
    capacity: usize,
    position: u64,
    start: u64,
}

impl Ring {
    /// An empty ring of `sinks + window` slots.
    pub const fn new(sinks: usize, window: usize) -> Ring {
        Ring {
            sinks,
            capacity: sinks + window,
            position: 0,
            start: sinks as u64,
        }
    }

    /// Slots, the sinks' included.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Slots that are never overwritten.
    pub const fn sinks(&self) -> usize {
        self.sinks
    }

    /// Tokens seen since the last reset: the absolute position of the next one.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Absolute position of the oldest token of the window that is kept; that of the next one if the window is empty.
    pub const fn window_start(&self) -> u64 {
        self.start
    }

    /// Tokens that are kept.
    pub const fn live(&self) -> usize {
        if self.position < self.sinks as u64 {
            self.position as usize
        } else {
            self.sinks + (self.position - self.start) as usize
        }
    }

    /// Slots that hold a token, kept or evicted, once `more` further tokens are in.
    pub const fn used_after(&self, more: usize) -> usize {
        let seen = self.position.saturating_add(more as u64);
        if seen < self.capacity as u64 {
            seen as usize
        } else {
            self.capacity
        }
    }

    /// The slot that the token at absolute position `position` takes.
    pub const fn slot(&self, position: u64) -> usize {
        if position < self.capacity as u64 {
            return position as usize;
        }
        self.sinks + ((position - self.sinks as u64) % self.window() as u64) as usize
    }

    const fn window(&self) -> usize {
        self.capacity - self.sinks
    }

    /// Position of the oldest window token that there is room for when the one at `position` is the newest.
    const fn oldest_with_room(&self, position: u64) -> u64 {
        let oldest = (position + 1).saturating_sub(self.window() as u64);
        if oldest > self.sinks as u64 {
            oldest
        } else {
            self.sinks as u64
        }
    }

    /// Where in the sequence of kept tokens (sinks, then window) the token at `position` stands when it is the newest: what the
    /// first paper calls positions within the cache.
    pub const fn cache_position(&self, position: u64) -> u64 {
        if position < self.sinks as u64 {
            return position;
        }
        let oldest = self.oldest_with_room(position);
        let start = if self.start > oldest { self.start } else { oldest };
        self.sinks as u64 + (position - start)
    }

    /// The slots that the next tokens will take.
    pub const fn chunk_slots(&self) -> SlotRun {
        self.run(self.position)
    }

    /// Slots of evicted tokens that none has overwritten when the token at `position` is the newest: where they begin, and how many.
    pub const fn evicted_slots(&self, position: u64) -> (SlotRun, usize) {
        let oldest = self.oldest_with_room(position);
        (self.run(oldest), self.start.saturating_sub(oldest) as usize)
    }

    const fn run(&self, position: u64) -> SlotRun {
        SlotRun {
            first: self.slot(position),
            wrap_to: self.sinks,
            capacity: self.capacity,
        }
    }

    /// Counts `tokens` tokens as written.
    pub const fn advance(&mut self, tokens: usize) {
        self.position += tokens as u64;
        if self.position > 0 {
            let oldest = self.oldest_with_room(self.position - 1);
            if oldest > self.start {
                self.start = oldest;
            }
        }
    }

    /// Evicts the `tokens` oldest tokens of the window, or as many as there are; returns how many. Their slots are taken in turn.
    pub const fn evict(&mut self, tokens: usize) -> usize {
        let window = self.position.saturating_sub(self.start);
        let evicted = if (tokens as u64) < window {
            tokens as u64
        } else {
            window
        };
        self.start += evicted;
        evicted as usize
    }

    /// Makes sinks of all tokens so far, unless there were fewer than sinks.
    ///
    /// # Panics
    /// If a token was evicted, or no slot would be left for a window.
    pub const fn pin(&mut self) {
        assert!(self.start == self.sinks as u64 && self.position < self.capacity as u64);
        if self.position > self.sinks as u64 {
            self.sinks = self.position as usize;
            self.start = self.position;
        }
    }
}

/// Most parts that a cache is cut into for several workers.
pub(crate) const MAX_CACHE_PARTS: usize = 8;

/// Keys and values of one layer, mutable.
pub struct LayerCache<'a> {
    planes: PlanesMut<'a>,
    capacity: usize,
    columns: usize,
}

enum PlanesMut<'a> {
    F32 {
        keys: &'a mut [f32],
        values: &'a mut [f32],
    },
    F16 {
        keys: &'a mut [u16],
        values: &'a mut [u16],
    },
    Q8 {
        keys: &'a mut [i8],
        key_scales: &'a mut [u16],
        values: &'a mut [i8],
        value_scales: &'a mut [u16],
    },
}

impl<'a> LayerCache<'a> {
    /// Views `memory` (aligned, of the planned size) as `capacity` slots of `columns` key and as many value columns; `None` if it
    /// is too short.
    pub fn carve(
        memory: &'a mut [u8],
        cache_type: CacheType,
        capacity: usize,
        columns: usize,
    ) -> Option<Self> {
        let mut carver = Carver::new(memory)?;
        let len = capacity * columns;
        let scales = capacity * cache_type.row_scales(columns);
        let planes = match cache_type {
            CacheType::F32 => PlanesMut::F32 {
                keys: carver.take(len)?,
                values: carver.take(len)?,
            },
            CacheType::F16 => PlanesMut::F16 {
                keys: carver.take(len)?,
                values: carver.take(len)?,
            },
            CacheType::Q8_0 => PlanesMut::Q8 {
                keys: carver.take(len)?,
                values: carver.take(len)?,
                key_scales: carver.take(scales)?,
                value_scales: carver.take(scales)?,
            },
        };
        Some(LayerCache {
            planes,
            capacity,
            columns,
        })
    }

    /// Slots `slots` in parts of at least a tile, at most [`MAX_CACHE_PARTS`], for as many workers to write to: the parts, which are
    /// caches of their own, the slot where the first one begins, and how many each has (the last may have fewer).
    pub(crate) fn parts(
        &mut self,
        slots: Range<usize>,
    ) -> (heapless::Vec<LayerCache<'_>, MAX_CACHE_PARTS>, usize, usize) {
        let start = slots.start / TILE * TILE;
        let end = slots.end.next_multiple_of(TILE).min(self.capacity);
        let each = (end - start)
            .div_ceil(MAX_CACHE_PARTS)
            .next_multiple_of(TILE)
            .max(TILE);
        let columns = self.columns;
        let blocks = columns.div_ceil(BLOCK);
        let mut parts = heapless::Vec::new();
        // Tiles lie one after the other in every plane, so that whole tiles are a cache like any other.
        macro_rules! cut {
            ($variant:ident: $($plane:ident by $columns:expr),*) => {{
                $(let mut $plane = $plane[start * $columns..end * $columns].chunks_mut(each * $columns);)*
                while let ($(Some($plane),)*) = ($($plane.next(),)*) {
                    let part = LayerCache {
                        capacity: each.min(end - start - parts.len() * each),
                        planes: PlanesMut::$variant { $($plane),* },
                        columns,
                    };
                    if parts.push(part).is_err() {
                        unreachable!("parts are long enough for there to be few");
                    }
                }
            }};
        }
        match &mut self.planes {
            PlanesMut::F32 { keys, values } => cut!(F32: keys by columns, values by columns),
            PlanesMut::F16 { keys, values } => cut!(F16: keys by columns, values by columns),
            PlanesMut::Q8 {
                keys,
                key_scales,
                values,
                value_scales,
            } => cut!(Q8: keys by columns, key_scales by blocks, values by columns, value_scales by blocks),
        }
        (parts, start, each)
    }

    /// The same memory, to attend to.
    pub fn store(&self) -> Store<'_> {
        let (capacity, columns) = (self.capacity, self.columns);
        macro_rules! planes {
            ($keys:expr, $key_scales:expr, $values:expr, $value_scales:expr) => {
                Planes {
                    keys: $keys,
                    key_scales: $key_scales,
                    values: $values,
                    value_scales: $value_scales,
                    capacity,
                    key_columns: columns,
                    value_columns: columns,
                }
            };
        }
        match &self.planes {
            PlanesMut::F32 { keys, values } => Store::F32(planes!(keys, &[], values, &[])),
            PlanesMut::F16 { keys, values } => Store::F16(planes!(keys, &[], values, &[])),
            PlanesMut::Q8 {
                keys,
                key_scales,
                values,
                value_scales,
            } => Store::Q8(planes!(keys, key_scales, values, value_scales)),
        }
    }

    /// Rounds a token's key and value (already rotated, all heads) to the element type and writes them to `slot`.
    ///
    /// # Panics
    /// If there is no such slot, or the rows are not as wide as the cache.
    pub fn write(&mut self, isa: Isa, slot: usize, key: &[f32], value: &[f32]) {
        assert!(slot < self.capacity && key.len() == self.columns && value.len() == self.columns);
        let (tile, columns) = (Tile::of(slot, self.capacity), self.columns);
        match &mut self.planes {
            PlanesMut::F32 { keys, values } => {
                tile.scatter(keys, columns, 0, key);
                values[slot * columns..][..columns].copy_from_slice(value);
            }
            PlanesMut::F16 { keys, values } => {
                let mut rounded = [0u16; 64];
                for (i, part) in key.chunks(rounded.len()).enumerate() {
                    let rounded = &mut rounded[..part.len()];
                    vector::narrow(isa, part, rounded);
                    tile.scatter(keys, columns, i * 64, rounded);
                }
                vector::narrow(isa, value, &mut values[slot * columns..][..columns]);
            }
            PlanesMut::Q8 {
                keys,
                key_scales,
                values,
                value_scales,
            } => {
                let blocks = columns.div_ceil(BLOCK);
                let value_scales = &mut value_scales[slot * blocks..][..blocks];
                for (i, part) in key.chunks(BLOCK).enumerate() {
                    let (scale, rounded) = round_block(part);
                    tile.scatter(key_scales, blocks, i, &[scale]);
                    tile.scatter(keys, columns, i * BLOCK, &rounded[..part.len()]);
                }
                let values = &mut values[slot * columns..][..columns];
                for ((part, out), scale) in value
                    .chunks(BLOCK)
                    .zip(values.chunks_mut(BLOCK))
                    .zip(value_scales)
                {
                    let (rounded_scale, rounded) = round_block(part);
                    *scale = rounded_scale;
                    out.copy_from_slice(&rounded[..part.len()]);
                }
            }
        }
    }

    /// Copies a token of another cache of the same shape, as it is: committing a prefill chunk changes no bit.
    ///
    /// # Panics
    /// If there is no such slot, or types or columns differ.
    pub fn copy(&mut self, to: usize, other: &LayerCache<'_>, from: usize) {
        assert!(to < self.capacity && from < other.capacity && self.columns == other.columns);
        let columns = self.columns;
        let (to_tile, from_tile) = (Tile::of(to, self.capacity), Tile::of(from, other.capacity));
        let rows = (to, from, columns);
        match (&mut self.planes, &other.planes) {
            (PlanesMut::F32 { keys, values }, PlanesMut::F32 { keys: k, values: v }) => {
                to_tile.copy(keys, from_tile, k, columns);
                copy_row(values, v, rows);
            }
            (PlanesMut::F16 { keys, values }, PlanesMut::F16 { keys: k, values: v }) => {
                to_tile.copy(keys, from_tile, k, columns);
                copy_row(values, v, rows);
            }
            (
                PlanesMut::Q8 {
                    keys,
                    key_scales,
                    values,
                    value_scales,
                },
                PlanesMut::Q8 {
                    keys: k,
                    key_scales: ks,
                    values: v,
                    value_scales: vs,
                },
            ) => {
                let blocks = columns.div_ceil(BLOCK);
                to_tile.copy(keys, from_tile, k, columns);
                to_tile.copy(key_scales, from_tile, ks, blocks);
                copy_row(values, v, rows);
                copy_row(value_scales, vs, (to, from, blocks));
            }
            _ => panic!("caches differ in element type"),
        }
    }
}

fn copy_row<T: Copy>(to: &mut [T], from: &[T], (to_slot, from_slot, columns): (usize, usize, usize)) {
    to[to_slot * columns..][..columns].copy_from_slice(&from[from_slot * columns..][..columns]);
}

/// Where a slot lies in an interleaved plane.
#[derive(Clone, Copy)]
struct Tile {
    start: usize,
    width: usize,
    lane: usize,
}

impl Tile {
    fn of(slot: usize, capacity: usize) -> Tile {
        let start = slot / TILE * TILE;
        Tile {
            start,
            width: TILE.min(capacity - start),
            lane: slot - start,
        }
    }

    /// Index of the slot's first element from column `column` on, in a plane of `columns` columns.
    fn at(self, columns: usize, column: usize) -> usize {
        self.start * columns + column * self.width + self.lane
    }

    /// Writes `values` to columns `column..` of the slot.
    fn scatter<T: Copy>(self, plane: &mut [T], columns: usize, column: usize, values: &[T]) {
        let column_starts = plane[self.at(columns, column)..].iter_mut().step_by(self.width);
        for (to, value) in column_starts.zip(values) {
            *to = *value;
        }
    }

    /// Copies all columns of a slot from another plane.
    fn copy<T: Copy>(self, plane: &mut [T], from: Tile, other: &[T], columns: usize) {
        let to = plane[self.at(columns, 0)..].iter_mut().step_by(self.width);
        let from = other[from.at(columns, 0)..].iter().step_by(from.width);
        for (to, from) in to.zip(from).take(columns) {
            *to = *from;
        }
    }
}

/// Rounds up to 32 values to 8 bits with an f16 scale, given as bits: the scale is `max|x| / 127`, rounded to f16 first, so that
/// the integers are the best for the scale that will be used.
fn round_block(x: &[f32]) -> (u16, [i8; BLOCK]) {
    let max = x.iter().fold(0.0f32, |max, v| max.max(v.abs()));
    let scale = half::f16::from_f32(max / 127.0);
    let widened = scale.to_f32();
    let inverse = if widened > 0.0 { 1.0 / widened } else { 0.0 };
    let mut q = [0; BLOCK];
    for (q, v) in q.iter_mut().zip(x) {
        // 1.5 · 2^23 leaves no fraction bits: rounds to the nearest, ties to even.
        let rounded = (v * inverse + 12_582_912.0) - 12_582_912.0;
        *q = rounded.clamp(-127.0, 127.0) as i8;
    }
    (scale.to_bits(), q)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Aligned;

    #[test]
    fn ring_keeps_sinks_and_overwrites_the_oldest() {
        let ring = Ring::new(2, 3);
        let slots: std::vec::Vec<usize> = (0..12).map(|t| ring.slot(t)).collect();
        assert_eq!(slots, [0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4, 2]);
        assert_eq!(ring.cache_position(4), 4);
        assert_eq!(ring.cache_position(1 << 40), 4);
    }

    /// The ring against a list of (position, slot) that is kept by hand.
    #[test]
    fn evicting_and_pinning_keep_the_books() {
        for (sinks, window, pinned) in [(0, 5, 0), (2, 7, 2), (1, 9, 4)] {
            let mut ring = Ring::new(sinks, window);
            let capacity = sinks + window;
            let mut slots: std::vec::Vec<Option<u64>> = std::vec![None; capacity];
            for position in 0..pinned as u64 {
                slots[ring.slot(position)] = Some(position);
                ring.advance(1);
            }
            ring.pin();
            let mut kept: std::vec::Vec<u64> = std::vec![];
            for position in pinned as u64..200 {
                if position % 7 == 3 {
                    let asked = (position % 5) as usize;
                    let evicted = ring.evict(asked);
                    assert_eq!(evicted, asked.min(kept.len()));
                    kept.drain(..evicted);
                }
                if kept.len() == capacity - pinned {
                    kept.remove(0);
                }
                kept.push(position);
                assert_eq!(ring.cache_position(position), (pinned + kept.len() - 1) as u64);
                slots[ring.slot(position)] = Some(position);
                let (run, len) = ring.evicted_slots(position);
                let dead: std::vec::Vec<usize> = (0..len).map(|i| run.slot(i)).collect();
                for (slot, of) in slots[..ring.used_after(1)].iter().enumerate() {
                    let of = of.unwrap();
                    let live = of < pinned as u64 || kept.contains(&of);
                    assert_eq!(dead.contains(&slot), !live, "slot {slot} at {position}");
                }
                ring.advance(1);
                assert_eq!(ring.live(), pinned + kept.len());
                assert_eq!(ring.window_start(), kept[0]);
            }
        }
    }

    #[test]
    fn a_copied_token_is_the_written_one() {
        for cache_type in [CacheType::F32, CacheType::F16, CacheType::Q8_0] {
            let (mut a, mut b) = (Aligned([0u8; 1 << 16]), Aligned([0u8; 1 << 16]));
            let mut direct = LayerCache::carve(&mut a.0, cache_type, 37, 48).unwrap();
            let mut small = Aligned([0u8; 1 << 14]);
            let mut chunk = LayerCache::carve(&mut small.0, cache_type, 3, 48).unwrap();
            let row = |seed: usize| -> std::vec::Vec<f32> {
                (0..48)
                    .map(|i| ((i * 31 + seed * 17) % 101) as f32 / 7.0 - 6.0)
                    .collect()
            };
            direct.write(Isa::Scalar, 35, &row(1), &row(2));
            direct.write(Isa::Scalar, 3, &row(3), &row(4));
            chunk.write(Isa::Scalar, 0, &row(1), &row(2));
            chunk.write(Isa::Scalar, 2, &row(3), &row(4));
            let mut copied = LayerCache::carve(&mut b.0, cache_type, 37, 48).unwrap();
            copied.copy(35, &chunk, 0);
            copied.copy(3, &chunk, 2);
            assert!(a.0 == b.0);
        }
    }
}

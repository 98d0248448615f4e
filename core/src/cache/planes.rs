//! Planes: an element for every slot and column, in one element type.

use core::ops::Range;

use super::layout::PlaneShape;
use crate::arena::Carver;
use crate::kernels::attend::{ElementType, Planes, Rows, Store, TILE, TileStore, Tiles};
use crate::kernels::{Isa, Narrow};
use crate::nn::math::round_small;
use crate::quant::BLOCK;

/// Order of a plane's elements in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Columns interleaved in tiles of slots: for planes that are multiplied by queries, or summed
    /// by tiles.
    Interleaved,
    /// Slot after slot.
    Rows,
}

impl Order {
    /// Number of slots in a tile. Rows are tiles of one slot.
    const fn tile(self) -> usize {
        match self {
            Order::Interleaved => TILE,
            Order::Rows => 1,
        }
    }
}

/// The elements; 8-bit elements have an f16 scale, stored as bits, per 32 columns of a slot.
enum Elements<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [u16]),
    Q8(&'a mut [i8], &'a mut [u16]),
}

impl<'a> Elements<'a> {
    /// Takes the first `slots` slots off the front.
    fn take(&mut self, slots: usize, columns: usize) -> Elements<'a> {
        fn front<'a, T>(plane: &mut &'a mut [T], len: usize) -> &'a mut [T] {
            let (front, rest) = core::mem::take(plane).split_at_mut(len);
            *plane = rest;
            front
        }
        match self {
            Elements::F32(plane) => Elements::F32(front(plane, slots * columns)),
            Elements::F16(plane) => Elements::F16(front(plane, slots * columns)),
            Elements::Q8(plane, scales) => Elements::Q8(
                front(plane, slots * columns),
                front(scales, slots * columns.div_ceil(BLOCK)),
            ),
        }
    }
}

/// A plane of one layer's cache.
pub(super) struct Plane<'a> {
    elements: Elements<'a>,
    order: Order,
    capacity: usize,
    columns: usize,
}

impl<'a> Plane<'a> {
    /// Takes a plane off the front of `carver`; `None` if its buffer is too short.
    pub(super) fn carve(carver: &mut Carver<'a>, shape: PlaneShape) -> Option<Self> {
        let (len, scales) = shape.counts();
        let elements = match shape.element {
            ElementType::F32 => Elements::F32(carver.take(len)?),
            ElementType::F16 => Elements::F16(carver.take(len)?),
            ElementType::Q8_0 => Elements::Q8(carver.take(len)?, carver.take(scales)?),
        };
        Some(Plane {
            elements,
            order: shape.order,
            capacity: shape.slots,
            columns: shape.columns,
        })
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns a cutter over the whole plane.
    pub(super) fn cutter(&mut self) -> Cutter<'_> {
        Cutter {
            rest: match &mut self.elements {
                Elements::F32(plane) => Elements::F32(plane),
                Elements::F16(plane) => Elements::F16(plane),
                Elements::Q8(plane, scales) => Elements::Q8(plane, scales),
            },
            at: 0,
            order: self.order,
            columns: self.columns,
        }
    }

    /// Returns the memory of an interleaved plane as tiles, to attend to.
    pub(super) fn tiles(&self) -> TileStore<'_> {
        let (capacity, columns) = (self.capacity, self.columns);
        debug_assert!(self.order == Order::Interleaved);
        match &self.elements {
            Elements::F32(plane) => TileStore::F32(Tiles {
                elements: plane,
                scales: &[],
                capacity,
                columns,
            }),
            Elements::F16(plane) => TileStore::F16(Tiles {
                elements: plane,
                scales: &[],
                capacity,
                columns,
            }),
            Elements::Q8(plane, scales) => TileStore::Q8(Tiles {
                elements: plane,
                scales,
                capacity,
                columns,
            }),
        }
    }

    /// Returns interleaved keys and row-major values together, to attend to.
    ///
    /// # Panics
    /// If they differ in element type.
    pub(super) fn store<'s>(keys: &'s Plane<'_>, values: &'s Plane<'_>) -> Store<'s> {
        let columns = values.columns;
        debug_assert!(values.order == Order::Rows);
        macro_rules! store {
            ($variant:ident, $keys:expr, $elements:expr, $scales:expr) => {
                Store::$variant(Planes {
                    keys: $keys,
                    values: Rows {
                        elements: $elements,
                        scales: $scales,
                        columns,
                    },
                })
            };
        }
        match (keys.tiles(), &values.elements) {
            (TileStore::F32(keys), Elements::F32(values)) => store!(F32, keys, values, &[]),
            (TileStore::F16(keys), Elements::F16(values)) => store!(F16, keys, values, &[]),
            (TileStore::Q8(keys), Elements::Q8(values, scales)) => store!(Q8, keys, values, scales),
            _ => panic!("planes differ in element type"),
        }
    }

    /// Rounds `row` to the element type and writes it to `slot`. A plane holds finite elements
    /// only, see [`finite`].
    ///
    /// # Panics
    /// If there is no such slot, or the row is not as wide as the plane.
    pub(super) fn write(&mut self, isa: Isa, slot: usize, row: &[f32]) {
        assert!(slot < self.capacity && row.len() == self.columns);
        let (tile, columns) = (self.tile(slot), self.columns);
        match &mut self.elements {
            Elements::F32(plane) => {
                let mut kept = [0.0; 64];
                for (i, part) in row.chunks(kept.len()).enumerate() {
                    let kept = &mut kept[..part.len()];
                    kept.iter_mut()
                        .zip(part)
                        .for_each(|(kept, x)| *kept = finite(*x));
                    tile.scatter(plane, columns, i * 64, kept);
                }
            }
            Elements::F16(plane) => {
                let mut rounded = [0u16; 64];
                for (i, part) in row.chunks(rounded.len()).enumerate() {
                    let rounded = &mut rounded[..part.len()];
                    isa.run(Narrow {
                        x: part,
                        out: rounded,
                    });
                    rounded
                        .iter_mut()
                        .for_each(|bits| *bits = finite_f16(*bits));
                    tile.scatter(plane, columns, i * 64, rounded);
                }
            }
            Elements::Q8(plane, scales) => {
                let blocks = columns.div_ceil(BLOCK);
                for (i, part) in row.chunks(BLOCK).enumerate() {
                    let (scale, rounded) = round_block(part);
                    tile.scatter(scales, blocks, i, &[scale]);
                    tile.scatter(plane, columns, i * BLOCK, &rounded[..part.len()]);
                }
            }
        }
    }

    /// Copies a slot of another plane unchanged.
    ///
    /// # Panics
    /// If there is no such slot, or types, orders or columns differ.
    pub(super) fn copy(&mut self, to: usize, other: &Plane<'_>, from: usize) {
        assert!(to < self.capacity && from < other.capacity);
        assert!(self.columns == other.columns && self.order == other.order);
        let columns = self.columns;
        let (to, from) = (self.tile(to), other.tile(from));
        match (&mut self.elements, &other.elements) {
            (Elements::F32(a), Elements::F32(b)) => to.copy(a, from, b, columns),
            (Elements::F16(a), Elements::F16(b)) => to.copy(a, from, b, columns),
            (Elements::Q8(a, a_scales), Elements::Q8(b, b_scales)) => {
                to.copy(a, from, b, columns);
                to.copy(a_scales, from, b_scales, columns.div_ceil(BLOCK));
            }
            _ => panic!("planes differ in element type"),
        }
    }

    fn tile(&self, slot: usize) -> Tile {
        let start = slot / self.order.tile() * self.order.tile();
        Tile {
            start,
            width: self.order.tile().min(self.capacity - start),
            lane: slot - start,
        }
    }
}

/// Cuts a plane into smaller planes, from the front on.
pub(super) struct Cutter<'a> {
    rest: Elements<'a>,
    at: usize,
    order: Order,
    columns: usize,
}

impl<'a> Cutter<'a> {
    /// Cuts off slots `slots`: whole tiles, except for the plane's last.
    ///
    /// # Panics
    /// If they begin before the end of the slots that were cut off last.
    pub(super) fn part(&mut self, slots: Range<usize>) -> Plane<'a> {
        self.rest.take(slots.start - self.at, self.columns);
        self.at = slots.end;
        Plane {
            elements: self.rest.take(slots.len(), self.columns),
            order: self.order,
            capacity: slots.len(),
            columns: self.columns,
        }
    }
}

/// Place of a slot in a plane.
#[derive(Clone, Copy)]
struct Tile {
    start: usize,
    width: usize,
    lane: usize,
}

impl Tile {
    /// Index of the slot's first element from column `column` on, in a plane of `columns` columns.
    fn at(self, columns: usize, column: usize) -> usize {
        self.start * columns + column * self.width + self.lane
    }

    /// Writes `values` to columns `column..` of the slot.
    fn scatter<T: Copy>(self, plane: &mut [T], columns: usize, column: usize, values: &[T]) {
        let plane = &mut plane[self.at(columns, column)..];
        if self.width == 1 {
            return plane[..values.len()].copy_from_slice(values);
        }
        for (to, value) in plane.iter_mut().step_by(self.width).zip(values) {
            *to = *value;
        }
    }

    /// Copies all columns of a slot from another plane.
    fn copy<T: Copy>(self, plane: &mut [T], from: Tile, other: &[T], columns: usize) {
        let to = &mut plane[self.at(columns, 0)..];
        let other = &other[from.at(columns, 0)..];
        if self.width == 1 && from.width == 1 {
            return to[..columns].copy_from_slice(&other[..columns]);
        }
        let to = to.iter_mut().step_by(self.width);
        for (to, from) in to.zip(other.iter().step_by(from.width)).take(columns) {
            *to = *from;
        }
    }
}

/// Sanitizes a value before it is cached: an infinity saturates to the largest finite value of its
/// sign, and NaN becomes 0. A softmax weight of zero takes a slot out of a sum (a token that is not
/// seen yet, or an empty slot), and this only works if zero times the cached value is never NaN.
pub(super) fn finite(x: f32) -> f32 {
    if x.is_nan() {
        0.0
    } else {
        x.clamp(f32::MIN, f32::MAX)
    }
}

/// Sanitizes the bits of an f16 as [`finite`] does.
fn finite_f16(bits: u16) -> u16 {
    const INFINITY: u16 = half::f16::INFINITY.to_bits();
    match bits & 0x7FFF {
        INFINITY => bits - 1,
        magnitude if magnitude > INFINITY => 0,
        _ => bits,
    }
}

/// Rounds up to 32 values to 8 bits with an f16 scale, given as bits. The scale is `max|x| / 127`,
/// rounded to f16 first, so that the integers fit the scale that will be used. Values too large for
/// any scale saturate, as in [`finite`].
fn round_block(x: &[f32]) -> (u16, [i8; BLOCK]) {
    let max = x.iter().fold(0.0f32, |max, v| max.max(v.abs()));
    let scale = half::f16::from_f32((max / 127.0).min(half::f16::MAX.to_f32_const()));
    let widened = scale.to_f32();
    let inverse = if widened > 0.0 { 1.0 / widened } else { 0.0 };
    let mut q = [0; BLOCK];
    for (q, v) in q.iter_mut().zip(x) {
        let rounded = round_small(v * inverse);
        *q = rounded.clamp(-127.0, 127.0) as i8;
    }
    (scale.to_bits(), q)
}

/// Rounds `row` as a cache of this type does.
pub fn round(element: ElementType, row: &mut [f32]) {
    match element {
        ElementType::F32 => row.iter_mut().for_each(|x| *x = finite(*x)),
        ElementType::F16 => {
            for x in row {
                let bits = finite_f16(half::f16::from_f32(*x).to_bits());
                *x = half::f16::from_bits(bits).to_f32();
            }
        }
        ElementType::Q8_0 => {
            for part in row.chunks_mut(BLOCK) {
                let (scale, rounded) = round_block(part);
                let scale = half::f16::from_bits(scale).to_f32();
                for (x, q) in part.iter_mut().zip(rounded) {
                    *x = f32::from(q) * scale;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Aligned;

    #[test]
    fn a_copied_slot_is_the_written_one() {
        let row = |seed: usize| -> std::vec::Vec<f32> {
            (0..48)
                .map(|i| ((i * 31 + seed * 17) % 101) as f32 / 7.0 - 6.0)
                .collect()
        };
        for element in [ElementType::F32, ElementType::F16, ElementType::Q8_0] {
            for order in [Order::Interleaved, Order::Rows] {
                let (mut a, mut b) = (Aligned([0u8; 1 << 16]), Aligned([0u8; 1 << 16]));
                let mut small = Aligned([0u8; 1 << 14]);
                let carve = |memory, slots| {
                    let shape = PlaneShape {
                        element,
                        order,
                        slots,
                        columns: 48,
                    };
                    Plane::carve(&mut Carver::new(memory).unwrap(), shape).unwrap()
                };
                let mut direct = carve(&mut a.0[..], 37);
                let mut chunk = carve(&mut small.0[..], 3);
                direct.write(Isa::Scalar, 35, &row(1));
                direct.write(Isa::Scalar, 3, &row(3));
                chunk.write(Isa::Scalar, 0, &row(1));
                chunk.write(Isa::Scalar, 2, &row(3));
                let mut copied = carve(&mut b.0[..], 37);
                copied.copy(35, &chunk, 0);
                copied.copy(3, &chunk, 2);
                assert!(a.0 == b.0);
            }
        }
    }

    #[test]
    fn whatever_is_written_what_is_kept_is_finite() {
        let mut row = [0.25f32; 80];
        let odd = [
            f32::NAN,
            -f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            f32::MIN,
            65_520.0,
            -8.5e6,
            1e-45,
        ];
        row[..odd.len()].copy_from_slice(&odd);
        row[64..64 + odd.len()].copy_from_slice(&odd);
        for isa in crate::kernels::isas() {
            for element in [ElementType::F32, ElementType::F16, ElementType::Q8_0] {
                let mut memory = Aligned([0u8; 1 << 12]);
                let mut carver = Carver::new(&mut memory.0[..]).unwrap();
                let shape = PlaneShape {
                    element,
                    order: Order::Rows,
                    slots: 2,
                    columns: 80,
                };
                let mut plane = Plane::carve(&mut carver, shape).unwrap();
                plane.write(isa, 1, &row);
                let kept: std::vec::Vec<f32> = match &plane.elements {
                    Elements::F32(plane) => plane[80..].to_vec(),
                    Elements::F16(plane) => plane[80..]
                        .iter()
                        .map(|bits| half::f16::from_bits(*bits).to_f32())
                        .collect(),
                    Elements::Q8(plane, scales) => plane[80..]
                        .iter()
                        .zip(0..)
                        .map(|(q, i)| {
                            f32::from(*q) * half::f16::from_bits(scales[3 + i / BLOCK]).to_f32()
                        })
                        .collect(),
                };
                let mut rounded = row;
                round(element, &mut rounded);
                assert_eq!(kept, rounded, "{element:?}");
                assert!(kept.iter().all(|x| x.is_finite()), "{kept:?}");
                assert!(
                    kept[0] == 0.0 && kept[1] == 0.0 && kept[2] > 65_000.0 && kept[3] < -65_000.0
                );
            }
        }
    }
}

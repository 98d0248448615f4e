//! Sums over slots of interleaved columns.
//!
//! # Order
//!
//! Slot `s` belongs to partial sum `s mod 16` of a weighted sum, tile after tile, first of the ring
//! and then of the chunk. A fold of halves follows. Products and sums are never fused, so that any
//! instruction set gives the same bits.

use core::ops::Range;

use super::super::{ColumnHalves, Lanes, Op, fold};
use super::ElementType;
use super::tiles::{Element, TILE, TileStore, Tiles, View, load, load_scale, not_built, view};
use crate::quant::BLOCK;

/// Operands of the sums: columns of a ring's first tiles, and of a chunk's tiles.
#[derive(Clone, Copy)]
pub(crate) struct Summed<'a> {
    /// The ring.
    pub(crate) ring: TileStore<'a>,
    /// Tiles of the ring, from the first on.
    pub(crate) ring_tiles: usize,
    /// The chunk, in elements of the same type, and its tiles.
    pub(crate) chunk: Option<(TileStore<'a>, usize)>,
}

/// Weights of some rows: first of whole tiles of the ring's slots (zero for a slot that does not
/// exist), then of the chunk's.
#[derive(Clone, Copy)]
pub(crate) struct TileWeights<'a> {
    /// Row after row.
    pub(crate) weights: &'a [f32],
    /// Stride of the rows, in weights.
    pub(crate) stride: usize,
    /// Index in a row of the chunk's first weight.
    pub(crate) chunk_at: usize,
    /// True if half tiles with zero weight in every row are left out.
    pub(crate) skips: bool,
}

/// Writes to `out[row · stride + column]` the weighted sums of every column over all slots. Ring
/// and chunk have the same element type.
pub(crate) struct SlotSums<'a> {
    pub(crate) summed: &'a Summed<'a>,
    pub(crate) weights: TileWeights<'a>,
    pub(crate) out: &'a mut [f32],
    pub(crate) stride: usize,
}

impl Op for SlotSums<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<L: Lanes>(self, l: L) {
        let SlotSums {
            summed,
            weights,
            out,
            stride,
        } = self;
        macro_rules! sum {
            ($variant:ident, $ring:expr) => {{
                let chunk = summed.chunk.map(|(store, count)| match store {
                    TileStore::$variant(tiles) => (tiles, count),
                    _ => panic!("ring and chunk have one element type"),
                });
                let sources = [Some(($ring, summed.ring_tiles)), chunk];
                sum_columns(l, &sources, weights, (out, stride), $ring.columns)
            }};
        }
        match summed.ring {
            TileStore::F32(ring) => sum!(F32, ring),
            TileStore::F16(ring) if ElementType::F16.is_built() => sum!(F16, ring),
            TileStore::Q8(ring) => sum!(Q8, ring),
            TileStore::F16(_) => not_built(),
        }
    }
}

/// The ring and the chunk, and how many tiles of each.
type Sources<'a, E> = [Option<(Tiles<'a, E>, usize)>; 2];

#[inline(always)]
fn sum_columns<L: Lanes, E: Element>(
    l: L,
    sources: &Sources<'_, E>,
    weights: TileWeights<'_>,
    (out, out_stride): (&mut [f32], usize),
    columns: usize,
) {
    let rows = weights.weights.len() / weights.stride;
    if L::SUMS_BY_COLUMN && E::SCALED {
        for (row, out) in (0..rows).zip(out.chunks_mut(out_stride)) {
            sums_by_column(l, sources, weights, row, &mut out[..columns]);
        }
        return;
    }
    let mut row = 0;
    while row < rows {
        let many = L::MANY_ROWS && rows - row >= 4;
        let mut column = 0;
        while column < columns {
            let left = columns - column;
            let place = (row, column);
            let out = &mut out[row * out_stride + column..];
            column += if many && L::SUMS >= 16 && left >= 4 {
                sum_block::<L, E, 4, 4>(l, sources, weights, place, (out, out_stride))
            } else if many && left >= 2 {
                sum_block::<L, E, 4, 2>(l, sources, weights, place, (out, out_stride))
            } else if many {
                sum_block::<L, E, 4, 1>(l, sources, weights, place, (out, out_stride))
            } else if left >= 4 {
                sum_block::<L, E, 1, 4>(l, sources, weights, place, (out, out_stride))
            } else {
                sum_block::<L, E, 1, 1>(l, sources, weights, place, (out, out_stride))
            };
        }
        row += if many { 4 } else { 1 };
    }
}

/// Computes one row's sums, a column at a time. Half tiles after the last one with a weight other
/// than zero are left out, since they would add zero.
#[inline(always)]
fn sums_by_column<L: Lanes, E: Element>(
    l: L,
    sources: &Sources<'_, E>,
    weights: TileWeights<'_>,
    row: usize,
    out: &mut [f32],
) {
    let row = &weights.weights[row * weights.stride..][..weights.stride];
    let rows = [0, weights.chunk_at].map(|at| &row[at..]);
    let used: [usize; 2] = core::array::from_fn(|i| {
        let row = sources[i].map_or(&[][..], |(_, count)| &rows[i][..count * TILE]);
        row.iter()
            .rposition(|weight| weight.to_bits() != 0)
            .map_or(0, |last| last / 16 + 1)
    });
    for (column, out) in out.iter_mut().enumerate() {
        let mut acc = [[l.splat(0.0)]];
        for ((source, row), used) in sources.iter().zip(rows).zip(used) {
            let Some((tiles, _)) = source else { break };
            let whole = used.min(tiles.capacity / TILE * 2);
            add_halves(
                l,
                tiles,
                column,
                &row.as_chunks().0[..whole],
                weights.skips,
                &mut acc[0][0],
            );
            if whole < used {
                acc = add_tiles(
                    l,
                    tiles,
                    (whole / 2..used.div_ceil(2), weights.skips),
                    column,
                    &[row],
                    acc,
                );
            }
        }
        *out = fold(l, acc[0][0]);
    }
}

/// Adds the first half tiles of a column of 8-bit elements, all of whole tiles.
#[inline(always)]
fn add_halves<L: Lanes, E: Element>(
    l: L,
    tiles: &Tiles<'_, E>,
    column: usize,
    weights: &[[f32; 16]],
    skips: bool,
    acc: &mut L::V,
) {
    let Some(elements) = E::bytes(tiles.elements) else {
        unreachable!("scaled elements are bytes")
    };
    let nothing = |half: &[f32; 16]| skips && half.iter().all(|weight| weight.to_bits() == 0);
    let mut first = 0;
    while first < weights.len() {
        let left = &weights[first..];
        let some = left.iter().position(nothing).unwrap_or(left.len());
        if some > 0 {
            let halves = ColumnHalves {
                weights: &left[..some],
                first,
                elements: &elements[column * TILE..],
                scales: &tiles.scales[column / BLOCK * TILE..],
                steps: (tiles.columns * TILE, tiles.columns.div_ceil(BLOCK) * TILE),
            };
            l.add_halves_i8(acc, halves);
        }
        first += some + 1;
    }
}

/// Sums `C` columns, all in one block of scales, for `R` rows; returns `C`.
#[inline(always)]
fn sum_block<L: Lanes, E: Element, const R: usize, const C: usize>(
    l: L,
    sources: &Sources<'_, E>,
    weights: TileWeights<'_>,
    (row, column): (usize, usize),
    (out, out_stride): (&mut [f32], usize),
) -> usize {
    let mut acc = [[l.splat(0.0); C]; R];
    for (source, at) in sources.iter().zip([0, weights.chunk_at]) {
        let Some((tiles, count)) = source else { break };
        let rows: [&[f32]; R] = core::array::from_fn(|r| {
            &weights.weights[(row + r) * weights.stride + at..][..count * TILE]
        });
        acc = add_tiles(l, tiles, (0..*count, weights.skips), column, &rows, acc);
    }
    for (r, acc) in acc.iter().enumerate() {
        for (c, acc) in acc.iter().enumerate() {
            out[r * out_stride + c] = fold(l, *acc);
        }
    }
    C
}

/// Adds some tiles. The sums are passed and returned by value, so that they stay in registers.
#[inline(always)]
fn add_tiles<L: Lanes, E: Element, const R: usize, const C: usize>(
    l: L,
    tiles: &Tiles<'_, E>,
    (range, skips): (Range<usize>, bool),
    column: usize,
    rows: &[&[f32]; R],
    mut acc: [[L::V; C]; R],
) -> [[L::V; C]; R] {
    for tile in range {
        let view = view(tiles, tile);
        for half in 0..2 {
            if skips && weighs_nothing(rows, tile * TILE + half * 16) {
                continue;
            }
            if !L::MANY_ROWS && E::SCALED && view.width == TILE {
                let scale = load_scale::<L, true>(l, view.scales, view.width, column / BLOCK, half);
                let columns = &view.elements.as_chunks::<16>().0.as_chunks::<2>().0[column..][..C];
                for (acc, rows) in acc.iter_mut().zip(rows) {
                    let Some(weights) = rows[tile * TILE + half * 16..].first_chunk::<16>() else {
                        unreachable!("weights are whole tiles")
                    };
                    for (acc, column) in acc.iter_mut().zip(columns) {
                        E::add_scaled(l, acc, weights, &column[half], &scale);
                    }
                }
                continue;
            }
            let values: [L::V; C] = if view.width == TILE {
                column_block::<L, E, C, true>(l, view, column, half)
            } else {
                column_block::<L, E, C, false>(l, view, column, half)
            };
            for r in 0..R {
                let Some(weights) = rows[r][tile * TILE + half * 16..].first_chunk::<16>() else {
                    unreachable!("weights are whole tiles")
                };
                let weights = l.load(weights);
                for c in 0..C {
                    acc[r][c] = l.add(acc[r][c], l.mul(weights, values[c]));
                }
            }
        }
    }
    acc
}

/// Returns true if sixteen slots have zero weight in every row.
#[inline(always)]
fn weighs_nothing(rows: &[&[f32]], at: usize) -> bool {
    for row in rows {
        let mut bits = 0;
        for weight in &row[at..at + 16] {
            bits |= weight.to_bits();
        }
        if bits != 0 {
            return false;
        }
    }
    true
}

/// Loads sixteen slots of `C` columns in one block of scales.
#[inline(always)]
fn column_block<L: Lanes, E: Element, const C: usize, const WHOLE: bool>(
    l: L,
    tile: View<'_, E>,
    column: usize,
    half: usize,
) -> [L::V; C] {
    let mut values = [l.splat(0.0); C];
    for (c, value) in values.iter_mut().enumerate() {
        *value = load::<L, E, WHOLE>(l, tile, column + c, half);
    }
    if E::SCALED {
        let scale = load_scale::<L, WHOLE>(l, tile.scales, tile.width, column / BLOCK, half);
        for value in &mut values {
            *value = l.mul(*value, scale);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::super::derived_scores::tests::{element, noise, with_stores};
    use super::*;
    use crate::kernels::isa::Scalar;

    #[test]
    fn sums_are_over_the_ring_and_the_chunk() {
        let (capacity, columns, rows) = (75, 37, 5);
        with_stores(capacity, columns, &|ring| {
            with_stores(96, columns, &|chunk| {
                let chunk = match (ring, chunk) {
                    (TileStore::F32(_), TileStore::F32(_))
                    | (TileStore::F16(_), TileStore::F16(_))
                    | (TileStore::Q8(_), TileStore::Q8(_)) => chunk,
                    _ => return,
                };
                let stride = 96 + 96;
                let mut weights = noise(rows * stride, 11);
                weights
                    .chunks_exact_mut(stride)
                    .for_each(|row| row[capacity..96].fill(0.0));
                let summed = Summed {
                    ring,
                    ring_tiles: 3,
                    chunk: Some((chunk, 2)),
                };
                let mut out = std::vec![0.0; rows * 40];
                let of = TileWeights {
                    weights: &weights,
                    stride,
                    chunk_at: 96,
                    skips: false,
                };
                let sums = SlotSums {
                    summed: &summed,
                    weights: of,
                    out: &mut out,
                    stride: 40,
                };
                sums.eval(Scalar);
                for row in 0..rows {
                    for column in 0..columns {
                        let weight = |at: usize| f64::from(weights[row * stride + at]);
                        let in_ring = (0..capacity)
                            .map(|slot| weight(slot) * f64::from(element(&ring, slot, column)));
                        let in_chunk = (0..64).map(|slot| {
                            weight(96 + slot) * f64::from(element(&chunk, slot, column))
                        });
                        let want: f64 = in_ring.sum::<f64>() + in_chunk.sum::<f64>();
                        assert!((f64::from(out[row * 40 + column]) - want).abs() < 1e-4);
                    }
                }
            });
        });
    }
}

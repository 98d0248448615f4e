//! Products of interleaved columns with a matrix: how values are made of keys, slot by slot.
//!
//! Products and sums are never fused, in the order of columns: any instruction set gives the same
//! bits.

use core::ops::Range;

use super::super::{Lanes, Op};
use super::ElementType;
use super::tiles::{Element, TILE, TileStore, Tiles, View, load, load_scale, not_built, view};
use crate::quant::BLOCK;

/// Rows of a matrix whose columns belong to a plane's.
#[derive(Clone, Copy)]
pub(crate) struct Map<'a> {
    /// Row after row.
    pub(crate) rows: &'a [f32],
    /// Values of a row.
    pub(crate) stride: usize,
    /// First of the plane's columns in a row.
    pub(crate) at: usize,
}

/// For every slot of `tiles` the product of its columns with each row of `map`, to `out`,
/// interleaved in whole tiles; added to what is there if `add`.
pub(crate) struct Expand<'a> {
    pub(crate) store: &'a TileStore<'a>,
    pub(crate) tiles: Range<usize>,
    pub(crate) map: Map<'a>,
    pub(crate) out: &'a mut [f32],
    pub(crate) add: bool,
}

impl Op for Expand<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<L: Lanes>(self, l: L) {
        match self.store {
            TileStore::F32(plane) if ElementType::F32.is_built() => self.expand(l, plane),
            TileStore::F16(plane) if ElementType::F16.is_built() => self.expand(l, plane),
            TileStore::Q8(plane) => self.expand(l, plane),
            _ => not_built(),
        }
    }
}

impl Expand<'_> {
    #[inline(always)]
    fn expand<L: Lanes, E: Element>(self, l: L, plane: &Tiles<'_, E>) {
        let Expand {
            tiles,
            map,
            out,
            add,
            ..
        } = self;
        let outputs = map.rows.len() / map.stride;
        for (tile, out) in tiles.zip(out.chunks_exact_mut(outputs * TILE)) {
            let tile = view(plane, tile);
            for half in 0..2 {
                let mut output = 0;
                while output < outputs {
                    let place = (output, half);
                    output += if outputs - output >= 8 && L::SUMS >= 16 {
                        expand_block::<L, E, 8>(l, tile, plane.columns, map, place, out, add)
                    } else if outputs - output >= 4 {
                        expand_block::<L, E, 4>(l, tile, plane.columns, map, place, out, add)
                    } else {
                        expand_block::<L, E, 1>(l, tile, plane.columns, map, place, out, add)
                    };
                }
            }
        }
    }
}

/// Sixteen slots of `J` outputs; returns `J`.
#[inline(always)]
fn expand_block<L: Lanes, E: Element, const J: usize>(
    l: L,
    tile: View<'_, E>,
    columns: usize,
    map: Map<'_>,
    (output, half): (usize, usize),
    out: &mut [f32],
    add: bool,
) -> usize {
    let rows: [&[f32]; J] =
        core::array::from_fn(|j| &map.rows[(output + j) * map.stride + map.at..][..columns]);
    let mut acc = [l.splat(0.0); J];
    let mut scale = (usize::MAX, l.splat(0.0));
    for column in 0..columns {
        let whole = tile.width == TILE;
        let mut value = if whole {
            load::<L, E, true>(l, tile, column, half)
        } else {
            load::<L, E, false>(l, tile, column, half)
        };
        if E::SCALED {
            let block = column / BLOCK;
            if scale.0 != block {
                scale = (
                    block,
                    if whole {
                        load_scale::<L, true>(l, tile.scales, tile.width, block, half)
                    } else {
                        load_scale::<L, false>(l, tile.scales, tile.width, block, half)
                    },
                );
            }
            value = l.mul(value, scale.1);
        }
        for (acc, row) in acc.iter_mut().zip(&rows) {
            *acc = l.add(*acc, l.mul(l.splat(row[column]), value));
        }
    }
    for (j, acc) in acc.into_iter().enumerate() {
        let halves = out[(output + j) * TILE..][..TILE].as_chunks_mut::<16>().0;
        let sum = if add {
            l.add(l.load(&halves[half]), acc)
        } else {
            acc
        };
        l.store(sum, &mut halves[half]);
    }
    J
}

#[cfg(test)]
mod tests {
    use super::super::derived_scores::tests::{element, noise, with_stores};
    use super::*;
    use crate::kernels::isa::Scalar;

    #[test]
    fn columns_are_multiplied_by_each_row_of_a_map() {
        let (capacity, columns, outputs) = (75, 37, 13);
        with_stores(capacity, columns, &|store| {
            let rows = noise(outputs * 50, 12);
            let map = Map {
                rows: &rows,
                stride: 50,
                at: 9,
            };
            let mut out = std::vec![1.0; 3 * TILE * outputs];
            for add in [false, true] {
                Expand {
                    store: &store,
                    tiles: 0..3,
                    map,
                    out: &mut out,
                    add,
                }
                .eval(Scalar);
            }
            for slot in 0..capacity {
                for output in 0..outputs {
                    let product = |i: usize| {
                        f64::from(rows[output * 50 + 9 + i]) * f64::from(element(&store, slot, i))
                    };
                    let want = 2.0 * (0..columns).map(product).sum::<f64>();
                    let got = out[slot / TILE * TILE * outputs + output * TILE + slot % TILE];
                    assert!((f64::from(got) - want).abs() < 1e-4);
                }
            }
        });
    }
}

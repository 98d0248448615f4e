//! Scores against keys that are cached as they come from the projection and rotated when they are
//! read.
//!
//! The score of a rotated query and key depends on their distance only. A tile's keys are therefore
//! rotated by their place in the tile, with a table that never changes, and the query is rotated
//! back by the position of the tile's first slot: `⟨R(t)q, R(b + j)k⟩ = ⟨R(-b)R(t)q, R(j)k⟩`. A key
//! thus has the same rotated value as long as it stays in its slot.

use core::ops::Range;

use super::super::{Lanes, Op};
use super::raw_keys::RawKeys;
use super::tiles::{Element, TILE, TileStore, Tiles, View, load, load_scale, not_built, view};
use super::{ElementType, derived_pairs};
use crate::nn::rope::Pairs;
use crate::quant::BLOCK;

/// Writes to `out[row · stride + slot]` the scores of queries of one head (scaled and rotated at
/// their positions) against the keys in `slots`.
pub(crate) struct RotatedScores<'a> {
    pub(crate) keys: &'a RawKeys<'a>,
    pub(crate) slots: Range<usize>,
    /// The angles of the tiles' positions: `[cos, sin]` per pair, for each tile of `slots`.
    pub(crate) bases: &'a [[f32; 2]],
    pub(crate) queries: &'a [&'a [f32]],
    pub(crate) out: &'a mut [f32],
    pub(crate) stride: usize,
    /// The head's columns, once for each query.
    pub(crate) scratch: &'a mut [f32],
}

impl Op for RotatedScores<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<L: Lanes>(self, l: L) {
        match self.keys.store {
            TileStore::F32(tiles) if ElementType::F32.is_built() => self.by_rows(l, &tiles),
            TileStore::F16(tiles) if ElementType::F16.is_built() => self.by_rows(l, &tiles),
            TileStore::Q8(tiles) => self.by_rows(l, &tiles),
            _ => not_built(),
        }
    }
}

impl RotatedScores<'_> {
    #[inline(always)]
    fn by_rows<L: Lanes, E: Element>(self, l: L, tiles: &Tiles<'_, E>) {
        let RotatedScores {
            keys,
            slots,
            bases,
            queries,
            out,
            stride,
            scratch,
        } = self;
        let columns = keys.head.1;
        let pairs = keys.lanes.len();
        for tile in slots.start / TILE..slots.end.div_ceil(TILE) {
            let base = &bases[(tile - slots.start / TILE) * pairs..][..pairs];
            for (query, turned) in queries.iter().zip(scratch.chunks_exact_mut(columns)) {
                turn_back(keys.pairs, base, &query[..columns], turned);
            }
            let start = tile * TILE;
            let view = view(tiles, tile);
            let range = slots.start.max(start) - start..slots.end.min(start + view.width) - start;
            let mut row = 0;
            while row < queries.len() {
                let left = &scratch[row * columns..queries.len() * columns];
                let out = &mut out[row * stride..];
                let place = Place {
                    start,
                    range: range.clone(),
                    stride,
                };
                row += if L::MANY_ROWS && left.len() >= 8 * columns {
                    tile_rows::<L, E, 8>(l, keys, view, left, out, place)
                } else if L::MANY_ROWS && left.len() >= 4 * columns {
                    tile_rows::<L, E, 4>(l, keys, view, left, out, place)
                } else {
                    tile_rows::<L, E, 1>(l, keys, view, left, out, place)
                };
            }
        }
    }
}

/// Output place of the scores of a tile.
struct Place {
    /// First slot of the tile.
    start: usize,
    /// Slots of the tile to score.
    range: Range<usize>,
    /// Stride of the rows, in scores.
    stride: usize,
}

/// Rotates a query back by the angles `base`.
#[inline(always)]
fn turn_back(pairs: Pairs, base: &[[f32; 2]], query: &[f32], out: &mut [f32]) {
    out.copy_from_slice(query);
    for (pair, [cos, sin]) in base.iter().enumerate() {
        let (first, second) = pairs.columns(pair, base.len());
        let (a, b) = (query[first], query[second]);
        out[first] = a * cos + b * sin;
        out[second] = b * cos - a * sin;
    }
}

/// Computes the scores of `R` rows against one tile; returns `R`.
#[inline(always)]
fn tile_rows<L: Lanes, E: Element, const R: usize>(
    l: L,
    keys: &RawKeys<'_>,
    tile: View<'_, E>,
    queries: &[f32],
    out: &mut [f32],
    place: Place,
) -> usize {
    let Place {
        start,
        range,
        stride,
    } = place;
    let columns = keys.head.1;
    let queries: [&[f32]; R] = core::array::from_fn(|r| &queries[r * columns..][..columns]);
    let mut sums = [[0.0; TILE]; R];
    let all_rotate = 2 * keys.lanes.len() == columns;
    if L::PAIRS_BY_SLOTS
        && tile.width == TILE
        && all_rotate
        && let Some(elements) = E::bytes(tile.elements)
    {
        for (query, sums) in queries.iter().zip(&mut sums) {
            derived_pairs::slot_sums(l, keys, (elements, tile.scales), query, range.clone(), sums);
        }
    } else if tile.width == TILE {
        half_sums::<L, E, R, true>(l, keys, tile, &queries, &mut sums);
    } else {
        half_sums::<L, E, R, false>(l, keys, tile, &queries, &mut sums);
    }
    for (r, sums) in sums.iter().enumerate() {
        out[r * stride + start + range.start..r * stride + start + range.end]
            .copy_from_slice(&sums[range.clone()]);
    }
    R
}

/// Rotates one pair after the other and adds its product with each query, then adds the columns
/// that are not rotated. Lanes are slots.
#[inline(always)]
fn half_sums<L: Lanes, E: Element, const R: usize, const WHOLE: bool>(
    l: L,
    keys: &RawKeys<'_>,
    tile: View<'_, E>,
    queries: &[&[f32]; R],
    sums: &mut [[f32; TILE]; R],
) {
    let (first_column, columns) = keys.head;
    let has_mean = !keys.mean.is_empty();
    for half in 0..2 {
        let mut acc = [l.splat(0.0); R];
        // The scales of the last two blocks seen: a pair's columns may lie in two blocks.
        let mut scales = [(usize::MAX, l.splat(0.0)); 2];
        macro_rules! key {
            ($column:expr, $which:expr) => {{
                let column = $column;
                let mut key = load::<L, E, WHOLE>(l, tile, first_column + column, half);
                if E::SCALED {
                    let block = (first_column + column) / BLOCK;
                    if scales[$which].0 != block {
                        scales[$which] = (
                            block,
                            load_scale::<L, WHOLE>(l, tile.scales, tile.width, block, half),
                        );
                    }
                    key = l.mul(key, scales[$which].1);
                }
                if has_mean {
                    key = l.add(key, l.splat(keys.mean[column].to_f32()));
                }
                key
            }};
        }
        for (pair, angles) in keys.lanes.iter().enumerate() {
            let (first, second) = keys.pairs.columns(pair, keys.lanes.len());
            let (a, b) = (key!(first, 0), key!(second, 1));
            let cos = l.load(&angles[0].as_chunks::<16>().0[half]);
            let sin = l.load(&angles[1].as_chunks::<16>().0[half]);
            let x = l.sub(l.mul(a, cos), l.mul(b, sin));
            let y = l.add(l.mul(a, sin), l.mul(b, cos));
            for r in 0..R {
                acc[r] = l.add(acc[r], l.mul(l.splat(queries[r][first]), x));
                acc[r] = l.add(acc[r], l.mul(l.splat(queries[r][second]), y));
            }
        }
        let rotated = 2 * keys.lanes.len();
        for i in 0..columns - rotated {
            let column = rotated + i;
            let key = key!(column, 0);
            for r in 0..R {
                acc[r] = l.add(acc[r], l.mul(l.splat(queries[r][column]), key));
            }
        }
        for r in 0..R {
            l.store(acc[r], &mut sums[r].as_chunks_mut::<16>().0[half]);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::vec::Vec;

    use super::super::super::Rotate;
    use super::super::raw_keys::{LaneAngles, Run};
    use super::super::tiles::tile_of;
    use super::*;
    use crate::kernels::isa::Scalar;
    use crate::nn::{float16, rope};
    use crate::quant::F32;

    /// The value of a column in a slot.
    pub(crate) fn element(store: &TileStore<'_>, slot: usize, column: usize) -> f32 {
        fn of<E: Element>(tiles: &Tiles<'_, E>, slot: usize, column: usize) -> f32 {
            let start = slot / TILE * TILE;
            let width = TILE.min(tiles.capacity - start);
            let (elements, scales) = tile_of(tiles, start, width);
            let value = elements[column * width + slot - start].widen();
            if E::SCALED {
                value * float16::widen(scales[column / BLOCK * width + slot - start])
            } else {
                value
            }
        }
        match store {
            TileStore::F32(tiles) => of(tiles, slot, column),
            TileStore::F16(tiles) => of(tiles, slot, column),
            TileStore::Q8(tiles) => of(tiles, slot, column),
        }
    }

    /// Numbers from -1 to 1.
    pub(crate) fn noise(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// Calls `test` with stores of every element type.
    pub(crate) fn with_stores(capacity: usize, columns: usize, test: &dyn Fn(TileStore<'_>)) {
        let floats = noise(capacity * columns, 3);
        let halves: Vec<u16> = floats
            .iter()
            .map(|x| half::f16::from_f32(*x).to_bits())
            .collect();
        let bytes: Vec<i8> = floats.iter().map(|x| (x * 127.0) as i8).collect();
        let scales: Vec<u16> = noise(capacity * columns.div_ceil(BLOCK), 4)
            .iter()
            .map(|x| half::f16::from_f32(x / 64.0).to_bits())
            .collect();
        test(TileStore::F32(Tiles {
            elements: &floats,
            scales: &[],
            capacity,
            columns,
        }));
        test(TileStore::F16(Tiles {
            elements: &halves,
            scales: &[],
            capacity,
            columns,
        }));
        test(TileStore::Q8(Tiles {
            elements: &bytes,
            scales: &scales,
            capacity,
            columns,
        }));
    }

    /// Both methods give the same bits, for any blocks of scales that the pairs' columns lie in.
    #[test]
    fn pairs_by_slots_are_those_in_vectors() {
        for (pairs, order) in [
            (1, Pairs::Halves),
            (20, Pairs::Neighbours),
            (40, Pairs::Halves),
        ] {
            let (width, columns) = (2 * pairs, 6 * pairs);
            let angles = noise(pairs * 2 * TILE, 30);
            let lanes: Vec<LaneAngles> = angles.as_chunks().0.as_chunks().0.to_vec();
            let (mean, query) = (noise(width, 31), noise(width, 32));
            let mean: Vec<F32> = mean.iter().map(|x| F32(x.to_le_bytes())).collect();
            with_stores(TILE, columns, &|store| {
                let TileStore::Q8(tiles) = store else { return };
                for mean in [&mean[..], &[]] {
                    let keys = RawKeys {
                        store,
                        head: (width, width),
                        mean,
                        pairs: order,
                        lanes: &lanes,
                    };
                    let view = View {
                        elements: tiles.elements,
                        scales: tiles.scales,
                        width: TILE,
                    };
                    let mut expected = [[0.0; TILE]];
                    half_sums::<_, i8, 1, true>(Scalar, &keys, view, &[&query], &mut expected);
                    for range in [0..TILE, 5..6, 11..29] {
                        let mut sums = [0.0; TILE];
                        let tile = (tiles.elements, tiles.scales);
                        derived_pairs::slot_sums(
                            Scalar,
                            &keys,
                            tile,
                            &query,
                            range.clone(),
                            &mut sums,
                        );
                        assert_eq!(
                            sums[range.clone()]
                                .iter()
                                .map(|x| x.to_bits())
                                .collect::<Vec<_>>(),
                            expected[0][range]
                                .iter()
                                .map(|x| x.to_bits())
                                .collect::<Vec<_>>()
                        );
                    }
                }
            });
        }
    }

    /// The reference rotates as in the paper, in f64, at the keys' own positions.
    #[test]
    fn scores_are_those_of_keys_rotated_one_by_one() {
        let (capacity, width, heads) = (75, 20, 3);
        for (pairs, order) in [
            (10, Pairs::Neighbours),
            (6, Pairs::Neighbours),
            (6, Pairs::Halves),
            (0, Pairs::Neighbours),
        ] {
            let mut frequencies = std::vec![0; pairs];
            rope::frequencies(1e4, |_| 1.0, &mut frequencies);
            let mut lanes = std::vec![[[0.0; TILE]; 2]; pairs];
            crate::attention::geometry::fill_lanes(&frequencies, 1.0, &mut lanes);
            let mean: Vec<F32> = noise(width, 9)
                .iter()
                .map(|x| F32(x.to_le_bytes()))
                .collect();
            with_stores(capacity, heads * width, &|store| {
                let run = Run {
                    slots: 5..73,
                    position: 1_000_000_007,
                };
                let keys = RawKeys {
                    store,
                    head: (width, width),
                    mean: &mean,
                    pairs: order,
                    lanes: &lanes,
                };
                let queries: Vec<Vec<f32>> = (0..5).map(|i| noise(width, 20 + i)).collect();
                let position = 1_000_000_100u64;
                let turned: Vec<Vec<f32>> = queries
                    .iter()
                    .map(|query| {
                        let (mut query, mut table) = (query.clone(), std::vec![[0.0; 2]; pairs]);
                        rope::angles(&frequencies, position, &mut table);
                        Rotate {
                            heads: &mut query,
                            head_dim: width,
                            table: &table,
                            pairs: order,
                        }
                        .eval(Scalar);
                        query
                    })
                    .collect();
                let rows: Vec<&[f32]> = turned.iter().map(Vec::as_slice).collect();
                let mut bases = std::vec![[0.0; 2]; run.tiles().len() * pairs];
                for (i, tile) in run.tiles().enumerate() {
                    rope::angles(
                        &frequencies,
                        run.tile_position(tile),
                        &mut bases[i * pairs..][..pairs],
                    );
                }
                let (mut out, mut scratch) =
                    (std::vec![f32::NAN; 5 * 80], std::vec![0.0; 5 * width]);
                let scores = RotatedScores {
                    keys: &keys,
                    slots: run.slots.clone(),
                    bases: &bases,
                    queries: &rows,
                    out: &mut out,
                    stride: 80,
                    scratch: &mut scratch,
                };
                scores.eval(Scalar);
                for (r, query) in queries.iter().enumerate() {
                    for slot in 0..80 {
                        let got = out[r * 80 + slot];
                        if !run.slots.contains(&slot) {
                            assert!(got.is_nan());
                            continue;
                        }
                        let distance =
                            (position - run.position) as f64 - (slot - run.slots.start) as f64;
                        let key = |i: usize| {
                            f64::from(element(&store, slot, width + i))
                                + f64::from(mean[i].to_f32())
                        };
                        let q = |i: usize| f64::from(query[i]);
                        let mut want: f64 = (2 * pairs..width).map(|i| q(i) * key(i)).sum();
                        for pair in 0..pairs {
                            let (a, b) = order.columns(pair, pairs);
                            let (sin, cos) =
                                (distance * 1e4f64.powf(-(pair as f64) / pairs as f64)).sin_cos();
                            want += (q(a) * cos - q(b) * sin) * key(a)
                                + (q(a) * sin + q(b) * cos) * key(b);
                        }
                        assert!((f64::from(got) - want).abs() < 1e-5, "{got} for {want}");
                    }
                }
            });
        }
    }
}

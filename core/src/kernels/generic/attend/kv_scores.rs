//! Scores of queries against tiles of keys.

use core::ops::Range;

use super::super::Lanes;
use super::tiles::{Element, TILE, Tiles, tile_of};
use crate::nn::float16;
use crate::quant::BLOCK;

/// Writes to `out[r · capacity + slot]` the scores of `R` rows against the keys in slots `range`.
#[inline(always)]
pub(super) fn scores<L: Lanes, E: Element, const R: usize>(
    l: L,
    keys: &Tiles<'_, E>,
    first_column: usize,
    queries: &[&[f32]; R],
    range: Range<usize>,
    out: &mut [f32],
) {
    let mut tile = range.start / TILE;
    while tile * TILE < range.end {
        let start = tile * TILE;
        let width = TILE.min(keys.capacity - start);
        let (elements, scales) = tile_of(keys, start, width);
        let mut sums = [[0.0; TILE]; R];
        if width == TILE {
            let halves = range.start.max(start) - start..range.end.min(start + TILE) - start;
            let halves = halves.start / 16..halves.end.div_ceil(16);
            whole_tile(
                l,
                elements,
                scales,
                first_column,
                queries,
                halves,
                &mut sums,
            );
        } else {
            narrow_tile(elements, scales, width, first_column, queries, &mut sums);
        }
        let from = range.start.max(start);
        let to = range.end.min(start + width);
        for (r, sums) in sums.iter().enumerate() {
            out[r * keys.capacity + from..r * keys.capacity + to]
                .copy_from_slice(&sums[from - start..to - start]);
        }
        tile += 1;
    }
}

/// Computes the scores of a tile of 32 slots. Lanes are slots. Scores of the halves that are not in
/// `halves` are unspecified.
#[inline(always)]
fn whole_tile<L: Lanes, E: Element, const R: usize>(
    l: L,
    keys: &[E],
    scales: &[u16],
    first_column: usize,
    queries: &[&[f32]; R],
    halves: Range<usize>,
    sums: &mut [[f32; TILE]; R],
) {
    let columns = queries[0].len();
    let zero = l.splat(0.0);
    let next_tile = keys.len();
    let keys = &keys.as_chunks::<16>().0.as_chunks::<2>().0[first_column..][..columns];
    let mut total = [[zero; 2]; R];
    let mut at = 0;
    while at < keys.len() {
        // The columns that share a scale: for unscaled elements all of them.
        let block = (first_column + at) / BLOCK;
        let end = if E::SCALED {
            keys.len().min((block + 1) * BLOCK - first_column)
        } else {
            keys.len()
        };
        let mut acc = [[zero; 2]; R];
        // All slices have the same length, so that no access in the loop is checked.
        let (keys, queries) = (&keys[at..end], queries.map(|query| &query[at..end]));
        let halves = if L::MANY_ROWS { 0..2 } else { halves.clone() };
        if L::MANY_ROWS {
            for (i, key) in keys.iter().enumerate() {
                l.prefetch(key.as_ptr().cast::<E>().wrapping_add(next_tile));
                let (low, high) = (E::load(l, &key[0]), E::load(l, &key[1]));
                for r in 0..R {
                    let q = l.splat(queries[r][i]);
                    acc[r][0] = l.add(acc[r][0], l.mul(q, low));
                    acc[r][1] = l.add(acc[r][1], l.mul(q, high));
                }
            }
        } else {
            let keys = keys.as_flattened().as_flattened();
            for r in 0..R {
                for half in halves.clone() {
                    acc[r][half] =
                        E::add_rows(l, acc[r][half], queries[r], &keys[half * 16..], TILE);
                }
            }
        }
        if E::SCALED {
            let scales = &scales.as_chunks::<16>().0.as_chunks::<2>().0[block];
            for half in halves {
                let scale = l.load_f16(&scales[half]);
                for r in 0..R {
                    total[r][half] = l.add(total[r][half], l.mul(acc[r][half], scale));
                }
            }
        } else {
            total = acc;
        }
        at = end;
    }
    for r in 0..R {
        let (halves, _) = sums[r].as_chunks_mut::<16>();
        l.store(total[r][0], &mut halves[0]);
        l.store(total[r][1], &mut halves[1]);
    }
}

/// Computes the scores of a last tile that has fewer slots: the same sums, one slot at a time.
fn narrow_tile<E: Element, const R: usize>(
    keys: &[E],
    scales: &[u16],
    width: usize,
    first_column: usize,
    queries: &[&[f32]; R],
    sums: &mut [[f32; TILE]; R],
) {
    let columns = queries[0].len();
    for slot in 0..width {
        let mut total = [0.0; R];
        let mut at = 0;
        while at < columns {
            let block = (first_column + at) / BLOCK;
            let end = if E::SCALED {
                columns.min((block + 1) * BLOCK - first_column)
            } else {
                columns
            };
            let mut acc = [0.0; R];
            for i in at..end {
                let key = keys[(first_column + i) * width + slot].widen();
                for r in 0..R {
                    acc[r] += queries[r][i] * key;
                }
            }
            for r in 0..R {
                total[r] = if E::SCALED {
                    total[r] + acc[r] * float16::widen(scales[block * width + slot])
                } else {
                    acc[r]
                };
            }
            at = end;
        }
        for r in 0..R {
            sums[r][slot] = total[r];
        }
    }
}

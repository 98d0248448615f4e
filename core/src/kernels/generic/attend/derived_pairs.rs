//! Raw scores against a tile of 8-bit keys, a few slots at a time, for processors that have no
//! vector registers for sixteen lanes.

use core::ops::Range;

use super::super::{Lanes, SlotPairs};
use super::raw_keys::RawKeys;
use super::tiles::TILE;
use crate::quant::BLOCK;

/// Pairs whose factors are laid out at a time.
const PAIRS: usize = 16;

/// Writes to `sums` the scores of one query (turned back) against slots `range` of a whole tile of
/// elements and scales, all of whose columns are rotated. The sums of other slots are unspecified.
/// Each slot goes through the same operations as in vectors over slots, in the same order. Without
/// a mean, zero is added instead, which changes no sum.
#[inline(always)]
pub(super) fn slot_sums<L: Lanes>(
    l: L,
    keys: &RawKeys<'_>,
    (elements, scales): (&[i8], &[u16]),
    query: &[f32],
    range: Range<usize>,
    sums: &mut [f32; TILE],
) {
    let count = keys.lanes.len();
    let groups = range.start / 4..range.end.div_ceil(4);
    let (angles, elements) = (
        keys.lanes.as_flattened().as_flattened(),
        elements.as_chunks::<TILE>().0,
    );
    let scales = scales.as_chunks::<TILE>().0;
    let mean = |column: usize| keys.mean.get(column).map_or(0.0, |mean| mean.to_f32());
    let mut pair = 0;
    while pair < count {
        let (first, second) = keys.pairs.columns(pair, count);
        let step = if second == first + 1 && count > 1 {
            2
        } else {
            1
        };
        let columns = [keys.head.0 + first, keys.head.0 + second];
        // Pairs whose columns stay in one block of scales each.
        let some = columns
            .iter()
            .fold(PAIRS.min(count - pair), |some, column| {
                some.min((BLOCK - column % BLOCK).div_ceil(step))
            });
        let mut factors = [[0.0; 4]; PAIRS];
        for (i, factors) in factors[..some].iter_mut().enumerate() {
            let (first, second) = (first + i * step, second + i * step);
            *factors = [mean(first), mean(second), query[first], query[second]];
        }
        let columns =
            columns.map(|column| (elements[column..].as_flattened(), &scales[column / BLOCK]));
        for group in groups.clone() {
            let pairs = SlotPairs {
                columns: columns.map(|(column, _)| &column[group * 4..]),
                step: step * TILE,
                scales: columns.map(|(_, scales)| &scales.as_chunks().0[group]),
                angles: &angles[pair * SlotPairs::ANGLES + group * 4..],
                factors: &factors[..some],
            };
            l.add_pairs_i8(pairs, &mut sums.as_chunks_mut().0[group]);
        }
        pair += some;
    }
}

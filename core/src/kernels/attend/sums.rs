//! Weighted sums of values, in the order of slots.

use core::ops::Range;

use super::super::lanes::{Lanes, widen_f16};
use super::{ChunkSlots, Element, Planes};
use crate::quant::BLOCK;

/// A row's softmax weights.
pub(super) struct Weights<'a> {
    pub(super) by_slot: &'a [f32],
    pub(super) by_token: &'a [f32],
}

/// Where values come from.
pub(super) struct Sources<'a, E> {
    pub(super) ring: &'a Planes<'a, E>,
    pub(super) live: usize,
    pub(super) chunk: &'a Option<(Planes<'a, E>, ChunkSlots)>,
    pub(super) seen: usize,
}

/// Slots in a row, and the chunk tokens (from which on) that will take them, if any.
struct Segment {
    slots: Range<usize>,
    first_token: Option<usize>,
}

impl<E: Element> Sources<'_, E> {
    /// All slots in order, cut where the chunk's begin and end.
    fn segments(&self) -> [Segment; 5] {
        let plain = |slots| Segment {
            slots,
            first_token: None,
        };
        let Some((_, slots)) = self.chunk else {
            return [
                plain(0..self.live),
                plain(0..0),
                plain(0..0),
                plain(0..0),
                plain(0..0),
            ];
        };
        let [(wrapped, wrapped_token), (straight, straight_token)] = slots.runs(self.seen);
        [
            plain(0..wrapped.start.min(self.live)),
            Segment {
                slots: wrapped.clone(),
                first_token: Some(wrapped_token),
            },
            plain(wrapped.end..straight.start.min(self.live)),
            Segment {
                slots: straight.clone(),
                first_token: Some(straight_token),
            },
            plain(straight.end..self.live),
        ]
    }

    /// Calls `step(planes, row, by_token)` for every value row in the order of slots: the ring's, and after it the chunk token
    /// that will take its slot (one of the two has weight 0).
    #[inline(always)]
    fn for_each(&self, mut step: impl FnMut(&Planes<'_, E>, usize, bool)) {
        for Segment { slots, first_token } in self.segments() {
            let start = slots.start;
            for slot in slots {
                if slot < self.live {
                    step(self.ring, slot, false);
                }
                if let (Some(token), Some((planes, _))) = (first_token, self.chunk) {
                    step(planes, token + slot - start, true);
                }
            }
        }
    }
}

/// The weighted sums of a block of columns from `column` on (at most `left`) for `R` rows; returns how many columns.
///
/// A sum is a chain of dependent additions, so a few rows take more columns at a time to keep as many chains going.
#[inline(always)]
pub(super) fn weighted_sum<L: Lanes, E: Element, const R: usize>(
    l: L,
    sources: &Sources<'_, E>,
    column: usize,
    left: usize,
    weights: &[Weights<'_>; R],
    inverse: &[f32; R],
    out: &mut dyn FnMut(usize, &[f32]),
) -> usize {
    // A block of columns must not straddle two scales.
    let room = if E::SCALED {
        left.min(BLOCK - column % BLOCK)
    } else {
        left
    };
    if R < 8 && room >= 32 {
        sum_columns::<L, E, R, 2>(l, sources, column, weights, inverse, out);
        return 32;
    }
    if room >= 16 {
        sum_columns::<L, E, R, 1>(l, sources, column, weights, inverse, out);
        return 16;
    }
    sum_column(sources, column, weights, inverse, out);
    1
}

/// One column, for what is left of heads that are not multiples of 16 wide.
fn sum_column<E: Element, const R: usize>(
    sources: &Sources<'_, E>,
    column: usize,
    weights: &[Weights<'_>; R],
    inverse: &[f32; R],
    out: &mut dyn FnMut(usize, &[f32]),
) {
    let mut acc = [0.0f32; R];
    sources.for_each(|planes, row, by_token| {
        let value = planes.values[row * planes.value_columns + column].widen();
        let scale = value_scale(planes, row, column);
        for r in 0..R {
            let weight = if by_token {
                weights[r].by_token[row]
            } else {
                weights[r].by_slot[row]
            };
            acc[r] += if E::SCALED {
                (weight * scale) * value
            } else {
                weight * value
            };
        }
    });
    for r in 0..R {
        out(r, &[acc[r] * inverse[r]]);
    }
}

/// `VECTORS · 16` columns from `column` on.
#[inline(always)]
fn sum_columns<L: Lanes, E: Element, const R: usize, const VECTORS: usize>(
    l: L,
    sources: &Sources<'_, E>,
    column: usize,
    weights: &[Weights<'_>; R],
    inverse: &[f32; R],
    out: &mut dyn FnMut(usize, &[f32]),
) {
    let mut acc = [[l.splat(0.0); VECTORS]; R];
    sources.for_each(|planes, row, by_token| {
        let at = row * planes.value_columns + column;
        let values = &planes.values[at..at + VECTORS * 16].as_chunks::<16>().0;
        let values: [L::V; VECTORS] = core::array::from_fn(|i| E::load(l, &values[i]));
        let scale = value_scale(planes, row, column);
        for r in 0..R {
            let weight = if by_token {
                weights[r].by_token[row]
            } else {
                weights[r].by_slot[row]
            };
            let weight = l.splat(if E::SCALED { weight * scale } else { weight });
            for i in 0..VECTORS {
                acc[r][i] = l.add(acc[r][i], l.mul(weight, values[i]));
            }
        }
    });
    for r in 0..R {
        let inverse = l.splat(inverse[r]);
        let mut values = [[0.0; 16]; VECTORS];
        for i in 0..VECTORS {
            l.store(l.mul(acc[r][i], inverse), &mut values[i]);
        }
        out(r, values.as_flattened());
    }
}

#[inline(always)]
fn value_scale<E: Element>(planes: &Planes<'_, E>, row: usize, column: usize) -> f32 {
    if E::SCALED {
        widen_f16(planes.value_scales[row * planes.value_columns.div_ceil(BLOCK) + column / BLOCK])
    } else {
        1.0
    }
}

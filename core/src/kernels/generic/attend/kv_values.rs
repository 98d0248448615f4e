//! Weighted sums of values, in the order of slots.

use core::ops::Range;

use super::super::Lanes;
use super::tiles::{Element, Planes, SlotRun};
use crate::nn::float16;
use crate::quant::BLOCK;

/// A row's softmax weights.
pub(super) struct Weights<'a> {
    pub(super) by_slot: &'a [f32],
    pub(super) by_token: &'a [f32],
}

impl Weights<'_> {
    /// The weights of some slots or chunk tokens.
    #[inline(always)]
    fn of(&self, rows: &Range<usize>, by_token: bool) -> &[f32] {
        let weights = if by_token {
            self.by_token
        } else {
            self.by_slot
        };
        &weights[rows.start..][..rows.len()]
    }
}

/// Sources of the values.
pub(super) struct Sources<'a, E> {
    pub(super) ring: &'a Planes<'a, E>,
    pub(super) live: usize,
    pub(super) chunk: &'a Option<(Planes<'a, E>, SlotRun)>,
    pub(super) seen: usize,
    /// True if slots with zero weight in every row are left out.
    pub(super) skips: bool,
}

/// Consecutive slots, and the index of the first of the chunk tokens that will take them, if any.
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

    /// Adds every value row in the order of slots: the row of the ring, then the row of the chunk
    /// token that will take its slot (one of the two has weight 0). If `skips`, only rows with a
    /// weight other than 0 are added.
    ///
    /// There is one call of [`Sum::add`], since its body is large and is inlined.
    #[inline(always)]
    fn add_to<S: Sum<E>>(&self, sum: &mut S) {
        for segment in self.segments() {
            let pairs = segment.pairs(self.live);
            for part in 0..=2 * pairs {
                let (rows, by_token) = segment.part(part, pairs);
                let planes = match self.chunk {
                    Some((planes, _)) if by_token => planes,
                    _ => self.ring,
                };
                let mut start = rows.start;
                while start < rows.end {
                    let mut end = if self.skips { start } else { rows.end };
                    while end < rows.end && sum.weighs(end, by_token) {
                        end += 1;
                    }
                    if start < end {
                        sum.add(planes, start..end, by_token);
                    }
                    start = end + 1;
                }
            }
        }
    }
}

impl Segment {
    /// Number of slots among the first `live` that a chunk token will take.
    fn pairs(&self, live: usize) -> usize {
        match self.first_token {
            Some(_) => self.slots.end.min(live).saturating_sub(self.slots.start),
            None => 0,
        }
    }

    /// Rows that are added together, and whether they are chunk tokens. Of `pairs` slots each is a
    /// part, followed by the token that will take it; the last part is all the rest.
    fn part(&self, part: usize, pairs: usize) -> (Range<usize>, bool) {
        let (start, end) = (self.slots.start, self.slots.end);
        let Some(first) = self.first_token else {
            return (start..end, false);
        };
        let at = part / 2;
        if part == 2 * pairs {
            (first + pairs..first + (end - start), true)
        } else if part.is_multiple_of(2) {
            (start + at..start + at + 1, false)
        } else {
            (first + at..first + at + 1, true)
        }
    }
}

/// An accumulator of weighted sums. It is a trait and not a closure, since the body of a closure
/// would be compiled without the caller's instruction set.
trait Sum<E> {
    /// Adds rows `rows` of `planes`, which are chunk tokens if `by_token`, else slots.
    fn add(&mut self, planes: &Planes<'_, E>, rows: Range<usize>, by_token: bool);
    /// Returns true if a slot or chunk token has a weight other than 0 in any row.
    fn weighs(&self, row: usize, by_token: bool) -> bool;
}

/// [`Sum::weighs`] for some rows' weights.
#[inline(always)]
fn any_weighs(weights: &[Weights<'_>], row: usize, by_token: bool) -> bool {
    weights
        .iter()
        .any(|weights| weights.of(&(row..row + 1), by_token)[0] != 0.0)
}

/// Computes the weighted sums of a block of columns from `column` on (at most `left`) for `R` rows;
/// returns the number of columns.
///
/// A sum is a chain of dependent additions, so fewer rows take more columns at a time, which keeps
/// as many chains going.
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
    if 2 * R <= L::SUMS && room >= 32 {
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

/// Sums one column, for the rest of heads whose width is no multiple of 16.
fn sum_column<E: Element, const R: usize>(
    sources: &Sources<'_, E>,
    column: usize,
    weights: &[Weights<'_>; R],
    inverse: &[f32; R],
    out: &mut dyn FnMut(usize, &[f32]),
) {
    let mut sum = OneColumn {
        column,
        weights,
        acc: [0.0; R],
    };
    sources.add_to(&mut sum);
    for (r, (acc, inverse)) in sum.acc.iter().zip(inverse).enumerate() {
        out(r, &[acc * inverse]);
    }
}

struct OneColumn<'a, const R: usize> {
    column: usize,
    weights: &'a [Weights<'a>; R],
    acc: [f32; R],
}

impl<E: Element, const R: usize> Sum<E> for OneColumn<'_, R> {
    #[inline(always)]
    fn weighs(&self, row: usize, by_token: bool) -> bool {
        any_weighs(self.weights, row, by_token)
    }

    #[inline(always)]
    fn add(&mut self, planes: &Planes<'_, E>, rows: Range<usize>, by_token: bool) {
        for row in rows {
            let value = planes.values.elements[row * planes.values.columns + self.column].widen();
            let scale = value_scale(planes, row, self.column);
            for (acc, weights) in self.acc.iter_mut().zip(self.weights) {
                let weight = weights.of(&(row..row + 1), by_token)[0];
                *acc += if E::SCALED {
                    (weight * scale) * value
                } else {
                    weight * value
                };
            }
        }
    }
}

/// Sums `VECTORS · 16` columns from `column` on.
#[inline(always)]
fn sum_columns<L: Lanes, E: Element, const R: usize, const VECTORS: usize>(
    l: L,
    sources: &Sources<'_, E>,
    column: usize,
    weights: &[Weights<'_>; R],
    inverse: &[f32; R],
    out: &mut dyn FnMut(usize, &[f32]),
) {
    let mut sum = Columns {
        l,
        column,
        weights,
        acc: [[l.splat(0.0); VECTORS]; R],
    };
    sources.add_to(&mut sum);
    for (r, (acc, inverse)) in sum.acc.iter().zip(inverse).enumerate() {
        let inverse = l.splat(*inverse);
        let mut values = [[0.0; 16]; VECTORS];
        for (values, acc) in values.iter_mut().zip(acc) {
            l.store(l.mul(*acc, inverse), values);
        }
        out(r, values.as_flattened());
    }
}

struct Columns<'a, L: Lanes, const R: usize, const VECTORS: usize> {
    l: L,
    column: usize,
    weights: &'a [Weights<'a>; R],
    acc: [[L::V; VECTORS]; R],
}

impl<L: Lanes, E: Element, const R: usize, const VECTORS: usize> Sum<E>
    for Columns<'_, L, R, VECTORS>
{
    #[inline(always)]
    fn weighs(&self, row: usize, by_token: bool) -> bool {
        any_weighs(self.weights, row, by_token)
    }

    #[inline(always)]
    fn add(&mut self, planes: &Planes<'_, E>, rows: Range<usize>, by_token: bool) {
        if L::MANY_ROWS {
            self.add_here(planes, rows, by_token);
        } else {
            self.add_outlined(planes, rows, by_token);
        }
    }
}

impl<L: Lanes, const R: usize, const VECTORS: usize> Columns<'_, L, R, VECTORS> {
    /// One shared instance of [`Columns::add_here`], which saves flash. It is not for instruction
    /// sets whose code must be inlined.
    #[inline(never)]
    fn add_outlined<E: Element>(
        &mut self,
        planes: &Planes<'_, E>,
        rows: Range<usize>,
        by_token: bool,
    ) {
        self.add_here(planes, rows, by_token);
    }

    #[inline(always)]
    fn add_here<E: Element>(&mut self, planes: &Planes<'_, E>, rows: Range<usize>, by_token: bool) {
        let (l, len, stride) = (self.l, rows.len(), planes.values.columns);
        // All slices have the same length, so that the loop checks only the access to the value
        // row.
        let weights: [&[f32]; R] = self
            .weights
            .each_ref()
            .map(|weights| weights.of(&rows, by_token));
        let values = &planes.values.elements
            [(rows.start * stride + self.column).min(planes.values.elements.len())..];
        let mut acc = self.acc;
        if !L::MANY_ROWS && E::SCALED {
            let mut at = 0;
            while at < len {
                let some = (len - at).min(BLOCK);
                for r in 0..R {
                    let mut factors = [0.0; BLOCK];
                    for (n, factor) in factors[..some].iter_mut().enumerate() {
                        *factor = weights[r][at + n]
                            * value_scale(planes, rows.start + at + n, self.column);
                    }
                    for (i, acc) in acc[r].iter_mut().enumerate() {
                        *acc = E::add_rows(
                            l,
                            *acc,
                            &factors[..some],
                            &values[at * stride + i * 16..],
                            stride,
                        );
                    }
                }
                at += some;
            }
            self.acc = acc;
            return;
        }
        for n in 0..len {
            l.prefetch(values.as_ptr().wrapping_add((n + ROWS_AHEAD) * stride));
            let raw = values[n * stride..][..VECTORS * 16].as_chunks::<16>().0;
            let scale = value_scale(planes, rows.start + n, self.column);
            for (i, raw) in raw.iter().enumerate() {
                let values = E::load(l, raw);
                for r in 0..R {
                    let weight = weights[r][n];
                    let weight = l.splat(if E::SCALED { weight * scale } else { weight });
                    acc[r][i] = l.add(acc[r][i], l.mul(weight, values));
                }
            }
        }
        self.acc = acc;
    }
}

/// Distance in rows of the prefetch of values, which are read with the stride of a whole row.
const ROWS_AHEAD: usize = 32;

#[inline(always)]
fn value_scale<E: Element>(planes: &Planes<'_, E>, row: usize, column: usize) -> f32 {
    if E::SCALED {
        float16::widen(
            planes.values.scales[row * planes.values.columns.div_ceil(BLOCK) + column / BLOCK],
        )
    } else {
        1.0
    }
}

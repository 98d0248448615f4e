//! A vector of sixteen f32, the same on every instruction set: the algorithms of [`super`] are
//! written once over it.
//!
//! Sixteen f32 are one register of AVX-512, two of AVX2 and four of NEON. Every operation whose
//! result depends on an order (sums over lanes) is defined for sixteen lanes and so gives the same
//! bits everywhere. Products and sums are never fused.

use super::Op;
use crate::nn::float16;

/// Pairs of 8-bit columns of four slots of a tile, with the angles and factors for them.
#[derive(Clone, Copy)]
pub struct SlotPairs<'a> {
    /// The first and the second column of the first pair, from the first slot on.
    pub columns: [&'a [i8]; 2],
    /// Stride from a pair's columns to the next pair's, in elements.
    pub step: usize,
    /// The slots' scales of the first and of the second columns, f16 as bits.
    pub scales: [&'a [u16; 4]; 2],
    /// From the first slot on: 32 cosines and 32 sines of each pair, pair after pair.
    pub angles: &'a [f32],
    /// Of each pair: the two numbers that are added to its columns, and the two factors of the
    /// rotated columns.
    pub factors: &'a [[f32; 4]],
}

impl SlotPairs<'_> {
    /// Offset of a pair's sines from its cosines, in floats.
    pub const SINES: usize = 32;
    /// Stride from a pair's cosines to the next pair's, in floats.
    pub const ANGLES: usize = 2 * Self::SINES;
}

/// Half tiles of one 8-bit column, weighted.
#[derive(Clone, Copy)]
pub struct ColumnHalves<'a> {
    /// Weights of sixteen slots each.
    pub weights: &'a [[f32; 16]],
    /// Index of the half tile of the first weights; a tile is two halves of sixteen slots.
    pub first: usize,
    /// Elements, from the column of the first tile on.
    pub elements: &'a [i8],
    /// Scales (f16 as bits), from the column's scales of the first tile on.
    pub scales: &'a [u16],
    /// Strides of a tile, in elements and in scales.
    pub steps: (usize, usize),
}

/// Operations on vectors of sixteen f32. The implementor is a token of an instruction set, whose
/// existence proves that its instructions may run.
pub trait Lanes: Copy {
    /// Sixteen f32.
    type V: Copy;
    /// True if there are enough registers to work on several query rows at a time.
    const MANY_ROWS: bool;
    /// Number of vectors of sums that fit the registers beside their operands.
    const SUMS: usize;
    /// True if [`Lanes::add_pairs_i8`] rotates pairs of 8-bit columns better than vectors do.
    const PAIRS_BY_SLOTS: bool = false;
    /// True if [`Lanes::add_halves_i8`] is the better way to sum over 8-bit tiles, one column at a
    /// time.
    const SUMS_BY_COLUMN: bool = false;

    /// Evaluates a part of an algorithm in a function of its own, where instruction sets are chosen
    /// at run time: what is inlined for every shape makes functions over which a compiler works for
    /// minutes. Where there is one instruction set, the compiler decides.
    ///
    /// Implementations are `#[inline(never)]`: on the function that has the features, the compiler
    /// drops that attribute (rustc 1.96).
    #[inline(always)]
    fn apart<O: Op>(self, op: O) -> O::Output {
        op.eval(self)
    }
    /// Asks for the line at an address that will be read soon; does nothing where there is no such
    /// instruction, or where memory is near. Any address may be given: it is not read.
    #[inline(always)]
    fn prefetch<T>(self, _at: *const T) {}
    /// Broadcasts `x` to all lanes.
    fn splat(self, x: f32) -> Self::V;
    /// Loads sixteen values.
    fn load(self, x: &[f32; 16]) -> Self::V;
    /// Loads up to sixteen values and fills the other lanes with zeros.
    #[inline(always)]
    fn load_part(self, x: &[f32]) -> Self::V {
        let mut padded = [0.0; 16];
        for (to, from) in padded.iter_mut().zip(x) {
            *to = *from;
        }
        self.load(&padded)
    }
    /// Loads sixteen f16, widened exactly.
    fn load_f16(self, x: &[u16; 16]) -> Self::V;
    /// Loads sixteen i8, converted exactly.
    fn load_i8(self, x: &[i8; 16]) -> Self::V;
    /// Returns `acc + Σ factors[n] · x[n · stride..][..16]`, one row after the other, each product
    /// rounded before it is added.
    ///
    /// # Panics
    /// If `x` does not have sixteen elements for every factor.
    #[inline(always)]
    fn add_rows_i8(self, mut acc: Self::V, factors: &[f32], x: &[i8], stride: usize) -> Self::V {
        for (n, factor) in factors.iter().enumerate() {
            let Some(row) = x[n * stride..].first_chunk() else {
                panic!("a row has sixteen elements")
            };
            acc = self.add(acc, self.mul(self.splat(*factor), self.load_i8(row)));
        }
        acc
    }
    /// Computes `acc += weights · (x · scale)` for each half tile of a column, each step rounded.
    /// It is meant for processors with [`Lanes::SUMS_BY_COLUMN`].
    ///
    /// # Panics
    /// If there are too few elements or scales for the weights.
    #[inline(always)]
    fn add_halves_i8(self, acc: &mut Self::V, halves: ColumnHalves<'_>) {
        let first = halves.first;
        for (half, weights) in (first..).zip(halves.weights) {
            let at = |step: usize| half / 2 * step + half % 2 * 16;
            let (Some(x), Some(scale)) = (
                halves.elements[at(halves.steps.0)..].first_chunk(),
                halves.scales[at(halves.steps.1)..].first_chunk(),
            ) else {
                panic!("a half tile has sixteen slots")
            };
            let value = self.mul(self.load_i8(x), self.load_f16(scale));
            *acc = self.add(*acc, self.mul(self.load(weights), value));
        }
    }
    /// Adds to each slot's sum the products of its rotated pairs, pair after pair, each step
    /// rounded.
    ///
    /// # Panics
    /// If there are too few elements or angles for the pairs.
    #[inline(always)]
    fn add_pairs_i8(self, pairs: SlotPairs<'_>, sums: &mut [f32; 4]) {
        let [first, second] = pairs.columns;
        let scales = pairs.scales.map(|scales| scales.map(float16::widen));
        for (n, [mean_a, mean_b, query_a, query_b]) in pairs.factors.iter().enumerate() {
            let (a, b) = (
                &first[n * pairs.step..][..4],
                &second[n * pairs.step..][..4],
            );
            let angles = &pairs.angles[n * SlotPairs::ANGLES..];
            let (cos, sin) = (&angles[..4], &angles[SlotPairs::SINES..][..4]);
            for i in 0..4 {
                let a = f32::from(a[i]) * scales[0][i] + mean_a;
                let b = f32::from(b[i]) * scales[1][i] + mean_b;
                sums[i] += query_a * (a * cos[i] - b * sin[i]);
                sums[i] += query_b * (a * sin[i] + b * cos[i]);
            }
        }
    }
    /// Rounds the lanes to f16 (to the nearest, ties to even) and writes them.
    fn store_f16(self, v: Self::V, out: &mut [u16; 16]);
    /// Writes the lanes to memory.
    fn store(self, v: Self::V, out: &mut [f32; 16]);
    /// Writes the first lanes to memory, as many as `out` holds.
    #[inline(always)]
    fn store_part(self, v: Self::V, out: &mut [f32]) {
        let mut lanes = [0.0; 16];
        self.store(v, &mut lanes);
        for (to, from) in out.iter_mut().zip(lanes) {
            *to = from;
        }
    }
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// Lane-wise maximum; returns `b` where `a` is NaN. `b` must not be NaN unless `a` is, too. Of
    /// two zeros it may return either.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// Lane-wise, the number from `low` to `high` that is nearest to `x`. NaN stays NaN.
    fn clamp(self, x: Self::V, low: f32, high: f32) -> Self::V;
    /// `2^n` for integers `n` from -126 to 127, given as f32.
    fn exp2_int(self, n: Self::V) -> Self::V;
}

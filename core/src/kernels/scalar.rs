//! The readable reference: the contract of [`super`] in plain Rust.

use core::ops::Range;

use super::Q8Activation;
use crate::arena::Columns;
use crate::quant::{BLOCK, QuantBlock, SUPER_BLOCK, SuperBlock};
use crate::tensor::Matrix;

/// Quantises one token's activations `x` to int8 in blocks of 32.
///
/// # Panics
/// If `out` does not have a block for every 32 values of `x`.
pub fn quantize_activations(x: &[f32], out: &mut [Q8Activation]) {
    assert!(x.len() == out.len() * BLOCK);
    for (x, out) in x.chunks_exact(BLOCK).zip(out) {
        let mut max = 0.0f32;
        for v in x {
            max = max.max(v.abs());
        }
        let inverse = inverse_scale(max);
        for (q, v) in out.q.iter_mut().zip(x) {
            *q = round_to_i8(v * inverse);
        }
        let (first, second) = out.q.split_at(BLOCK / 2);
        let sums = [first, second].map(|half| half.iter().map(|q| i16::from(*q)).sum());
        set_scale(out, max, sums);
    }
}

/// What values are multiplied with before they are rounded, for the largest of them: 127 / `max`, or 0 where that overflows
/// (a block of zeros, or of numbers too small to matter).
#[inline(always)]
pub(super) fn inverse_scale(max: f32) -> f32 {
    let inverse = 127.0 / max;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Completes a block whose integers are set, whose halves have these sums.
#[inline(always)]
pub(super) fn set_scale(block: &mut Q8Activation, max: f32, [first, second]: [i16; 2]) {
    block.sum = first + second;
    block.first_sum = first;
    block.scale = max / 127.0;
    block.scaled_sum = block.scale * f32::from(block.sum);
}

/// Nearest integer, ties to even, of a value within ±127.5 (others saturate; NaN gives 0).
#[inline(always)]
fn round_to_i8(v: f32) -> i8 {
    // 1.5 · 2^23: adding it leaves no bits for a fraction, so that the sum itself rounds to the nearest, ties to even.
    const MAGIC: f32 = 12_582_912.0;
    ((v + MAGIC) - MAGIC) as i8
}

/// Sum of products in the fixed order of [`super`]: sixteen partial sums, then a fold of halves (8, 4, 2, 1).
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert!(a.len() == b.len());
    let mut sums = [0.0f32; 16];
    let (a_chunks, b_chunks) = (a.chunks_exact(16), b.chunks_exact(16));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += a * b;
    }
    fold(sums)
}

/// The fold of halves: `s[i] += s[i + 8]`, then 4, 2, 1.
#[inline(always)]
pub(crate) fn fold(s: [f32; 16]) -> f32 {
    // Written out, since the compiler keeps loops over halves, at twice the instructions.
    let s = [
        s[0] + s[8],
        s[1] + s[9],
        s[2] + s[10],
        s[3] + s[11],
        s[4] + s[12],
        s[5] + s[13],
        s[6] + s[14],
        s[7] + s[15],
    ];
    let s = [s[0] + s[4], s[1] + s[5], s[2] + s[6], s[3] + s[7]];
    (s[0] + s[2]) + (s[1] + s[3])
}

/// Output rows `rows` of `w` for each token of `x`, into `out` (a row of `out` per token).
pub(super) fn matmul_q8<B: QuantBlock>(
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &[Q8Activation],
    out: &mut Columns<'_, f32>,
) {
    let row_blocks = w.cols() / BLOCK;
    let blocks = w.blocks::<B>(rows);
    for (token, x) in x.chunks_exact(row_blocks).enumerate() {
        for (w, out) in blocks.chunks_exact(row_blocks).zip(out.row_mut(token)) {
            *out = dot_q8(w, x);
        }
    }
}

/// One row and one token: the formula of [`super`].
pub(super) fn dot_q8<B: QuantBlock>(w: &[B], x: &[Q8Activation]) -> f32 {
    let mut acc = 0.0;
    for (w, x) in w.iter().zip(x) {
        let mut isum = 0;
        for (w, x) in w.quants().iter().zip(x.q) {
            isum += i32::from(*w) * i32::from(x);
        }
        let term = (w.scale() * x.scale) * isum as f32;
        acc += if B::HAS_MIN {
            term + w.min() * x.scaled_sum
        } else {
            term
        };
    }
    acc
}

/// As [`matmul_q8`], for super-blocks.
pub(super) fn matmul_super<B: SuperBlock>(
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &[Q8Activation],
    out: &mut Columns<'_, f32>,
) {
    let row_blocks = w.cols() / SUPER_BLOCK;
    let blocks = w.blocks::<B>(rows);
    for (token, x) in x.chunks_exact(w.cols() / BLOCK).enumerate() {
        for (w, out) in blocks.chunks_exact(row_blocks).zip(out.row_mut(token)) {
            *out = dot_super(w, x);
        }
    }
}

/// One row of super-blocks and one token: the formula of [`super`].
pub(super) fn dot_super<B: SuperBlock>(w: &[B], x: &[Q8Activation]) -> f32 {
    let mut acc = 0.0;
    for (w, x) in w.iter().zip(x.chunks_exact(SUPER_BLOCK / BLOCK)) {
        for (i, x) in x.iter().enumerate() {
            let part = w.part(i);
            let (mut isum, mut msum) = (0, 0);
            for half in 0..2 {
                let range = BLOCK / 2 * half..BLOCK / 2 * (half + 1);
                let (mut products, mut sum) = (0, 0);
                for (w, x) in part.quants[range.clone()].iter().zip(&x.q[range]) {
                    products += i32::from(*w) * i32::from(*x);
                    sum += i32::from(*x);
                }
                isum += i32::from(part.factors[half]) * products;
                msum += i32::from(part.min_factors[half]) * sum;
            }
            let term = (part.scale * x.scale) * isum as f32;
            acc += if B::HAS_MIN {
                term + part.min * (x.scale * msum as f32)
            } else {
                term
            };
        }
    }
    acc
}

/// As [`matmul_q8`] with f32 activations, for any format: dequantises a row at a time into `row` (`w.cols()` long).
pub(super) fn matmul_f32(
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &[f32],
    out: &mut Columns<'_, f32>,
    row: &mut [f32],
) {
    for (i, r) in rows.enumerate() {
        w.dequantize_row(r, row);
        for (token, x) in x.chunks_exact(w.cols()).enumerate() {
            out.row_mut(token)[i] = dot(row, x);
        }
    }
}

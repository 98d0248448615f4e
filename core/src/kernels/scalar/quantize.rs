//! Activations to int8.

use crate::nn::math;
use crate::quant::{BLOCK, Q8Activation};

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

/// Returns the factor of values before they are rounded: 127 / `max`, where `max` is the largest
/// magnitude, or 0 if that overflows (a block of zeros, or of numbers too small to matter).
#[inline(always)]
pub(in crate::kernels) fn inverse_scale(max: f32) -> f32 {
    let inverse = 127.0 / max;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Completes a block whose integers are set, from its largest magnitude and the sums of its halves.
#[inline(always)]
pub(in crate::kernels) fn set_scale(block: &mut Q8Activation, max: f32, [first, second]: [i16; 2]) {
    block.sum = first + second;
    block.first_sum = first;
    block.scale = max / 127.0;
    block.scaled_sum = block.scale * f32::from(block.sum);
}

/// Rounds a value within ±127.5 to the nearest integer, ties to even (other values saturate; NaN
/// gives 0).
#[inline(always)]
fn round_to_i8(v: f32) -> i8 {
    math::round_small(v) as i8
}

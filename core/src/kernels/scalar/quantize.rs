//! Activations to int8.

use crate::nn::math;
use crate::quant::{BLOCK, Q8Activation};

/// Quantises one token's activations `x` to int8 in blocks of 32. A block with a value that is NaN
/// or infinite has a scale that is so, and no product with it is a number.
///
/// # Panics
/// If `out` does not have a block for every 32 values of `x`.
pub fn quantize_activations(x: &[f32], out: &mut [Q8Activation]) {
    assert!(x.len() == out.len() * BLOCK);
    for (x, out) in x.chunks_exact(BLOCK).zip(out) {
        let max = largest_magnitude(x);
        let inverse = inverse_scale(max);
        for (q, v) in out.q.iter_mut().zip(x) {
            *q = round_to_i8(v * inverse);
        }
        let (first, second) = out.q.split_at(BLOCK / 2);
        let sums = [first, second].map(|half| half.iter().map(|q| i16::from(*q)).sum());
        set_scale(out, max, sums);
    }
}

/// Returns the largest magnitude in `x`; NaN if a value is NaN.
#[inline(always)]
pub(in crate::kernels) fn largest_magnitude(x: &[f32]) -> f32 {
    // Floats without their signs have the order of their bits, with NaN past infinity.
    let magnitude = |v: &f32| v.to_bits() & 0x7FFF_FFFF;
    f32::from_bits(x.iter().map(magnitude).fold(0, u32::max))
}

/// Returns the factor of values before they are rounded: 127 / `max`, where `max` is the largest
/// magnitude, or 0 if that is not finite (a block of zeros, or of numbers too small to matter, or
/// one with NaN).
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

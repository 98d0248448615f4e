//! Quantisation of activations with few moves between the register files.

use crate::kernels::scalar;
use crate::nn::math::ROUNDING;
use crate::quant::{BLOCK, Q8Activation};

/// Does the same as [`scalar::quantize_activations`].
pub(super) fn quantize(x: &[f32], out: &mut [Q8Activation]) {
    for (x, out) in x.as_chunks::<BLOCK>().0.iter().zip(out) {
        let max = scalar::largest_magnitude(x);
        if !max.is_finite() {
            scalar::quantize_activations(x, core::slice::from_mut(out));
            continue;
        }
        let inverse = scalar::inverse_scale(max);
        let mut sums = [0u32; 2];
        let halves = x
            .chunks_exact(BLOCK / 2)
            .zip(out.q.chunks_exact_mut(BLOCK / 2));
        for (sum, (x, q)) in sums.iter_mut().zip(halves) {
            for (q, v) in q.iter_mut().zip(x) {
                // The value is within ±127.0001, so that the low byte is the integer.
                let bits = (v * inverse + ROUNDING).to_bits();
                *q = bits as i8;
                *sum = sum.wrapping_add(bits);
            }
        }
        const OFFSET: u32 = ROUNDING.to_bits().wrapping_mul(BLOCK as u32 / 2);
        scalar::set_scale(out, max, sums.map(|sum| sum.wrapping_sub(OFFSET) as i16));
    }
}

//! Quantisation of activations to int8, four blocks at a time.

use core::arch::x86_64::*;

use super::sum_lanes;
use crate::quant::{BLOCK, Q8Activation};

/// Folds the upper 256 bits onto the lower ones with `$op`; returns the two halves of the result.
macro_rules! fold_lanes {
    ($op:ident, $v:expr) => {{
        let half = $op(
            _mm512_castsi512_si256($v),
            _mm512_extracti64x4_epi64::<1>($v),
        );
        (
            _mm256_castsi256_si128(half),
            _mm256_extracti128_si256::<1>(half),
        )
    }};
}

/// Implements [`super::super::Kernels::quantize`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn quantize(x: &[f32], out: &mut [Q8Activation]) {
    let (blocks, _) = x.as_chunks::<BLOCK>();
    let (fours, rest) = blocks.as_chunks::<4>();
    let (out_fours, out_rest) = out.as_chunks_mut::<4>();
    for (x, out) in fours.iter().zip(out_fours) {
        quantize_four(x, out);
    }
    // The last one to three blocks, filled up to four.
    let (mut last, mut last_out) = ([[0.0; BLOCK]; 4], [Q8Activation::ZERO; 4]);
    last[..rest.len()].copy_from_slice(rest);
    if !rest.is_empty() {
        quantize_four(&last, &mut last_out);
        out_rest.copy_from_slice(&last_out[..rest.len()]);
    }
}

/// Quantises four blocks at once, so that their largest values and their sums are found together.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn quantize_four(x: &[[f32; BLOCK]; 4], out: &mut [Q8Activation; 4]) {
    let zero = _mm512_setzero_ps();
    let (mut values, mut maxima) = ([[zero; 2]; 4], [_mm512_setzero_si512(); 4]);
    for (k, x) in x.iter().enumerate() {
        // SAFETY: 32 floats.
        values[k] = unsafe {
            [
                _mm512_loadu_ps(x.as_ptr()),
                _mm512_loadu_ps(x.as_ptr().add(16)),
            ]
        };
        // Magnitudes have the order of the integers with the same bits, with NaN past infinity.
        let [first, second] = values[k].map(|v| _mm512_castps_si512(_mm512_abs_ps(v)));
        maxima[k] = _mm512_max_epi32(first, second);
    }
    let [a, b, c, d] = maxima;
    let ab = _mm512_max_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_max_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let max = _mm512_max_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let (low, high) = fold_lanes!(_mm256_max_epi32, max);
    let max = _mm_castsi128_ps(_mm_max_epi32(low, high));

    let inverse = _mm_div_ps(_mm_set1_ps(127.0), max);
    let finite = _mm_cmp_ps_mask::<_CMP_LT_OQ>(inverse, _mm_set1_ps(f32::INFINITY));
    let mut inverses = [0.0; 4];
    // SAFETY: 4 floats.
    unsafe { _mm_storeu_ps(inverses.as_mut_ptr(), _mm_maskz_mov_ps(finite, inverse)) };
    let mut sums = [_mm512_setzero_si512(); 4];
    for (k, out) in out.iter_mut().enumerate() {
        let inverse = _mm512_set1_ps(inverses[k]);
        let mut q = [_mm512_setzero_si512(); 2];
        for (q, x) in q.iter_mut().zip(values[k]) {
            let x = _mm512_mul_ps(x, inverse);
            *q = _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask::<_CMP_ORD_Q>(x, x), x);
        }
        // The sums of all are in the lower halves, those of the first 16 in the upper ones.
        let all = _mm512_add_epi32(q[0], q[1]);
        sums[k] = _mm512_add_epi32(all, _mm512_slli_epi32::<16>(q[0]));
        // SAFETY: 32 bytes.
        unsafe {
            _mm_storeu_si128(out.q.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(q[0]));
            _mm_storeu_si128(
                out.q.as_mut_ptr().add(16).cast(),
                _mm512_cvtepi32_epi8(q[1]),
            );
        }
    }
    let (low, high) = fold_lanes!(_mm256_add_epi32, sum_lanes(sums));
    let both = _mm_add_epi32(low, high);
    let sum = _mm_srai_epi32::<16>(_mm_slli_epi32::<16>(both));
    // A negative lower half has borrowed one from the upper.
    let both = _mm_blend_epi16::<0xAA>(sum, _mm_sub_epi32(both, sum));
    let scale = _mm_div_ps(max, _mm_set1_ps(127.0));
    let scaled_sum = _mm_mul_ps(scale, _mm_cvtepi32_ps(sum));
    let (mut scales, mut scaled_sums, mut integers) = ([0.0; 4], [0.0; 4], [0i32; 4]);
    // SAFETY: 4 numbers each.
    unsafe {
        _mm_storeu_ps(scales.as_mut_ptr(), scale);
        _mm_storeu_ps(scaled_sums.as_mut_ptr(), scaled_sum);
        _mm_storeu_si128(integers.as_mut_ptr().cast(), both);
    }
    for (k, out) in out.iter_mut().enumerate() {
        (out.scale, out.scaled_sum) = (scales[k], scaled_sums[k]);
        (out.sum, out.first_sum) = (integers[k] as i16, (integers[k] >> 16) as i16);
    }
}

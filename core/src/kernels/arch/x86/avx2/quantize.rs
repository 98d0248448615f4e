//! Quantisation of activations to int8.

use core::arch::x86_64::*;

use crate::kernels::scalar;
use crate::quant::{BLOCK, Q8Activation};

/// Implements [`super::super::Kernels::quantize`].
#[target_feature(enable = "avx2")]
pub(super) fn quantize(x: &[f32], out: &mut [Q8Activation]) {
    let (blocks, _) = x.as_chunks::<BLOCK>();
    for (x, out) in blocks.iter().zip(out) {
        let mut values = [_mm256_setzero_ps(); 4];
        let mut max = _mm256_setzero_si256();
        for (value, x) in values.iter_mut().zip(x.as_chunks::<8>().0) {
            // SAFETY: 8 floats.
            *value = unsafe { _mm256_loadu_ps(x.as_ptr()) };
            // Magnitudes have the order of the integers with the same bits, with NaN past infinity.
            let magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0), *value);
            max = _mm256_max_epi32(_mm256_castps_si256(magnitude), max);
        }
        let max = _mm_max_epi32(
            _mm256_castsi256_si128(max),
            _mm256_extracti128_si256::<1>(max),
        );
        let max = _mm_max_epi32(max, _mm_unpackhi_epi64(max, max));
        let max = _mm_max_epi32(max, _mm_srli_epi64::<32>(max));
        let max = f32::from_bits(_mm_cvtsi128_si32(max) as u32);
        let inverse = _mm256_set1_ps(scalar::inverse_scale(max));
        let q = values.map(|value| {
            let value = _mm256_mul_ps(value, inverse);
            let number = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_ORD_Q>(value, value));
            _mm256_and_si256(_mm256_cvtps_epi32(value), number)
        });
        // The sums of the last 16 are in the lower halves, those of the first 16 in the upper ones.
        let (first, second) = (_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3]));
        let sum = _mm256_add_epi32(second, _mm256_slli_epi32::<16>(first));
        let sum = _mm_add_epi32(
            _mm256_castsi256_si128(sum),
            _mm256_extracti128_si256::<1>(sum),
        );
        let sum = _mm_add_epi32(sum, _mm_unpackhi_epi64(sum, sum));
        let sum = _mm_cvtsi128_si32(sum) + _mm_extract_epi32::<1>(sum);
        // Packing works in 128-bit lanes: 4 values of each register, of the lower lanes and then of
        // the upper ones.
        let packed = _mm256_packs_epi16(
            _mm256_packs_epi32(q[0], q[1]),
            _mm256_packs_epi32(q[2], q[3]),
        );
        let packed = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(out.q.as_mut_ptr().cast(), packed) };
        // A negative lower half has borrowed one from the upper.
        let second = sum as i16;
        scalar::set_scale(out, max, [((sum - i32::from(second)) >> 16) as i16, second]);
    }
}

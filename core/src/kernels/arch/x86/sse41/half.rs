//! f16 to f32 without the processor's help.

use core::arch::x86_64::*;

/// Widens the f16 in the lower half of each 32-bit lane, exactly; the upper half must be 0.
///
/// The exponent of an f16 is 15 too high, that of an f32 127: moved to its place, a number is too
/// small by 2^112, subnormal ones too (IEEE 754-2019, section 3.6). What was infinite or NaN gets
/// the exponent that says so.
#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) fn widen_lanes(halves: __m128i) -> __m128 {
    let magnitude = _mm_slli_epi32::<13>(_mm_and_si128(halves, _mm_set1_epi32(0x7FFF)));
    let sign = _mm_slli_epi32::<16>(_mm_and_si128(halves, _mm_set1_epi32(0x8000)));
    let value = _mm_mul_ps(
        _mm_castsi128_ps(magnitude),
        _mm_set1_ps(f32::from_bits((112 + 127) << 23)),
    );
    let is_special = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32((0x7C00 << 13) - 1));
    let special = _mm_and_si128(is_special, _mm_set1_epi32(0x7F80_0000));
    _mm_or_ps(value, _mm_castsi128_ps(_mm_or_si128(sign, special)))
}

/// Widens the f16 in the lower and in the upper half of each 32-bit lane.
#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) fn widen_halves(words: __m128i) -> [__m128; 2] {
    let low = _mm_and_si128(words, _mm_set1_epi32(0xFFFF));
    [widen_lanes(low), widen_lanes(_mm_srli_epi32::<16>(words))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::float16;

    #[test]
    fn every_half_is_widened_exactly() {
        if !std::arch::is_x86_feature_detected!("sse4.1") {
            return;
        }
        for bits in 0..=u16::MAX {
            let word = i32::from(bits) | i32::from(!bits) << 16;
            // SAFETY: the processor has just said that it has SSE4.1.
            let [low, high] = unsafe { widen_halves(_mm_set1_epi32(word)) };
            // SAFETY: every x86-64 has SSE.
            let got = [low, high].map(|value| unsafe { _mm_cvtss_f32(value) });
            for (got, bits) in got.into_iter().zip([bits, !bits]) {
                let exact = float16::widen(bits);
                assert!(
                    got.to_bits() == exact.to_bits() || got.is_nan() && exact.is_nan(),
                    "{bits:#x}: {got}, not {exact}"
                );
            }
        }
    }
}

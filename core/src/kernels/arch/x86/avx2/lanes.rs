//! Sixteen lanes: two registers.

use core::arch::x86_64::*;

use super::Avx2;
use crate::kernels::dispatch::InstructionSet;
use crate::kernels::generic::{Lanes, Op};

/// Defines a method over both halves.
macro_rules! halves {
    ($intrinsic:ident, $a:expr, $b:expr) => {
        // SAFETY: contract 1 (a token exists, so the processor has AVX2, FMA and F16C).
        unsafe { [$intrinsic($a[0], $b[0]), $intrinsic($a[1], $b[1])] }
    };
}

impl Lanes for Avx2 {
    type V = [__m256; 2];
    const MANY_ROWS: bool = true;
    const SUMS: usize = 8;

    #[inline(never)]
    fn apart<O: Op>(self, op: O) -> O::Output {
        self.run(op)
    }

    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        super::super::prefetch(at);
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: contract 1 (the token's features).
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> Self::V {
        // SAFETY: contract 1 (the token's features); 16 f32 are readable.
        unsafe {
            [
                _mm256_loadu_ps(x.as_ptr()),
                _mm256_loadu_ps(x.as_ptr().add(8)),
            ]
        }
    }

    #[inline(always)]
    fn load_f16(self, x: &[u16; 16]) -> Self::V {
        // SAFETY: contract 1 (the token's features); 16 u16 are 32 readable bytes.
        unsafe {
            let bits = _mm256_loadu_si256(x.as_ptr().cast());
            [
                _mm256_cvtph_ps(_mm256_castsi256_si128(bits)),
                _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(bits)),
            ]
        }
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; 16]) -> Self::V {
        // SAFETY: contract 1 (the token's features); 16 readable bytes.
        unsafe {
            let bytes = _mm_loadu_si128(x.as_ptr().cast());
            [
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes))),
            ]
        }
    }

    #[inline(always)]
    fn store_f16(self, v: Self::V, out: &mut [u16; 16]) {
        // SAFETY: contract 1 (the token's features); 16 u16 are 32 writable bytes.
        unsafe {
            let low = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0]);
            let high = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1]);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_set_m128i(high, low));
        }
    }

    #[inline(always)]
    fn store(self, v: Self::V, out: &mut [f32; 16]) {
        // SAFETY: contract 1 (the token's features); 16 f32 are writable.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), v[1]);
        }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_add_ps, a, b)
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_sub_ps, a, b)
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_mul_ps, a, b)
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_div_ps, a, b)
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_max_ps, a, b)
    }

    #[inline(always)]
    fn clamp(self, x: Self::V, low: f32, high: f32) -> Self::V {
        // Both instructions return their second operand if one is NaN.
        let x = halves!(_mm256_min_ps, self.splat(high), x);
        halves!(_mm256_max_ps, self.splat(low), x)
    }

    #[inline(always)]
    fn exp2_int(self, n: Self::V) -> Self::V {
        // SAFETY: contract 1 (the token's features).
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n[0]), bias));
            let high = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n[1]), bias));
            [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
        }
    }
}

//! Sixteen lanes on x86-64: one AVX-512 register, or two of AVX2.

use core::arch::x86_64::*;

use super::super::lanes::Lanes;

/// Two AVX2 registers.
#[derive(Clone, Copy)]
pub(super) struct Avx2Lanes(());

impl Avx2Lanes {
    /// The token, in a function that has the features.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn with_features() -> Self {
        Avx2Lanes(())
    }
}

/// Defines a method over both halves.
macro_rules! halves {
    ($intrinsic:ident, $a:expr, $b:expr) => {
        // SAFETY: a token was made in a function with AVX2, FMA and F16C, so the processor has them.
        unsafe { [$intrinsic($a[0], $b[0]), $intrinsic($a[1], $b[1])] }
    };
}

impl Lanes for Avx2Lanes {
    type V = [__m256; 2];
    const MANY_ROWS: bool = true;
    const SUMS: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: the token's features, see `halves`.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> Self::V {
        // SAFETY: the token's features, see `halves`; 16 f32 are readable.
        unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn load_f16(self, x: &[u16; 16]) -> Self::V {
        // SAFETY: the token's features, see `halves`; 16 u16 are 32 readable bytes.
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
        // SAFETY: the token's features, see `halves`; 16 readable bytes.
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
        // SAFETY: the token's features, see `halves`; 16 u16 are 32 writable bytes.
        unsafe {
            let low = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0]);
            let high = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1]);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_set_m128i(high, low));
        }
    }

    #[inline(always)]
    fn store(self, v: Self::V, out: &mut [f32; 16]) {
        // SAFETY: the token's features, see `halves`; 16 f32 are writable.
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
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_min_ps, a, b)
    }

    #[inline(always)]
    fn exp2_int(self, n: Self::V) -> Self::V {
        // SAFETY: the token's features, see `halves`.
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n[0]), bias));
            let high = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n[1]), bias));
            [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
        }
    }
}

/// One AVX-512 register.
#[derive(Clone, Copy)]
pub(super) struct Avx512Lanes(());

impl Avx512Lanes {
    /// The token, in a function that has the features.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    pub(super) fn with_features() -> Self {
        Avx512Lanes(())
    }
}

/// Defines a method over the register.
macro_rules! whole {
    ($intrinsic:ident($($argument:expr),*)) => {
        // SAFETY: a token was made in a function with AVX-512 F, BW, VL and DQ, so the processor has them; pointers come from
        // references to 16 values of the size that the intrinsic reads or writes, or to as many as its mask has bits.
        unsafe { $intrinsic($($argument),*) }
    };
}

/// The mask of the first `n` lanes, at most all sixteen.
#[inline(always)]
fn first_lanes(n: usize) -> __mmask16 {
    ((1u32 << n.min(16)) - 1) as __mmask16
}

impl Lanes for Avx512Lanes {
    type V = __m512;
    const MANY_ROWS: bool = true;
    const SUMS: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        whole!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> __m512 {
        whole!(_mm512_loadu_ps(x.as_ptr()))
    }

    #[inline(always)]
    fn load_part(self, x: &[f32]) -> __m512 {
        // A masked load reads no value whose bit of the mask is clear: not more than there are.
        whole!(_mm512_maskz_loadu_ps(first_lanes(x.len()), x.as_ptr()))
    }

    #[inline(always)]
    fn load_f16(self, x: &[u16; 16]) -> __m512 {
        whole!(_mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())))
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; 16]) -> __m512 {
        whole!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(
            x.as_ptr().cast()
        ))))
    }

    #[inline(always)]
    fn store_f16(self, v: __m512, out: &mut [u16; 16]) {
        // SAFETY: see `whole`.
        unsafe {
            let bits = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), bits);
        }
    }

    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32; 16]) {
        whole!(_mm512_storeu_ps(out.as_mut_ptr(), v));
    }

    #[inline(always)]
    fn store_part(self, v: __m512, out: &mut [f32]) {
        // As in `load_part`.
        whole!(_mm512_mask_storeu_ps(out.as_mut_ptr(), first_lanes(out.len()), v));
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        whole!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        whole!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        whole!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        whole!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        whole!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        whole!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn exp2_int(self, n: __m512) -> __m512 {
        // SAFETY: see `whole`.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        }
    }
}

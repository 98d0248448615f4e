//! Sixteen lanes: one register.

use core::arch::x86_64::*;

use super::Avx512;
use crate::kernels::dispatch::InstructionSet;
use crate::kernels::generic::{Lanes, Op};

/// Defines a method over the register.
macro_rules! whole {
    ($intrinsic:ident($($argument:expr),*)) => {
        // SAFETY: contract 1 (a token exists, so the processor has AVX-512 F, BW, VL and DQ);
        // pointers come from references to 16 values of the size that the intrinsic reads or
        // writes, or to as many as its mask has bits.
        unsafe { $intrinsic($($argument),*) }
    };
}

/// The mask of the first `n` lanes, at most all sixteen.
#[inline(always)]
fn first_lanes(n: usize) -> __mmask16 {
    ((1u32 << n.min(16)) - 1) as __mmask16
}

impl Lanes for Avx512 {
    type V = __m512;
    const MANY_ROWS: bool = true;
    const SUMS: usize = 16;

    #[inline(never)]
    fn apart<O: Op>(self, op: O) -> O::Output {
        self.run(op)
    }

    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        super::super::prefetch(at);
    }

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
        // A masked load reads no value whose mask bit is clear, so nothing past the slice.
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
        // The mask works as in `load_part`.
        whole!(_mm512_mask_storeu_ps(
            out.as_mut_ptr(),
            first_lanes(out.len()),
            v
        ));
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
    fn clamp(self, x: __m512, low: f32, high: f32) -> __m512 {
        // Both instructions return their second operand if one is NaN.
        whole!(_mm512_max_ps(
            _mm512_set1_ps(low),
            _mm512_min_ps(_mm512_set1_ps(high), x)
        ))
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

//! Sixteen lanes: four registers.

use core::arch::x86_64::*;
use core::array::from_fn;

use super::Sse41;
use super::half::widen_lanes;
use crate::kernels::dispatch::InstructionSet;
use crate::kernels::generic::{Lanes, Op};
use crate::kernels::isa::Scalar;

/// Defines a method over all four registers.
macro_rules! quarters {
    ($intrinsic:ident, $a:expr, $b:expr) => {
        // SAFETY: contract 1 (a token exists, so the processor has SSE4.1).
        unsafe {
            [
                $intrinsic($a[0], $b[0]),
                $intrinsic($a[1], $b[1]),
                $intrinsic($a[2], $b[2]),
                $intrinsic($a[3], $b[3]),
            ]
        }
    };
}

impl Lanes for Sse41 {
    type V = [__m128; 4];
    // Four registers a vector leave none for a second row.
    const MANY_ROWS: bool = false;
    const SUMS: usize = 2;

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
        unsafe { [_mm_set1_ps(x); 4] }
    }

    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> Self::V {
        // SAFETY: contract 1 (the token's features); contract 5 (4 of 16 f32 from 4·i on, i < 4).
        from_fn(|i| unsafe { _mm_loadu_ps(x.as_ptr().add(4 * i)) })
    }

    #[inline(always)]
    fn load_f16(self, x: &[u16; 16]) -> Self::V {
        // SAFETY: contract 1 (the token's features); contract 5 (4 of 16 u16 from 4·i on, i < 4).
        from_fn(|i| unsafe {
            widen_lanes(_mm_cvtepu16_epi32(_mm_loadl_epi64(
                x.as_ptr().add(4 * i).cast(),
            )))
        })
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; 16]) -> Self::V {
        // SAFETY: contract 1 (the token's features); contract 5 (16 bytes).
        unsafe {
            let bytes = _mm_loadu_si128(x.as_ptr().cast());
            [
                _mm_cvtepi32_ps(_mm_cvtepi8_epi32(bytes)),
                _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_srli_si128::<4>(bytes))),
                _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_srli_si128::<8>(bytes))),
                _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_srli_si128::<12>(bytes))),
            ]
        }
    }

    #[inline(always)]
    fn store_f16(self, v: Self::V, out: &mut [u16; 16]) {
        let mut lanes = [0.0; 16];
        self.store(v, &mut lanes);
        Scalar.store_f16(lanes, out);
    }

    #[inline(always)]
    fn store(self, v: Self::V, out: &mut [f32; 16]) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: contract 1 (the token's features); contract 5 (4 of 16 f32 from 4·i on).
            unsafe { _mm_storeu_ps(out.as_mut_ptr().add(4 * i), v) };
        }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        quarters!(_mm_add_ps, a, b)
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        quarters!(_mm_sub_ps, a, b)
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        quarters!(_mm_mul_ps, a, b)
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        quarters!(_mm_div_ps, a, b)
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        quarters!(_mm_max_ps, a, b)
    }

    #[inline(always)]
    fn clamp(self, x: Self::V, low: f32, high: f32) -> Self::V {
        // Both instructions return their second operand if one is NaN.
        let x = quarters!(_mm_min_ps, self.splat(high), x);
        quarters!(_mm_max_ps, self.splat(low), x)
    }

    #[inline(always)]
    fn exp2_int(self, n: Self::V) -> Self::V {
        // SAFETY: contract 1 (the token's features).
        n.map(|n| unsafe {
            let exponent = _mm_add_epi32(_mm_cvtps_epi32(n), _mm_set1_epi32(127));
            _mm_castsi128_ps(_mm_slli_epi32::<23>(exponent))
        })
    }
}

//! Sixteen lanes: four NEON registers.

use core::arch::aarch64::*;
use core::arch::asm;

use crate::kernels::dispatch::InstructionSet;
use crate::kernels::generic::{Lanes, Op};
use crate::kernels::isa::Neon;

/// Defines a method over the four quarters.
macro_rules! quarters {
    ($intrinsic:ident, $a:expr, $b:expr) => {
        // SAFETY: contract 1 (a token exists, so the processor has NEON).
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

impl Lanes for Neon {
    type V = [float32x4_t; 4];
    const MANY_ROWS: bool = true;
    const SUMS: usize = 8;

    #[inline(never)]
    fn apart<O: Op>(self, op: O) -> O::Output {
        self.run(op)
    }

    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        // SAFETY: a prefetch is a hint: it changes no state, and an address that cannot be read is
        // ignored.
        unsafe {
            asm!("prfm pldl1strm, [{0}]", in(reg) at, options(readonly, nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: contract 1 (the token's feature).
        unsafe { [vdupq_n_f32(x); 4] }
    }

    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> Self::V {
        let p = x.as_ptr();
        // SAFETY: contract 1 (the token's feature); 16 f32 are readable.
        unsafe {
            [
                vld1q_f32(p),
                vld1q_f32(p.add(4)),
                vld1q_f32(p.add(8)),
                vld1q_f32(p.add(12)),
            ]
        }
    }

    #[inline(always)]
    fn load_f16(self, x: &[u16; 16]) -> Self::V {
        let p = x.as_ptr();
        // SAFETY: contract 1 (the token's feature); 16 u16 are readable. The conversions touch
        // registers only.
        unsafe {
            let (low, high) = (vld1q_u16(p), vld1q_u16(p.add(8)));
            let (a, b, c, d): (float32x4_t, float32x4_t, float32x4_t, float32x4_t);
            asm!(
                "fcvtl {a:v}.4s, {low:v}.4h", "fcvtl2 {b:v}.4s, {low:v}.8h",
                "fcvtl {c:v}.4s, {high:v}.4h", "fcvtl2 {d:v}.4s, {high:v}.8h",
                a = out(vreg) a, b = out(vreg) b, c = out(vreg) c, d = out(vreg) d,
                low = in(vreg) low, high = in(vreg) high,
                options(pure, nomem, nostack, preserves_flags)
            );
            [a, b, c, d]
        }
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; 16]) -> Self::V {
        // SAFETY: contract 1 (the token's feature); 16 bytes are readable.
        unsafe {
            let bytes = vld1q_s8(x.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ]
        }
    }

    #[inline(always)]
    fn store_f16(self, v: Self::V, out: &mut [u16; 16]) {
        let p = out.as_mut_ptr();
        // SAFETY: contract 1 (the token's feature); 16 u16 are writable. The conversions touch
        // registers only, and round as the default floating-point mode does: to the nearest, ties
        // to even.
        unsafe {
            let (low, high): (uint16x8_t, uint16x8_t);
            asm!(
                "fcvtn {low:v}.4h, {a:v}.4s", "fcvtn2 {low:v}.8h, {b:v}.4s",
                "fcvtn {high:v}.4h, {c:v}.4s", "fcvtn2 {high:v}.8h, {d:v}.4s",
                a = in(vreg) v[0], b = in(vreg) v[1], c = in(vreg) v[2], d = in(vreg) v[3],
                low = out(vreg) low, high = out(vreg) high,
                options(pure, nomem, nostack, preserves_flags)
            );
            vst1q_u16(p, low);
            vst1q_u16(p.add(8), high);
        }
    }

    #[inline(always)]
    fn store(self, v: Self::V, out: &mut [f32; 16]) {
        let p = out.as_mut_ptr();
        // SAFETY: contract 1 (the token's feature); 16 f32 are writable.
        unsafe {
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(4), v[1]);
            vst1q_f32(p.add(8), v[2]);
            vst1q_f32(p.add(12), v[3]);
        }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        quarters!(vaddq_f32, a, b)
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        quarters!(vsubq_f32, a, b)
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        quarters!(vmulq_f32, a, b)
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        quarters!(vdivq_f32, a, b)
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        quarters!(vmaxnmq_f32, a, b)
    }

    #[inline(always)]
    fn clamp(self, x: Self::V, low: f32, high: f32) -> Self::V {
        // Unlike those of `max`, these instructions return NaN if one operand is NaN.
        let x = quarters!(vminq_f32, x, self.splat(high));
        quarters!(vmaxq_f32, x, self.splat(low))
    }

    #[inline(always)]
    fn exp2_int(self, n: Self::V) -> Self::V {
        // SAFETY: contract 1 (the token's feature).
        unsafe {
            let mut powers = n;
            for (power, n) in powers.iter_mut().zip(n) {
                let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
                *power = vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent));
            }
            powers
        }
    }
}

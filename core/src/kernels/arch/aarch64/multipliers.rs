//! Multipliers of the sums of a block: scales, minima, and the integer factors of super-blocks.

use core::arch::aarch64::*;

use super::Weights;

/// Multipliers of the sums of one part of four rows, a row in a lane.
#[derive(Clone, Copy)]
pub(super) struct Multipliers {
    scale: float32x4_t,
    min: float32x4_t,
    /// Factors of the sums of both halves; ignored by formats without factors.
    factors: [int32x4_t; 2],
    /// Factors of the activations' sums of both halves; ignored by formats without factors.
    min_factors: [int32x4_t; 2],
}

impl Multipliers {
    /// Reads the multipliers of four rows from a panel: scales and minima, or, for formats with
    /// factors, the bits of each row's two f16 (the minimum in the upper half) and of its four
    /// bytes (factors, then factors of the minimum).
    ///
    /// # Safety
    /// The processor has NEON.
    #[inline(always)]
    pub(super) unsafe fn new<B: Weights>([first, second]: [float32x4_t; 2]) -> Self {
        // SAFETY: contract 1 (NEON).
        unsafe {
            let zero = vdupq_n_s32(0);
            if !B::HAS_FACTORS {
                return Multipliers {
                    scale: first,
                    min: second,
                    factors: [zero; 2],
                    min_factors: [zero; 2],
                };
            }
            let (halves, bytes) = (vreinterpretq_u32_f32(first), vreinterpretq_s32_f32(second));
            Multipliers {
                scale: widen(vmovn_u32(halves)),
                min: vnegq_f32(widen(vshrn_n_u32::<16>(halves))),
                factors: [
                    vshrq_n_s32::<24>(vshlq_n_s32::<24>(bytes)),
                    vshrq_n_s32::<24>(vshlq_n_s32::<16>(bytes)),
                ],
                min_factors: [
                    vshrq_n_s32::<24>(vshlq_n_s32::<8>(bytes)),
                    vshrq_n_s32::<24>(bytes),
                ],
            }
        }
    }

    /// Returns the term that a part adds to the results. `sums` are those of both halves (formats
    /// without factors have the whole sum in the first). `head` is the first 16 bytes of the
    /// activations: scale, scaled sum, sum of all and sum of the first half.
    ///
    /// # Safety
    /// The processor has NEON.
    #[inline(always)]
    pub(super) unsafe fn term<B: Weights>(
        &self,
        sums: [int32x4_t; 2],
        head: float32x4_t,
    ) -> float32x4_t {
        // SAFETY: contract 1 (NEON).
        unsafe {
            let mut isum = sums[0];
            if B::HAS_FACTORS {
                isum = vmlaq_s32(vmulq_s32(isum, self.factors[0]), sums[1], self.factors[1]);
            }
            let scale = vmulq_laneq_f32::<0>(self.scale, head);
            let term = vmulq_f32(scale, vcvtq_f32_s32(isum));
            if !B::HAS_MIN {
                return term;
            }
            if !B::HAS_FACTORS {
                return vaddq_f32(term, vmulq_laneq_f32::<1>(self.min, head));
            }
            let sums = vmovl_high_s16(vreinterpretq_s16_f32(head));
            let second = vsubq_s32(sums, vdupq_laneq_s32::<1>(sums));
            let msum = vmulq_laneq_s32::<1>(self.min_factors[0], sums);
            let msum = vmlaq_laneq_s32::<0>(msum, self.min_factors[1], second);
            let scaled_sum = vmulq_laneq_f32::<0>(vcvtq_f32_s32(msum), head);
            vaddq_f32(term, vmulq_f32(self.min, scaled_sum))
        }
    }
}

/// Widens four f16 to f32.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
pub(super) unsafe fn widen(halves: uint16x4_t) -> float32x4_t {
    // SAFETY: contract 1 (NEON).
    unsafe { vcvt_f32_f16(vreinterpret_f16_u16(halves)) }
}

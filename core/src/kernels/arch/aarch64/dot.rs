//! Exact sums of int8 products, with and without the dot product instructions.

use core::arch::aarch64::*;
use core::arch::asm;

use crate::kernels::isa::{Neon, NeonDotprod};

/// Sums of products of weights and activations. A value is the proof that the processor has the
/// instructions.
///
/// Weights are the integers that [`super::unpack::Unpack`] makes of a block, with or without its
/// offset; activations are in -127..=127 ([`crate::quant::Q8Activation`]). Sums wrap, but the sum
/// of one block is at most 32 · 128 · 127 and never does.
pub(super) trait Dot: Copy {
    /// Accumulators of the sums of four rows.
    type Four: Copy;

    /// True if the registers hold the sums of a group for four tokens at a time; if false, for two.
    const FOUR_TOKENS: bool;

    /// Adds the products of a row's block (columns 0..16 and 16..32) and a token's block to four
    /// lanes, whose total is the row's sum.
    fn row(self, sums: int32x4_t, w: [int8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t;

    /// Does the same as [`Dot::row`] for 16 columns.
    fn half(self, sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t;

    /// Accumulators of zero.
    fn zero(self) -> Self::Four;

    /// Adds 16 columns: 32-bit lane `r` of `w[k]` holds columns `4k..4k + 4` of row `r`, `x` the
    /// token's 16 columns. May be called twice after [`Dot::zero`], that is, for one block. With
    /// [`Smlal`] it may be called only once for weights outside -16..=31.
    fn columns(self, sums: Self::Four, w: [int8x16_t; 4], x: int8x16_t) -> Self::Four;

    /// The sums, a row in a lane.
    fn finish(self, sums: Self::Four) -> int32x4_t;
}

/// `sdot`: four products a lane, straight to 32 bits.
#[derive(Clone, Copy)]
pub(super) struct Sdot(pub(super) NeonDotprod);

/// Adds to each lane of `$sums` the four products of its bytes, as `sdot` (not yet a stable
/// intrinsic) does.
macro_rules! sdot {
    ($sums:expr, $w:expr, $x:expr, $x_lane:literal) => {{
        let mut sums: int32x4_t = $sums;
        // SAFETY: register to register; the `Sdot` of the calling method proves that the processor
        // has `sdot`. The directive makes the assembler accept it, whatever features this function
        // is compiled for.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                concat!("sdot {sums:v}.4s, {w:v}.16b, {x:v}.", $x_lane),
                sums = inout(vreg) sums,
                w = in(vreg) $w,
                x = in(vreg) $x,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sums
    }};
}

impl Dot for Sdot {
    type Four = int32x4_t;
    const FOUR_TOKENS: bool = true;

    #[inline(always)]
    fn row(self, sums: int32x4_t, w: [int8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
        sdot!(sdot!(sums, w[0], x[0], "16b"), w[1], x[1], "16b")
    }

    #[inline(always)]
    fn half(self, sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        sdot!(sums, w, x, "16b")
    }

    #[inline(always)]
    fn zero(self) -> int32x4_t {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { vdupq_n_s32(0) }
    }

    #[inline(always)]
    fn columns(self, sums: int32x4_t, w: [int8x16_t; 4], x: int8x16_t) -> int32x4_t {
        let sums = sdot!(sums, w[0], x, "4b[0]");
        let sums = sdot!(sums, w[1], x, "4b[1]");
        let sums = sdot!(sums, w[2], x, "4b[2]");
        sdot!(sums, w[3], x, "4b[3]")
    }

    #[inline(always)]
    fn finish(self, sums: int32x4_t) -> int32x4_t {
        sums
    }
}

/// `smlal` with a block's products summed in 16 bits, for weights in -16..=31, and for weights in
/// -32..=31 whose halves are summed separately.
///
/// [`Dot::row`] sums 4 products in a 16-bit lane and [`Dot::columns`] 8 a block, 4 a half: at most
/// 8 · 31 · 127 = 31496 < 2^15.
#[derive(Clone, Copy)]
pub(super) struct Smlal(pub(super) Neon);

impl Dot for Smlal {
    /// Two 16-bit lanes of partial sums a row: rows 0 and 1, rows 2 and 3... four lanes each.
    type Four = [int16x8_t; 2];
    const FOUR_TOKENS: bool = false;

    #[inline(always)]
    fn row(self, sums: int32x4_t, w: [int8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe {
            let products = vmull_s8(vget_low_s8(w[0]), vget_low_s8(x[0]));
            let products = vmlal_high_s8(products, w[0], x[0]);
            let products = vmlal_s8(products, vget_low_s8(w[1]), vget_low_s8(x[1]));
            vpadalq_s16(sums, vmlal_high_s8(products, w[1], x[1]))
        }
    }

    #[inline(always)]
    fn half(self, sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { half(sums, w, x) }
    }

    #[inline(always)]
    fn zero(self) -> [int16x8_t; 2] {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { [vdupq_n_s16(0); 2] }
    }

    #[inline(always)]
    fn columns(self, sums: [int16x8_t; 2], w: [int8x16_t; 4], x: int8x16_t) -> [int16x8_t; 2] {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe {
            let [mut low, mut high] = sums;
            for (w, x) in w.into_iter().zip(quadruplicate(x)) {
                low = vmlal_s8(low, vget_low_s8(w), vget_low_s8(x));
                high = vmlal_high_s8(high, w, x);
            }
            [low, high]
        }
    }

    #[inline(always)]
    fn finish(self, [low, high]: [int16x8_t; 2]) -> int32x4_t {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)) }
    }
}

/// `smlal` with pairs of products summed in 16 bits, for weights in -128..=127, since 2 · 128 · 127
/// = 32512 < 2^15.
#[derive(Clone, Copy)]
pub(super) struct SmlalWide(pub(super) Neon);

impl Dot for SmlalWide {
    /// Two lanes a row: rows 0 and 1, rows 2 and 3.
    type Four = [int32x4_t; 2];
    const FOUR_TOKENS: bool = false;

    #[inline(always)]
    fn row(self, sums: int32x4_t, w: [int8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { half(half(sums, w[0], x[0]), w[1], x[1]) }
    }

    #[inline(always)]
    fn half(self, sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { half(sums, w, x) }
    }

    #[inline(always)]
    fn zero(self) -> [int32x4_t; 2] {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { [vdupq_n_s32(0); 2] }
    }

    #[inline(always)]
    fn columns(self, sums: [int32x4_t; 2], w: [int8x16_t; 4], x: int8x16_t) -> [int32x4_t; 2] {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe {
            let [mut low, mut high] = sums;
            let x = quadruplicate(x);
            for k in [0, 2] {
                let pair = vmull_s8(vget_low_s8(w[k]), vget_low_s8(x[k]));
                low = vpadalq_s16(
                    low,
                    vmlal_s8(pair, vget_low_s8(w[k + 1]), vget_low_s8(x[k + 1])),
                );
                let pair = vmull_high_s8(w[k], x[k]);
                high = vpadalq_s16(high, vmlal_high_s8(pair, w[k + 1], x[k + 1]));
            }
            [low, high]
        }
    }

    #[inline(always)]
    fn finish(self, [low, high]: [int32x4_t; 2]) -> int32x4_t {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { vpaddq_s32(low, high) }
    }
}

/// Adds the products of 16 columns, two of which fit 16 bits.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn half(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: contract 1 (NEON).
    unsafe {
        let products = vmull_s8(vget_low_s8(w), vget_low_s8(x));
        vpadalq_s16(sums, vmlal_high_s8(products, w, x))
    }
}

/// Broadcasts each 32-bit lane of `x` to all lanes of a register of its own.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn quadruplicate(x: int8x16_t) -> [int8x16_t; 4] {
    // SAFETY: contract 1 (NEON).
    unsafe {
        let x = vreinterpretq_s32_s8(x);
        [
            vreinterpretq_s8_s32(vdupq_laneq_s32::<0>(x)),
            vreinterpretq_s8_s32(vdupq_laneq_s32::<1>(x)),
            vreinterpretq_s8_s32(vdupq_laneq_s32::<2>(x)),
            vreinterpretq_s8_s32(vdupq_laneq_s32::<3>(x)),
        ]
    }
}

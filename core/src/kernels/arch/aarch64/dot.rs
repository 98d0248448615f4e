//! Exact sums of int8 products, with and without the dot product instructions.

use core::arch::aarch64::*;
use core::arch::asm;

use super::Weights;
use super::prefill::INTEGERS;
use crate::kernels::isa::{Neon, NeonDotprod, NeonI8mm};
use crate::quant::Q8Activation;

/// Sums of products of weights and activations. A value is the proof that the processor has the
/// instructions.
///
/// Weights are the integers that [`super::unpack::Unpack`] makes of a block, with or without its
/// offset; activations are in -127..=127 ([`crate::quant::Q8Activation`]). Sums wrap, but the sum
/// of one block is at most 32 · 128 · 127 and never does.
pub(super) trait Dot: Copy {
    /// True if the registers hold the sums of a group for four tokens at a time; if false, for two.
    const FOUR_TOKENS: bool;

    /// Adds the products of a row's block (columns 0..16 and 16..32) and a token's block to four
    /// lanes, whose total is the row's sum.
    fn row(self, sums: int32x4_t, w: [int8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t;

    /// Does the same as [`Dot::row`] for 16 columns.
    fn half(self, sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t;

    /// Stores 16 columns of four rows for [`Dot::sums`], which reads them in an order of its own.
    fn store(self, rows: [int8x16_t; 4], out: &mut [i8; FOUR_ROWS]);

    /// Returns the sums of products of a panel's column of blocks and `T` tokens' blocks.
    ///
    /// # Safety
    /// Each of `x` is readable.
    unsafe fn sums<B: Weights, const T: usize>(
        self,
        integers: &[i8; INTEGERS],
        x: [*const Q8Activation; T],
    ) -> [Sums; T];
}

/// A token's sums, a row in a lane: of the first and the second 16 columns (for formats without
/// factors: of all, and nothing), each of rows 0..4 and 4..8.
pub(super) type Sums = [[int32x4_t; 2]; 2];

/// Bytes of 16 columns of four rows.
pub(super) const FOUR_ROWS: usize = 64;

/// Returns 16 columns of rows 0..4 (`half` 0) or 4..8 of a panel's column of blocks.
#[inline(always)]
fn four_rows(integers: &[i8; INTEGERS], half: usize, columns: usize) -> *const i8 {
    integers.as_chunks::<FOUR_ROWS>().0[2 * half + columns].as_ptr()
}

/// Products of four columns of four rows: [`Dot::store`] and [`Dot::sums`] for the instruction sets
/// that have no products of matrices.
trait Columns: Dot {
    /// Accumulators of the sums of four rows.
    type Four: Copy;

    /// Accumulators of zero.
    fn zero(self) -> Self::Four;

    /// Adds 16 columns: 32-bit lane `r` of `w[k]` holds columns `4k..4k + 4` of row `r`, `x` the
    /// token's 16 columns. May be called twice after [`Columns::zero`], that is, for one block.
    /// With [`Smlal`] it may be called only once for weights outside -16..=31.
    fn columns(self, sums: Self::Four, w: [int8x16_t; 4], x: int8x16_t) -> Self::Four;

    /// The sums, a row in a lane.
    fn finish(self, sums: Self::Four) -> int32x4_t;
}

/// Implements [`Dot::store`]: the fours of columns of the rows, in turn.
#[inline(always)]
fn store_fours<D: Dot>(_neon: D, rows: [int8x16_t; 4], out: &mut [i8; FOUR_ROWS]) {
    // SAFETY: a `Dot` proves that the processor has NEON; the store of four interleaved registers
    // writes 64 bytes.
    unsafe {
        let [a, b, c, d] = rows.map(|row| vreinterpretq_s32_s8(row));
        vst4q_s32(out.as_mut_ptr().cast(), int32x4x4_t(a, b, c, d));
    }
}

/// Implements [`Dot::sums`].
///
/// # Safety
/// Each of `x` is readable.
#[inline(always)]
unsafe fn sums_of_fours<D: Columns, B: Weights, const T: usize>(
    dot: D,
    integers: &[i8; INTEGERS],
    x: [*const Q8Activation; T],
) -> [Sums; T] {
    // SAFETY: contracts 1 and 3 (NEON; a block of activations of each token). `integers` is 16
    // registers; the integers of a block of activations are 32 bytes.
    unsafe {
        let mut sums = [[[dot.zero(); 2]; 2]; T];
        for columns in 0..2 {
            let of = if B::HAS_FACTORS { columns } else { 0 };
            let xq = x.map(|x| vld1q_s8((&raw const (*x).q).cast::<i8>().add(16 * columns)));
            for half in 0..2 {
                let at = four_rows(integers, half, columns);
                let w = [0, 1, 2, 3].map(|k| vld1q_s8(at.add(16 * k)));
                for (sums, xq) in sums.iter_mut().zip(xq) {
                    sums[of][half] = dot.columns(sums[of][half], w, xq);
                }
            }
        }
        // By loops over places: arrays that are mapped go through memory.
        let mut finished = [[[vdupq_n_s32(0); 2]; 2]; T];
        for t in 0..T {
            for of in 0..if B::HAS_FACTORS { 2 } else { 1 } {
                for half in 0..2 {
                    finished[t][of][half] = dot.finish(sums[t][of][half]);
                }
            }
        }
        finished
    }
}

/// Implements what prefill needs of [`Dot`] by [`Columns`].
macro_rules! by_columns {
    () => {
        #[inline(always)]
        fn store(self, rows: [int8x16_t; 4], out: &mut [i8; FOUR_ROWS]) {
            store_fours(self, rows, out);
        }

        #[inline(always)]
        unsafe fn sums<B: Weights, const T: usize>(
            self,
            integers: &[i8; INTEGERS],
            x: [*const Q8Activation; T],
        ) -> [Sums; T] {
            // SAFETY: as the caller says.
            unsafe { sums_of_fours::<Self, B, T>(self, integers, x) }
        }
    };
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
    const FOUR_TOKENS: bool = true;

    #[inline(always)]
    fn row(self, sums: int32x4_t, w: [int8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
        sdot!(sdot!(sums, w[0], x[0], "16b"), w[1], x[1], "16b")
    }

    #[inline(always)]
    fn half(self, sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        sdot!(sums, w, x, "16b")
    }

    by_columns!();
}

impl Columns for Sdot {
    type Four = int32x4_t;

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

/// `smmla` in prefill: products of two rows and two tokens, eight columns at a time; `sdot` in
/// decode.
#[derive(Clone, Copy)]
pub(super) struct Smmla(pub(super) NeonI8mm);

impl Smmla {
    /// Adds to the 2 x 2 sums (row 0 by token 0, row 0 by token 1, then row 1) the products of
    /// eight columns of two rows and of two tokens.
    #[inline(always)]
    fn add(self, sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        let mut sums = sums;
        // SAFETY: register to register; `self` proves that the processor has `smmla`. The directive
        // makes the assembler accept it, whatever features this function is compiled for.
        unsafe {
            asm!(
                ".arch_extension i8mm",
                "smmla {sums:v}.4s, {w:v}.16b, {x:v}.16b",
                sums = inout(vreg) sums,
                w = in(vreg) w,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sums
    }
}

impl Dot for Smmla {
    const FOUR_TOKENS: bool = true;

    #[inline(always)]
    fn row(self, sums: int32x4_t, w: [int8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
        Sdot(self.0.dotprod()).row(sums, w, x)
    }

    #[inline(always)]
    fn half(self, sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        Sdot(self.0.dotprod()).half(sums, w, x)
    }

    /// Stores columns 0..8 of rows 0 and 1, then columns 8..16 of them, then rows 2 and 3.
    #[inline(always)]
    fn store(self, rows: [int8x16_t; 4], out: &mut [i8; FOUR_ROWS]) {
        // SAFETY: `self` proves that the processor has NEON; each store of two interleaved
        // registers writes 32 of the 64 bytes.
        unsafe {
            let [a, b, c, d] = rows.map(|row| vreinterpretq_s64_s8(row));
            vst2q_s64(out.as_mut_ptr().cast(), int64x2x2_t(a, b));
            vst2q_s64(out.as_mut_ptr().add(32).cast(), int64x2x2_t(c, d));
        }
    }

    #[expect(
        clippy::needless_range_loop,
        reason = "a half is a place in several arrays"
    )]
    #[inline(always)]
    unsafe fn sums<B: Weights, const T: usize>(
        self,
        integers: &[i8; INTEGERS],
        x: [*const Q8Activation; T],
    ) -> [Sums; T] {
        // SAFETY: contracts 1 and 3 (NEON; a block of activations of each token). `integers` is 16
        // registers; the integers of a block of activations are 32 bytes.
        unsafe {
            let zero = vdupq_n_s32(0);
            // At each even t, of tokens t and t + 1: sums of rows 0 and 1, and of rows 2 and 3. The
            // last of an odd number of tokens is its own neighbour.
            let mut pairs = [[[[zero; 2]; 2]; 2]; T];
            for columns in 0..2 {
                let of = if B::HAS_FACTORS { columns } else { 0 };
                let xq = x.map(|x| vld1q_s64((&raw const (*x).q).cast::<i64>().add(2 * columns)));
                for half in 0..2 {
                    let at = four_rows(integers, half, columns);
                    let w = [0, 1, 2, 3].map(|k| vld1q_s8(at.add(16 * k)));
                    for t in (0..T).step_by(2) {
                        let (a, b) = (xq[t], xq[(t + 1).min(T - 1)]);
                        let first = vreinterpretq_s8_s64(vzip1q_s64(a, b));
                        let second = vreinterpretq_s8_s64(vzip2q_s64(a, b));
                        for (pair, sums) in pairs[t][of][half].iter_mut().enumerate() {
                            *sums = self.add(*sums, w[2 * pair], first);
                            *sums = self.add(*sums, w[2 * pair + 1], second);
                        }
                    }
                }
            }
            let mut sums = [[[zero; 2]; 2]; T];
            for t in 0..T {
                let of_token = sums[t].as_flattened_mut();
                for (sums, pairs) in of_token.iter_mut().zip(pairs[t & !1].as_flattened()) {
                    *sums = if t % 2 == 0 {
                        vuzp1q_s32(pairs[0], pairs[1])
                    } else {
                        vuzp2q_s32(pairs[0], pairs[1])
                    };
                }
            }
            sums
        }
    }
}

/// `smlal` with a block's products summed in 16 bits, for weights in -16..=31, and for weights in
/// -32..=31 whose halves are summed separately.
///
/// [`Dot::row`] sums 4 products in a 16-bit lane and [`Columns::columns`] 8 a block, 4 a half: at
/// most 8 · 31 · 127 = 31496 < 2^15.
#[derive(Clone, Copy)]
pub(super) struct Smlal(pub(super) Neon);

impl Dot for Smlal {
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

    by_columns!();
}

impl Columns for Smlal {
    /// Two 16-bit lanes of partial sums a row: rows 0 and 1, rows 2 and 3... four lanes each.
    type Four = [int16x8_t; 2];

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

    by_columns!();
}

impl Columns for SmlalWide {
    /// Two lanes a row: rows 0 and 1, rows 2 and 3.
    type Four = [int32x4_t; 2];

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

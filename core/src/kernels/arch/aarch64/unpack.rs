//! Blocks of every quantised format, taken apart in registers.

use core::arch::aarch64::*;
use core::mem::offset_of;

use super::GROUP;
use crate::quant::{BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0, QuantBlock};

/// The scales and minima of a group of rows in one column of blocks, as the blocks hold them.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    /// f16 pairs (scale, minimum) of rows 0..4 and 4..8; without minima, the first register holds the scales of all 8.
    halves: [uint16x8_t; 2],
}

/// Scales and minima (0 without) of a group, widened: rows 0..4 and rows 4..8.
pub(super) type Widened = [[float32x4_t; 2]; 2];

/// A quantised block whose parts can be loaded into registers.
///
/// The methods' blocks are readable, and the processor has NEON: each is unsafe for these two reasons only.
pub(super) trait Unpack: QuantBlock {
    /// What must be added to [`Unpack::integers`] to make them the format's.
    const OFFSET: i8;

    /// Elements 0..16 and 16..32 less [`Unpack::OFFSET`].
    ///
    /// # Safety
    /// `block` is readable and the processor has NEON.
    unsafe fn integers(block: *const Self) -> [int8x16_t; 2];
}

impl Heads {
    /// None loaded yet.
    ///
    /// # Safety
    /// The processor has NEON.
    #[inline(always)]
    pub(super) unsafe fn none() -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            Heads {
                halves: [vdupq_n_u16(0); 2],
            }
        }
    }

    /// Loads those of row `ROW`, whose block this is. (Every format's block starts with its scale, followed by its minimum if it
    /// has one.)
    ///
    /// # Safety
    /// `block` is readable and the processor has NEON.
    #[inline(always)]
    pub(super) unsafe fn load<B: Unpack, const ROW: i32>(&mut self, block: *const B) {
        // SAFETY: as the caller promises; the first 2 or 4 bytes of the block are read.
        unsafe {
            if B::HAS_MIN {
                let half = &mut self.halves[ROW as usize / 4];
                let pairs = vreinterpretq_u32_u16(*half);
                let pairs = match ROW % 4 {
                    0 => vld1q_lane_u32::<0>(block.cast(), pairs),
                    1 => vld1q_lane_u32::<1>(block.cast(), pairs),
                    2 => vld1q_lane_u32::<2>(block.cast(), pairs),
                    _ => vld1q_lane_u32::<3>(block.cast(), pairs),
                };
                *half = vreinterpretq_u16_u32(pairs);
            } else {
                self.halves[0] = vld1q_lane_u16::<ROW>(block.cast(), self.halves[0]);
            }
        }
    }

    /// All scales, all minima, in f32.
    ///
    /// # Safety
    /// The processor has NEON.
    #[inline(always)]
    pub(super) unsafe fn widen<B: Unpack>(self) -> Widened {
        // SAFETY: as the caller promises.
        unsafe {
            let [low, high] = self.halves;
            if B::HAS_MIN {
                [widen(vuzp1q_u16(low, high)), widen(vuzp2q_u16(low, high))]
            } else {
                [widen(low), [vdupq_n_f32(0.0); 2]]
            }
        }
    }
}

/// Eight f16 in f32.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn widen(halves: uint16x8_t) -> [float32x4_t; 2] {
    // SAFETY: as the caller promises.
    unsafe {
        let halves = vreinterpretq_f16_u16(halves);
        [vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)]
    }
}

const _: () = assert!(
    offset_of!(BlockQ4_0, d) == 0
        && offset_of!(BlockQ4_1, d) == 0
        && offset_of!(BlockQ5_0, d) == 0
        && offset_of!(BlockQ5_1, d) == 0
        && offset_of!(BlockQ8_0, d) == 0
        && offset_of!(BlockQ4_1, m) == 2
        && offset_of!(BlockQ5_1, m) == 2
        && GROUP == 8
);

impl Unpack for BlockQ4_0 {
    const OFFSET: i8 = -8;

    #[inline(always)]
    unsafe fn integers(block: *const Self) -> [int8x16_t; 2] {
        // SAFETY: as the caller promises.
        unsafe { four_bits((&raw const (*block).qs).cast()) }
    }
}

impl Unpack for BlockQ4_1 {
    const OFFSET: i8 = 0;

    #[inline(always)]
    unsafe fn integers(block: *const Self) -> [int8x16_t; 2] {
        // SAFETY: as the caller promises.
        unsafe { four_bits((&raw const (*block).qs).cast()) }
    }
}

impl Unpack for BlockQ5_0 {
    const OFFSET: i8 = 0;

    #[inline(always)]
    unsafe fn integers(block: *const Self) -> [int8x16_t; 2] {
        // SAFETY: as the caller promises.
        unsafe { five_bits((&raw const (*block).qh).cast(), (&raw const (*block).qs).cast()) }
    }
}

impl Unpack for BlockQ5_1 {
    const OFFSET: i8 = 16;

    #[inline(always)]
    unsafe fn integers(block: *const Self) -> [int8x16_t; 2] {
        // SAFETY: as the caller promises.
        unsafe { five_bits((&raw const (*block).qh).cast(), (&raw const (*block).qs).cast()) }
    }
}

impl Unpack for BlockQ8_0 {
    const OFFSET: i8 = 0;

    #[inline(always)]
    unsafe fn integers(block: *const Self) -> [int8x16_t; 2] {
        // SAFETY: as the caller promises; the two loads cover the 32 bytes of `qs`.
        unsafe {
            let qs: *const i8 = (&raw const (*block).qs).cast();
            [vld1q_s8(qs), vld1q_s8(qs.add(16))]
        }
    }
}

/// The low halves of 16 bytes, then the high halves: 0..=15.
///
/// # Safety
/// 16 bytes at `qs` are readable and the processor has NEON.
#[inline(always)]
unsafe fn four_bits(qs: *const u8) -> [int8x16_t; 2] {
    // SAFETY: as the caller promises.
    unsafe {
        let bytes = vld1q_u8(qs);
        [
            vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))),
            vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes)),
        ]
    }
}

/// 5-bit integers less 16, -16..=15: low four bits as in [`four_bits`], fifth bits from `qh`.
///
/// # Safety
/// 4 bytes at `qh` and 16 at `qs` are readable and the processor has NEON.
#[inline(always)]
unsafe fn five_bits(qh: *const u32, qs: *const u8) -> [int8x16_t; 2] {
    /// Which byte of the fifth bits an element's is in, and which bit.
    const BYTE: [[u8; 16]; 2] = [
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1],
        [2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3],
    ];
    const BIT: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];
    // SAFETY: as the caller promises; the constants are 16 bytes each.
    unsafe {
        // A clear fifth bit means 16 less: ones above the low four bits, which the inserting shift keeps.
        let clear = vmvnq_u8(vreinterpretq_u8_u32(vdupq_n_u32(qh.read_unaligned())));
        let bit = vld1q_u8(BIT.as_ptr());
        let low = vtstq_u8(vqtbl1q_u8(clear, vld1q_u8(BYTE[0].as_ptr())), bit);
        let high = vtstq_u8(vqtbl1q_u8(clear, vld1q_u8(BYTE[1].as_ptr())), bit);
        let bytes = vld1q_u8(qs);
        [
            vreinterpretq_s8_u8(vsliq_n_u8::<4>(bytes, low)),
            vreinterpretq_s8_u8(vsliq_n_u8::<4>(vshrq_n_u8::<4>(bytes), high)),
        ]
    }
}

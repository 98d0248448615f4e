//! Unpacking of simple blocks in registers.

use core::arch::aarch64::*;
use core::arch::asm;
use core::mem::offset_of;

use super::GROUP;
use crate::quant::{
    BlockIq4Nl, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0, IQ4_NL_VALUES, QuantBlock,
};

/// The scales and minima of a group of rows in one column of blocks, as the blocks hold them.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    /// f16 pairs (scale, minimum) of rows 0..4 and 4..8; without minima, the first register holds
    /// the scales of all 8.
    halves: [uint16x8_t; 2],
}

/// Scales and minima (0 for formats without) of a group, widened: rows 0..4 and rows 4..8.
pub(super) type Widened = [[float32x4_t; 2]; 2];

/// A quantised block whose parts can be loaded into registers.
///
/// Loads go through a pointer, by instructions that load and advance it at once. [`Heads::load`]
/// and [`Unpack::integers`], called in turn on a row's pointer, walk from block to block and need
/// no instruction for addresses. The compiler does not find that form by itself, hence the
/// assembly.
pub(super) trait Unpack: QuantBlock {
    /// Number to add to [`Unpack::integers`] to get the integers of the format.
    const OFFSET: i8;

    /// Returns elements 0..16 and 16..32 minus [`Unpack::OFFSET`]. `p` points behind the block's
    /// scale and minimum, and is advanced to the block's end.
    ///
    /// # Safety
    /// The rest of the block is readable and the processor has NEON.
    unsafe fn integers(p: &mut *const u8) -> [int8x16_t; 2];
}

/// Loads a register by `$load`, which advances the pointer `$p`. The caller proves that the bytes
/// are readable.
macro_rules! load {
    ($load:literal, $p:expr) => {{
        let value: uint8x16_t;
        asm!(
            $load, p = inout(reg) *$p, v = out(vreg) value,
            options(readonly, nostack, preserves_flags)
        );
        value
    }};
}

impl Heads {
    /// Heads before any load.
    ///
    /// # Safety
    /// The processor has NEON.
    #[inline(always)]
    pub(super) unsafe fn none() -> Self {
        // SAFETY: contract 1 (NEON).
        unsafe {
            Heads {
                halves: [vdupq_n_u16(0); 2],
            }
        }
    }

    /// Loads the scale and minimum of row `ROW` from the start of its block at `p`, and advances
    /// `p` past them. Rows must be loaded in order, from 0 on. (Every format's block starts with
    /// its scale, followed by its minimum if it has one.)
    ///
    /// # Safety
    /// The block is readable and the processor has NEON.
    #[inline(always)]
    pub(super) unsafe fn load<B: Unpack, const ROW: usize>(&mut self, p: &mut *const u8) {
        // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows); the first 4 or 2 bytes of the
        // block are read.
        unsafe {
            let half = if B::HAS_MIN { ROW / 4 } else { 0 };
            let register = &mut self.halves[half];
            // A register's first row loads it whole, so that nothing has to clear it.
            if B::HAS_MIN && ROW.is_multiple_of(4) {
                *register = vreinterpretq_u16_u8(load!("ldr {v:s}, [{p}], #4", p));
            } else if ROW == 0 {
                *register = vreinterpretq_u16_u8(load!("ldr {v:h}, [{p}], #2", p));
            } else if B::HAS_MIN {
                asm!(
                    "ld1 {{{v:v}.s}}[{lane}], [{p}], #4",
                    p = inout(reg) *p, v = inout(vreg) *register, lane = const ROW % 4,
                    options(readonly, nostack, preserves_flags)
                );
            } else {
                asm!(
                    "ld1 {{{v:v}.h}}[{lane}], [{p}], #2",
                    p = inout(reg) *p, v = inout(vreg) *register, lane = const ROW,
                    options(readonly, nostack, preserves_flags)
                );
            }
        }
    }

    /// Widens all scales and all minima to f32.
    ///
    /// # Safety
    /// The processor has NEON.
    #[inline(always)]
    pub(super) unsafe fn widen<B: Unpack>(self) -> Widened {
        // SAFETY: contract 1 (NEON).
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

/// Widens eight f16 to f32.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn widen(halves: uint16x8_t) -> [float32x4_t; 2] {
    // SAFETY: contract 1 (NEON).
    unsafe {
        let halves = vreinterpretq_f16_u16(halves);
        [
            vcvt_f32_f16(vget_low_f16(halves)),
            vcvt_high_f32_f16(halves),
        ]
    }
}

// `Heads::load` and the methods below rely on this order without gaps: scale, minimum, fifth bits,
// integers.
const _: () = assert!(
    offset_of!(BlockQ4_0, d) == 0
        && offset_of!(BlockQ4_0, qs) == 2
        && offset_of!(BlockQ4_1, d) == 0
        && offset_of!(BlockQ4_1, m) == 2
        && offset_of!(BlockQ4_1, qs) == 4
        && offset_of!(BlockQ5_0, d) == 0
        && offset_of!(BlockQ5_0, qh) == 2
        && offset_of!(BlockQ5_0, qs) == 6
        && offset_of!(BlockQ5_1, d) == 0
        && offset_of!(BlockQ5_1, m) == 2
        && offset_of!(BlockQ5_1, qh) == 4
        && offset_of!(BlockQ5_1, qs) == 8
        && offset_of!(BlockQ8_0, d) == 0
        && offset_of!(BlockQ8_0, qs) == 2
        && offset_of!(BlockIq4Nl, d) == 0
        && offset_of!(BlockIq4Nl, qs) == 2
        && GROUP == 8
);

/// Implements [`Unpack`] by one of the functions below.
macro_rules! unpack {
    ($block:ty, $offset:literal, $integers:ident) => {
        impl Unpack for $block {
            const OFFSET: i8 = $offset;

            #[inline(always)]
            unsafe fn integers(p: &mut *const u8) -> [int8x16_t; 2] {
                // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows).
                unsafe { $integers(p) }
            }
        }
    };
}

unpack!(BlockQ4_0, -8, four_bits);
unpack!(BlockQ4_1, 0, four_bits);
unpack!(BlockQ5_0, 0, five_bits);
unpack!(BlockQ5_1, 16, five_bits);
unpack!(BlockQ8_0, 0, eight_bits);
unpack!(BlockIq4Nl, 0, table);

/// Returns the low halves of 16 bytes, then the high halves: 0..=15.
///
/// # Safety
/// 16 bytes at `p` are readable and the processor has NEON.
#[inline(always)]
unsafe fn four_bits(p: &mut *const u8) -> [int8x16_t; 2] {
    // SAFETY: contracts 1 and 2 (NEON; 16 bytes of a block).
    unsafe {
        let bytes = load!("ldr {v:q}, [{p}], #16", p);
        [
            vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))),
            vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes)),
        ]
    }
}

/// Returns the values of 4-bit indices, in the order of [`four_bits`].
///
/// # Safety
/// 16 bytes at `p` are readable and the processor has NEON.
#[inline(always)]
unsafe fn table(p: &mut *const u8) -> [int8x16_t; 2] {
    // SAFETY: contracts 1 and 2 (NEON; 16 bytes of a block); the table is 16 bytes.
    unsafe {
        let values = vld1q_s8(IQ4_NL_VALUES.as_ptr());
        four_bits(p).map(|indices| vqtbl1q_s8(values, vreinterpretq_u8_s8(indices)))
    }
}

/// Returns 5-bit integers minus 16, -16..=15, from 4 bytes of fifth bits, then the low four bits as
/// in [`four_bits`].
///
/// # Safety
/// 20 bytes at `p` are readable and the processor has NEON.
#[inline(always)]
unsafe fn five_bits(p: &mut *const u8) -> [int8x16_t; 2] {
    /// Index of the byte that holds an element's fifth bit; `BIT` is the bit in it.
    const BYTE: [[u8; 16]; 2] = [
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1],
        [2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3],
    ];
    const BIT: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];
    // SAFETY: contracts 1 and 2 (NEON; 20 bytes of a block); the constants are 16 bytes each.
    unsafe {
        // A clear fifth bit means 16 less: it sets the bits above the low four, which the inserting
        // shift keeps.
        let clear = vmvnq_u8(load!("ldr {v:s}, [{p}], #4", p));
        let bytes = load!("ldr {v:q}, [{p}], #16", p);
        let bit = vld1q_u8(BIT.as_ptr());
        let low = vtstq_u8(vqtbl1q_u8(clear, vld1q_u8(BYTE[0].as_ptr())), bit);
        let high = vtstq_u8(vqtbl1q_u8(clear, vld1q_u8(BYTE[1].as_ptr())), bit);
        [
            vreinterpretq_s8_u8(vsliq_n_u8::<4>(bytes, low)),
            vreinterpretq_s8_u8(vsliq_n_u8::<4>(vshrq_n_u8::<4>(bytes), high)),
        ]
    }
}

/// Returns 32 bytes unchanged.
///
/// # Safety
/// 32 bytes at `p` are readable and the processor has NEON.
#[inline(always)]
unsafe fn eight_bits(p: &mut *const u8) -> [int8x16_t; 2] {
    // SAFETY: contracts 1 and 2 (NEON; 32 bytes of a block).
    unsafe {
        let (low, high): (int8x16_t, int8x16_t);
        asm!(
            "ldp {low:q}, {high:q}, [{p}], #32",
            p = inout(reg) *p, low = out(vreg) low, high = out(vreg) high,
            options(readonly, nostack, preserves_flags)
        );
        [low, high]
    }
}

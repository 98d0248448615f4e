//! Unpacking of super-blocks in registers.

use core::arch::aarch64::*;
use core::mem::offset_of;

use super::super::multipliers::widen;
use crate::quant::{BLOCK, BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, SuperBlock};

/// The heads of four rows' super-blocks, a row in a lane.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    /// Both f16 of each row, the minimum in the upper half.
    halves: uint32x4_t,
    /// Bytes of the integer scales. Formats without factors: the scales of parts 0 to 3, of 4 to 7,
    /// then the minima. Formats with factors: one word for each two parts.
    words: [uint32x4_t; 4],
}

/// A format of super-blocks.
pub(super) trait Super: SuperBlock {
    /// The same as [`Weights::HAS_FACTORS`].
    const HAS_FACTORS: bool;

    /// Loads the heads of four rows' blocks.
    ///
    /// # Safety
    /// The blocks are readable and the processor has NEON.
    unsafe fn heads(rows: [*const Self; 4]) -> Heads;

    /// Unpacks columns 0..16 and 16..32 of parts `2 PAIR` and `2 PAIR + 1`.
    ///
    /// # Safety
    /// The block is readable and the processor has NEON.
    unsafe fn pair<const PAIR: usize>(block: *const Self) -> [[int8x16_t; 2]; 2];

    /// Returns the panel's floats of a part, for [`Multipliers::new`].
    ///
    /// # Safety
    /// The processor has NEON.
    #[inline(always)]
    unsafe fn packed(heads: &Heads, part: usize) -> [float32x4_t; 2] {
        // SAFETY: contract 1 (NEON).
        unsafe {
            if Self::HAS_FACTORS {
                let bytes = shift_right(heads.words[part / 2], part % 2 * 16);
                let bytes = if Self::HAS_MIN {
                    nibbles_of_bytes(bytes)
                } else {
                    bytes
                };
                return [
                    vreinterpretq_f32_u32(heads.halves),
                    vreinterpretq_f32_u32(bytes),
                ];
            }
            let byte = |word: uint32x4_t| {
                vcvtq_f32_u32(vandq_u32(shift_right(word, part % 4 * 8), vdupq_n_u32(255)))
            };
            let d = widen(vmovn_u32(heads.halves));
            let dmin = vnegq_f32(widen(vshrn_n_u32::<16>(heads.halves)));
            [
                vmulq_f32(d, byte(heads.words[part / 4])),
                vmulq_f32(dmin, byte(heads.words[2 + part / 4])),
            ]
        }
    }
}

/// Shifts lanes right; `by` is a constant in every call.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn shift_right(lanes: uint32x4_t, by: usize) -> uint32x4_t {
    // SAFETY: contract 1 (NEON).
    unsafe { vshlq_u32(lanes, vdupq_n_s32(-(by as i32))) }
}

/// Shifts bytes left, or right if `by` is negative; `by` is a constant in every call.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn shift(bytes: uint8x16_t, by: i32) -> uint8x16_t {
    // SAFETY: contract 1 (NEON).
    unsafe { vshlq_u8(bytes, vdupq_n_s8(by as i8)) }
}

/// Returns the low halves of the lowest two bytes, then their high halves, a byte each.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn nibbles_of_bytes(bytes: uint32x4_t) -> uint32x4_t {
    // SAFETY: contract 1 (NEON).
    unsafe {
        vorrq_u32(
            vandq_u32(bytes, vdupq_n_u32(0x0F0F)),
            vandq_u32(vshlq_n_u32::<12>(bytes), vdupq_n_u32(0x0F0F_0000)),
        )
    }
}

/// Loads 16 bytes from byte `at` on of each row's block: 32-bit word `i` of row `j` to lane `j` of
/// register `i`.
///
/// # Safety
/// The bytes are readable and the processor has NEON.
#[inline(always)]
unsafe fn words<B>(rows: [*const B; 4], at: usize) -> [uint32x4_t; 4] {
    // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows); the loads take any alignment.
    unsafe {
        let zero = vdupq_n_u32(0);
        let words = uint32x4x4_t(zero, zero, zero, zero);
        let words = vld4q_lane_u32::<0>(rows[0].byte_add(at).cast(), words);
        let words = vld4q_lane_u32::<1>(rows[1].byte_add(at).cast(), words);
        let words = vld4q_lane_u32::<2>(rows[2].byte_add(at).cast(), words);
        let words = vld4q_lane_u32::<3>(rows[3].byte_add(at).cast(), words);
        [words.0, words.1, words.2, words.3]
    }
}

/// Loads 32 bits at byte `at` of each row's block.
///
/// # Safety
/// The bytes are readable and the processor has NEON.
#[inline(always)]
unsafe fn halves<B>(rows: [*const B; 4], at: usize) -> uint32x4_t {
    // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows).
    unsafe {
        let lanes = rows.map(|row| row.byte_add(at).cast::<u32>().read_unaligned());
        vld1q_u32(lanes.as_ptr())
    }
}

/// Loads 16 bytes at `at`.
///
/// # Safety
/// The bytes are readable and the processor has NEON.
#[inline(always)]
unsafe fn bytes<B>(block: *const B, at: usize) -> uint8x16_t {
    // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows).
    unsafe { vld1q_u8(block.byte_add(at).cast()) }
}

/// Loads the heads of Q4_K or Q5_K, whose first 16 bytes have the same layout.
///
/// # Safety
/// The same as for [`Super::heads`].
#[inline(always)]
unsafe fn scales_and_minima<B>(rows: [*const B; 4]) -> Heads {
    const {
        assert!(
            offset_of!(BlockQ4K, d) == 0
                && offset_of!(BlockQ4K, dmin) == 2
                && offset_of!(BlockQ4K, scales) == 4
        );
        assert!(
            offset_of!(BlockQ5K, d) == 0
                && offset_of!(BlockQ5K, dmin) == 2
                && offset_of!(BlockQ5K, scales) == 4
        );
    }
    // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows).
    unsafe {
        let [halves, first, second, third] = words(rows, 0);
        let (six, four, top) = (
            vdupq_n_u32(0x3F3F_3F3F),
            vdupq_n_u32(0x0F0F_0F0F),
            vdupq_n_u32(0x3030_3030),
        );
        let high = |low: uint32x4_t, word: uint32x4_t| {
            vorrq_u32(vandq_u32(low, four), vandq_u32(vshrq_n_u32::<2>(word), top))
        };
        let words = [
            vandq_u32(first, six),
            high(third, first),
            vandq_u32(second, six),
            high(vshrq_n_u32::<4>(third), second),
        ];
        Heads { halves, words }
    }
}

impl Super for BlockQ4K {
    const HAS_FACTORS: bool = false;

    #[inline(always)]
    unsafe fn heads(rows: [*const Self; 4]) -> Heads {
        // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows).
        unsafe { scales_and_minima(rows) }
    }

    #[inline(always)]
    unsafe fn pair<const PAIR: usize>(block: *const Self) -> [[int8x16_t; 2]; 2] {
        const QS: usize = offset_of!(BlockQ4K, qs);
        // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows); a pair has 32 of the 128 bytes.
        unsafe {
            let q = [0, 16].map(|at| bytes(block, QS + BLOCK * PAIR + at));
            [
                q.map(|q| vreinterpretq_s8_u8(vandq_u8(q, vdupq_n_u8(15)))),
                q.map(|q| vreinterpretq_s8_u8(vshrq_n_u8::<4>(q))),
            ]
        }
    }
}

impl Super for BlockQ5K {
    const HAS_FACTORS: bool = false;

    #[inline(always)]
    unsafe fn heads(rows: [*const Self; 4]) -> Heads {
        // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows).
        unsafe { scales_and_minima(rows) }
    }

    #[inline(always)]
    unsafe fn pair<const PAIR: usize>(block: *const Self) -> [[int8x16_t; 2]; 2] {
        const QS: usize = offset_of!(BlockQ5K, qs);
        const QH: usize = offset_of!(BlockQ5K, qh);
        // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows); a pair has 32 of the 128 bytes,
        // and bits of all 32 with fifth bits.
        unsafe {
            let (five, fifth) = (vdupq_n_u8(31), 2 * PAIR as i32);
            let join = |at: usize| {
                let (q, high) = (bytes(block, QS + BLOCK * PAIR + at), bytes(block, QH + at));
                // Bits above the fifth are cleared last.
                let first = vandq_u8(vsliq_n_u8::<4>(q, shift(high, -fifth)), five);
                let second = vandq_u8(vsriq_n_u8::<4>(shift(high, 3 - fifth), q), five);
                [vreinterpretq_s8_u8(first), vreinterpretq_s8_u8(second)]
            };
            let ([first_low, second_low], [first_high, second_high]) = (join(0), join(16));
            [[first_low, first_high], [second_low, second_high]]
        }
    }
}

impl Super for BlockQ6K {
    const HAS_FACTORS: bool = true;

    #[inline(always)]
    unsafe fn heads(rows: [*const Self; 4]) -> Heads {
        // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows): the last 4 bytes, of which the
        // upper 2 are `d`, and 16 bytes of scales.
        unsafe {
            Heads {
                halves: vshrq_n_u32::<16>(halves(rows, offset_of!(BlockQ6K, d) - 2)),
                words: words(rows, offset_of!(BlockQ6K, scales)),
            }
        }
    }

    #[inline(always)]
    unsafe fn pair<const PAIR: usize>(block: *const Self) -> [[int8x16_t; 2]; 2] {
        const QL: usize = offset_of!(BlockQ6K, ql);
        const QH: usize = offset_of!(BlockQ6K, qh);
        // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows); two pairs have 64 of the 128
        // bytes and 32 of the 64.
        unsafe {
            let (six, offset) = (vdupq_n_u8(63), vdupq_n_s8(32));
            let join = |at: usize| {
                let low = bytes(block, QL + 2 * BLOCK * (PAIR / 2) + at);
                let next = bytes(block, QL + 2 * BLOCK * (PAIR / 2) + BLOCK + at);
                let high = bytes(block, QH + BLOCK * (PAIR / 2) + at);
                // Bits above the sixth are cleared last.
                let (first, second) = if PAIR.is_multiple_of(2) {
                    (
                        vsliq_n_u8::<4>(low, high),
                        vsliq_n_u8::<4>(next, vshrq_n_u8::<2>(high)),
                    )
                } else {
                    (
                        vsriq_n_u8::<4>(high, low),
                        vsriq_n_u8::<4>(vshrq_n_u8::<2>(high), next),
                    )
                };
                [first, second].map(|q| vsubq_s8(vreinterpretq_s8_u8(vandq_u8(q, six)), offset))
            };
            let ([first_low, second_low], [first_high, second_high]) = (join(0), join(16));
            [[first_low, first_high], [second_low, second_high]]
        }
    }
}

impl Super for BlockQ2K {
    const HAS_FACTORS: bool = true;

    #[inline(always)]
    unsafe fn heads(rows: [*const Self; 4]) -> Heads {
        const { assert!(offset_of!(BlockQ2K, dmin) == offset_of!(BlockQ2K, d) + 2) };
        // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows): 4 bytes of `d` and `dmin`, 16
        // of scales.
        unsafe {
            Heads {
                halves: halves(rows, offset_of!(BlockQ2K, d)),
                words: words(rows, offset_of!(BlockQ2K, scales)),
            }
        }
    }

    #[inline(always)]
    unsafe fn pair<const PAIR: usize>(block: *const Self) -> [[int8x16_t; 2]; 2] {
        // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows).
        unsafe {
            two_bits::<Self, PAIR>(block, offset_of!(BlockQ2K, qs))
                .map(|part| part.map(|q| vreinterpretq_s8_u8(q)))
        }
    }
}

impl Super for BlockQ3K {
    const HAS_FACTORS: bool = true;

    #[inline(always)]
    unsafe fn heads(rows: [*const Self; 4]) -> Heads {
        const SCALES: usize = offset_of!(BlockQ3K, scales);
        const { assert!(offset_of!(BlockQ3K, d) == SCALES + 12) };
        // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows): the last 16 bytes, of which the
        // first 2 do not belong to the scales.
        unsafe {
            let [first, second, third, last] = words(rows, SCALES - 2);
            // 14 bytes, moved down by 2.
            let join = |low, high| vsliq_n_u32::<16>(vshrq_n_u32::<16>(low), high);
            let (first, second, third) =
                (join(first, second), join(second, third), join(third, last));
            let (four, two) = (vdupq_n_u32(0x0F0F_0F0F), vdupq_n_u32(0x0303_0303));
            let scale = |low: uint32x4_t, high: uint32x4_t| {
                let high = vshlq_n_u32::<4>(vandq_u32(high, two));
                let scale = vreinterpretq_s8_u32(vorrq_u32(vandq_u32(low, four), high));
                vreinterpretq_u32_s8(vsubq_s8(scale, vdupq_n_s8(32)))
            };
            Heads {
                halves: vshrq_n_u32::<16>(last),
                words: [
                    scale(first, third),
                    scale(second, vshrq_n_u32::<2>(third)),
                    scale(vshrq_n_u32::<4>(first), vshrq_n_u32::<4>(third)),
                    scale(vshrq_n_u32::<4>(second), vshrq_n_u32::<6>(third)),
                ],
            }
        }
    }

    #[inline(always)]
    unsafe fn pair<const PAIR: usize>(block: *const Self) -> [[int8x16_t; 2]; 2] {
        const HMASK: usize = offset_of!(BlockQ3K, hmask);
        // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows); `hmask` is 32 bytes.
        unsafe {
            let low = two_bits::<Self, PAIR>(block, offset_of!(BlockQ3K, qs));
            let third = [0, 16].map(|at| bytes(block, HMASK + at));
            let join = |part: usize, half: usize| {
                let third = shift(third[half], 2 - (2 * PAIR + part) as i32);
                let q = vorrq_u8(low[part][half], vandq_u8(third, vdupq_n_u8(4)));
                vsubq_s8(vreinterpretq_s8_u8(q), vdupq_n_s8(4))
            };
            [[join(0, 0), join(0, 1)], [join(1, 0), join(1, 1)]]
        }
    }
}

/// The two low bits of a pair's elements, from 64 bytes at `at`.
///
/// # Safety
/// The bytes are readable and the processor has NEON.
#[inline(always)]
unsafe fn two_bits<B, const PAIR: usize>(block: *const B, at: usize) -> [[uint8x16_t; 2]; 2] {
    // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows); two pairs have 32 bytes.
    unsafe {
        let q = [0, 16].map(|half| bytes(block, at + BLOCK * (PAIR / 2) + half));
        let by = 4 * (PAIR as i32 % 2);
        [by, by + 2].map(|by| q.map(|q| vandq_u8(shift(q, -by), vdupq_n_u8(3))))
    }
}

//! Super-blocks, of which a chunk (4 blocks of 32 columns) is a half.
//!
//! Every format keeps element `i` of the 4 blocks of a half in bits of byte `i` of 32 or 64 bytes.
//! The 16 low (or high) elements of all 4 blocks are therefore fields of the same 16 bytes. These
//! are broadcast to every 128-bit lane; then one instruction gives each byte 8 bits from any bit on
//! (`vpmultishiftqb`). 4-bit halves of 64 bytes are masked and their lanes sorted.

use core::arch::x86_64::*;
use core::mem::offset_of;

use super::Chunk;
use super::unpack::constant;
use crate::quant::{BLOCK, BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, SUPER_BLOCK};

/// Location of half a super-block. The block can be read as long as its chunk is in use.
pub(in super::super::super) struct Half<B> {
    block: *const B,
    /// 0 or 1.
    index: usize,
}

impl<B> Clone for Half<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Half<B> {}

/// Returns the halves of four rows.
///
/// # Safety
/// The same as for [`Chunk::load_four`].
#[inline]
unsafe fn four<B>(blocks: &[B], row_blocks: usize, first: usize, block: usize) -> [Half<B>; 4] {
    const PARTS: usize = SUPER_BLOCK / BLOCK;
    let start = blocks
        .as_ptr()
        .wrapping_add(first * (row_blocks / PARTS) + block / PARTS);
    let index = block % PARTS / 4;
    [0, 1, 2, 3].map(|row| Half {
        block: start.wrapping_add(row * (row_blocks / PARTS)),
        index,
    })
}

/// Returns for each byte of a register the first of the 8 bits that it takes from its 64: the shift
/// that moves bit `first + lane_step · lane` of the byte to bit `to`.
const fn shifts(first: usize, lane_step: usize, to: usize) -> [u8; 64] {
    let mut shifts = [0; 64];
    let mut i = 0;
    while i < 64 {
        shifts[i] = ((8 * (i % 8) + first + lane_step * (i / 16) + 64 - to) % 64) as u8;
        i += 1;
    }
    shifts
}

/// Broadcasts the first and the second 16 bytes at `at` to every lane, and moves their bits by
/// `shifts`.
///
/// # Safety
/// 32 bytes can be read there.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi")]
unsafe fn fields(at: *const u8, shifts: &'static [u8; 64]) -> (__m512i, __m512i) {
    let shifts = constant(shifts);
    // SAFETY: contract 2 (32 bytes of a block).
    let (low, high) = unsafe {
        (
            _mm_loadu_si128(at.cast()),
            _mm_loadu_si128(at.add(16).cast()),
        )
    };
    (
        _mm512_multishift_epi64_epi8(shifts, _mm512_broadcast_i32x4(low)),
        _mm512_multishift_epi64_epi8(shifts, _mm512_broadcast_i32x4(high)),
    )
}

/// `a | (b & mask)`.
#[inline]
#[target_feature(enable = "avx512f")]
fn or_masked(a: __m512i, b: __m512i, mask: i8) -> __m512i {
    _mm512_ternarylogic_epi64::<0xF8>(a, b, _mm512_set1_epi8(mask))
}

/// Returns the low and the high halves of 64 bytes at `at`.
///
/// # Safety
/// 64 bytes can be read there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn nibbles(at: *const u8) -> (__m512i, __m512i) {
    // SAFETY: contract 2 (64 bytes of a block).
    let bytes = unsafe { _mm512_loadu_si512(at.cast()) };
    let nibble = _mm512_set1_epi8(15);
    (
        _mm512_and_si512(bytes, nibble),
        _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble),
    )
}

/// Returns the 4-bit elements of half of a Q4_K or Q5_K, whose `qs` are at `at`. The low halves of
/// each 32 bytes are one block, the high halves the next.
///
/// # Safety
/// 128 bytes can be read there, and `half` is 0 or 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn four_bits(at: *const u8, half: usize) -> (__m512i, __m512i) {
    // SAFETY: contract 2 (128 bytes of a block).
    let (low, high) = unsafe { nibbles(at.add(64 * half)) };
    (
        _mm512_mask_shuffle_i64x2::<0b10_10_00_00>(low, 0b1100_1100, high, high),
        _mm512_mask_shuffle_i64x2::<0b11_11_01_01>(high, 0b0011_0011, low, low),
    )
}

/// Loads 16 bytes at `at` of each row's block, a row in a lane.
///
/// # Safety
/// The bytes can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn row_lanes<B>(rows: &[Half<B>; 4], at: usize) -> __m512i {
    // SAFETY: contract 2 (the blocks of the rows).
    unsafe {
        let lane = [
            _mm_loadu_si128(rows[0].block.byte_add(at).cast()),
            _mm_loadu_si128(rows[1].block.byte_add(at).cast()),
            _mm_loadu_si128(rows[2].block.byte_add(at).cast()),
            _mm_loadu_si128(rows[3].block.byte_add(at).cast()),
        ];
        let lanes = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(lane[0]), lane[1]);
        let lanes = _mm512_inserti32x4::<2>(lanes, lane[2]);
        _mm512_inserti32x4::<3>(lanes, lane[3])
    }
}

/// Loads 32 bits at `at` of each row's block: row `j` in 32-bit lanes `j`, `4 + j`, `8 + j` and
/// `12 + j`.
///
/// # Safety
/// The bytes can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn row_words<B>(rows: &[Half<B>; 4], at: usize) -> __m512i {
    // SAFETY: contract 2 (the blocks of the rows); no alignment is needed.
    unsafe {
        let words = _mm_setr_epi32(
            rows[0].block.byte_add(at).cast::<i32>().read_unaligned(),
            rows[1].block.byte_add(at).cast::<i32>().read_unaligned(),
            rows[2].block.byte_add(at).cast::<i32>().read_unaligned(),
            rows[3].block.byte_add(at).cast::<i32>().read_unaligned(),
        );
        _mm512_broadcast_i32x4(words)
    }
}

/// Returns indices for [`_mm512_permutexvar_epi8`] on rows in lanes: byte `b < count` of 32-bit
/// lane `4k + j` becomes byte `first + step · k + b` of row `j`. Other bytes are unspecified.
const fn of_blocks(first: usize, step: usize, count: usize) -> [u8; 64] {
    let mut map = [0; 64];
    let mut i = 0;
    while i < 64 {
        let (k, j, b) = (i / 16, i / 4 % 4, i % 4);
        map[i] = (16 * j + first + step * k + b % count) as u8;
        i += 1;
    }
    map
}

/// Loads scales and minima of Q4_K or Q5_K, whose first 16 bytes have the same layout.
///
/// # Safety
/// The blocks can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn scales_and_minima<B>(rows: &[Half<B>; 4]) -> [__m512i; 2] {
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
    // SAFETY: contract 2 (the blocks of the rows).
    let rows_lanes = unsafe { row_lanes(rows, 0) };
    // Byte k of each of the three words of packed scales goes to the lowest byte of lane 4k + j.
    const BYTE: __mmask64 = 0x1111_1111_1111_1111;
    let first =
        _mm512_maskz_permutexvar_epi8(BYTE, constant(const { &of_blocks(4, 1, 1) }), rows_lanes);
    let second =
        _mm512_maskz_permutexvar_epi8(BYTE, constant(const { &of_blocks(8, 1, 1) }), rows_lanes);
    let (scales, minima) = if rows[0].index == 0 {
        let six = _mm512_set1_epi32(63);
        (_mm512_and_si512(first, six), _mm512_and_si512(second, six))
    } else {
        let third = _mm512_maskz_permutexvar_epi8(
            BYTE,
            constant(const { &of_blocks(12, 1, 1) }),
            rows_lanes,
        );
        let low = _mm512_and_si512(third, _mm512_set1_epi32(15));
        (
            or_masked(low, _mm512_srli_epi32::<2>(first), 0x30),
            or_masked(
                _mm512_srli_epi32::<4>(third),
                _mm512_srli_epi32::<2>(second),
                0x30,
            ),
        )
    };
    let halves = _mm512_shuffle_epi32::<0>(rows_lanes);
    // Row j's two f16 go to every 32-bit lane 4k + j.
    let halves = _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12),
        halves,
    );
    let d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(halves));
    let dmin = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(halves)));
    let minus = _mm512_set1_ps(-0.0);
    let min = _mm512_mul_ps(dmin, _mm512_cvtepi32_ps(minima));
    [
        _mm512_castps_si512(_mm512_mul_ps(d, _mm512_cvtepi32_ps(scales))),
        _mm512_xor_si512(_mm512_castps_si512(min), _mm512_castps_si512(minus)),
    ]
}

/// Implements [`Chunk`] by a function of one half and a function of four halves.
macro_rules! chunk {
    ($block:ty, $unpack:ident, $headers:ident) => {
        impl Chunk for $block {
            type Raw = Half<$block>;
            type Masks = ();

            fn masks(_: usize) {}

            #[inline]
            unsafe fn load_four<const WHOLE: bool>(
                blocks: &[Self],
                row_blocks: usize,
                first: usize,
                block: usize,
                _: &(),
            ) -> [Half<$block>; 4] {
                // SAFETY: contract 2 (the blocks of the rows).
                unsafe { four(blocks, row_blocks, first, block) }
            }

            #[inline]
            #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
            unsafe fn unpack(raw: &Half<$block>) -> (__m512i, __m512i) {
                // SAFETY: contract 2 (the blocks of the rows).
                unsafe { $unpack(raw) }
            }

            #[inline]
            #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
            unsafe fn headers(rows: &[Half<$block>; 4]) -> [__m512i; 2] {
                // SAFETY: contract 2 (the blocks of the rows).
                unsafe { $headers(rows) }
            }
        }
    };
}

chunk!(BlockQ2K, unpack_q2, headers_q2);
chunk!(BlockQ3K, unpack_q3, headers_q3);
chunk!(BlockQ4K, unpack_q4, scales_and_minima);
chunk!(BlockQ5K, unpack_q5, scales_and_minima);
chunk!(BlockQ6K, unpack_q6, headers_q6);

/// # Safety
/// Implements [`Chunk::unpack`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn unpack_q4(raw: &Half<BlockQ4K>) -> (__m512i, __m512i) {
    // SAFETY: the block can be read; `qs` are 128 bytes.
    unsafe { four_bits((&raw const (*raw.block).qs).cast(), raw.index) }
}

/// # Safety
/// Implements [`Chunk::unpack`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn unpack_q5(raw: &Half<BlockQ5K>) -> (__m512i, __m512i) {
    const FIFTH: [[u8; 64]; 2] = [shifts(0, 1, 4), shifts(4, 1, 4)];
    // SAFETY: the block can be read; `qs` are 128 bytes, `qh` are 32.
    let ((low, high), fifth) = unsafe {
        let block = raw.block;
        let shifts = const { &FIFTH }.get_unchecked(raw.index);
        (
            four_bits((&raw const (*block).qs).cast(), raw.index),
            fields((&raw const (*block).qh).cast(), shifts),
        )
    };
    (or_masked(low, fifth.0, 16), or_masked(high, fifth.1, 16))
}

/// # Safety
/// Implements [`Chunk::unpack`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn unpack_q6(raw: &Half<BlockQ6K>) -> (__m512i, __m512i) {
    const TOP: [u8; 64] = shifts(0, 2, 4);
    // SAFETY: the block can be read; `ql` are 128 bytes, `qh` are 64, of which a half has 64 and
    // 32.
    let ((low, high), top) = unsafe {
        let block = raw.block;
        (
            nibbles((&raw const (*block).ql).cast::<u8>().add(64 * raw.index)),
            fields(
                (&raw const (*block).qh).cast::<u8>().add(32 * raw.index),
                const { &TOP },
            ),
        )
    };
    // The low halves are the first two blocks, 32 bytes each; the high halves are the other two.
    (
        or_masked(
            _mm512_shuffle_i64x2::<0b10_00_10_00>(low, high),
            top.0,
            0x30,
        ),
        or_masked(
            _mm512_shuffle_i64x2::<0b11_01_11_01>(low, high),
            top.1,
            0x30,
        ),
    )
}

/// Returns the low two bits of half of a Q2_K or Q3_K, whose `qs` are at `at`.
///
/// # Safety
/// 64 bytes can be read there, and `half` is 0 or 1.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi")]
unsafe fn two_bits(at: *const u8, half: usize) -> (__m512i, __m512i) {
    const LOW: [u8; 64] = shifts(0, 2, 0);
    // SAFETY: contract 2 (64 bytes of a block).
    let (low, high) = unsafe { fields(at.add(32 * half), const { &LOW }) };
    let two = _mm512_set1_epi8(3);
    (_mm512_and_si512(low, two), _mm512_and_si512(high, two))
}

/// # Safety
/// Implements [`Chunk::unpack`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn unpack_q2(raw: &Half<BlockQ2K>) -> (__m512i, __m512i) {
    // SAFETY: the block can be read; `qs` are 64 bytes.
    unsafe { two_bits((&raw const (*raw.block).qs).cast(), raw.index) }
}

/// # Safety
/// Implements [`Chunk::unpack`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn unpack_q3(raw: &Half<BlockQ3K>) -> (__m512i, __m512i) {
    const THIRD: [[u8; 64]; 2] = [shifts(0, 1, 2), shifts(4, 1, 2)];
    // SAFETY: the block can be read; `qs` are 64 bytes, `hmask` are 32.
    let ((low, high), third) = unsafe {
        let block = raw.block;
        let shifts = const { &THIRD }.get_unchecked(raw.index);
        (
            two_bits((&raw const (*block).qs).cast(), raw.index),
            fields((&raw const (*block).hmask).cast(), shifts),
        )
    };
    (or_masked(low, third.0, 4), or_masked(high, third.1, 4))
}

/// # Safety
/// Implements [`Chunk::headers`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn headers_q6(rows: &[Half<BlockQ6K>; 4]) -> [__m512i; 2] {
    const FACTORS: [[u8; 64]; 2] = [of_blocks(0, 2, 2), of_blocks(8, 2, 2)];
    const D: usize = offset_of!(BlockQ6K, d);
    // SAFETY: the blocks can be read; the scales are 16 bytes, and `d` are the last two of the 32
    // bits.
    unsafe {
        let scales = row_lanes(rows, offset_of!(BlockQ6K, scales));
        let map = constant(const { &FACTORS }.get_unchecked(rows[0].index));
        [
            _mm512_srli_epi32::<16>(row_words(rows, D - 2)),
            _mm512_permutexvar_epi8(map, scales),
        ]
    }
}

/// # Safety
/// Implements [`Chunk::headers`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn headers_q2(rows: &[Half<BlockQ2K>; 4]) -> [__m512i; 2] {
    const FACTORS: [[u8; 64]; 2] = [of_blocks(0, 2, 2), of_blocks(8, 2, 2)];
    const { assert!(offset_of!(BlockQ2K, dmin) == offset_of!(BlockQ2K, d) + 2) };
    // SAFETY: the blocks can be read; the scales are 16 bytes, `d` and `dmin` the 32 bits.
    let (halves, bytes) = unsafe {
        let scales = row_lanes(rows, offset_of!(BlockQ2K, scales));
        let map = constant(const { &FACTORS }.get_unchecked(rows[0].index));
        (
            row_words(rows, offset_of!(BlockQ2K, d)),
            _mm512_permutexvar_epi8(map, scales),
        )
    };
    let low = _mm512_and_si512(bytes, _mm512_set1_epi32(0x0F0F));
    let high = _mm512_and_si512(
        _mm512_srli_epi32::<4>(bytes),
        _mm512_set1_epi32(0x0F0F_0000),
    );
    [halves, _mm512_or_si512(low, high)]
}

/// # Safety
/// Implements [`Chunk::headers`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn headers_q3(rows: &[Half<BlockQ3K>; 4]) -> [__m512i; 2] {
    /// For each byte, the index of the byte that holds the bits of its scale from bit 4 on.
    const HIGH: [u8; 64] = {
        let mut map = [0; 64];
        let mut i = 0;
        while i < 64 {
            let (k, j, b) = (i / 16, i / 4 % 4, i % 2);
            map[i] = (16 * j + 8 + (2 * k + b) % 4) as u8;
            i += 1;
        }
        map
    };
    const LOW: [u8; 64] = of_blocks(0, 2, 2);
    const D: usize = offset_of!(BlockQ3K, d);
    const { assert!(D == offset_of!(BlockQ3K, scales) + 12) };
    // SAFETY: the blocks can be read; from 2 bytes before the scales on there are 16, `d` the last
    // two of them.
    let (halves, scales) = unsafe {
        (
            _mm512_srli_epi32::<16>(row_words(rows, D - 2)),
            row_lanes(rows, offset_of!(BlockQ3K, scales) - 2),
        )
    };
    let scales = _mm512_bsrli_epi128::<2>(scales);
    let half = rows[0].index as i32;
    let low = _mm512_permutexvar_epi8(constant(const { &LOW }), scales);
    let low = _mm512_and_si512(
        _mm512_srlv_epi32(low, _mm512_set1_epi32(4 * half)),
        _mm512_set1_epi32(0x0F0F),
    );
    // The bits of blocks 0 and 1 of the half are two bits lower than those of blocks 2 and 3.
    let shift = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2);
    let shift = _mm512_add_epi32(shift, _mm512_set1_epi32(4 * half));
    let high = _mm512_srlv_epi32(
        _mm512_permutexvar_epi8(constant(const { &HIGH }), scales),
        shift,
    );
    let high = _mm512_and_si512(high, _mm512_set1_epi32(0x0303));
    let joined = _mm512_or_si512(low, _mm512_slli_epi32::<4>(high));
    [halves, _mm512_sub_epi8(joined, _mm512_set1_epi8(32))]
}

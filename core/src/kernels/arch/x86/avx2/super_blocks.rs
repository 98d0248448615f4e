//! Super-blocks, of which a chunk (2 blocks of 32 columns) is a quarter.

use core::arch::x86_64::*;
use core::mem::offset_of;

use super::Chunk;
use crate::quant::{BLOCK, BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, SUPER_BLOCK};

/// Location of a quarter of a super-block.
pub(in super::super::super) struct Quarter<B> {
    block: *const B,
    /// 0 to 3.
    index: usize,
}

impl<B> Clone for Quarter<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Quarter<B> {}

/// Implements [`Chunk`] by a function of one quarter and a function of four quarters.
macro_rules! chunk {
    ($block:ty, $unpack:ident, $headers:ident) => {
        impl Chunk for $block {
            type Raw = Quarter<$block>;

            #[inline]
            unsafe fn four_rows(
                blocks: &[Self],
                row_blocks: usize,
                first: usize,
                block: usize,
            ) -> [Quarter<$block>; 4] {
                const PARTS: usize = SUPER_BLOCK / BLOCK;
                let row_len = row_blocks / PARTS;
                let start = blocks
                    .as_ptr()
                    .wrapping_add(first * row_len + block / PARTS);
                [0, 1, 2, 3].map(|row| Quarter {
                    block: start.wrapping_add(row * row_len),
                    index: block % PARTS / 2,
                })
            }

            #[inline]
            #[target_feature(enable = "avx2,f16c")]
            unsafe fn unpack(raw: Quarter<$block>) -> (__m256i, __m256i) {
                // SAFETY: contract 2 (the blocks of the rows).
                unsafe { $unpack(raw) }
            }

            #[inline]
            #[target_feature(enable = "avx2,f16c")]
            unsafe fn headers(rows: [Quarter<$block>; 4]) -> [__m256i; 2] {
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

/// Returns the 4-bit elements of quarter `index` of a Q4_K or Q5_K, whose `qs` are at `at`: the low
/// halves of 32 bytes are the first block, the high halves the second.
///
/// # Safety
/// 128 bytes can be read there, and `index` is below 4.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn four_bits(at: *const u8, index: usize) -> (__m256i, __m256i) {
    // SAFETY: contract 2 (128 bytes of a block).
    let bytes = unsafe { _mm256_loadu_si256(at.add(32 * index).cast()) };
    let nibble = _mm256_set1_epi8(15);
    let first = _mm256_and_si256(bytes, nibble);
    let second = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
    (
        _mm256_permute2x128_si256::<0x20>(first, second),
        _mm256_permute2x128_si256::<0x31>(first, second),
    )
}

/// Broadcasts 16 bytes at `at` to both lanes.
///
/// # Safety
/// The bytes can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn both_lanes(at: *const u8) -> __m256i {
    // SAFETY: contract 2 (the blocks of the rows).
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(at.cast()) })
}

/// Broadcasts `first` to all 32-bit lanes of the first block's lane, and `second` to those of the
/// second block's.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes(first: i32, second: i32) -> __m256i {
    _mm256_blend_epi32::<0xF0>(_mm256_set1_epi32(first), _mm256_set1_epi32(second))
}

/// Returns `value` in the bytes whose bit `2 index` (second block: `2 index + 1`) is set in the 32
/// bytes at `at`, and 0 in the others.
///
/// # Safety
/// 32 bytes can be read there, and `index` is below 4.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn one_bit(at: *const u8, index: usize, value: i8) -> (__m256i, __m256i) {
    let bit = 0x0101_0101 << (2 * index);
    let (bits, value) = (lanes(bit, bit << 1), _mm256_set1_epi8(value));
    // SAFETY: contract 2 (32 bytes of a block).
    let (low, high) = unsafe { (both_lanes(at), both_lanes(at.add(16))) };
    let low = _mm256_cmpeq_epi8(_mm256_and_si256(low, bits), bits);
    let high = _mm256_cmpeq_epi8(_mm256_and_si256(high, bits), bits);
    (_mm256_and_si256(low, value), _mm256_and_si256(high, value))
}

/// Returns the 2-bit fields of the elements of quarter `index`, from 32 bytes for each half of the
/// block at `at`.
///
/// # Safety
/// 64 bytes can be read there, and `index` is below 4.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn two_bits(at: *const u8, index: usize) -> (__m256i, __m256i) {
    let shift = 4 * (index as i32 % 2);
    let (shifts, two) = (lanes(shift, shift + 2), _mm256_set1_epi8(3));
    // SAFETY: contract 2 (64 bytes of a block).
    let (low, high) = unsafe {
        let at = at.add(32 * (index / 2));
        (both_lanes(at), both_lanes(at.add(16)))
    };
    // Bits shifted in from a neighbouring byte are above the lowest two bits.
    (
        _mm256_and_si256(_mm256_srlv_epi32(low, shifts), two),
        _mm256_and_si256(_mm256_srlv_epi32(high, shifts), two),
    )
}

/// # Safety
/// Implements [`Chunk::unpack`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack_q4(raw: Quarter<BlockQ4K>) -> (__m256i, __m256i) {
    // SAFETY: the block can be read; `qs` are 128 bytes.
    unsafe { four_bits((&raw const (*raw.block).qs).cast(), raw.index) }
}

/// # Safety
/// Implements [`Chunk::unpack`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack_q5(raw: Quarter<BlockQ5K>) -> (__m256i, __m256i) {
    // SAFETY: the block can be read; `qs` are 128 bytes, `qh` are 32.
    let ((low, high), fifth) = unsafe {
        (
            four_bits((&raw const (*raw.block).qs).cast(), raw.index),
            one_bit((&raw const (*raw.block).qh).cast(), raw.index, 16),
        )
    };
    (
        _mm256_or_si256(low, fifth.0),
        _mm256_or_si256(high, fifth.1),
    )
}

/// # Safety
/// Implements [`Chunk::unpack`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack_q6(raw: Quarter<BlockQ6K>) -> (__m256i, __m256i) {
    // SAFETY: the block can be read; `ql` are 128 bytes, of which a half has 64; `qh` are 64.
    let ([first, second], (low, high)) = unsafe {
        let ql = (&raw const (*raw.block).ql)
            .cast::<__m256i>()
            .add(raw.index / 2 * 2);
        (
            [_mm256_loadu_si256(ql), _mm256_loadu_si256(ql.add(1))],
            two_bits((&raw const (*raw.block).qh).cast(), raw.index),
        )
    };
    // Each 32 bytes are one block of the half's first quarter and, shifted, of its second.
    let (shift, nibble) = (
        _mm_cvtsi32_si128(4 * (raw.index as i32 % 2)),
        _mm256_set1_epi8(15),
    );
    let first = _mm256_and_si256(_mm256_srl_epi16(first, shift), nibble);
    let second = _mm256_and_si256(_mm256_srl_epi16(second, shift), nibble);
    (
        _mm256_or_si256(
            _mm256_permute2x128_si256::<0x20>(first, second),
            _mm256_slli_epi16::<4>(low),
        ),
        _mm256_or_si256(
            _mm256_permute2x128_si256::<0x31>(first, second),
            _mm256_slli_epi16::<4>(high),
        ),
    )
}

/// # Safety
/// Implements [`Chunk::unpack`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack_q2(raw: Quarter<BlockQ2K>) -> (__m256i, __m256i) {
    // SAFETY: the block can be read; `qs` are 64 bytes.
    unsafe { two_bits((&raw const (*raw.block).qs).cast(), raw.index) }
}

/// # Safety
/// Implements [`Chunk::unpack`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack_q3(raw: Quarter<BlockQ3K>) -> (__m256i, __m256i) {
    // SAFETY: the block can be read; `qs` are 64 bytes, `hmask` are 32.
    let ((low, high), third) = unsafe {
        (
            two_bits((&raw const (*raw.block).qs).cast(), raw.index),
            one_bit((&raw const (*raw.block).hmask).cast(), raw.index, 4),
        )
    };
    (
        _mm256_or_si256(low, third.0),
        _mm256_or_si256(high, third.1),
    )
}

/// Loads 32 bits at `at` of each row's block: row `j` in 32-bit lanes `j` and `4 + j`.
///
/// # Safety
/// The bytes can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn row_words<B>(rows: &[Quarter<B>; 4], at: usize) -> __m256i {
    // SAFETY: contract 2 (the blocks of the rows); no alignment is needed.
    let words = unsafe {
        _mm_setr_epi32(
            rows[0].block.byte_add(at).cast::<i32>().read_unaligned(),
            rows[1].block.byte_add(at).cast::<i32>().read_unaligned(),
            rows[2].block.byte_add(at).cast::<i32>().read_unaligned(),
            rows[3].block.byte_add(at).cast::<i32>().read_unaligned(),
        )
    };
    _mm256_broadcastsi128_si256(words)
}

/// Loads scales and minima of Q4_K or Q5_K, whose first 16 bytes have the same layout.
///
/// # Safety
/// The blocks can be read.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn scales_and_minima<B>(rows: [Quarter<B>; 4]) -> [__m256i; 2] {
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
    let shift = 16 * (rows[0].index as i32 % 2);
    let shifts = lanes(shift, shift + 8);
    // SAFETY: contract 2 (the blocks of the rows): the first 16 bytes of each block.
    let (halves, first, second, third) = unsafe {
        (
            row_words(&rows, 0),
            _mm256_srlv_epi32(row_words(&rows, 4), shifts),
            _mm256_srlv_epi32(row_words(&rows, 8), shifts),
            _mm256_srlv_epi32(row_words(&rows, 12), shifts),
        )
    };
    let (scales, minima) = if rows[0].index < 2 {
        let six = _mm256_set1_epi32(63);
        (_mm256_and_si256(first, six), _mm256_and_si256(second, six))
    } else {
        let (four, top) = (_mm256_set1_epi32(15), _mm256_set1_epi32(0x30));
        (
            _mm256_or_si256(
                _mm256_and_si256(third, four),
                _mm256_and_si256(_mm256_srli_epi32::<2>(first), top),
            ),
            _mm256_or_si256(
                _mm256_and_si256(_mm256_srli_epi32::<4>(third), four),
                _mm256_and_si256(_mm256_srli_epi32::<2>(second), top),
            ),
        )
    };
    let [d, dmin] = super::widen_halves(halves);
    let min = _mm256_mul_ps(dmin, _mm256_cvtepi32_ps(minima));
    [
        _mm256_castps_si256(_mm256_mul_ps(d, _mm256_cvtepi32_ps(scales))),
        _mm256_castps_si256(_mm256_xor_ps(min, _mm256_set1_ps(-0.0))),
    ]
}

/// Selects the two bytes of each block from 32 bits of both.
#[inline]
#[target_feature(enable = "avx2")]
fn two_bytes(words: __m256i) -> __m256i {
    _mm256_srlv_epi32(words, lanes(0, 16))
}

/// # Safety
/// Implements [`Chunk::headers`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn headers_q6(rows: [Quarter<BlockQ6K>; 4]) -> [__m256i; 2] {
    // SAFETY: the blocks can be read; a quarter has 4 of the 16 scales, and `d` are the last two of
    // the 32 bits.
    unsafe {
        [
            _mm256_srli_epi32::<16>(row_words(&rows, offset_of!(BlockQ6K, d) - 2)),
            two_bytes(row_words(
                &rows,
                offset_of!(BlockQ6K, scales) + 4 * rows[0].index,
            )),
        ]
    }
}

/// # Safety
/// Implements [`Chunk::headers`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn headers_q2(rows: [Quarter<BlockQ2K>; 4]) -> [__m256i; 2] {
    const { assert!(offset_of!(BlockQ2K, dmin) == offset_of!(BlockQ2K, d) + 2) };
    // SAFETY: the blocks can be read; a quarter has 4 of the 16 scales, and `d` and `dmin` are the
    // 32 bits.
    let (halves, bytes) = unsafe {
        (
            row_words(&rows, offset_of!(BlockQ2K, d)),
            two_bytes(row_words(
                &rows,
                offset_of!(BlockQ2K, scales) + 4 * rows[0].index,
            )),
        )
    };
    let low = _mm256_and_si256(bytes, _mm256_set1_epi32(0x0F0F));
    let high = _mm256_and_si256(
        _mm256_slli_epi32::<12>(bytes),
        _mm256_set1_epi32(0x0F0F_0000),
    );
    [halves, _mm256_or_si256(low, high)]
}

/// # Safety
/// Implements [`Chunk::headers`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn headers_q3(rows: [Quarter<BlockQ3K>; 4]) -> [__m256i; 2] {
    const SCALES: usize = offset_of!(BlockQ3K, scales);
    let index = rows[0].index;
    // SAFETY: the blocks can be read; the scales are 12 bytes, and `d` are the last two of the 32
    // bits.
    let (halves, low, high) = unsafe {
        (
            _mm256_srli_epi32::<16>(row_words(&rows, offset_of!(BlockQ3K, d) - 2)),
            two_bytes(row_words(&rows, SCALES + 4 * (index % 2))),
            two_bytes(row_words(&rows, SCALES + 8)),
        )
    };
    let low = _mm256_srl_epi32(low, _mm_cvtsi32_si128(4 * (index as i32 / 2)));
    let high = _mm256_srl_epi32(high, _mm_cvtsi32_si128(2 * index as i32));
    let joined = _mm256_or_si256(
        _mm256_and_si256(low, _mm256_set1_epi32(0x0F0F)),
        _mm256_slli_epi32::<4>(_mm256_and_si256(high, _mm256_set1_epi32(0x0303))),
    );
    [halves, _mm256_sub_epi8(joined, _mm256_set1_epi8(32))]
}

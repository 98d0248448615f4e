//! Super-blocks, of which a chunk (a block of 32 columns) is an eighth.

use core::arch::x86_64::*;
use core::mem::offset_of;

use super::half::widen_halves;
use super::unpack::{bytes, row_words};
use super::{Chunk, ROWS};
use crate::quant::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};

/// Implements [`Chunk`] by two functions.
macro_rules! chunk {
    ($block:ty, $unpack:ident, $numbers:ident) => {
        impl Chunk for $block {
            #[inline]
            #[target_feature(enable = "sse4.1,ssse3")]
            unsafe fn unpack(block: *const Self, part: usize) -> (__m128i, __m128i) {
                // SAFETY: contract 2 (a block of a row).
                unsafe { $unpack(block, part) }
            }

            #[inline]
            #[target_feature(enable = "sse4.1,ssse3")]
            unsafe fn numbers(rows: [*const Self; ROWS], part: usize) -> [__m128i; 2] {
                // SAFETY: contract 2 (a block of each row).
                unsafe { $numbers(rows, part) }
            }
        }
    };
}

chunk!(BlockQ2K, unpack_q2, numbers_q2);
chunk!(BlockQ3K, unpack_q3, numbers_q3);
chunk!(BlockQ4K, unpack_q4, scales_and_minima);
chunk!(BlockQ5K, unpack_q5, scales_and_minima);
chunk!(BlockQ6K, unpack_q6, numbers_q6);

/// Loads 32 bytes from byte `at` on of a block, shifts them to the right, and keeps `bits` bits of
/// each byte.
///
/// # Safety
/// The block can be read.
#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn fields<B>(block: *const B, at: usize, shift: usize, bits: u32) -> [__m128i; 2] {
    let (shift, mask) = (
        _mm_cvtsi32_si128(shift as i32),
        _mm_set1_epi8((1 << bits) - 1),
    );
    // SAFETY: contract 2 (a block of a row); `bytes` checks the place.
    let both = unsafe { [bytes(block, at), bytes(block, at + 16)] };
    both.map(|bytes| _mm_and_si128(_mm_srl_epi16(bytes, shift), mask))
}

/// Joins low bits and those above them, which are moved up by `BY` (less than a byte's free bits).
#[inline]
#[target_feature(enable = "sse4.1")]
fn joined<const BY: i32>(low: [__m128i; 2], high: [__m128i; 2]) -> (__m128i, __m128i) {
    (
        _mm_or_si128(low[0], _mm_slli_epi16::<BY>(high[0])),
        _mm_or_si128(low[1], _mm_slli_epi16::<BY>(high[1])),
    )
}

/// # Safety
/// Implements [`Chunk::unpack`].
#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn unpack_q4(block: *const BlockQ4K, part: usize) -> (__m128i, __m128i) {
    // SAFETY: contract 2 (a block of a row).
    let [low, high] = unsafe {
        let at = offset_of!(BlockQ4K, qs) + 32 * (part / 2);
        fields(block, at, 4 * (part % 2), 4)
    };
    (low, high)
}

/// # Safety
/// Implements [`Chunk::unpack`].
#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn unpack_q5(block: *const BlockQ5K, part: usize) -> (__m128i, __m128i) {
    // SAFETY: contract 2 (a block of a row).
    let (four, fifth) = unsafe {
        let at = offset_of!(BlockQ5K, qs) + 32 * (part / 2);
        (
            fields(block, at, 4 * (part % 2), 4),
            fields(block, offset_of!(BlockQ5K, qh), part, 1),
        )
    };
    joined::<4>(four, fifth)
}

/// # Safety
/// Implements [`Chunk::unpack`].
#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn unpack_q6(block: *const BlockQ6K, part: usize) -> (__m128i, __m128i) {
    let (half, k) = (part / 4, part % 4);
    // SAFETY: contract 2 (a block of a row).
    let (four, top) = unsafe {
        let at = offset_of!(BlockQ6K, ql) + 64 * half + 32 * (k % 2);
        (
            fields(block, at, 4 * (k / 2), 4),
            fields(block, offset_of!(BlockQ6K, qh) + 32 * half, 2 * k, 2),
        )
    };
    joined::<4>(four, top)
}

/// # Safety
/// Implements [`Chunk::unpack`].
#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn unpack_q2(block: *const BlockQ2K, part: usize) -> (__m128i, __m128i) {
    // SAFETY: contract 2 (a block of a row).
    let [low, high] = unsafe {
        let at = offset_of!(BlockQ2K, qs) + 32 * (part / 4);
        fields(block, at, 2 * (part % 4), 2)
    };
    (low, high)
}

/// # Safety
/// Implements [`Chunk::unpack`].
#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn unpack_q3(block: *const BlockQ3K, part: usize) -> (__m128i, __m128i) {
    // SAFETY: contract 2 (a block of a row).
    let (two, third) = unsafe {
        let at = offset_of!(BlockQ3K, qs) + 32 * (part / 4);
        (
            fields(block, at, 2 * (part % 4), 2),
            fields(block, offset_of!(BlockQ3K, hmask), part, 1),
        )
    };
    joined::<2>(two, third)
}

/// Loads scales and minima of Q4_K or Q5_K, whose first 16 bytes have the same layout, and
/// multiplies them.
///
/// # Safety
/// The blocks can be read.
#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn scales_and_minima<B>(rows: [*const B; ROWS], part: usize) -> [__m128i; 2] {
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
    let shift = _mm_cvtsi32_si128(8 * (part as i32 % 4));
    // SAFETY: contract 2 (a block of each row): the first 16 bytes of each.
    let (halves, first, second, third) = unsafe {
        (
            row_words(rows, 0),
            _mm_srl_epi32(row_words(rows, 4), shift),
            _mm_srl_epi32(row_words(rows, 8), shift),
            _mm_srl_epi32(row_words(rows, 12), shift),
        )
    };
    let (scales, minima) = if part < 4 {
        let six = _mm_set1_epi32(63);
        (_mm_and_si128(first, six), _mm_and_si128(second, six))
    } else {
        let (four, top) = (_mm_set1_epi32(15), _mm_set1_epi32(0x30));
        (
            _mm_or_si128(
                _mm_and_si128(third, four),
                _mm_and_si128(_mm_srli_epi32::<2>(first), top),
            ),
            _mm_or_si128(
                _mm_and_si128(_mm_srli_epi32::<4>(third), four),
                _mm_and_si128(_mm_srli_epi32::<2>(second), top),
            ),
        )
    };
    let [d, dmin] = widen_halves(halves);
    let min = _mm_mul_ps(dmin, _mm_cvtepi32_ps(minima));
    [
        _mm_castps_si128(_mm_mul_ps(d, _mm_cvtepi32_ps(scales))),
        _mm_castps_si128(_mm_xor_ps(min, _mm_set1_ps(-0.0))),
    ]
}

/// Loads the two bytes from byte `at + 2 · index` on of each row's block into the lower halves of
/// the lanes; the upper halves are what follows, or 0.
///
/// # Safety
/// The blocks can be read.
#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn two_bytes<B>(rows: [*const B; ROWS], at: usize, index: usize) -> __m128i {
    // SAFETY: contract 2 (a block of each row); `row_words` checks the place.
    let words = unsafe { row_words(rows, at + 4 * (index / 2)) };
    _mm_srl_epi32(words, _mm_cvtsi32_si128(16 * (index as i32 % 2)))
}

/// # Safety
/// Implements [`Chunk::numbers`].
#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn numbers_q6(rows: [*const BlockQ6K; ROWS], part: usize) -> [__m128i; 2] {
    // SAFETY: contract 2 (a block of each row); `d` are the last two of the 32 bits.
    unsafe {
        [
            _mm_srli_epi32::<16>(row_words(rows, offset_of!(BlockQ6K, d) - 2)),
            two_bytes(rows, offset_of!(BlockQ6K, scales), part),
        ]
    }
}

/// # Safety
/// Implements [`Chunk::numbers`].
#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn numbers_q2(rows: [*const BlockQ2K; ROWS], part: usize) -> [__m128i; 2] {
    const { assert!(offset_of!(BlockQ2K, dmin) == offset_of!(BlockQ2K, d) + 2) };
    // SAFETY: contract 2 (a block of each row); `d` and `dmin` are the 32 bits.
    let (halves, bytes) = unsafe {
        (
            row_words(rows, offset_of!(BlockQ2K, d)),
            two_bytes(rows, offset_of!(BlockQ2K, scales), part),
        )
    };
    let low = _mm_and_si128(bytes, _mm_set1_epi32(0x0F0F));
    let high = _mm_and_si128(_mm_slli_epi32::<12>(bytes), _mm_set1_epi32(0x0F0F_0000));
    [halves, _mm_or_si128(low, high)]
}

/// # Safety
/// Implements [`Chunk::numbers`].
#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn numbers_q3(rows: [*const BlockQ3K; ROWS], part: usize) -> [__m128i; 2] {
    const SCALES: usize = offset_of!(BlockQ3K, scales);
    // SAFETY: contract 2 (a block of each row); the scales are 12 bytes, and `d` are the last two
    // of the 32 bits.
    let (halves, low, high) = unsafe {
        (
            _mm_srli_epi32::<16>(row_words(rows, offset_of!(BlockQ3K, d) - 2)),
            two_bytes(rows, SCALES, part % 4),
            two_bytes(rows, SCALES + 8, part % 2),
        )
    };
    let low = _mm_srl_epi32(low, _mm_cvtsi32_si128(4 * (part as i32 / 4)));
    let high = _mm_srl_epi32(high, _mm_cvtsi32_si128(2 * (part as i32 / 2)));
    let joined = _mm_or_si128(
        _mm_and_si128(low, _mm_set1_epi32(0x0F0F)),
        _mm_slli_epi32::<4>(_mm_and_si128(high, _mm_set1_epi32(0x0303))),
    );
    [halves, _mm_sub_epi8(joined, _mm_set1_epi8(32))]
}

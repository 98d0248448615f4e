//! Unpacking of a simple block from memory into registers.

use core::arch::x86_64::*;

use super::super::Layout;
use super::half::widen_halves;
use super::{Chunk, ROWS};

impl<B: Layout> Chunk for B {
    #[inline]
    #[target_feature(enable = "sse4.1,ssse3")]
    unsafe fn unpack(block: *const B, _part: usize) -> (__m128i, __m128i) {
        // SAFETY: contract 2 (a block of a row).
        unsafe { unpack(block) }
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    unsafe fn numbers(rows: [*const B; ROWS], _part: usize) -> [__m128i; 2] {
        // SAFETY: contract 2 (a block of each row); the scale and the minimum are its first bytes.
        let words = unsafe { row_words(rows, 0) };
        let [scale, min] = widen_halves(words);
        [_mm_castps_si128(scale), _mm_castps_si128(min)]
    }
}

/// Loads 32 bits from byte `at` on of each row's block: row `j` in lane `j`.
///
/// # Safety
/// The blocks can be read.
#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) unsafe fn row_words<B>(rows: [*const B; ROWS], at: usize) -> __m128i {
    assert!(at + 4 <= size_of::<B>());
    // SAFETY: 4 bytes inside each block (asserted above), which can be read; no alignment is
    // needed.
    let word = |block: *const B| unsafe { block.byte_add(at).cast::<i32>().read_unaligned() };
    let [a, b, c, d] = rows.map(word);
    _mm_setr_epi32(a, b, c, d)
}

/// Loads 16 bytes from byte `at` on of a block.
///
/// # Safety
/// The block can be read.
#[inline]
#[target_feature(enable = "sse4.1")]
pub(super) unsafe fn bytes<B>(block: *const B, at: usize) -> __m128i {
    assert!(at + 16 <= size_of::<B>());
    // SAFETY: 16 bytes inside the block (asserted above), which can be read.
    unsafe { _mm_loadu_si128(block.byte_add(at).cast()) }
}

/// Implements [`Chunk::unpack`].
///
/// # Safety
/// The block can be read.
#[inline]
#[target_feature(enable = "sse4.1,ssse3")]
unsafe fn unpack<B: Layout>(block: *const B) -> (__m128i, __m128i) {
    // SAFETY: contract 2 (a block of a row).
    let low = unsafe { bytes(block, B::QUANTS_AT) };
    if B::BITS == 8 {
        // SAFETY: contract 2 (a block of a row).
        return (low, unsafe { bytes(block, B::QUANTS_AT + 16) });
    }
    let nibble = _mm_set1_epi8(15);
    let high = _mm_and_si128(_mm_srli_epi16::<4>(low), nibble);
    let low = _mm_and_si128(low, nibble);
    if let Some(values) = B::VALUES {
        // SAFETY: contract 5 (16 bytes).
        let values = unsafe { _mm_loadu_si128(values.as_ptr().cast()) };
        return (
            _mm_shuffle_epi8(values, low),
            _mm_shuffle_epi8(values, high),
        );
    }
    if B::BITS == 4 {
        return (low, high);
    }
    assert!(B::HIGH_AT + 4 <= size_of::<B>());
    // SAFETY: 4 bytes inside the block (asserted above), which can be read; no alignment is needed.
    let bits = unsafe { block.byte_add(B::HIGH_AT).cast::<i32>().read_unaligned() };
    let bits = _mm_set1_epi32(bits);
    (
        _mm_or_si128(low, fifth(bits, 0)),
        _mm_or_si128(high, fifth(bits, 2)),
    )
}

/// Returns 16 in byte `i` if bit `i` of the bytes `byte` and `byte + 1` is set, else 0.
#[inline]
#[target_feature(enable = "sse4.1,ssse3")]
fn fifth(bits: __m128i, byte: i8) -> __m128i {
    // Index of the byte that holds element i's bit: the first for i < 8, else the second.
    let second = i64::from_le_bytes([1; 8]);
    let each = _mm_add_epi8(_mm_set1_epi8(byte), _mm_set_epi64x(second, 0));
    let bit = _mm_set1_epi64x(i64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128]));
    let set = _mm_cmpeq_epi8(_mm_and_si128(_mm_shuffle_epi8(bits, each), bit), bit);
    _mm_and_si128(set, _mm_set1_epi8(16))
}

//! From a chunk of a row, as it lies in memory, to registers.

use core::arch::x86_64::*;

use super::super::Layout;

/// The two blocks of a chunk in one row.
pub(super) type Blocks<'a, B> = [&'a B; 2];

/// 16 bytes from byte `AT` of each block: block `k` in 128-bit lane `k`.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes<B: Layout>(blocks: Blocks<'_, B>, at: usize) -> __m256i {
    assert!(at + 16 <= size_of::<B>());
    // SAFETY: 16 bytes inside a block (asserted above, for constants).
    let load = |block: &B| unsafe { _mm_loadu_si128((&raw const *block).cast::<u8>().add(at).cast()) };
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(load(blocks[0])), load(blocks[1]))
}

/// 4 bytes from byte `at` of a block.
#[inline]
fn word<B: Layout>(block: &B, at: usize) -> i32 {
    assert!(at + 4 <= size_of::<B>());
    // SAFETY: 4 bytes inside the block (asserted above, for constants); no alignment is needed.
    unsafe {
        (&raw const *block)
            .cast::<u8>()
            .add(at)
            .cast::<i32>()
            .read_unaligned()
    }
}

/// The low and the high 16 elements of each block, block `k` in 128-bit lane `k`: unsigned for 4 and 5 bits, signed for 8.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn unpack<B: Layout>(blocks: Blocks<'_, B>) -> (__m256i, __m256i) {
    let low = bytes(blocks, B::QUANTS_AT);
    if B::BITS == 8 {
        return (low, bytes(blocks, B::QUANTS_AT + 16));
    }
    let nibble = _mm256_set1_epi8(15);
    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(low), nibble);
    let low = _mm256_and_si256(low, nibble);
    if B::BITS == 4 {
        return (low, high);
    }
    let bits = _mm256_blend_epi32::<0xF0>(
        _mm256_set1_epi32(word(blocks[0], B::HIGH_AT)),
        _mm256_set1_epi32(word(blocks[1], B::HIGH_AT)),
    );
    (
        _mm256_or_si256(low, fifth(bits, 0)),
        _mm256_or_si256(high, fifth(bits, 2)),
    )
}

/// 16 where a bit of bytes `byte` and `byte + 1` of each 128-bit lane is set.
#[inline]
#[target_feature(enable = "avx2")]
fn fifth(bits: __m256i, byte: i8) -> __m256i {
    // Index of the byte that holds element i's bit: the first for i < 8, else the second.
    let second = i64::from_le_bytes([1; 8]);
    let each = _mm256_add_epi8(_mm256_set1_epi8(byte), _mm256_set_epi64x(second, 0, second, 0));
    let bit = _mm256_set1_epi64x(i64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128]));
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(bits, each), bit), bit);
    _mm256_and_si256(set, _mm256_set1_epi8(16))
}

/// Scales and minima of four rows: block `k` and row `j` in 32-bit lane `4k + j`. The minima are of use for formats that have
/// them only.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn headers<B: Layout>(rows: [Blocks<'_, B>; 4]) -> (__m256, __m256) {
    let lane = |k: usize| {
        let [a, b, c, d] = rows.map(|row| word(row[k], 0));
        _mm_setr_epi32(a, b, c, d)
    };
    let words = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(lane(0)), lane(1));
    // Even 16-bit halves to the lower 64 bits of each lane, odd ones to the upper; then the two lanes' lower ones together.
    let halves = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
    ));
    let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_shuffle_epi8(words, halves));
    (
        _mm256_cvtph_ps(_mm256_castsi256_si128(both)),
        _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(both)),
    )
}

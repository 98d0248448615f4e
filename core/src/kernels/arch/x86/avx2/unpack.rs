//! Unpacking of a row's chunk from memory into registers.

use core::arch::x86_64::*;

use super::super::Layout;
use super::Chunk;

/// Locations of the two blocks of a chunk in one row.
pub(in super::super::super) type Blocks<B> = [*const B; 2];

impl<B: Layout> Chunk for B {
    type Raw = Blocks<B>;

    #[inline]
    unsafe fn four_rows(
        blocks: &[B],
        row_blocks: usize,
        first: usize,
        block: usize,
    ) -> [Blocks<B>; 4] {
        let start = blocks.as_ptr().wrapping_add(first * row_blocks + block);
        // The last block of the row is used twice if there is no second one.
        let second = usize::from(block + 1 < row_blocks);
        [0, 1, 2, 3].map(|row| {
            let start = start.wrapping_add(row * row_blocks);
            [start, start.wrapping_add(second)]
        })
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn unpack(raw: Blocks<B>) -> (__m256i, __m256i) {
        // SAFETY: contract 2 (the blocks of the rows).
        unsafe { unpack(raw) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn headers(rows: [Blocks<B>; 4]) -> [__m256i; 2] {
        // SAFETY: contract 2 (the blocks of the rows).
        unsafe { headers(rows) }
    }
}

/// Loads 16 bytes from byte `at` on of each block: block `k` in 128-bit lane `k`.
///
/// # Safety
/// The blocks can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn bytes<B: Layout>(blocks: Blocks<B>, at: usize) -> __m256i {
    assert!(at + 16 <= size_of::<B>());
    // SAFETY: 16 bytes inside a block (asserted above, for constants), which can be read.
    unsafe {
        let first = _mm_loadu_si128(blocks[0].byte_add(at).cast());
        _mm256_inserti128_si256::<1>(
            _mm256_castsi128_si256(first),
            _mm_loadu_si128(blocks[1].byte_add(at).cast()),
        )
    }
}

/// Loads 4 bytes from byte `at` on of a block.
///
/// # Safety
/// The block can be read.
#[inline]
unsafe fn word<B: Layout>(block: *const B, at: usize) -> i32 {
    assert!(at + 4 <= size_of::<B>());
    // SAFETY: 4 bytes inside the block (asserted above, for constants), which can be read; no
    // alignment is needed.
    unsafe { block.byte_add(at).cast::<i32>().read_unaligned() }
}

/// Implements [`Chunk::unpack`].
///
/// # Safety
/// The blocks can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack<B: Layout>(blocks: Blocks<B>) -> (__m256i, __m256i) {
    // SAFETY: contract 2 (the blocks of the rows).
    let low = unsafe { bytes(blocks, B::QUANTS_AT) };
    if B::BITS == 8 {
        // SAFETY: contract 2 (the blocks of the rows).
        return (low, unsafe { bytes(blocks, B::QUANTS_AT + 16) });
    }
    let nibble = _mm256_set1_epi8(15);
    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(low), nibble);
    let low = _mm256_and_si256(low, nibble);
    if let Some(values) = B::VALUES {
        // SAFETY: 16 bytes.
        let values =
            _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(values.as_ptr().cast()) });
        return (
            _mm256_shuffle_epi8(values, low),
            _mm256_shuffle_epi8(values, high),
        );
    }
    if B::BITS == 4 {
        return (low, high);
    }
    // SAFETY: contract 2 (the blocks of the rows).
    let words = unsafe { [word(blocks[0], B::HIGH_AT), word(blocks[1], B::HIGH_AT)] };
    let bits = _mm256_blend_epi32::<0xF0>(_mm256_set1_epi32(words[0]), _mm256_set1_epi32(words[1]));
    (
        _mm256_or_si256(low, fifth(bits, 0)),
        _mm256_or_si256(high, fifth(bits, 2)),
    )
}

/// Returns 16 in byte `i` of each 128-bit lane if bit `i` of the lane's bytes `byte` and `byte + 1`
/// is set, else 0.
#[inline]
#[target_feature(enable = "avx2")]
fn fifth(bits: __m256i, byte: i8) -> __m256i {
    // Index of the byte that holds element i's bit: the first for i < 8, else the second.
    let second = i64::from_le_bytes([1; 8]);
    let each = _mm256_add_epi8(
        _mm256_set1_epi8(byte),
        _mm256_set_epi64x(second, 0, second, 0),
    );
    let bit = _mm256_set1_epi64x(i64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128]));
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(bits, each), bit), bit);
    _mm256_and_si256(set, _mm256_set1_epi8(16))
}

/// Implements [`Chunk::headers`]: scales and minima. Formats without minima ignore the latter.
///
/// # Safety
/// The blocks can be read.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn headers<B: Layout>(rows: [Blocks<B>; 4]) -> [__m256i; 2] {
    let [a, b, c, d] = rows;
    // SAFETY: contract 2 (the blocks of the rows).
    let (first, second) = unsafe {
        (
            _mm_setr_epi32(word(a[0], 0), word(b[0], 0), word(c[0], 0), word(d[0], 0)),
            _mm_setr_epi32(word(a[1], 0), word(b[1], 0), word(c[1], 0), word(d[1], 0)),
        )
    };
    let words = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(first), second);
    let [scales, minima] = widen_halves(words);
    [_mm256_castps_si256(scales), _mm256_castps_si256(minima)]
}

/// Widens the f16 in the lower and in the upper half of each 32-bit lane.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn widen_halves(words: __m256i) -> [__m256; 2] {
    // Even 16-bit halves go to the lower 64 bits of each lane, odd ones to the upper. Then the
    // lower 64 bits of both lanes are joined.
    let halves = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
    ));
    let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_shuffle_epi8(words, halves));
    [
        _mm256_cvtph_ps(_mm256_castsi256_si128(both)),
        _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(both)),
    ]
}

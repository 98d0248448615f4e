//! Unpacking of a row's chunk from memory into registers.

use core::arch::x86_64::*;

use super::super::Layout;
use super::{CHUNK, Chunk};

/// Map of the bytes of a chunk: the windows that `Raw` loads, and the destinations of their bytes.
/// It is computed at compile time for each format.
struct Map<B>(core::marker::PhantomData<B>);

impl<B: Layout> Map<B> {
    const BYTES: usize = size_of::<B>();
    /// Start of the second of the two 64-byte windows. Together they hold the low elements, headers
    /// and fifth bits of the chunk: for 4 and 5 bits the second ends where the chunk ends; for 8
    /// bits it holds all needed bytes of the last two blocks.
    const SECOND: usize = if B::BITS == 8 {
        60
    } else {
        CHUNK * Self::BYTES - 64
    };
    /// Distance in bytes of the two windows that hold the high 16 elements of 8 bits from the other
    /// two.
    const HIGH_SHIFT: usize = 12;

    /// Returns the index of byte `at` of the chunk in the pair of windows.
    const fn index(at: usize) -> u8 {
        if at < 64 {
            return at as u8;
        }
        assert!(at >= Self::SECOND && at < Self::SECOND + 64);
        (at - Self::SECOND + 64) as u8
    }

    /// Returns the indices of 16 bytes from `at` on of every block, each repeated `each` times.
    const fn bytes(at: usize, each: usize) -> [u8; 64] {
        let mut map = [0; 64];
        let mut i = 0;
        while i < 64 {
            map[i] = Self::index(i / 16 * Self::BYTES + at + i % 16 / each);
            i += 1;
        }
        map
    }

    const LOW: [u8; 64] = Self::bytes(B::QUANTS_AT, 1);
    const HIGH: [u8; 64] = Self::bytes(
        B::QUANTS_AT
            + if B::BITS == 8 {
                16 - Self::HIGH_SHIFT
            } else {
                0
            },
        1,
    );
    const FIFTH_LOW: [u8; 64] = Self::bytes(B::HIGH_AT, 8);
    const FIFTH_HIGH: [u8; 64] = Self::bytes(B::HIGH_AT + 2, 8);

    /// Returns the index of header byte `at` of block `block` within its window, and true if that
    /// is the second window.
    const fn header(block: usize, at: usize) -> (usize, bool) {
        let at = block * Self::BYTES + at;
        if at < 64 {
            (at, false)
        } else {
            (at - Self::SECOND, true)
        }
    }

    /// Mask of the bytes of the second window that hold headers. The same bytes of the first window
    /// hold none.
    const HEADERS_OF_SECOND: u64 = {
        let mut mask = 0;
        let mut i = 0;
        while i < CHUNK {
            let (at, second) = Self::header(i, 0);
            if second {
                mask |= if B::HAS_MIN { 15 } else { 3 } << at;
            }
            i += 1;
        }
        mask
    };

    /// Indices for the headers of two rows: scales, then minima, of block `k` and row `j` go to
    /// 16-bit lane `4k + j` (and `4k + j + 2`, so that the same map serves the other two rows of
    /// four).
    const HEADERS: [u16; 32] = {
        let mut map = [0; 32];
        let mut i = 0;
        while i < 32 {
            let (at, _) = Self::header(i % 16 / 4, if i < 16 { 0 } else { B::MIN_AT });
            map[i] = (at / 2 + i % 2 * 32) as u16;
            i += 1;
        }
        map
    };
}

impl<B: Layout> Chunk for B {
    type Raw = Raw;
    type Masks = Masks;

    #[inline]
    fn masks(blocks: usize) -> Masks {
        Masks::new::<B>(blocks)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    unsafe fn load_four<const WHOLE: bool>(
        blocks: &[B],
        row_blocks: usize,
        first: usize,
        block: usize,
        masks: &Masks,
    ) -> [Raw; 4] {
        // SAFETY: contract 2 (the blocks of the rows).
        unsafe { load_four::<B, WHOLE>(blocks, row_blocks, first, block, masks) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    unsafe fn unpack(raw: &Raw) -> (__m512i, __m512i) {
        unpack::<B>(raw)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    unsafe fn headers(rows: &[Raw; 4]) -> [__m512i; 2] {
        headers::<B>(rows)
    }
}

/// One row's chunk as loaded: its two windows, and two more for 8 bits.
#[derive(Clone, Copy)]
pub(in super::super::super) struct Raw {
    windows: [__m512i; 2],
    high: [__m512i; 2],
}

/// Masks of the bytes of the windows that are inside the row.
#[derive(Clone, Copy)]
pub(in super::super::super) struct Masks {
    windows: [__mmask64; 2],
    high: [__mmask64; 2],
}

impl Masks {
    fn new<B: Layout>(blocks: usize) -> Masks {
        let bytes = blocks * size_of::<B>();
        let mask = |start: usize| match bytes.saturating_sub(start) {
            64.. => u64::MAX,
            n => (1 << n) - 1,
        };
        let second = Map::<B>::SECOND;
        Masks {
            windows: [mask(0), mask(second)],
            high: [
                mask(Map::<B>::HIGH_SHIFT),
                mask(Map::<B>::HIGH_SHIFT + second),
            ],
        }
    }
}

/// Loads 64 bytes from `at` on. Bytes whose bit of `mask` is clear become 0 and are not read. A
/// `WHOLE` chunk needs no mask, which is faster.
///
/// # Safety
/// The bytes whose mask bits are set can be read; all 64 if `WHOLE`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn window<const WHOLE: bool>(at: *const i8, mask: __mmask64) -> __m512i {
    // SAFETY: contract 2 (the bytes in the mask are of a row); a masked load touches no byte whose
    // mask bit is clear.
    unsafe {
        if WHOLE {
            _mm512_loadu_si512(at.cast())
        } else {
            _mm512_maskz_loadu_epi8(mask, at)
        }
    }
}

/// Loads the chunk that starts at `row`.
///
/// # Safety
/// The blocks that `masks` was made for can be read from `row` on; they are a whole chunk if
/// `WHOLE`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load<B: Layout, const WHOLE: bool>(row: *const B, masks: &Masks) -> Raw {
    let at = |start: usize| row.cast::<i8>().wrapping_add(start);
    let (second, high) = (Map::<B>::SECOND, Map::<B>::HIGH_SHIFT);
    // SAFETY: the masks' set bits are the bytes of the caller's blocks, and the windows lie inside
    // a whole chunk.
    unsafe {
        let windows = [
            window::<WHOLE>(at(0), masks.windows[0]),
            window::<WHOLE>(at(second), masks.windows[1]),
        ];
        if B::BITS != 8 {
            return Raw {
                windows,
                high: windows,
            };
        }
        let high = [
            window::<WHOLE>(at(high), masks.high[0]),
            window::<WHOLE>(at(high + second), masks.high[1]),
        ];
        Raw { windows, high }
    }
}

/// Loads a chunk of four rows, from row `first` and block `block` on.
///
/// # Safety
/// `blocks` holds rows `first` to `first + 3`, of `row_blocks` blocks each. The blocks from `block`
/// on that `masks` was made for are in the row, and are a whole chunk if `WHOLE`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load_four<B: Layout, const WHOLE: bool>(
    blocks: &[B],
    row_blocks: usize,
    first: usize,
    block: usize,
    masks: &Masks,
) -> [Raw; 4] {
    let start = blocks.as_ptr().wrapping_add(first * row_blocks + block);
    // SAFETY: contract 2 (the bytes in the mask are of a row).
    unsafe {
        [
            load::<B, WHOLE>(start, masks),
            load::<B, WHOLE>(start.wrapping_add(row_blocks), masks),
            load::<B, WHOLE>(start.wrapping_add(2 * row_blocks), masks),
            load::<B, WHOLE>(start.wrapping_add(3 * row_blocks), masks),
        ]
    }
}

/// Loads a table into a register.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn constant<T, const N: usize>(table: &'static [T; N]) -> __m512i {
    const { assert!(size_of::<T>() * N == 64) };
    // SAFETY: the table is 64 bytes.
    unsafe { _mm512_loadu_si512(table.as_ptr().cast()) }
}

/// Returns the low and the high 16 elements of each block, unsigned: block `k` in 128-bit lane `k`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn unpack<B: Layout>(raw: &Raw) -> (__m512i, __m512i) {
    let pick = |map: &'static [u8; 64], windows: &[__m512i; 2]| {
        _mm512_permutex2var_epi8(windows[0], constant(map), windows[1])
    };
    let low = pick(const { &Map::<B>::LOW }, &raw.windows);
    if B::BITS == 8 {
        let high = pick(const { &Map::<B>::HIGH }, &raw.high);
        let sign = _mm512_set1_epi8(-128);
        return (_mm512_xor_si512(low, sign), _mm512_xor_si512(high, sign));
    }
    let nibble = _mm512_set1_epi8(15);
    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(low), nibble);
    let low = _mm512_and_si512(low, nibble);
    if let Some(values) = B::VALUES {
        // SAFETY: 16 bytes.
        let values = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(values.as_ptr().cast()) });
        let values = _mm512_xor_si512(values, _mm512_set1_epi8(-128));
        return (
            _mm512_shuffle_epi8(values, low),
            _mm512_shuffle_epi8(values, high),
        );
    }
    if B::BITS == 4 {
        return (low, high);
    }
    let bit = _mm512_set1_epi64(i64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128]));
    let fifth = _mm512_set1_epi8(16);
    let has = |map| _mm512_test_epi8_mask(pick(map, &raw.windows), bit);
    (
        _mm512_mask_add_epi8(low, has(const { &Map::<B>::FIFTH_LOW }), low, fifth),
        _mm512_mask_add_epi8(high, has(const { &Map::<B>::FIFTH_HIGH }), high, fifth),
    )
}

/// Returns scales and minima of four rows: block `k` and row `j` in 32-bit lane `4k + j`. Formats
/// without minima ignore the latter.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn headers<B: Layout>(rows: &[Raw; 4]) -> [__m512i; 2] {
    let row = |row: &Raw| match Map::<B>::HEADERS_OF_SECOND {
        0 => row.windows[0],
        mask => _mm512_mask_blend_epi8(mask, row.windows[0], row.windows[1]),
    };
    let map = constant(const { &Map::<B>::HEADERS });
    let first = _mm512_permutex2var_epi16(row(&rows[0]), map, row(&rows[1]));
    let second = _mm512_permutex2var_epi16(row(&rows[2]), map, row(&rows[3]));
    let both = _mm512_mask_blend_epi16(0xCCCC_CCCC, first, second);
    [
        _mm512_castps_si512(_mm512_cvtph_ps(_mm512_castsi512_si256(both))),
        _mm512_castps_si512(_mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(both))),
    ]
}

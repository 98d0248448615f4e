//! AVX2: 8 rows in a group, chunks of 2 blocks.
//!
//! Products are of unsigned and signed bytes, added in pairs to 16 bits with saturation, so every sum's bound matters: 4 bits give
//! at most 15 · 127 · 2 = 3810 a pair and 5 bits 7874, which leaves room for 8 and 4 of them; 8 bits go as `|w| · (x with w's
//! sign)`, at most 128 · 127 · 2 = 32512, alone.

mod float;
mod unpack;

use core::arch::x86_64::*;

use self::unpack::{Blocks, headers, unpack};
use super::super::super::scalar;
use super::super::Avx2;
use super::{FLOAT_ROWS, Float, Kernels, Layout, MAX_PANEL_ROWS, Panel, Q8Activation};
use crate::quant::BLOCK;

/// Rows of a group: 32-bit lanes of a register.
const ROWS: usize = 8;
/// Blocks of a chunk: 128-bit lanes of a register.
const CHUNK: usize = 2;

impl Kernels for Avx2 {
    const LANES: usize = ROWS;
    const GROUPS: usize = 1;
    const TOKENS: usize = 4;

    #[inline]
    fn decode<B: Layout>(self, blocks: &[B], x: &[Q8Activation], out: &mut [f32]) {
        // SAFETY: the token says that the processor has the features.
        unsafe { decode(blocks, x, out) }
    }

    #[inline]
    fn fill<B: Layout>(self, blocks: &[B], panel: &mut Panel<'_>) {
        // SAFETY: the token says that the processor has the features.
        unsafe { fill(blocks, panel) }
    }

    #[inline]
    fn tile<B: Layout, const T: usize>(
        self,
        panel: &Panel<'_>,
        x: &[Q8Activation],
    ) -> [[f32; MAX_PANEL_ROWS]; T] {
        // SAFETY: the token says that the processor has the features.
        unsafe { tile::<B, T>(panel, x) }
    }

    #[inline]
    fn dots<W: Float, const T: usize>(self, w: &[W], x: &[f32], out: &mut [[f32; FLOAT_ROWS]; T]) {
        // SAFETY: the token says that the processor has the features.
        unsafe { float::dots(w, x, out) }
    }

    #[inline]
    fn quantize(self, x: &[f32], out: &mut [Q8Activation]) {
        // SAFETY: the token says that the processor has the features.
        unsafe { quantize(x, out) }
    }
}

/// What must be taken from a sum of products for each unit of the activations' sum: 8 bits are multiplied as they are.
const fn bias<B: Layout>() -> i32 {
    if B::BITS == 8 { 0 } else { B::BIAS }
}

/// Sums of each 128-bit lane's four integers: register `j`'s to 32-bit lane `j` of the 128-bit lane.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_lanes([a, b, c, d]: [__m256i; 4]) -> __m256i {
    let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd))
}

/// Transposes a 2 x 2 matrix of 128-bit lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_lanes([a, b]: [__m256; 2]) -> [__m256; 2] {
    [
        _mm256_permute2f128_ps::<0x20>(a, b),
        _mm256_permute2f128_ps::<0x31>(a, b),
    ]
}

/// Transposes the 4 x 4 matrix of 32-bit values in each 128-bit lane.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_in_lanes([a, b, c, d]: [__m256i; 4]) -> [__m256; 4] {
    let ab = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let cd = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_castsi256_ps(_mm256_unpacklo_epi64(ab.0, cd.0)),
        _mm256_castsi256_ps(_mm256_unpackhi_epi64(ab.0, cd.0)),
        _mm256_castsi256_ps(_mm256_unpacklo_epi64(ab.1, cd.1)),
        _mm256_castsi256_ps(_mm256_unpackhi_epi64(ab.1, cd.1)),
    ]
}

/// 16 bytes of each of a chunk's activations, from byte `AT`: block `k` in 128-bit lane `k`.
#[inline]
#[target_feature(enable = "avx2")]
fn activations<const AT: usize>(x: [&Q8Activation; CHUNK]) -> __m256i {
    const { assert!(AT + 16 <= size_of::<Q8Activation>()) };
    // SAFETY: the 16 bytes lie inside one activation (asserted above).
    let lane = |x: &Q8Activation| unsafe { _mm_loadu_si128((&raw const *x).cast::<u8>().add(AT).cast()) };
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(lane(x[0])), lane(x[1]))
}

/// Sums of two products, 16 bits: see the bounds above.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs<B: Layout>(w: __m256i, x: __m256i) -> __m256i {
    if B::BITS == 8 {
        _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
    } else {
        _mm256_maddubs_epi16(w, x)
    }
}

/// Sums of two 16-bit numbers, 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(pairs: __m256i) -> __m256i {
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// The two blocks of a chunk in four rows, from row `first` and block `block` on; the last block of the row counts twice where
/// there is no second one.
///
/// # Safety
/// `blocks` holds rows `first` to `first + 3`, of `row_blocks` blocks each, and `block < row_blocks`.
#[inline]
unsafe fn four_rows<B>(blocks: &[B], row_blocks: usize, first: usize, block: usize) -> [Blocks<'_, B>; 4] {
    let second = (block + 1).min(row_blocks - 1);
    // SAFETY: the indices are below `(first + 4) * row_blocks`.
    let row = |row: usize| unsafe {
        [
            blocks.get_unchecked(row * row_blocks + block),
            blocks.get_unchecked(row * row_blocks + second),
        ]
    };
    [row(first), row(first + 1), row(first + 2), row(first + 3)]
}

#[target_feature(enable = "avx2,f16c")]
fn decode<B: Layout>(blocks: &[B], x: &[Q8Activation], out: &mut [f32]) {
    let row_blocks = x.len();
    assert!(blocks.len() == ROWS * row_blocks && out.len() == ROWS);
    let mut acc = _mm256_setzero_ps();
    for (chunk, x) in x.chunks(CHUNK).enumerate() {
        let x_blocks = [&x[0], &x[x.len() - 1]];
        let header = activations::<0>(x_blocks);
        let scale = _mm256_castsi256_ps(_mm256_shuffle_epi32::<0x00>(header));
        let scaled_sum = _mm256_castsi256_ps(_mm256_shuffle_epi32::<0x55>(header));
        let bias = _mm256_mullo_epi32(
            _mm256_shuffle_epi32::<0xAA>(header),
            _mm256_set1_epi32(bias::<B>()),
        );
        let (x_low, x_high) = (activations::<12>(x_blocks), activations::<28>(x_blocks));
        prefetch(blocks, chunk);
        let mut terms = [_mm256_setzero_ps(); 2];
        for (i, term) in terms.iter_mut().enumerate() {
            // SAFETY: rows 4i to 4i + 3 < 8 of `row_blocks` blocks each are in `blocks`; x has a block at 2·chunk.
            let rows = unsafe { four_rows(blocks, row_blocks, 4 * i, CHUNK * chunk) };
            let mut sums = [_mm256_setzero_si256(); 4];
            for (row, sum) in rows.iter().zip(&mut sums) {
                let (low, high) = unpack::<B>(*row);
                let (low, high) = (pairs::<B>(low, x_low), pairs::<B>(high, x_high));
                *sum = if B::BITS == 8 {
                    _mm256_add_epi32(widen(low), widen(high))
                } else {
                    widen(_mm256_add_epi16(low, high))
                };
            }
            let sum = _mm256_sub_epi32(sum_lanes(sums), bias);
            let (w_scale, w_min) = headers::<B>(rows);
            *term = _mm256_mul_ps(_mm256_mul_ps(w_scale, scale), _mm256_cvtepi32_ps(sum));
            if B::HAS_MIN {
                *term = _mm256_add_ps(*term, _mm256_mul_ps(w_min, scaled_sum));
            }
        }
        let [first, second] = transpose_lanes(terms);
        acc = _mm256_add_ps(acc, first);
        if x.len() == CHUNK {
            acc = _mm256_add_ps(acc, second);
        }
    }
    // SAFETY: `out` is 8 floats.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), acc) }
}

/// Asks for the part of the next group of rows that corresponds to this chunk, so that it is there when its turn comes: the
/// group is read in 8 streams at once, which the processor's own prefetchers do not follow.
#[inline]
#[target_feature(enable = "avx2")]
fn prefetch<B: Layout>(blocks: &[B], chunk: usize) {
    // 8 rows of 2 blocks are as many quarters of a line of 64 bytes as a block has bytes.
    let bytes = size_of::<B>() * 16;
    let next = blocks
        .as_ptr_range()
        .end
        .cast::<i8>()
        .wrapping_add(PREFETCH_AHEAD + chunk * bytes);
    for line in 0..bytes.div_ceil(64) {
        _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(64 * line));
    }
}

/// Bytes beyond the next group's corresponding part.
const PREFETCH_AHEAD: usize = 4096;

#[target_feature(enable = "avx2,f16c")]
fn fill<B: Layout>(blocks: &[B], panel: &mut Panel<'_>) {
    let row_blocks = blocks.len() / ROWS;
    let (quants, _) = panel.quants.as_chunks_mut::<{ ROWS * BLOCK }>();
    let (scales, _) = panel.scales.as_chunks_mut::<{ ROWS * 2 }>();
    assert!(row_blocks * ROWS == blocks.len() && quants.len() == row_blocks && scales.len() == row_blocks);
    let chunks = quants.chunks_mut(CHUNK).zip(scales.chunks_mut(CHUNK));
    for (chunk, (quants, scales)) in chunks.enumerate() {
        prefetch(blocks, chunk);
        let zero = [_mm256_setzero_ps(); 2];
        // Of four rows: [columns / 4][rows / 4], block `k` in 128-bit lane `k`.
        let (mut columns, mut scale, mut min) = ([zero; 8], zero, zero);
        for i in 0..2 {
            // SAFETY: rows 4i to 4i + 3 < 8 of `row_blocks` blocks each are in `blocks`; the panel has a block at 2·chunk.
            let rows = unsafe { four_rows(blocks, row_blocks, 4 * i, CHUNK * chunk) };
            let (mut low, mut high) = ([_mm256_setzero_si256(); 4], [_mm256_setzero_si256(); 4]);
            for (j, row) in rows.iter().enumerate() {
                (low[j], high[j]) = unpack::<B>(*row);
            }
            let (low, high) = (transpose_in_lanes(low), transpose_in_lanes(high));
            for j in 0..4 {
                columns[j][i] = low[j];
                columns[j + 4][i] = high[j];
            }
            (scale[i], min[i]) = headers::<B>(rows);
        }
        for (j, columns) in columns.into_iter().enumerate() {
            for (quants, rows) in quants.iter_mut().zip(transpose_lanes(columns)) {
                // SAFETY: 32 bytes at 32·j, j < 8, of 256.
                unsafe { _mm256_storeu_ps(quants.as_mut_ptr().add(32 * j).cast(), rows) };
            }
        }
        let values = transpose_lanes(scale).into_iter().zip(transpose_lanes(min));
        for (scales, (scale, min)) in scales.iter_mut().zip(values) {
            // SAFETY: 16 floats.
            unsafe {
                _mm256_storeu_ps(scales.as_mut_ptr(), scale);
                _mm256_storeu_ps(scales.as_mut_ptr().add(ROWS), min);
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn tile<B: Layout, const T: usize>(panel: &Panel<'_>, x: &[Q8Activation]) -> [[f32; MAX_PANEL_ROWS]; T] {
    let (quants, _) = panel.quants.as_chunks::<{ ROWS * BLOCK }>();
    let (scales, _) = panel.scales.as_chunks::<{ ROWS * 2 }>();
    let row_blocks = quants.len();
    assert!(x.len() == T * row_blocks && scales.len() == row_blocks);
    let mut acc = [_mm256_setzero_ps(); T];
    for (block, (quants, scales)) in quants.iter().zip(scales).enumerate() {
        // SAFETY: token t < T of `row_blocks` activations each, block < row_blocks.
        let x = |t| unsafe { x.get_unchecked(t * row_blocks + block) };
        let x: [&Q8Activation; T] = core::array::from_fn(x);
        let sums = sums::<B, T>(quants, x);
        // SAFETY: 16 floats.
        let (w_scale, w_min) = unsafe {
            (
                _mm256_loadu_ps(scales.as_ptr()),
                _mm256_loadu_ps(scales.as_ptr().add(ROWS)),
            )
        };
        for t in 0..T {
            let x = x[t];
            let mut sum = sums[t];
            if bias::<B>() != 0 {
                let bias = _mm256_mullo_epi32(_mm256_set1_epi32(x.sum), _mm256_set1_epi32(bias::<B>()));
                sum = _mm256_sub_epi32(sum, bias);
            }
            let scale = _mm256_mul_ps(w_scale, _mm256_set1_ps(x.scale));
            let mut term = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sum));
            if B::HAS_MIN {
                term = _mm256_add_ps(term, _mm256_mul_ps(w_min, _mm256_set1_ps(x.scaled_sum)));
            }
            acc[t] = _mm256_add_ps(acc[t], term);
        }
    }
    let mut out = [[0.0; MAX_PANEL_ROWS]; T];
    for (out, acc) in out.iter_mut().zip(acc) {
        // SAFETY: 16 floats.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), acc) };
    }
    out
}

/// Sums of products of one block of 8 rows and `T` tokens.
#[inline]
#[target_feature(enable = "avx2")]
fn sums<B: Layout, const T: usize>(quants: &[u8; ROWS * BLOCK], x: [&Q8Activation; T]) -> [__m256i; T] {
    // How many sums of pairs fit 16 bits.
    let most = match B::BITS {
        4 => 8,
        5 => 4,
        _ => 1,
    };
    let mut sums = [_mm256_setzero_si256(); T];
    for first in (0..BLOCK / 4).step_by(most) {
        let mut short = [_mm256_setzero_si256(); T];
        for j in first..first + most {
            // SAFETY: 32 bytes at 32·j, j < 8, of 256.
            let w = unsafe { _mm256_loadu_si256(quants.as_ptr().add(32 * j).cast()) };
            for (short, x) in short.iter_mut().zip(x) {
                let four = x.q.as_chunks::<4>().0[j].map(|q| q as u8);
                let x = _mm256_set1_epi32(i32::from_le_bytes(four));
                *short = _mm256_add_epi16(*short, pairs::<B>(w, x));
            }
        }
        for (sum, short) in sums.iter_mut().zip(short) {
            *sum = _mm256_add_epi32(*sum, widen(short));
        }
    }
    sums
}

#[target_feature(enable = "avx2")]
fn quantize(x: &[f32], out: &mut [Q8Activation]) {
    let (blocks, _) = x.as_chunks::<BLOCK>();
    for (x, out) in blocks.iter().zip(out) {
        let mut values = [_mm256_setzero_ps(); 4];
        let mut max = _mm256_setzero_ps();
        for (value, x) in values.iter_mut().zip(x.as_chunks::<8>().0) {
            // SAFETY: 8 floats.
            *value = unsafe { _mm256_loadu_ps(x.as_ptr()) };
            // The instruction gives its second operand where one is NaN: NaN counts for nothing, as in the reference.
            max = _mm256_max_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0), *value), max);
        }
        let max = _mm_max_ps(_mm256_castps256_ps128(max), _mm256_extractf128_ps::<1>(max));
        let max = _mm_max_ps(max, _mm_movehl_ps(max, max));
        let max = _mm_cvtss_f32(_mm_max_ss(max, _mm_movehdup_ps(max)));
        let inverse = _mm256_set1_ps(scalar::inverse_scale(max));
        let q = values.map(|value| {
            let value = _mm256_mul_ps(value, inverse);
            let number = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_ORD_Q>(value, value));
            _mm256_and_si256(_mm256_cvtps_epi32(value), number)
        });
        let sum = _mm256_add_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3]));
        let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let sum = _mm_add_epi32(sum, _mm_unpackhi_epi64(sum, sum));
        let sum = _mm_cvtsi128_si32(sum) + _mm_extract_epi32::<1>(sum);
        // Packing works in 128-bit lanes: 4 values of each register, of the lower lanes and then of the upper ones.
        let packed = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        let packed = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(out.q.as_mut_ptr().cast(), packed) };
        scalar::set_scale(out, max, sum);
    }
}

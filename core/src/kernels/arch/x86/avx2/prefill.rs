//! Prefill: rows are unpacked once into a panel, which is multiplied with a few tokens at a time.

use core::arch::x86_64::*;

use super::super::{Ahead, MAX_PANEL_ROWS, Panel, Weights, parts};
use super::{ActivationHead, CHUNK, Chunk, Header, ROWS, header, pairs, term, transpose_lanes};
use crate::quant::{BLOCK, Q8Activation};

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

/// Implements [`super::super::Kernels::fill`].
#[target_feature(enable = "avx2,f16c")]
pub(in super::super) fn fill<B: Weights>(blocks: &[B], panel: &mut Panel<'_>) {
    let row_blocks = blocks.len() * parts::<B>() / ROWS;
    let (quants, _) = panel.quants.as_chunks_mut::<{ ROWS * BLOCK }>();
    let (scales, _) = panel.scales.as_chunks_mut::<{ ROWS * 2 }>();
    assert!(
        row_blocks * ROWS == blocks.len() * parts::<B>()
            && quants.len() == row_blocks
            && scales.len() == row_blocks
    );
    let chunks = quants.chunks_mut(CHUNK).zip(scales.chunks_mut(CHUNK));
    for (chunk, (quants, scales)) in chunks.enumerate() {
        let ahead = Ahead::<B, ROWS, CHUNK>::new(blocks, chunk);
        let zero = [_mm256_setzero_ps(); 2];
        // Registers of four rows each: [columns / 4][rows / 4], block `k` in 128-bit lane `k`.
        let (mut columns, mut scale, mut min) = ([zero; 8], zero, zero);
        for i in 0..2 {
            // SAFETY: rows 4i to 4i + 3 < 8 of `row_blocks` blocks each are in `blocks`; the panel
            // has a block at 2·chunk.
            let rows = unsafe { <B as Chunk>::four_rows(blocks, row_blocks, 4 * i, CHUNK * chunk) };
            let (mut low, mut high) = ([_mm256_setzero_si256(); 4], [_mm256_setzero_si256(); 4]);
            for (j, row) in rows.iter().enumerate() {
                // SAFETY: the blocks are still borrowed, and this function has the features.
                (low[j], high[j]) = unsafe { <B as Chunk>::unpack(*row) };
                ahead.after_row(4 * i + j);
            }
            ahead.after_four(i);
            let (low, high) = (transpose_in_lanes(low), transpose_in_lanes(high));
            for j in 0..4 {
                columns[j][i] = low[j];
                columns[j + 4][i] = high[j];
            }
            // SAFETY: as above.
            let [first, second] = unsafe { <B as Chunk>::headers(rows) };
            (scale[i], min[i]) = (_mm256_castsi256_ps(first), _mm256_castsi256_ps(second));
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

/// Loads what a panel holds of a block of 8 rows beside the elements.
#[inline]
#[target_feature(enable = "avx2")]
pub(in super::super) fn load_header(scales: &[f32; ROWS * 2]) -> [__m256i; 2] {
    // SAFETY: contract 5 (16 floats).
    unsafe {
        [
            _mm256_loadu_si256(scales.as_ptr().cast()),
            _mm256_loadu_si256(scales.as_ptr().add(ROWS).cast()),
        ]
    }
}

/// Implements [`super::super::Kernels::tile`].
#[target_feature(enable = "avx2,f16c")]
pub(super) fn tile<B: Weights, const T: usize>(
    panel: &Panel<'_>,
    x: &[Q8Activation],
) -> [[f32; MAX_PANEL_ROWS]; T] {
    let (quants, _) = panel.quants.as_chunks::<{ ROWS * BLOCK }>();
    let (scales, _) = panel.scales.as_chunks::<{ ROWS * 2 }>();
    let row_blocks = quants.len();
    assert!(x.len() == T * row_blocks && scales.len() == row_blocks);
    let mut acc = [_mm256_setzero_ps(); T];
    for (block, (quants, scales)) in quants.iter().zip(scales).enumerate() {
        // SAFETY: token t < T of `row_blocks` activations each, block < row_blocks.
        let x = |t| unsafe { x.get_unchecked(t * row_blocks + block) };
        let x: [&Q8Activation; T] = core::array::from_fn(x);
        let header = header::<B>(load_header(scales));
        let sums = sums::<B, T>(quants, x, &header);
        for t in 0..T {
            let term = term::<B>(&header, &ActivationHead::of_block(x[t]), sums[t]);
            acc[t] = _mm256_add_ps(acc[t], term);
        }
    }
    let mut out = [[0.0; MAX_PANEL_ROWS]; T];
    for (out, acc) in out.iter_mut().zip(acc) {
        // SAFETY: contract 5 (8 of the floats).
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), acc) };
    }
    out
}

/// Sums of products of one block of 8 rows and `T` tokens.
#[inline]
#[target_feature(enable = "avx2")]
fn sums<B: Weights, const T: usize>(
    quants: &[u8; ROWS * BLOCK],
    x: [&Q8Activation; T],
    header: &Header,
) -> [__m256i; T] {
    // Number of sums of pairs that fit 16 bits (of one half if halves have factors).
    let most = match B::BITS {
        4 => 8,
        2 | 3 | 5 => 4,
        6 => 2,
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
        let factor = if !B::HAS_FACTORS {
            _mm256_set1_epi16(1)
        } else if first < BLOCK / 8 {
            _mm256_blend_epi16::<0xAA>(header.factors, _mm256_slli_epi32::<16>(header.factors))
        } else {
            _mm256_blend_epi16::<0x55>(header.factors, _mm256_srli_epi32::<16>(header.factors))
        };
        for (sum, short) in sums.iter_mut().zip(short) {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(short, factor));
        }
    }
    sums
}

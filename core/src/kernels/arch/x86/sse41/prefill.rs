//! Prefill: rows are unpacked once into a panel, which is multiplied with a few tokens at a time.

use core::arch::x86_64::*;

use super::super::{Ahead, MAX_PANEL_ROWS, Panel, Weights, parts};
use super::{Chunk, Header, ROWS, four_rows, header, pairs, term};
use crate::quant::{BLOCK, Q8Activation};

/// Transposes a 4 x 4 matrix of 32-bit values.
#[inline]
#[target_feature(enable = "sse4.1")]
fn transpose([a, b, c, d]: [__m128i; 4]) -> [__m128i; 4] {
    let ab = (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
    let cd = (_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
    [
        _mm_unpacklo_epi64(ab.0, cd.0),
        _mm_unpackhi_epi64(ab.0, cd.0),
        _mm_unpacklo_epi64(ab.1, cd.1),
        _mm_unpackhi_epi64(ab.1, cd.1),
    ]
}

/// Implements [`super::super::Kernels::fill`].
#[target_feature(enable = "sse4.1,ssse3")]
pub(super) fn fill<B: Weights>(blocks: &[B], panel: &mut Panel<'_>) {
    let row_blocks = blocks.len() * parts::<B>() / ROWS;
    let (quants, _) = panel.quants.as_chunks_mut::<{ ROWS * BLOCK }>();
    let (scales, _) = panel.scales.as_chunks_mut::<{ ROWS * 2 }>();
    assert!(
        row_blocks * ROWS == blocks.len() * parts::<B>()
            && quants.len() == row_blocks
            && scales.len() == row_blocks
    );
    for (block, (quants, scales)) in quants.iter_mut().zip(scales).enumerate() {
        let ahead = Ahead::<B, ROWS, 1>::new(blocks, block);
        let (rows, part) = four_rows(blocks, row_blocks, block);
        let (mut low, mut high) = ([_mm_setzero_si128(); 4], [_mm_setzero_si128(); 4]);
        for (j, row) in rows.into_iter().enumerate() {
            // SAFETY: contract 2: four rows of `row_blocks` blocks each are in `blocks` (asserted
            // above), and block < row_blocks; this function has the features.
            (low[j], high[j]) = unsafe { <B as Chunk>::unpack(row, part) };
            ahead.after_row(j);
        }
        ahead.after_four(0);
        let columns = transpose(low).into_iter().chain(transpose(high));
        for (j, columns) in columns.enumerate() {
            // SAFETY: contract 5 (16 bytes at 16·j, j < 8, of 128).
            unsafe { _mm_storeu_si128(quants.as_mut_ptr().add(16 * j).cast(), columns) };
        }
        // SAFETY: as above; contract 5 (8 floats).
        unsafe {
            let [first, second] = <B as Chunk>::numbers(rows, part);
            _mm_storeu_si128(scales.as_mut_ptr().cast(), first);
            _mm_storeu_si128(scales.as_mut_ptr().add(ROWS).cast(), second);
        }
    }
}

/// Implements [`super::super::Kernels::tile`].
#[target_feature(enable = "sse4.1,ssse3")]
pub(super) fn tile<B: Weights, const T: usize>(
    panel: &Panel<'_>,
    x: &[Q8Activation],
) -> [[f32; MAX_PANEL_ROWS]; T] {
    let (quants, _) = panel.quants.as_chunks::<{ ROWS * BLOCK }>();
    let (scales, _) = panel.scales.as_chunks::<{ ROWS * 2 }>();
    let row_blocks = quants.len();
    assert!(x.len() == T * row_blocks && scales.len() == row_blocks);
    let mut acc = [_mm_setzero_ps(); T];
    for (block, (quants, scales)) in quants.iter().zip(scales).enumerate() {
        // SAFETY: token t < T of `row_blocks` activations each, block < row_blocks.
        let x = |t| unsafe { x.get_unchecked(t * row_blocks + block) };
        let x: [&Q8Activation; T] = core::array::from_fn(x);
        // SAFETY: contract 5 (8 floats).
        let numbers = unsafe {
            [
                _mm_loadu_si128(scales.as_ptr().cast()),
                _mm_loadu_si128(scales.as_ptr().add(ROWS).cast()),
            ]
        };
        let header = header::<B>(numbers);
        let sums = sums::<B, T>(quants, x, &header);
        for t in 0..T {
            acc[t] = _mm_add_ps(acc[t], term::<B>(&header, sums[t], x[t]));
        }
    }
    let mut out = [[0.0; MAX_PANEL_ROWS]; T];
    for (out, acc) in out.iter_mut().zip(acc) {
        // SAFETY: contract 5 (4 of the floats).
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), acc) };
    }
    out
}

/// Sums of products of one block of 4 rows and `T` tokens.
#[inline]
#[target_feature(enable = "sse4.1,ssse3")]
fn sums<B: Weights, const T: usize>(
    quants: &[u8; ROWS * BLOCK],
    x: [&Q8Activation; T],
    header: &Header,
) -> [__m128i; T] {
    // Number of sums of pairs that fit 16 bits (of one half if halves have factors).
    let most = match B::BITS {
        4 => 8,
        2 | 3 | 5 => 4,
        6 => 2,
        _ => 1,
    };
    let mut sums = [_mm_setzero_si128(); T];
    for first in (0..BLOCK / 4).step_by(most) {
        let mut short = [_mm_setzero_si128(); T];
        for j in first..first + most {
            // SAFETY: contract 5 (16 bytes at 16·j, j < 8, of 128).
            let w = unsafe { _mm_loadu_si128(quants.as_ptr().add(16 * j).cast()) };
            for (short, x) in short.iter_mut().zip(x) {
                let four = x.q.as_chunks::<4>().0[j].map(|q| q as u8);
                let x = _mm_set1_epi32(i32::from_le_bytes(four));
                *short = _mm_add_epi16(*short, pairs::<B>(w, x));
            }
        }
        let factor = if !B::HAS_FACTORS {
            _mm_set1_epi16(1)
        } else if first < BLOCK / 8 {
            _mm_blend_epi16::<0xAA>(header.factors, _mm_slli_epi32::<16>(header.factors))
        } else {
            _mm_blend_epi16::<0x55>(header.factors, _mm_srli_epi32::<16>(header.factors))
        };
        for (sum, short) in sums.iter_mut().zip(short) {
            *sum = _mm_add_epi32(*sum, _mm_madd_epi16(short, factor));
        }
    }
    sums
}

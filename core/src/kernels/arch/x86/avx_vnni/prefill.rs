//! Prefill: AVX2's panels, two groups at a time.

use core::arch::x86_64::*;
use core::ops::Range;

pub(super) use super::super::avx2::prefill::fill;

use super::super::avx2::prefill::load_header;
use super::super::avx2::{ActivationHead, Header, ROWS, term, weigh};
use super::super::{MAX_PANEL_ROWS, Panel, Weights};
use super::{GROUPS, unsigned, unsigned_header};
use crate::quant::{BLOCK, Q8Activation};

/// Implements [`super::super::Kernels::tile`].
#[target_feature(enable = "avx2,f16c,avxvnni")]
pub(super) fn tile<B: Weights, const T: usize>(
    panel: &Panel<'_>,
    x: &[Q8Activation],
) -> [[f32; MAX_PANEL_ROWS]; T] {
    let (quants, _) = panel.quants.as_chunks::<{ ROWS * BLOCK }>();
    let (scales, _) = panel.scales.as_chunks::<{ ROWS * 2 }>();
    let row_blocks = quants.len() / GROUPS;
    assert!(
        x.len() == T * row_blocks
            && quants.len() == GROUPS * row_blocks
            && scales.len() == quants.len()
    );
    let mut acc = [[_mm256_setzero_ps(); GROUPS]; T];
    for block in 0..row_blocks {
        // SAFETY: token t < T of `row_blocks` activations each, block < row_blocks.
        let x = |t: usize| unsafe { x.get_unchecked(t * row_blocks + block) };
        let x: [&Q8Activation; T] = core::array::from_fn(x);
        // SAFETY: group g < GROUPS of `row_blocks` blocks each in both, block < row_blocks.
        let (quants, scales) = unsafe {
            (
                [0, 1].map(|g: usize| quants.get_unchecked(g * row_blocks + block)),
                [0, 1].map(|g: usize| scales.get_unchecked(g * row_blocks + block)),
            )
        };
        let headers = [
            unsigned_header::<B>(load_header(scales[0])),
            unsigned_header::<B>(load_header(scales[1])),
        ];
        let sums = if B::HAS_FACTORS {
            weighed_sums::<B, T>(quants, x, &headers)
        } else {
            sums::<B, T>(0..BLOCK / 4, quants, x)
        };
        for t in 0..T {
            let head = ActivationHead::of_block(x[t]);
            for (g, header) in headers.iter().enumerate() {
                let term = term::<B>(header, &head, sums[t][g]);
                acc[t][g] = _mm256_add_ps(acc[t][g], term);
            }
        }
    }
    let mut out = [[0.0; MAX_PANEL_ROWS]; T];
    for (out, acc) in out.iter_mut().zip(acc) {
        for (out, acc) in out.as_chunks_mut::<ROWS>().0.iter_mut().zip(acc) {
            // SAFETY: 8 floats.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), acc) };
        }
    }
    out
}

/// Sums of products of the given fours of columns of one block of both groups and `T` tokens.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn sums<B: Weights, const T: usize>(
    fours: Range<usize>,
    quants: [&[u8; ROWS * BLOCK]; GROUPS],
    x: [&Q8Activation; T],
) -> [[__m256i; GROUPS]; T] {
    let mut sums = [[_mm256_setzero_si256(); GROUPS]; T];
    for j in fours {
        // SAFETY: 32 bytes at 32·j, j < 8, of 256.
        let w = unsafe {
            [
                unsigned::<B>(_mm256_loadu_si256(quants[0].as_ptr().add(32 * j).cast())),
                unsigned::<B>(_mm256_loadu_si256(quants[1].as_ptr().add(32 * j).cast())),
            ]
        };
        for (sums, x) in sums.iter_mut().zip(x) {
            let (four, _) = x.q.as_chunks::<4>();
            let four = _mm256_set1_epi32(i32::from_le_bytes(four[j].map(|q| q as u8)));
            sums[0] = _mm256_dpbusd_avx_epi32(sums[0], w[0], four);
            sums[1] = _mm256_dpbusd_avx_epi32(sums[1], w[1], four);
        }
    }
    sums
}

/// Does the same as [`sums`] for a whole block, with each half times its factors.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn weighed_sums<B: Weights, const T: usize>(
    quants: [&[u8; ROWS * BLOCK]; GROUPS],
    x: [&Q8Activation; T],
    headers: &[Header; GROUPS],
) -> [[__m256i; GROUPS]; T] {
    let mut low = sums::<B, T>(0..BLOCK / 8, quants, x);
    let high = sums::<B, T>(BLOCK / 8..BLOCK / 4, quants, x);
    for (low, high) in low.iter_mut().zip(high) {
        for g in 0..GROUPS {
            low[g] = weigh(&headers[g], [low[g], high[g]]);
        }
    }
    low
}

//! Prefill: rows are unpacked once into a panel, which is multiplied with a few tokens at a time.

use core::arch::x86_64::*;

use super::super::{Ahead, MAX_PANEL_ROWS, Panel, Weights, parts, sums_of};
use super::{CHUNK, Chunk, GROUPS, Header, ROWS, header, transpose_lanes};
use crate::quant::{BLOCK, Q8Activation};

/// Transposes the 4 x 4 matrix of 32-bit values in each 128-bit lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_in_lanes([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let ab = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab.0, cd.0),
        _mm512_unpackhi_epi64(ab.0, cd.0),
        _mm512_unpacklo_epi64(ab.1, cd.1),
        _mm512_unpackhi_epi64(ab.1, cd.1),
    ]
}

/// Implements [`super::super::Kernels::fill`].
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn fill<B: Weights>(blocks: &[B], panel: &mut Panel<'_>) {
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
        let masks = <B as Chunk>::masks(quants.len());
        let zero = [_mm512_setzero_si512(); 4];
        // Registers of four rows each: [columns / 4][rows / 4], block `k` in 128-bit lane `k`.
        let (mut columns, mut scale, mut min) = ([zero; 8], zero, zero);
        for i in 0..4 {
            // SAFETY: rows 4i to 4i + 3 < 16 of `row_blocks` blocks each are in `blocks`; the masks
            // end where the row does.
            let rows = unsafe {
                <B as Chunk>::load_four::<false>(blocks, row_blocks, 4 * i, CHUNK * chunk, &masks)
            };
            let (mut low, mut high) = (zero, zero);
            for j in 0..4 {
                // SAFETY: this function has the features, and `blocks` is still borrowed.
                (low[j], high[j]) = unsafe { <B as Chunk>::unpack(&rows[j]) };
                ahead.after_row(4 * i + j);
            }
            ahead.after_four(i);
            let (low, high) = (transpose_in_lanes(low), transpose_in_lanes(high));
            for j in 0..4 {
                columns[j][i] = low[j];
                columns[j + 4][i] = high[j];
            }
            // SAFETY: as above.
            [scale[i], min[i]] = unsafe { <B as Chunk>::headers(&rows) };
        }
        for (j, columns) in columns.into_iter().enumerate() {
            for (quants, rows) in quants.iter_mut().zip(transpose_lanes(columns)) {
                // SAFETY: 64 bytes at 64·j, j < 8, of 512.
                unsafe { _mm512_storeu_si512(quants.as_mut_ptr().add(64 * j).cast(), rows) };
            }
        }
        for (scales, (scale, min)) in scales
            .iter_mut()
            .zip(transpose_lanes(scale).into_iter().zip(transpose_lanes(min)))
        {
            // SAFETY: 32 floats.
            unsafe {
                _mm512_storeu_si512(scales.as_mut_ptr().cast(), scale);
                _mm512_storeu_si512(scales.as_mut_ptr().add(ROWS).cast(), min);
            }
        }
    }
}

/// Implements [`super::super::Kernels::tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
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
    let mut acc = [[_mm512_setzero_ps(); GROUPS]; T];
    for block in 0..row_blocks {
        // SAFETY: token t < T of `row_blocks` activations each, block < row_blocks.
        let x = |t: usize| unsafe { x.get_unchecked(t * row_blocks + block) };
        // SAFETY: group g < GROUPS of `row_blocks` blocks each in both, block < row_blocks.
        let (quants, scales) = unsafe {
            (
                [0, 1].map(|g: usize| quants.get_unchecked(g * row_blocks + block)),
                [0, 1].map(|g: usize| scales.get_unchecked(g * row_blocks + block)),
            )
        };
        let mut headers = [[_mm512_setzero_si512(); 2]; GROUPS];
        for (header, scales) in headers.iter_mut().zip(scales) {
            // SAFETY: 32 floats.
            *header = unsafe {
                [
                    _mm512_loadu_si512(scales.as_ptr().cast()),
                    _mm512_loadu_si512(scales.as_ptr().add(ROWS).cast()),
                ]
            };
        }
        let x: [&Q8Activation; T] = core::array::from_fn(x);
        let headers = [header::<B>(headers[0]), header::<B>(headers[1])];
        let sums = if B::HAS_FACTORS {
            weighed_sums::<B, T>(quants, x, &headers)
        } else {
            sums::<B, T>(quants, x)
        };
        for t in 0..T {
            for (g, header) in headers.iter().enumerate() {
                let x_scale = _mm512_set1_ps(x[t].scale);
                let scale = _mm512_mul_ps(header.scale, x_scale);
                let mut term = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sums[t][g]));
                if B::HAS_MIN {
                    let mut scaled_sum = _mm512_set1_ps(x[t].scaled_sum);
                    if B::HAS_FACTORS {
                        let sum =
                            _mm512_madd_epi16(header.min_sums, _mm512_set1_epi32(sums_of(x[t])));
                        scaled_sum = _mm512_mul_ps(x_scale, _mm512_cvtepi32_ps(sum));
                    }
                    term = _mm512_add_ps(term, _mm512_mul_ps(header.min, scaled_sum));
                }
                acc[t][g] = _mm512_add_ps(acc[t][g], term);
            }
        }
    }
    let mut out = [[0.0; MAX_PANEL_ROWS]; T];
    for (out, acc) in out.iter_mut().zip(acc) {
        for (out, acc) in out.as_chunks_mut::<ROWS>().0.iter_mut().zip(acc) {
            // SAFETY: 16 floats.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), acc) };
        }
    }
    out
}

/// Sums of products of one block of both groups and `T` tokens.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn sums<B: Weights, const T: usize>(
    quants: [&[u8; ROWS * BLOCK]; GROUPS],
    x: [&Q8Activation; T],
) -> [[__m512i; GROUPS]; T] {
    let mut sums = [[_mm512_setzero_si512(); GROUPS]; T];
    if B::BIAS != 0 {
        // The same for both groups.
        let unbias = _mm512_set1_epi32(-B::BIAS & 0xFFFF);
        for (sums, x) in sums.iter_mut().zip(x) {
            *sums = [_mm512_dpwssd_epi32(sums[0], unbias, _mm512_set1_epi32(sums_of(x))); GROUPS];
        }
    }
    for j in 0..BLOCK / 4 {
        add_products(j, quants, x, &mut sums);
    }
    sums
}

/// Does the same as [`sums`], with each half times its factors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn weighed_sums<B: Weights, const T: usize>(
    quants: [&[u8; ROWS * BLOCK]; GROUPS],
    x: [&Q8Activation; T],
    headers: &[Header; GROUPS],
) -> [[__m512i; GROUPS]; T] {
    let mut total = [[_mm512_setzero_si512(); GROUPS]; T];
    if B::BIAS != 0 {
        for (total, x) in total.iter_mut().zip(x) {
            let x_sums = _mm512_set1_epi32(sums_of(x));
            for g in 0..GROUPS {
                total[g] = _mm512_dpwssd_epi32(total[g], headers[g].unbias, x_sums);
            }
        }
    }
    for half in 0..2 {
        let mut sums = [[_mm512_setzero_si512(); GROUPS]; T];
        for j in BLOCK / 8 * half..BLOCK / 8 * (half + 1) {
            add_products(j, quants, x, &mut sums);
        }
        for (total, sums) in total.iter_mut().zip(sums) {
            for g in 0..GROUPS {
                let weighed = _mm512_mullo_epi32(sums[g], headers[g].factors[half]);
                total[g] = _mm512_add_epi32(total[g], weighed);
            }
        }
    }
    total
}

/// Adds the products of columns `4j..4j + 4`.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn add_products<const T: usize>(
    j: usize,
    quants: [&[u8; ROWS * BLOCK]; GROUPS],
    x: [&Q8Activation; T],
    sums: &mut [[__m512i; GROUPS]; T],
) {
    let (first, second) = (quants[0].as_chunks::<64>().0, quants[1].as_chunks::<64>().0);
    // SAFETY: 64 bytes each.
    let w = unsafe {
        [
            _mm512_loadu_si512(first[j].as_ptr().cast()),
            _mm512_loadu_si512(second[j].as_ptr().cast()),
        ]
    };
    for (sums, x) in sums.iter_mut().zip(x) {
        let (four, _) = x.q.as_chunks::<4>();
        let four = _mm512_set1_epi32(i32::from_le_bytes(four[j].map(|q| q as u8)));
        sums[0] = _mm512_dpbusd_epi32(sums[0], w[0], four);
        sums[1] = _mm512_dpbusd_epi32(sums[1], w[1], four);
    }
}

//! Float weights and f32 activations: the reference's sixteen partial sums are one register.

use core::arch::x86_64::*;
use core::array;

use super::super::{FLOAT_ROWS, Float, fold_rows, padded};
use crate::quant::Format;

/// Elements of a step.
const STEP: usize = 16;

/// Loads 16 elements from `w` on, widened exactly.
///
/// # Safety
/// 16 elements from `w` on can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn widen<W: Float>(w: *const W) -> __m512 {
    // SAFETY: contract 2 (16 elements of a row); a format is as long as the elements read for it.
    unsafe {
        match W::FORMAT {
            Format::F16 => _mm512_cvtph_ps(_mm256_loadu_si256(w.cast())),
            Format::BF16 => {
                let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(w.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
            }
            _ => _mm512_loadu_ps(w.cast()),
        }
    }
}

/// Implements [`super::super::Kernels::dots`].
#[target_feature(enable = "avx512f")]
pub(super) fn dots<W: Float, const T: usize>(w: &[W], x: &[f32], out: &mut [[f32; FLOAT_ROWS]; T]) {
    let cols = x.len() / T;
    assert!(x.len() == T * cols && w.len() == FLOAT_ROWS * cols);
    let whole = cols / STEP * STEP;
    let mut acc = [[_mm512_setzero_ps(); FLOAT_ROWS]; T];
    for i in (0..whole).step_by(STEP) {
        // SAFETY: FLOAT_ROWS rows of `cols` elements each, T tokens of as many; i + 16 <= cols.
        unsafe {
            add(
                &mut acc,
                (w.as_ptr().add(i), cols),
                (x.as_ptr().add(i), cols),
            )
        };
    }
    if whole < cols {
        let w: [[W; STEP]; FLOAT_ROWS] =
            array::from_fn(|r| padded(&w[r * cols + whole..][..cols - whole], W::ZERO));
        let x: [[f32; STEP]; T] =
            array::from_fn(|t| padded(&x[t * cols + whole..][..cols - whole], 0.0));
        // SAFETY: FLOAT_ROWS rows of 16 elements each, T tokens of as many.
        unsafe {
            add(
                &mut acc,
                (w.as_flattened().as_ptr(), STEP),
                (x.as_flattened().as_ptr(), STEP),
            )
        };
    }
    for (acc, out) in acc.iter().zip(out) {
        let mut rows = [_mm_setzero_ps(); FLOAT_ROWS];
        for (acc, row) in acc.iter().zip(&mut rows) {
            let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(*acc)));
            let eight = _mm256_add_ps(_mm512_castps512_ps256(*acc), upper);
            let upper = _mm256_extractf128_ps::<1>(eight);
            *row = _mm_add_ps(_mm256_castps256_ps128(eight), upper);
        }
        *out = fold_rows(rows);
    }
}

/// Adds the products of 16 elements of each row, the rows `w.1` elements apart, and of each token,
/// `x.1` apart.
///
/// # Safety
/// 16 elements of each can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add<W: Float, const T: usize>(
    acc: &mut [[__m512; FLOAT_ROWS]; T],
    w: (*const W, usize),
    x: (*const f32, usize),
) {
    let mut w16 = [_mm512_setzero_ps(); FLOAT_ROWS];
    for (r, w16) in w16.iter_mut().enumerate() {
        // SAFETY: as the caller says.
        *w16 = unsafe { widen(w.0.add(r * w.1)) };
    }
    for (t, acc) in acc.iter_mut().enumerate() {
        // SAFETY: as the caller says.
        let x = unsafe { _mm512_loadu_ps(x.0.add(t * x.1)) };
        for (acc, w) in acc.iter_mut().zip(w16) {
            *acc = _mm512_add_ps(*acc, _mm512_mul_ps(w, x));
        }
    }
}

//! Float weights and f32 activations: the reference's sixteen partial sums are two registers.

use core::arch::x86_64::*;
use core::array;

use super::super::{FLOAT_ROWS, Float, fold_rows, padded};
use crate::quant::Format;

/// Elements of a step.
const STEP: usize = 16;

/// Loads 8 elements from `w` on, widened exactly.
///
/// # Safety
/// 8 elements from `w` on can be read.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn widen<W: Float>(w: *const W) -> __m256 {
    // SAFETY: contract 2 (8 elements of a row); a format is as long as the elements read for it.
    unsafe {
        match W::FORMAT {
            Format::F16 => _mm256_cvtph_ps(_mm_loadu_si128(w.cast())),
            Format::BF16 => {
                let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(w.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
            }
            _ => _mm256_loadu_ps(w.cast()),
        }
    }
}

/// Implements [`super::super::Kernels::dots`].
#[target_feature(enable = "avx2,f16c")]
pub(in super::super) fn dots<W: Float, const T: usize>(
    w: &[W],
    x: &[f32],
    out: &mut [[f32; FLOAT_ROWS]; T],
) {
    let cols = x.len() / T;
    assert!(x.len() == T * cols && w.len() == FLOAT_ROWS * cols);
    let whole = cols / STEP * STEP;
    for (x, out) in x.chunks_exact(cols).zip(out) {
        let mut acc = [[_mm256_setzero_ps(); 2]; FLOAT_ROWS];
        for i in (0..whole).step_by(STEP) {
            // SAFETY: FLOAT_ROWS rows of `cols` elements each, and as many activations; i + 16 <=
            // cols.
            unsafe { add(&mut acc, (w.as_ptr().add(i), cols), x.as_ptr().add(i)) };
        }
        if whole < cols {
            let w: [[W; STEP]; FLOAT_ROWS] =
                array::from_fn(|r| padded(&w[r * cols + whole..][..cols - whole], W::ZERO));
            let x = padded(&x[whole..], 0.0);
            // SAFETY: FLOAT_ROWS rows of 16 elements each, and 16 activations.
            unsafe { add(&mut acc, (w.as_flattened().as_ptr(), STEP), x.as_ptr()) };
        }
        let mut rows = [_mm_setzero_ps(); FLOAT_ROWS];
        for (acc, row) in acc.iter().zip(&mut rows) {
            let eight = _mm256_add_ps(acc[0], acc[1]);
            let upper = _mm256_extractf128_ps::<1>(eight);
            *row = _mm_add_ps(_mm256_castps256_ps128(eight), upper);
        }
        *out = fold_rows(rows);
    }
}

/// Adds the products of 16 elements of each row, the rows `w.1` elements apart, and of a token.
///
/// # Safety
/// 16 elements of each can be read.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn add<W: Float>(acc: &mut [[__m256; 2]; FLOAT_ROWS], w: (*const W, usize), x: *const f32) {
    for half in 0..2 {
        // SAFETY: as the caller says.
        let x = unsafe { _mm256_loadu_ps(x.add(8 * half)) };
        for (r, acc) in acc.iter_mut().enumerate() {
            // SAFETY: as the caller says.
            let w = unsafe { widen(w.0.add(r * w.1 + 8 * half)) };
            acc[half] = _mm256_add_ps(acc[half], _mm256_mul_ps(w, x));
        }
    }
}

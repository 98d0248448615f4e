//! Float weights and f32 activations: the reference's sixteen partial sums are four registers.

use core::arch::x86_64::*;

use super::super::{FLOAT_ROWS, Float, fold_rows, padded};
use super::half::widen_lanes;
use crate::quant::Format;

/// Elements of a step.
const STEP: usize = 16;

/// Loads 4 elements from `w` on, widened exactly.
///
/// # Safety
/// 4 elements from `w` on can be read.
#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn widen<W: Float>(w: *const W) -> __m128 {
    // SAFETY: contract 2 (4 elements of a row); a format is as long as the elements read for it.
    unsafe {
        match W::FORMAT {
            Format::F16 => widen_lanes(_mm_cvtepu16_epi32(_mm_loadl_epi64(w.cast()))),
            Format::BF16 => {
                let halves = _mm_cvtepu16_epi32(_mm_loadl_epi64(w.cast()));
                _mm_castsi128_ps(_mm_slli_epi32::<16>(halves))
            }
            _ => _mm_loadu_ps(w.cast()),
        }
    }
}

/// Implements [`super::super::Kernels::dots`].
#[target_feature(enable = "sse4.1")]
pub(super) fn dots<W: Float, const T: usize>(w: &[W], x: &[f32], out: &mut [[f32; FLOAT_ROWS]; T]) {
    let cols = x.len() / T;
    assert!(x.len() == T * cols && w.len() == FLOAT_ROWS * cols);
    let whole = cols / STEP * STEP;
    for (x, out) in x.chunks_exact(cols).zip(out) {
        let rest = padded(&x[whole..], 0.0);
        let mut rows = [_mm_setzero_ps(); FLOAT_ROWS];
        for (w, row) in w.chunks_exact(cols).zip(&mut rows) {
            let mut acc = [_mm_setzero_ps(); 4];
            for i in (0..whole).step_by(STEP) {
                // SAFETY: a row of `cols` elements, and as many activations; i + 16 <= cols.
                unsafe { add(&mut acc, w.as_ptr().add(i), x.as_ptr().add(i)) };
            }
            if whole < cols {
                let w = padded(&w[whole..], W::ZERO);
                // SAFETY: 16 elements each.
                unsafe { add(&mut acc, w.as_ptr(), rest.as_ptr()) };
            }
            let [a, b, c, d] = acc;
            *row = _mm_add_ps(_mm_add_ps(a, c), _mm_add_ps(b, d));
        }
        *out = fold_rows(rows);
    }
}

/// Adds the products of 16 elements of a row and of a token.
///
/// # Safety
/// 16 elements of each can be read.
#[inline]
#[target_feature(enable = "sse4.1")]
unsafe fn add<W: Float>(acc: &mut [__m128; 4], w: *const W, x: *const f32) {
    for (quarter, acc) in acc.iter_mut().enumerate() {
        // SAFETY: as the caller says.
        let (w, x) = unsafe { (widen(w.add(4 * quarter)), _mm_loadu_ps(x.add(4 * quarter))) };
        *acc = _mm_add_ps(*acc, _mm_mul_ps(w, x));
    }
}

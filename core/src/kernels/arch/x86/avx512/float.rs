//! Float weights and f32 activations: the reference's sixteen partial sums are one register.

use core::arch::x86_64::*;

use super::super::{FLOAT_ROWS, Float, finish};
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
        let mut w16 = [_mm512_setzero_ps(); FLOAT_ROWS];
        for (r, w16) in w16.iter_mut().enumerate() {
            // SAFETY: row r < FLOAT_ROWS of `cols` elements each; i + 16 <= cols.
            *w16 = unsafe { widen(w.as_ptr().add(r * cols + i)) };
        }
        for (t, acc) in acc.iter_mut().enumerate() {
            // SAFETY: token t < T of `cols` activations each; i + 16 <= cols.
            let x = unsafe { _mm512_loadu_ps(x.as_ptr().add(t * cols + i)) };
            for (acc, w) in acc.iter_mut().zip(w16) {
                *acc = _mm512_add_ps(*acc, _mm512_mul_ps(w, x));
            }
        }
    }
    for (t, out) in out.iter_mut().enumerate() {
        for (r, out) in out.iter_mut().enumerate() {
            let mut sums = [0.0; STEP];
            // SAFETY: 16 floats.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), acc[t][r]) };
            *out = finish(
                sums,
                &w[r * cols + whole..][..cols - whole],
                &x[t * cols + whole..][..cols - whole],
            );
        }
    }
}

//! Float weights and f32 activations: the reference's sixteen partial sums are four registers.

use core::arch::x86_64::*;

use super::super::{FLOAT_ROWS, Float, finish};
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
        for (r, out) in out.iter_mut().enumerate() {
            let mut acc = [_mm_setzero_ps(); 4];
            for i in (0..whole).step_by(STEP) {
                for (quarter, acc) in acc.iter_mut().enumerate() {
                    let at = i + 4 * quarter;
                    // SAFETY: row r < FLOAT_ROWS of `cols` elements each; at + 4 <= cols.
                    let (w, x) = unsafe {
                        (
                            widen(w.as_ptr().add(r * cols + at)),
                            _mm_loadu_ps(x.as_ptr().add(at)),
                        )
                    };
                    *acc = _mm_add_ps(*acc, _mm_mul_ps(w, x));
                }
            }
            let mut sums = [0.0; STEP];
            for (quarter, acc) in acc.into_iter().enumerate() {
                // SAFETY: contract 5 (4 of 16 floats from 4·quarter on).
                unsafe { _mm_storeu_ps(sums.as_mut_ptr().add(4 * quarter), acc) };
            }
            *out = finish(sums, &w[r * cols + whole..][..cols - whole], &x[whole..]);
        }
    }
}

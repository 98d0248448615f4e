//! Float weights and f32 activations: the reference's sixteen partial sums are two registers.

use core::arch::x86_64::*;

use super::super::{FLOAT_ROWS, Float, finish};
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
            for (r, acc) in acc.iter_mut().enumerate() {
                for (half, acc) in acc.iter_mut().enumerate() {
                    let at = i + 8 * half;
                    // SAFETY: row r < FLOAT_ROWS of `cols` elements each; at + 8 <= cols.
                    let (w, x) = unsafe {
                        (
                            widen(w.as_ptr().add(r * cols + at)),
                            _mm256_loadu_ps(x.as_ptr().add(at)),
                        )
                    };
                    *acc = _mm256_add_ps(*acc, _mm256_mul_ps(w, x));
                }
            }
        }
        for (r, out) in out.iter_mut().enumerate() {
            let mut sums = [0.0; STEP];
            // SAFETY: 16 floats.
            unsafe {
                _mm256_storeu_ps(sums.as_mut_ptr(), acc[r][0]);
                _mm256_storeu_ps(sums.as_mut_ptr().add(8), acc[r][1]);
            }
            *out = finish(sums, &w[r * cols + whole..][..cols - whole], &x[whole..]);
        }
    }
}

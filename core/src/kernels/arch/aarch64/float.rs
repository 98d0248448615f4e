//! f32 activations, and float weights.

use core::arch::aarch64::*;

use super::Neon;
use crate::arena::Columns;
use crate::kernels::product::{ProductF32, view};
use crate::kernels::scalar;
use crate::quant::{Bf16, F16, F32, with_block};

/// Number of partial sums in the contract's order: four registers of four.
const SUMS: usize = 16;

/// An element type that loads sixteen elements at a time.
trait Float: Copy {
    /// Loads 16 elements, widened exactly.
    ///
    /// # Safety
    /// 16 elements at `p` are readable and the processor has NEON.
    unsafe fn sixteen(p: *const Self) -> [float32x4_t; 4];

    /// This element, widened exactly.
    fn one(self) -> f32;
}

impl Float for f32 {
    #[inline(always)]
    unsafe fn sixteen(p: *const f32) -> [float32x4_t; 4] {
        // SAFETY: contracts 1 and 2 (NEON; 16 elements of a row).
        unsafe { [0, 4, 8, 12].map(|i| vld1q_f32(p.add(i))) }
    }

    fn one(self) -> f32 {
        self
    }
}

impl Float for F32 {
    #[inline(always)]
    unsafe fn sixteen(p: *const F32) -> [float32x4_t; 4] {
        // SAFETY: contracts 1 and 2 (NEON; 16 elements of a row); a load of bytes takes any
        // alignment.
        unsafe { [0, 4, 8, 12].map(|i| vreinterpretq_f32_u8(vld1q_u8(p.add(i).cast()))) }
    }

    fn one(self) -> f32 {
        self.to_f32()
    }
}

impl Float for F16 {
    #[inline(always)]
    unsafe fn sixteen(p: *const F16) -> [float32x4_t; 4] {
        // SAFETY: contracts 1 and 2 (NEON; 16 elements of a row); a load of bytes takes any
        // alignment.
        unsafe {
            let [a, b] = [0, 8].map(|i| vreinterpretq_f16_u8(vld1q_u8(p.add(i).cast())));
            let [low_a, low_b] = [vcvt_f32_f16(vget_low_f16(a)), vcvt_f32_f16(vget_low_f16(b))];
            [low_a, vcvt_high_f32_f16(a), low_b, vcvt_high_f32_f16(b)]
        }
    }

    fn one(self) -> f32 {
        self.to_f32()
    }
}

impl Float for Bf16 {
    #[inline(always)]
    unsafe fn sixteen(p: *const Bf16) -> [float32x4_t; 4] {
        // SAFETY: contracts 1 and 2 (NEON; 16 elements of a row); a load of bytes takes any
        // alignment. Zeros interleaved below are the lower halves.
        unsafe {
            let zero = vdupq_n_u16(0);
            let [a, b] = [0, 8].map(|i| vreinterpretq_u16_u8(vld1q_u8(p.add(i).cast())));
            [
                vzip1q_u16(zero, a),
                vzip2q_u16(zero, a),
                vzip1q_u16(zero, b),
                vzip2q_u16(zero, b),
            ]
            .map(|x| vreinterpretq_f32_u16(x))
        }
    }

    fn one(self) -> f32 {
        self.to_f32()
    }
}

/// Computes a product with f32 activations for every format. Quantised rows are dequantised one at
/// a time into the scratch.
pub(super) fn product_f32(isa: Neon, product: ProductF32<'_, '_>) {
    let (w, x, out) = (product.weights, product.activations, product.out);
    with_block!(w.format();
        float B => multiply_rows(isa, w.blocks::<B>(product.rows), w.cols(), x, out);
        quantized _B => {
            let row = view::<f32>(product.scratch, w.cols());
            for (i, r) in product.rows.enumerate() {
                w.dequantize_row(r, row);
                multiply(isa, row, x, i, out);
            }
        }
    );
}

/// Multiplies rows of `cols` elements.
fn multiply_rows<W: Float>(isa: Neon, w: &[W], cols: usize, x: &[f32], out: &mut Columns<'_, f32>) {
    for i in 0..out.width() {
        multiply(isa, &w[i * cols..][..cols], x, i, out);
    }
}

/// Multiplies one row and every token of `x` into column `column` of `out`.
fn multiply<W: Float>(isa: Neon, w: &[W], x: &[f32], column: usize, out: &mut Columns<'_, f32>) {
    let tokens = out.rows();
    let mut token = 0;
    while token < tokens {
        let x = &x[token * w.len()..];
        token += match tokens - token {
            4.. => store::<W, 4>(isa, w, x, token, column, out),
            2.. => store::<W, 2>(isa, w, x, token, column, out),
            _ => store::<W, 1>(isa, w, x, token, column, out),
        };
    }
}

/// Multiplies one row and the first `T` tokens of `x` into rows `token..` of `out`; returns `T`.
fn store<W: Float, const T: usize>(
    isa: Neon,
    w: &[W],
    x: &[f32],
    token: usize,
    column: usize,
    out: &mut Columns<'_, f32>,
) -> usize {
    let x = core::array::from_fn(|t| &x[t * w.len()..][..w.len()]);
    for (t, sum) in dots::<W, T>(isa, w, x).into_iter().enumerate() {
        out.row_mut(token + t)[column] = sum;
    }
    T
}

/// [`scalar::dot`] of `w` and each of `x`.
///
/// # Panics
/// If the lengths differ.
fn dots<W: Float, const T: usize>(_isa: Neon, w: &[W], x: [&[f32]; T]) -> [f32; T] {
    assert!(x.iter().all(|x| x.len() == w.len()));
    let whole = w.len() - w.len() % SUMS;
    // SAFETY: the token proves that the processor has NEON; every load is of 16 elements from `at`,
    // at most `whole`, on; a row of `sums` holds 16.
    unsafe {
        let mut acc = [[vdupq_n_f32(0.0); 4]; T];
        for at in (0..whole).step_by(SUMS) {
            let w = W::sixteen(w.as_ptr().add(at));
            for (acc, x) in acc.iter_mut().zip(x) {
                let x = f32::sixteen(x.as_ptr().add(at));
                for i in 0..4 {
                    acc[i] = vaddq_f32(acc[i], vmulq_f32(w[i], x[i]));
                }
            }
        }
        core::array::from_fn(|t| {
            let mut sums = [0.0; SUMS];
            for (i, acc) in acc[t].into_iter().enumerate() {
                vst1q_f32(sums.as_mut_ptr().add(4 * i), acc);
            }
            for (sum, (w, x)) in sums.iter_mut().zip(w[whole..].iter().zip(&x[t][whole..])) {
                *sum += w.one() * x;
            }
            scalar::fold(sums)
        })
    }
}

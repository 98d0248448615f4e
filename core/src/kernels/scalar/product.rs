//! Products of weights and activations: the formulas of [`crate::kernels`].

use super::super::product::{ProductF32, ProductQ8, view};
use crate::quant::{BLOCK, Q8Activation, QuantBlock, SUPER_BLOCK, SuperBlock, with_block};

/// Sum of products in the fixed order of [`crate::kernels`]: sixteen partial sums, then a fold of
/// halves (8, 4, 2, 1).
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert!(a.len() == b.len());
    let mut sums = [0.0f32; 16];
    let (a_chunks, b_chunks) = (a.chunks_exact(16), b.chunks_exact(16));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += a * b;
    }
    fold(sums)
}

/// The fold of halves: `s[i] += s[i + 8]`, then 4, 2, 1.
#[inline(always)]
pub(crate) fn fold(s: [f32; 16]) -> f32 {
    // Written out, since the compiler does not unroll loops over halves, which take twice the
    // instructions.
    let s = [
        s[0] + s[8],
        s[1] + s[9],
        s[2] + s[10],
        s[3] + s[11],
        s[4] + s[12],
        s[5] + s[13],
        s[6] + s[14],
        s[7] + s[15],
    ];
    let s = [s[0] + s[4], s[1] + s[5], s[2] + s[6], s[3] + s[7]];
    (s[0] + s[2]) + (s[1] + s[3])
}

/// Computes a product with int8 activations.
///
/// # Panics
/// If the weights are floats, or of a format that this build does not have.
pub(in crate::kernels) fn product_q8(product: ProductQ8<'_, '_>) {
    with_block!(product.weights.format();
        float _B => panic!("float weights take f32 activations");
        simple B => product_simple::<B>(product);
        super_block B => product_super::<B>(product)
    )
}

fn product_simple<B: QuantBlock>(product: ProductQ8<'_, '_>) {
    let row_blocks = product.weights.cols() / BLOCK;
    let blocks = product.weights.blocks::<B>(product.rows);
    for (token, x) in product.activations.chunks_exact(row_blocks).enumerate() {
        for (w, out) in blocks
            .chunks_exact(row_blocks)
            .zip(product.out.row_mut(token))
        {
            *out = dot_q8(w, x);
        }
    }
}

/// One row and one token: the formula of [`crate::kernels`].
pub(in crate::kernels) fn dot_q8<B: QuantBlock>(w: &[B], x: &[Q8Activation]) -> f32 {
    let mut acc = 0.0;
    for (w, x) in w.iter().zip(x) {
        let mut isum = 0;
        for (w, x) in w.quants().iter().zip(x.q) {
            isum += i32::from(*w) * i32::from(x);
        }
        let term = (w.scale() * x.scale) * isum as f32;
        acc += if B::HAS_MIN {
            term + w.min() * x.scaled_sum
        } else {
            term
        };
    }
    acc
}

fn product_super<B: SuperBlock>(product: ProductQ8<'_, '_>) {
    let cols = product.weights.cols();
    let blocks = product.weights.blocks::<B>(product.rows);
    for (token, x) in product.activations.chunks_exact(cols / BLOCK).enumerate() {
        let rows = blocks.chunks_exact(cols / SUPER_BLOCK);
        for (w, out) in rows.zip(product.out.row_mut(token)) {
            *out = dot_super(w, x);
        }
    }
}

/// One row of super-blocks and one token: the formula of [`crate::kernels`].
pub(in crate::kernels) fn dot_super<B: SuperBlock>(w: &[B], x: &[Q8Activation]) -> f32 {
    let mut acc = 0.0;
    for (w, x) in w.iter().zip(x.chunks_exact(SUPER_BLOCK / BLOCK)) {
        for (i, x) in x.iter().enumerate() {
            let part = w.part(i);
            let (mut isum, mut msum) = (0, 0);
            for half in 0..2 {
                let range = BLOCK / 2 * half..BLOCK / 2 * (half + 1);
                let (mut products, mut sum) = (0, 0);
                for (w, x) in part.quants[range.clone()].iter().zip(&x.q[range]) {
                    products += i32::from(*w) * i32::from(*x);
                    sum += i32::from(*x);
                }
                isum += i32::from(part.factors[half]) * products;
                msum += i32::from(part.min_factors[half]) * sum;
            }
            let term = (part.scale * x.scale) * isum as f32;
            acc += if B::HAS_MIN {
                term + part.min * (x.scale * msum as f32)
            } else {
                term
            };
        }
    }
    acc
}

/// Computes a product with f32 activations, for any format: dequantises a row at a time into the
/// scratch.
pub(in crate::kernels) fn product_f32(product: ProductF32<'_, '_>) {
    let w = product.weights;
    let row = view::<f32>(product.scratch, w.cols());
    for (i, r) in product.rows.enumerate() {
        w.dequantize_row(r, row);
        for (token, x) in product.activations.chunks_exact(w.cols()).enumerate() {
            product.out.row_mut(token)[i] = dot(row, x);
        }
    }
}

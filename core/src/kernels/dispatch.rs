//! The choice of the kernel for an instruction set, made only here.

use super::generic::Op;
use super::isa::{Isa, Scalar, on_isa};
use super::product::{Input, Product, ProductF32, ProductQ8};
use super::{Q8Activation, scalar};
use crate::quant::BLOCK;

/// Kernels that an instruction set implements with its own instructions. The default methods are
/// plain Rust, which gives the same bits.
pub(super) trait InstructionSet: Copy {
    /// Evaluates a vector algorithm with the instruction set's lanes, compiled with its features.
    fn run<O: Op>(self, op: O) -> O::Output;

    /// Computes a product with int8 activations, or gives it back if there is no kernel for the
    /// format of its weights.
    fn product_q8<'p, 'c>(self, product: ProductQ8<'p, 'c>) -> Option<ProductQ8<'p, 'c>> {
        Some(product)
    }

    /// Computes a product with f32 activations, or gives it back if there is no kernel for it.
    fn product_f32<'p, 'c>(self, product: ProductF32<'p, 'c>) -> Option<ProductF32<'p, 'c>> {
        Some(product)
    }

    /// Does the same as [`scalar::quantize_activations`], with the same bits.
    fn quantize(self, x: &[f32], out: &mut [Q8Activation]) {
        scalar::quantize_activations(x, out);
    }
}

impl InstructionSet for Scalar {
    fn run<O: Op>(self, op: O) -> O::Output {
        op.eval(self)
    }
}

impl Isa {
    /// Evaluates a vector algorithm.
    #[cfg(not(all(target_arch = "arm", feature = "dsp", not(test))))]
    pub fn run<O: Op>(self, op: O) -> O::Output {
        on_isa!(self, isa => isa.run(op))
    }

    /// Evaluates a vector algorithm. Firmware is built for one processor, and all instruction sets
    /// give the same bits: one instance of each algorithm, whatever is asked for, saves flash.
    #[cfg(all(target_arch = "arm", feature = "dsp", not(test)))]
    pub fn run<O: Op>(self, op: O) -> O::Output {
        #[cfg(feature = "helium")]
        let target = super::isa::Helium::of_target();
        #[cfg(not(feature = "helium"))]
        let target = super::isa::Dsp::of_target();
        target.run(op)
    }
}

/// Computes a [`Product`].
///
/// # Panics
/// If `rows` or the shapes of activations and `out` do not fit the weights, if int8 activations
/// meet float weights, or if the scratch is too small.
pub fn matmul(isa: Isa, product: Product<'_, '_>) {
    let (w, rows, out) = (product.weights, &product.rows, &*product.out);
    assert!(rows.start <= rows.end && rows.end <= w.rows() && out.width() == rows.len());
    if w.cols() == 0 {
        return (0..out.rows()).for_each(|token| product.out.row_mut(token).fill(0.0));
    }
    match product.activations {
        Input::F32(x) => {
            assert!(x.len() == out.rows() * w.cols());
            if let Some(product) = on_isa!(isa, isa => isa.product_f32(product.with(x))) {
                scalar::product_f32(product);
            }
        }
        Input::Q8(x) => {
            assert!(x.len() == out.rows() * (w.cols() / BLOCK));
            if let Some(product) = on_isa!(isa, isa => isa.product_q8(product.with(x))) {
                scalar::product_q8(product);
            }
        }
    }
}

/// Quantises one token's activations `x` to int8 in blocks of 32, with the same bits as
/// [`scalar::quantize_activations`], but faster.
///
/// # Panics
/// If `out` does not have a block for every 32 values of `x`.
pub fn quantize(isa: Isa, x: &[f32], out: &mut [Q8Activation]) {
    assert!(x.len() == out.len() * BLOCK);
    on_isa!(isa, isa => isa.quantize(x, out));
}

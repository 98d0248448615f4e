//! Kernels for 32-bit Arm cores: the DSP extension of Armv7E-M and Armv8-M (also part of every
//! Armv7-A), and the vector extension of Armv8.1-M (Helium).
//!
//! The extensions of such a core are a property of the compilation target that stable Rust does not
//! tell, so the features `dsp` and `helium` of this crate say it. If they are wrong, the assembler
//! refuses the instructions; a program that was built proves them right.

mod columns;
mod dsp;
mod float;
#[cfg(feature = "helium")]
mod helium;
mod lanes;
mod pairs;
mod quantize;
mod rows;

use crate::kernels::dispatch::InstructionSet;
use crate::kernels::generic::Op;
use crate::kernels::isa::Dsp;
#[cfg(feature = "helium")]
use crate::kernels::isa::Helium;
use crate::kernels::product::{ProductF32, ProductQ8};
use crate::nn::float16;
use crate::quant::Q8Activation;

impl InstructionSet for Dsp {
    #[cfg(any(test, not(feature = "helium")))]
    fn run<O: Op>(self, op: O) -> O::Output {
        op.eval(self)
    }

    // One instance of each algorithm saves flash; the bits are the same.
    #[cfg(all(feature = "helium", not(test)))]
    fn run<O: Op>(self, op: O) -> O::Output {
        Helium::of_target().run(op)
    }

    fn product_q8<'p, 'c>(self, product: ProductQ8<'p, 'c>) -> Option<ProductQ8<'p, 'c>> {
        dsp::product_q8(self, product)
    }

    fn product_f32<'p, 'c>(self, product: ProductF32<'p, 'c>) -> Option<ProductF32<'p, 'c>> {
        float::product_f32(product)
    }

    fn quantize(self, x: &[f32], out: &mut [Q8Activation]) {
        quantize::quantize(x, out);
    }
}

#[cfg(feature = "helium")]
impl InstructionSet for Helium {
    fn run<O: Op>(self, op: O) -> O::Output {
        op.eval(self)
    }

    fn product_q8<'p, 'c>(self, product: ProductQ8<'p, 'c>) -> Option<ProductQ8<'p, 'c>> {
        helium::product_q8(self, product)
    }

    fn product_f32<'p, 'c>(self, product: ProductF32<'p, 'c>) -> Option<ProductF32<'p, 'c>> {
        float::product_f32(product)
    }

    fn quantize(self, x: &[f32], out: &mut [Q8Activation]) {
        quantize::quantize(x, out);
    }
}

/// Widens the little-endian f16 of a block, exactly.
#[inline(always)]
fn widen(bytes: [u8; 2]) -> f32 {
    float16::widen(u16::from_le_bytes(bytes))
}

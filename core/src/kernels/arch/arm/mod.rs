//! Arm cores of 32 bits: the DSP extension of Armv7E-M and Armv8-M (also part of every Armv7-A), and the vector extension of
//! Armv8.1-M (Helium).
//!
//! What such a core has is a fact of the compilation target that stable Rust does not tell: the features `dsp` and `helium` of
//! this crate say it. Where they are wrong the assembler refuses the instructions, so that a program that was built proves them.

mod columns;
mod dsp;
mod float;
#[cfg(feature = "helium")]
mod helium;
mod pairs;
mod quantize;
mod rows;

use crate::nn::float16;

pub(super) use columns::add_halves_dsp;
pub(super) use dsp::matmul_q8;
pub(super) use float::matmul_f32;
#[cfg(feature = "helium")]
pub(super) use helium::matmul_q8 as matmul_q8_helium;
pub(super) use pairs::add_pairs_dsp;
pub(super) use quantize::quantize;
#[cfg(any(test, not(feature = "helium")))]
pub(super) use rows::add_rows_dsp;
#[cfg(feature = "helium")]
pub(super) use rows::add_rows_helium;

/// Widens the little-endian f16 of a block, exactly.
#[inline(always)]
fn widen(bytes: [u8; 2]) -> f32 {
    float16::widen(u16::from_le_bytes(bytes))
}

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
    widen_f16(u16::from_le_bytes(bytes))
}

/// Widens an f16, exactly. By an instruction also so that no vector of the compiler's does it, which would lose subnormals.
#[inline(always)]
pub(crate) fn widen_f16(half: u16) -> f32 {
    let wide: u32;
    // SAFETY: register to register; the assembler accepts the instructions for targets that have them only. The operands are core
    // registers, since the compiler does not take floating-point ones for all of these targets.
    unsafe {
        core::arch::asm!(
            "vmov s0, {half}",
            "vcvtb.f32.f16 s0, s0",
            "vmov {wide}, s0",
            wide = lateout(reg) wide,
            half = in(reg) u32::from(half),
            out("s0") _,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    f32::from_bits(wide)
}

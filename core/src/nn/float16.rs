//! Half precision numbers (IEEE 754 binary16, f16) as bits, widened to f32.
#![cfg_attr(
    all(target_arch = "arm", feature = "dsp"),
    allow(unsafe_code, reason = "an instruction of the processor")
)]

/// Widens an f16 exactly. The instruction is written by hand so that the compiler cannot vectorise
/// the conversion, which would lose subnormals.
#[cfg(all(target_arch = "arm", feature = "dsp"))]
#[inline(always)]
pub(crate) fn widen(half: u16) -> f32 {
    let wide: u32;
    // SAFETY: register to register; the assembler accepts the instructions only for targets that
    // have them. The operands are core registers, since the compiler does not take floating-point
    // ones for all of these targets.
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

/// f16 to f32 in integers and one product: exact for every finite value, subnormals included.
///
/// The product scales the exponent from f16's bias (15) to f32's (127); infinities and NaNs keep
/// their exponent of all ones.
#[cfg(not(all(target_arch = "arm", feature = "dsp")))]
#[inline(always)]
pub(crate) fn widen(h: u16) -> f32 {
    let magnitude = u32::from(h & 0x7FFF) << 13;
    let sign = u32::from(h & 0x8000) << 16;
    let scaled = f32::from_bits(magnitude) * f32::from_bits((254 - 15) << 23);
    let bits = if h & 0x7C00 == 0x7C00 {
        magnitude | 0x7F80_0000
    } else {
        scaled.to_bits()
    };
    f32::from_bits(bits | sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_widens_as_the_half_crate_says() {
        for h in 0..=u16::MAX {
            let (ours, theirs) = (widen(h), half::f16::from_bits(h).to_f32());
            assert!(
                ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()),
                "{h:#x}"
            );
        }
    }
}

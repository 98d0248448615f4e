//! Which instruction set the kernels use.

use core::fmt;

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "arm", feature = "dsp")
))]
use super::arch;

/// An instruction set that this program can use. A variant other than `Scalar` holds a token that can only be made where the
/// processor has the instructions, so that having an `Isa` is the proof that its kernels may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust; the readable reference.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(arch::Avx2),
    /// x86-64 with AVX-512 F, BW, VL, DQ, VBMI and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512(arch::Avx512),
    /// AArch64 with Advanced SIMD.
    #[cfg(target_arch = "aarch64")]
    Neon(arch::Neon),
    /// AArch64 with Advanced SIMD and the dot product instructions.
    #[cfg(target_arch = "aarch64")]
    NeonDotprod(arch::NeonDotprod),
    /// A 32-bit Arm core with the DSP extension, as the feature `dsp` says.
    #[cfg(all(target_arch = "arm", feature = "dsp"))]
    Dsp(arch::Dsp),
    /// A 32-bit Arm core with Helium, as the feature `helium` says. Its vectors of f32 take subnormal numbers for zero whatever the
    /// floating-point mode, also those that the compiler makes of plain Rust for such a core: outside the matrix products a
    /// number under 1.2e-38 can differ from another instruction set's.
    #[cfg(all(target_arch = "arm", feature = "helium"))]
    Helium(arch::Helium),
}

/// The name is of no instruction set that this processor and build have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct UnknownIsa;

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this processor or build has no instruction set of that name")
    }
}

impl core::error::Error for UnknownIsa {}

impl Isa {
    /// The best that the *compilation target* is known to have: what a board uses. A host detects at run time instead.
    pub const fn of_target() -> Isa {
        #[cfg(target_arch = "aarch64")]
        {
            if let Some(token) = arch::NeonDotprod::of_target() {
                return Isa::NeonDotprod(token);
            }
            if let Some(token) = arch::Neon::of_target() {
                return Isa::Neon(token);
            }
        }
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(token) = arch::Avx512::of_target() {
                return Isa::Avx512(token);
            }
            if let Some(token) = arch::Avx2::of_target() {
                return Isa::Avx2(token);
            }
        }
        #[cfg(all(target_arch = "arm", feature = "helium"))]
        return Isa::Helium(arch::Helium::of_target());
        #[cfg(all(target_arch = "arm", feature = "dsp", not(feature = "helium")))]
        return Isa::Dsp(arch::Dsp::of_target());
        #[cfg(not(all(target_arch = "arm", feature = "dsp")))]
        Isa::Scalar
    }

    /// The name, as `BROOKLET_ISA` takes it: `scalar`, `avx2`, `avx512`, `neon`, `dotprod`, `dsp`, `helium`.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(_) => "dotprod",
            #[cfg(all(target_arch = "arm", feature = "dsp"))]
            Isa::Dsp(_) => "dsp",
            #[cfg(all(target_arch = "arm", feature = "helium"))]
            Isa::Helium(_) => "helium",
        }
    }
}

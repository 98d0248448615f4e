//! The only intrinsics of the crate: one file per instruction set, and the proof tokens of [`super::Isa`].
//!
//! `matmul_q8` and `matmul_f32` return `false` where the instruction set has no kernel for the format; the caller then uses
//! the scalar reference, which gives the same bits.
#![allow(
    unsafe_code,
    reason = "intrinsics; each call is guarded by the instruction set's proof token"
)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(all(target_arch = "arm", feature = "dsp"))]
mod arm;
#[cfg(test)]
pub(crate) mod detect;
pub(crate) mod vector;
#[cfg(target_arch = "aarch64")]
mod vector_aarch64;
#[cfg(all(target_arch = "arm", feature = "dsp"))]
mod vector_arm;
#[cfg(target_arch = "x86_64")]
mod vector_x86;
#[cfg(target_arch = "x86_64")]
mod x86;

use core::ops::Range;

use super::{Isa, Q8Activation};
use crate::arena::Columns;
use crate::tensor::Matrix;

/// Defines a proof token: a zero-size value whose existence says that the processor has certain instructions.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! token {
    ($(#[$doc:meta])* $name:ident, all($($feature:literal),+)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(());

        impl $name {
            /// The token, where the compilation target is known to have the instructions.
            pub const fn of_target() -> Option<Self> {
                if cfg!(all($(target_feature = $feature),+)) { Some($name(())) } else { None }
            }

            /// The token, without a check.
            ///
            /// # Safety
            /// The processor that runs this program must have all of these instructions, and the operating system must save
            /// their registers.
            #[doc = concat!("Features: ", $($feature, " "),+)]
            pub const unsafe fn new_unchecked() -> Self {
                $name(())
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
token!(
    /// AVX2 with FMA and F16C (Haswell, Zen, and later).
    Avx2,
    all("avx2", "fma", "f16c")
);

#[cfg(target_arch = "x86_64")]
token!(
    /// AVX-512 with VNNI and VBMI (Ice Lake, Zen 4, and later).
    Avx512,
    all("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vbmi", "avx512vnni")
);

#[cfg(target_arch = "aarch64")]
token!(
    /// Advanced SIMD (every AArch64 application processor).
    Neon,
    all("neon")
);

#[cfg(target_arch = "aarch64")]
token!(
    /// Advanced SIMD with `sdot` and `udot` (Cortex-A55, A75, A76 and later).
    NeonDotprod,
    all("neon", "dotprod")
);

/// The DSP extension (Cortex-M4, M7, M33 and later; every Armv7-A): `smlad`, `sxtb16`.
#[cfg(all(target_arch = "arm", feature = "dsp"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dsp(());

#[cfg(all(target_arch = "arm", feature = "dsp"))]
impl Dsp {
    /// The token. This type exists where the feature `dsp` says that the target has the instructions, and the assembler accepts
    /// them for such a target only.
    pub const fn of_target() -> Self {
        Dsp(())
    }
}

/// The vector extension of Armv8.1-M for integers and floats (Cortex-M55, M85).
#[cfg(all(target_arch = "arm", feature = "helium"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Helium(());

#[cfg(all(target_arch = "arm", feature = "helium"))]
impl Helium {
    /// The token. This type exists where the feature `helium` says that the target has the instructions, and the assembler accepts
    /// them for such a target only.
    pub const fn of_target() -> Self {
        Helium(())
    }

    /// What a processor with Helium has as well.
    pub const fn dsp(self) -> Dsp {
        Dsp(())
    }
}

#[cfg(target_arch = "aarch64")]
impl NeonDotprod {
    /// What a processor with dot products has as well.
    pub const fn neon(self) -> Neon {
        Neon(())
    }
}

/// Runs the instruction set's kernel for int8 activations, if it has one for the format of `w`.
pub(super) fn matmul_q8(
    isa: Isa,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &[Q8Activation],
    out: &mut Columns<'_, f32>,
    scratch: &mut [u8],
) -> bool {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(token) => x86::matmul_q8(token, w, rows, x, out, scratch),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(token) => x86::matmul_q8(token, w, rows, x, out, scratch),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(token) => aarch64::matmul_q8_neon(token, w, rows, x, out, scratch),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDotprod(token) => aarch64::matmul_q8_dotprod(token, w, rows, x, out, scratch),
        #[cfg(all(target_arch = "arm", feature = "dsp"))]
        Isa::Dsp(token) => arm::matmul_q8(token, w, rows, x, out, scratch),
        #[cfg(all(target_arch = "arm", feature = "helium"))]
        Isa::Helium(token) => arm::matmul_q8_helium(token, w, rows, x, out, scratch),
        // Named here because not every target has an arm that uses them.
        Isa::Scalar => {
            let _ = (w, rows, x, out, scratch);
            false
        }
    }
}

/// Runs the instruction set's kernel for f32 activations, if it has one for the format of `w`.
pub(super) fn matmul_f32(
    isa: Isa,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &[f32],
    out: &mut Columns<'_, f32>,
    scratch: &mut [u8],
) -> bool {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(token) => x86::matmul_f32(token, w, rows, x, out),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(token) => x86::matmul_f32(token, w, rows, x, out),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(token) => {
            aarch64::matmul_f32(token, w, rows, x, out, scratch);
            true
        }
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDotprod(token) => {
            aarch64::matmul_f32(token.neon(), w, rows, x, out, scratch);
            true
        }
        #[cfg(all(target_arch = "arm", feature = "dsp"))]
        Isa::Dsp(_) => arm::matmul_f32(w, rows, x, out),
        #[cfg(all(target_arch = "arm", feature = "helium"))]
        Isa::Helium(_) => arm::matmul_f32(w, rows, x, out),
        // Named here because not every target has an arm that uses them.
        Isa::Scalar => {
            let _ = (w, rows, x, out, scratch);
            false
        }
    }
}

/// Quantises one token's activations with the instruction set's own code, if it has any.
pub(super) fn quantize(isa: Isa, x: &[f32], out: &mut [Q8Activation]) -> bool {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(token) => {
            x86::Kernels::quantize(token, x, out);
            true
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(token) => {
            x86::Kernels::quantize(token, x, out);
            true
        }
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(token) => {
            aarch64::quantize(token, x, out);
            true
        }
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDotprod(token) => {
            aarch64::quantize(token.neon(), x, out);
            true
        }
        #[cfg(all(target_arch = "arm", feature = "dsp"))]
        Isa::Dsp(_) => {
            arm::quantize(x, out);
            true
        }
        #[cfg(all(target_arch = "arm", feature = "helium"))]
        Isa::Helium(_) => {
            arm::quantize(x, out);
            true
        }
        Isa::Scalar => {
            let _ = (x, out);
            false
        }
    }
}

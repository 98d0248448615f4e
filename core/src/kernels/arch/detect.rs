//! The instruction sets of the machine that runs the tests, which stand in for a runtime that detects.

use std::vec;
use std::vec::Vec;

use super::*;

/// The instruction sets of this machine, the reference first.
pub(crate) fn isas() -> Vec<Isa> {
    let mut isas = vec![Isa::Scalar];
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected;
        // SAFETY: each token is made only after its features were detected.
        unsafe {
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                isas.push(Isa::Avx2(Avx2::new_unchecked()));
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vbmi")
                    && is_x86_feature_detected!("avx512vnni")
                {
                    isas.push(Isa::Avx512(Avx512::new_unchecked()));
                }
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        // SAFETY: each token is made only after its features were detected.
        unsafe {
            if std::arch::is_aarch64_feature_detected!("neon") {
                isas.push(Isa::Neon(Neon::new_unchecked()));
                if std::arch::is_aarch64_feature_detected!("dotprod") {
                    isas.push(Isa::NeonDotprod(NeonDotprod::new_unchecked()));
                }
            }
        }
    }
    #[cfg(all(target_arch = "arm", feature = "dsp"))]
    isas.push(Isa::Dsp(Dsp::of_target()));
    isas
}

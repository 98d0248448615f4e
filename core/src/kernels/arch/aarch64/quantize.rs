//! Quantisation of activations to int8.

use core::arch::aarch64::*;

use super::Neon;
use crate::kernels::scalar;
use crate::quant::{BLOCK, Q8Activation};

/// Does the same as [`scalar::quantize_activations`].
///
/// # Panics
/// If `out` does not have a block for every 32 values of `x`.
pub(super) fn quantize(_isa: Neon, x: &[f32], out: &mut [Q8Activation]) {
    assert!(x.len() == out.len() * BLOCK);
    for (x, out) in x.as_chunks::<BLOCK>().0.iter().zip(out) {
        // SAFETY: the token proves that the processor has NEON.
        unsafe { quantize_block(x, out) };
    }
}

/// Quantises one block.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn quantize_block(x: &[f32; BLOCK], out: &mut Q8Activation) {
    // SAFETY: contract 1 (NEON); 8 loads of 4 cover `x`, 2 stores of 16 cover `out.q`.
    unsafe {
        let x: [float32x4_t; 8] = core::array::from_fn(|i| vld1q_f32(x.as_ptr().add(4 * i)));
        // Unlike fmaxnm, fmax returns NaN if one operand is NaN.
        let max = x
            .iter()
            .fold(vdupq_n_f32(0.0), |max, x| vmaxq_f32(max, vabsq_f32(*x)));
        let max = vmaxvq_f32(max);
        let inverse = scalar::inverse_scale(max);
        // Rounds to the nearest, ties to even; NaN gives 0.
        let x = x.map(|x| vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(x, inverse))));
        let bytes = [0, 4].map(|i| {
            let low = vqmovn_s16(vcombine_s16(x[i], x[i + 1]));
            vcombine_s8(low, vqmovn_s16(vcombine_s16(x[i + 2], x[i + 3])))
        });
        vst1q_s8(out.q.as_mut_ptr(), bytes[0]);
        vst1q_s8(out.q.as_mut_ptr().add(16), bytes[1]);
        scalar::set_scale(out, max, [vaddlvq_s8(bytes[0]), vaddlvq_s8(bytes[1])]);
    }
}

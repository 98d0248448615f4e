//! Activations quantised to int8, the other operand of quantised weights.
#![allow(
    unsafe_code,
    reason = "a declaration that a plain struct is plain bytes"
)]

use super::BLOCK;
use crate::arena::Pod;

/// Activations of one token in one block of 32 columns, quantised to int8.
///
/// `value[i] ≈ scale · q[i]`, `q` in -127..=127, `scale = max|value| / 127`, rounded to the
/// nearest, ties to even.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Q8Activation {
    /// Scale.
    pub scale: f32,
    /// `scale · sum`, rounded once; a format's minimum multiplies it.
    pub scaled_sum: f32,
    /// Sum of the 32 integers.
    pub sum: i16,
    /// Sum of the first 16 of them.
    pub first_sum: i16,
    /// The integers.
    pub q: [i8; BLOCK],
}

const _: () = assert!(size_of::<Q8Activation>() == 44);

impl Q8Activation {
    /// 32 zeros.
    pub const ZERO: Q8Activation = Q8Activation {
        scale: 0.0,
        scaled_sum: 0.0,
        sum: 0,
        first_sum: 0,
        q: [0; BLOCK],
    };
}

// SAFETY: `repr(C)`, two f32, two i16 and 32 bytes: 44 bytes in all (asserted above), so no
// padding; every bit pattern is a value; the alignment is that of f32.
unsafe impl Pod for Q8Activation {}

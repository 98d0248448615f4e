//! F32, F16 and BF16: one element a block, as little-endian bytes.

use super::{Block, Format, sealed::Sealed};

/// One IEEE 754 binary32.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct F32(pub [u8; 4]);

/// One IEEE 754 binary16.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct F16(pub [u8; 2]);

/// The upper half of an IEEE 754 binary32.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Bf16(pub [u8; 2]);

impl F32 {
    /// The element.
    pub const fn to_f32(self) -> f32 {
        f32::from_le_bytes(self.0)
    }
}

impl F16 {
    /// The element, widened exactly.
    pub fn to_f32(self) -> f32 {
        super::f16_at(self.0)
    }
}

impl Bf16 {
    /// The element, widened exactly.
    pub const fn to_f32(self) -> f32 {
        f32::from_bits((u16::from_le_bytes(self.0) as u32) << 16)
    }
}

macro_rules! float_block {
    ($block:ty, $format:ident) => {
        const _: () = assert!(size_of::<$block>() == Format::$format.block_bytes());

        impl Sealed for $block {}

        impl Block for $block {
            const FORMAT: Format = Format::$format;

            fn dequantize(&self, out: &mut [f32]) {
                out[0] = self.to_f32();
            }
        }
    };
}

float_block!(F32, F32);
float_block!(F16, F16);
float_block!(Bf16, BF16);

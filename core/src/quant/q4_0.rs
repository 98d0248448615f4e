//! Q4_0: element `i` is `d · (q[i] - 8)` with 4-bit `q`.

use super::{BLOCK, Block, Format, QuantBlock, f16_at, sealed::Sealed};

/// 32 elements in 18 bytes. Byte `i` of `qs` holds element `i` in its low half and element `i + 16`
/// in its high half.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BlockQ4_0 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// 4-bit integers.
    pub qs: [u8; 16],
}

const _: () =
    assert!(size_of::<BlockQ4_0>() == Format::Q4_0.block_bytes() && align_of::<BlockQ4_0>() == 1);

impl Sealed for BlockQ4_0 {}

impl Block for BlockQ4_0 {
    const FORMAT: Format = Format::Q4_0;

    fn dequantize(&self, out: &mut [f32]) {
        super::dequantize(self, out);
    }
}

impl QuantBlock for BlockQ4_0 {
    const HAS_MIN: bool = false;

    fn scale(&self) -> f32 {
        f16_at(self.d)
    }

    fn min(&self) -> f32 {
        0.0
    }

    fn quants(&self) -> [i8; BLOCK] {
        let mut q = [0; BLOCK];
        for (i, byte) in self.qs.iter().enumerate() {
            q[i] = (byte & 15) as i8 - 8;
            q[i + 16] = (byte >> 4) as i8 - 8;
        }
        q
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_halves_come_first_and_eight_is_zero() {
        let mut qs = [0x88; 16];
        qs[3] = 0xf0;
        let mut expected = [0; BLOCK];
        (expected[3], expected[19]) = (-8, 7);
        assert_eq!(BlockQ4_0 { d: [0; 2], qs }.quants(), expected);
    }
}

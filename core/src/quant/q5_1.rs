//! Q5_1: element `i` is `d · q[i] + m` with 5-bit `q`.

use super::{BLOCK, Block, Format, QuantBlock, f16_at, q5_0::five_bits, sealed::Sealed};

/// 32 elements in 24 bytes. The low four bits are stored as in Q4_1; the fifth bit of element `i`
/// is bit `i` of `qh`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BlockQ5_1 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// Minimum, f16.
    pub m: [u8; 2],
    /// Fifth bits, little-endian.
    pub qh: [u8; 4],
    /// Low four bits.
    pub qs: [u8; 16],
}

const _: () =
    assert!(size_of::<BlockQ5_1>() == Format::Q5_1.block_bytes() && align_of::<BlockQ5_1>() == 1);

impl Sealed for BlockQ5_1 {}

impl Block for BlockQ5_1 {
    const FORMAT: Format = Format::Q5_1;

    fn dequantize(&self, out: &mut [f32]) {
        super::dequantize(self, out);
    }
}

impl QuantBlock for BlockQ5_1 {
    const HAS_MIN: bool = true;

    fn scale(&self) -> f32 {
        f16_at(self.d)
    }

    fn min(&self) -> f32 {
        f16_at(self.m)
    }

    fn quants(&self) -> [i8; BLOCK] {
        five_bits(self.qh, &self.qs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_and_minimum_are_not_mixed_up() {
        let block = BlockQ5_1 {
            d: [0, 0x3c],
            m: [0, 0xc0],
            qh: [1, 0, 0, 0x80],
            qs: [0x21; 16],
        };
        let mut out = [f32::NAN; BLOCK];
        block.dequantize(&mut out);
        assert_eq!((block.scale(), block.min()), (1.0, -2.0));
        assert_eq!((out[0], out[1], out[30], out[31]), (15.0, -1.0, 0.0, 16.0));
    }
}

//! Q4_1: element `i` is `d · q[i] + m` with 4-bit `q`.

use super::{BLOCK, Block, Format, QuantBlock, f16_at, sealed::Sealed};

/// 32 elements in 20 bytes. Byte `i` of `qs` holds element `i` in its low half and element `i + 16`
/// in its high half.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BlockQ4_1 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// Minimum, f16.
    pub m: [u8; 2],
    /// 4-bit integers.
    pub qs: [u8; 16],
}

const _: () =
    assert!(size_of::<BlockQ4_1>() == Format::Q4_1.block_bytes() && align_of::<BlockQ4_1>() == 1);

impl Sealed for BlockQ4_1 {}

impl Block for BlockQ4_1 {
    const FORMAT: Format = Format::Q4_1;

    fn dequantize(&self, out: &mut [f32]) {
        super::dequantize(self, out);
    }
}

impl QuantBlock for BlockQ4_1 {
    const HAS_MIN: bool = true;

    fn scale(&self) -> f32 {
        f16_at(self.d)
    }

    fn min(&self) -> f32 {
        f16_at(self.m)
    }

    fn quants(&self) -> [i8; BLOCK] {
        let mut q = [0; BLOCK];
        for (i, byte) in self.qs.iter().enumerate() {
            q[i] = (byte & 15) as i8;
            q[i + 16] = (byte >> 4) as i8;
        }
        q
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_halves_come_first_and_the_minimum_is_added() {
        let mut block = BlockQ4_1 {
            d: [0, 0x40],
            m: [0, 0xbc],
            qs: [0; 16],
        };
        block.qs[3] = 0xf1;
        let mut out = [f32::NAN; BLOCK];
        block.dequantize(&mut out);
        assert_eq!((block.scale(), block.min()), (2.0, -1.0));
        assert_eq!((out[2], out[3], out[19]), (-1.0, 1.0, 29.0));
    }
}

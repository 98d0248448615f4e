//! Q8_0: element `i` is `d · q[i]` with 8-bit `q`.

use super::{BLOCK, Block, Format, QuantBlock, f16_at, sealed::Sealed};

/// 32 elements in 34 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// 8-bit integers.
    pub qs: [i8; BLOCK],
}

const _: () =
    assert!(size_of::<BlockQ8_0>() == Format::Q8_0.block_bytes() && align_of::<BlockQ8_0>() == 1);

impl Sealed for BlockQ8_0 {}

impl Block for BlockQ8_0 {
    const FORMAT: Format = Format::Q8_0;

    fn dequantize(&self, out: &mut [f32]) {
        super::dequantize(self, out);
    }
}

impl QuantBlock for BlockQ8_0 {
    const HAS_MIN: bool = false;

    fn scale(&self) -> f32 {
        f16_at(self.d)
    }

    fn min(&self) -> f32 {
        0.0
    }

    fn quants(&self) -> [i8; BLOCK] {
        self.qs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_signed_and_in_order() {
        let block = BlockQ8_0 {
            d: [0, 0x38],
            qs: core::array::from_fn(|i| (i as i16 * 8 - 128) as i8),
        };
        let mut out = [f32::NAN; BLOCK];
        block.dequantize(&mut out);
        assert_eq!(block.quants(), block.qs);
        assert_eq!((out[0], out[16], out[31]), (-64.0, 0.0, 60.0));
    }
}

//! Q5_0: element `i` is `d · (q[i] - 16)` with 5-bit `q`.

use super::{BLOCK, Block, Format, QuantBlock, f16_at, sealed::Sealed};

/// 32 elements in 22 bytes. The low four bits are stored as in Q4_0; the fifth bit of element `i`
/// is bit `i` of `qh`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BlockQ5_0 {
    /// Scale, f16.
    pub d: [u8; 2],
    /// Fifth bits, little-endian.
    pub qh: [u8; 4],
    /// Low four bits.
    pub qs: [u8; 16],
}

const _: () =
    assert!(size_of::<BlockQ5_0>() == Format::Q5_0.block_bytes() && align_of::<BlockQ5_0>() == 1);

impl Sealed for BlockQ5_0 {}

impl Block for BlockQ5_0 {
    const FORMAT: Format = Format::Q5_0;

    fn dequantize(&self, out: &mut [f32]) {
        super::dequantize(self, out);
    }
}

impl QuantBlock for BlockQ5_0 {
    const HAS_MIN: bool = false;

    fn scale(&self) -> f32 {
        f16_at(self.d)
    }

    fn min(&self) -> f32 {
        0.0
    }

    fn quants(&self) -> [i8; BLOCK] {
        five_bits(self.qh, &self.qs).map(|q| q - 16)
    }
}

/// Joins the low four bits and the fifth bit of the 32 elements: 0 to 31 each.
pub(super) fn five_bits(qh: [u8; 4], qs: &[u8; 16]) -> [i8; BLOCK] {
    let high = u32::from_le_bytes(qh);
    let mut q = [0; BLOCK];
    for (i, byte) in qs.iter().enumerate() {
        q[i] = (byte & 15 | (((high >> i) & 1) << 4) as u8) as i8;
        q[i + 16] = (byte >> 4 | (((high >> (i + 16)) & 1) << 4) as u8) as i8;
    }
    q
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fifth_bit_goes_to_its_own_element() {
        for i in 0..BLOCK {
            let mut expected = [0; BLOCK];
            expected[i] = 16;
            assert_eq!(five_bits((1u32 << i).to_le_bytes(), &[0; 16]), expected);
        }
    }

    #[test]
    fn low_halves_come_first_and_keep_their_four_bits() {
        let qs = core::array::from_fn(|i| (i | (15 - i) << 4) as u8);
        let expected: [i8; BLOCK] =
            core::array::from_fn(|i| if i < 16 { i as i8 } else { 31 - i as i8 });
        assert_eq!(five_bits([0; 4], &qs), expected);
        assert_eq!(five_bits([0xff; 4], &qs), expected.map(|q| q + 16));
    }

    #[test]
    fn integers_run_from_minus_16_to_15() {
        let block = |byte| BlockQ5_0 {
            d: [0, 0x3c],
            qh: [byte; 4],
            qs: [byte; 16],
        };
        assert_eq!(block(0).quants(), [-16; BLOCK]);
        assert_eq!(block(255).quants(), [15; BLOCK]);
    }
}

//! Q5_0: element `i` is `d · (q[i] - 16)` with 5-bit `q`.

use super::{BLOCK, Block, Format, QuantBlock, f16_at, sealed::Sealed};

/// 32 elements in 22 bytes: low four bits as in Q4_0, the fifth bit of element `i` is bit `i` of `qh`.
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

const _: () = assert!(size_of::<BlockQ5_0>() == Format::Q5_0.block_bytes() && align_of::<BlockQ5_0>() == 1);

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

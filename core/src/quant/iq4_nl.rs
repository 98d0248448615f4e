//! IQ4_NL: element `i` is `d · VALUES[q[i]]` with 4-bit `q`.

use super::{BLOCK, Block, Format, QuantBlock, f16_at, sealed::Sealed};

/// 32 elements in 18 bytes. Byte `i` of `qs` holds element `i` in its low half and element `i + 16`
/// in its high half.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BlockIq4Nl {
    /// Scale, f16.
    pub d: [u8; 2],
    /// 4-bit indices of [`VALUES`].
    pub qs: [u8; 16],
}

/// Values of the indices (ggml's `kvalues_iq4nl`): denser near zero, where most weights are.
pub const VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

const _: () = assert!(
    size_of::<BlockIq4Nl>() == Format::IQ4_NL.block_bytes() && align_of::<BlockIq4Nl>() == 1
);

impl Sealed for BlockIq4Nl {}

impl Block for BlockIq4Nl {
    const FORMAT: Format = Format::IQ4_NL;

    fn dequantize(&self, out: &mut [f32]) {
        super::dequantize(self, out);
    }
}

impl QuantBlock for BlockIq4Nl {
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
            q[i] = VALUES[usize::from(byte & 15)];
            q[i + 16] = VALUES[usize::from(byte >> 4)];
        }
        q
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_halves_come_first() {
        let qs = core::array::from_fn(|i| (i | (15 - i) << 4) as u8);
        let quants = BlockIq4Nl { d: [0; 2], qs }.quants();
        assert_eq!(quants[..16], VALUES);
        assert!(quants[16..].iter().eq(VALUES.iter().rev()));
    }
}

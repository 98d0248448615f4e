//! Q5_K: element `i` is `(d · sc) · q[i] - dmin · m` with 5-bit `q`, `sc` and `m` of 6 bits for
//! each 32 elements.

use super::q4_k::{nibbles, scale_and_min};
use super::{BLOCK, Block, Format, Part, SUPER_BLOCK, SuperBlock, f16_at, sealed::Sealed};

/// 256 elements in 176 bytes. Scales and low four bits are stored as in Q4_K; the fifth bit of
/// element `32k + i` is bit `k` of byte `i` of `qh`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BlockQ5K {
    /// Scale of the scales, f16.
    pub d: [u8; 2],
    /// Scale of the minima, f16.
    pub dmin: [u8; 2],
    /// Eight scales and eight minima of 6 bits, as in Q4_K.
    pub scales: [u8; 12],
    /// Fifth bits.
    pub qh: [u8; BLOCK],
    /// Low four bits.
    pub qs: [u8; SUPER_BLOCK / 2],
}

const _: () =
    assert!(size_of::<BlockQ5K>() == Format::Q5_K.block_bytes() && align_of::<BlockQ5K>() == 1);

impl Sealed for BlockQ5K {}

impl Block for BlockQ5K {
    const FORMAT: Format = Format::Q5_K;

    fn dequantize(&self, out: &mut [f32]) {
        super::dequantize_parts(self, out);
    }
}

impl SuperBlock for BlockQ5K {
    const HAS_MIN: bool = true;

    fn part(&self, i: usize) -> Part {
        let (scale, min) = scale_and_min(&self.scales, i);
        let mut quants = nibbles(&self.qs, i);
        for (q, high) in quants.iter_mut().zip(self.qh) {
            *q |= ((high >> i & 1) << 4) as i8;
        }
        Part::with_min(
            f16_at(self.d) * f32::from(scale),
            -(f16_at(self.dmin) * f32::from(min)),
            quants,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fifth_bit_goes_to_its_own_element() {
        for i in 0..SUPER_BLOCK {
            let mut block = BlockQ5K {
                d: [0; 2],
                dmin: [0; 2],
                scales: [0; 12],
                qh: [0; 32],
                qs: [0x21; 128],
            };
            block.qh[i % 32] = 1 << (i / 32);
            for part in 0..8 {
                let mut expected = [if part % 2 == 0 { 1 } else { 2 }; 32];
                if part == i / 32 {
                    expected[i % 32] += 16;
                }
                assert_eq!(block.part(part).quants, expected);
            }
        }
    }
}

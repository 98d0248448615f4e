//! Q3_K: element `i` is `(d · (sc - 32)) · (q[i] - 4)` with 3-bit `q` and a 6-bit `sc` for each 16
//! elements.

use super::q2_k::pairs_of_bits;
use super::{BLOCK, Block, Format, Part, SUPER_BLOCK, SuperBlock, f16_at, sealed::Sealed};

/// 256 elements in 110 bytes. The low two bits are stored as in Q2_K; the third bit of element
/// `32k + i` is bit `k` of byte `i` of `hmask`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BlockQ3K {
    /// Third bits.
    pub hmask: [u8; BLOCK],
    /// Low two bits.
    pub qs: [u8; SUPER_BLOCK / 4],
    /// Sixteen scales of 6 bits: low four bits in the low, then the high halves of bytes 0 to 7;
    /// the high two bits of scale `4k + i` are bits `2k` and `2k + 1` of byte `8 + i`.
    pub scales: [u8; 12],
    /// Scale of the scales, f16.
    pub d: [u8; 2],
}

const _: () =
    assert!(size_of::<BlockQ3K>() == Format::Q3_K.block_bytes() && align_of::<BlockQ3K>() == 1);

impl Sealed for BlockQ3K {}

impl Block for BlockQ3K {
    const FORMAT: Format = Format::Q3_K;

    fn dequantize(&self, out: &mut [f32]) {
        super::dequantize_parts(self, out);
    }
}

impl SuperBlock for BlockQ3K {
    const HAS_MIN: bool = false;

    fn part(&self, i: usize) -> Part {
        let mut quants = pairs_of_bits(&self.qs, i);
        for (q, high) in quants.iter_mut().zip(self.hmask) {
            *q += ((high >> i & 1) << 2) as i8 - 4;
        }
        Part {
            scale: f16_at(self.d),
            factors: [self.scale(2 * i), self.scale(2 * i + 1)],
            min: 0.0,
            min_factors: [0; 2],
            quants,
        }
    }
}

impl BlockQ3K {
    /// Scale `i` of 16, -32 to 31.
    fn scale(&self, i: usize) -> i8 {
        let low = self.scales[i % 8] >> (i / 8 * 4) & 15;
        let high = self.scales[8 + i % 4] >> (i / 4 * 2) & 3;
        (low | high << 4) as i8 - 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: BlockQ3K = BlockQ3K {
        hmask: [0; 32],
        qs: [0; 64],
        scales: [0; 12],
        d: [0, 0x3c],
    };

    #[test]
    fn a_scale_joins_four_bits_and_two() {
        for i in 0..16 {
            let mut block = ZERO;
            block.scales[i % 8] = 0b1001 << (i / 8 * 4);
            block.scales[8 + i % 4] = 0b10 << (i / 4 * 2);
            for j in 0..16 {
                let low = if j == i { 0b1001 } else { 0 };
                let high = if j == i { 0b10_0000 } else { 0 };
                assert_eq!(block.scale(j), low + high - 32, "{i} {j}");
            }
        }
    }

    #[test]
    fn integers_run_from_minus_4_to_3() {
        assert_eq!(ZERO.part(5).quants, [-4; 32]);
        let block = BlockQ3K {
            hmask: [0x20; 32],
            qs: [0xff; 64],
            ..ZERO
        };
        assert_eq!(block.part(5).quants, [3; 32]);
        assert_eq!(block.part(4).quants, [-1; 32]);
    }
}

//! Q2_K: element `i` is `(d · sc) · q[i] - dmin · m` with 2-bit `q`, `sc` and `m` of 4 bits for
//! each 16 elements.

use super::{BLOCK, Block, Format, Part, SUPER_BLOCK, SuperBlock, f16_at, sealed::Sealed};

/// 256 elements in 84 bytes.
///
/// Of each 128 elements, byte `i` of 32 bytes of `qs` holds elements `i`, `i + 32`, `i + 64` and
/// `i + 96`, from its lowest bits up.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BlockQ2K {
    /// For each 16 elements a byte: the scale in the low half, the minimum in the high half.
    pub scales: [u8; SUPER_BLOCK / 16],
    /// 2-bit integers.
    pub qs: [u8; SUPER_BLOCK / 4],
    /// Scale of the scales, f16.
    pub d: [u8; 2],
    /// Scale of the minima, f16.
    pub dmin: [u8; 2],
}

const _: () =
    assert!(size_of::<BlockQ2K>() == Format::Q2_K.block_bytes() && align_of::<BlockQ2K>() == 1);

impl Sealed for BlockQ2K {}

impl Block for BlockQ2K {
    const FORMAT: Format = Format::Q2_K;

    fn dequantize(&self, out: &mut [f32]) {
        super::dequantize_parts(self, out);
    }
}

impl SuperBlock for BlockQ2K {
    const HAS_MIN: bool = true;

    fn part(&self, i: usize) -> Part {
        let halves = [self.scales[2 * i], self.scales[2 * i + 1]];
        Part {
            scale: f16_at(self.d),
            factors: halves.map(|byte| (byte & 15) as i8),
            min: -f16_at(self.dmin),
            min_factors: halves.map(|byte| (byte >> 4) as i8),
            quants: pairs_of_bits(&self.qs, i),
        }
    }
}

/// The 2-bit integers of part `i` of Q2_K and Q3_K.
pub(super) fn pairs_of_bits(qs: &[u8; SUPER_BLOCK / 4], i: usize) -> [i8; BLOCK] {
    let shift = i % 4 * 2;
    core::array::from_fn(|j| (qs[i / 4 * BLOCK + j] >> shift & 3) as i8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_and_minima_cover_sixteen_elements() {
        let block = BlockQ2K {
            scales: core::array::from_fn(|i| (i | (15 - i) << 4) as u8),
            qs: [0b11_10_01_00; 64],
            d: [0, 0x40],
            dmin: [0, 0x3c],
        };
        let mut out = [f32::NAN; SUPER_BLOCK];
        block.dequantize(&mut out);
        for (i, value) in out.into_iter().enumerate() {
            let (scale, min, q) = (i / 16, 15 - i / 16, i / 32 % 4);
            assert_eq!(value, 2.0 * (scale * q) as f32 - min as f32);
        }
    }
}

//! Q4_K: element `i` is `(d · sc) · q[i] - dmin · m` with 4-bit `q`, `sc` and `m` of 6 bits for
//! each 32 elements.

use super::{BLOCK, Block, Format, Part, SUPER_BLOCK, SuperBlock, f16_at, sealed::Sealed};

/// 256 elements in 144 bytes.
///
/// Byte `i` of the `k`-th 32 bytes of `qs` holds element `64k + i` in its low half and element
/// `64k + i + 32` in its high half.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BlockQ4K {
    /// Scale of the scales, f16.
    pub d: [u8; 2],
    /// Scale of the minima, f16.
    pub dmin: [u8; 2],
    /// Eight scales and eight minima of 6 bits; `scale_and_min` below unpacks them.
    pub scales: [u8; 12],
    /// 4-bit integers.
    pub qs: [u8; SUPER_BLOCK / 2],
}

const _: () =
    assert!(size_of::<BlockQ4K>() == Format::Q4_K.block_bytes() && align_of::<BlockQ4K>() == 1);

impl Sealed for BlockQ4K {}

impl Block for BlockQ4K {
    const FORMAT: Format = Format::Q4_K;

    fn dequantize(&self, out: &mut [f32]) {
        super::dequantize_parts(self, out);
    }
}

impl SuperBlock for BlockQ4K {
    const HAS_MIN: bool = true;

    fn part(&self, i: usize) -> Part {
        let (scale, min) = scale_and_min(&self.scales, i);
        Part::with_min(
            f16_at(self.d) * f32::from(scale),
            -(f16_at(self.dmin) * f32::from(min)),
            nibbles(&self.qs, i),
        )
    }
}

/// Scale and minimum of part `i` of Q4_K and Q5_K, 0 to 63 each.
///
/// The low 6 bits of bytes 0 to 3 are the first four scales, those of bytes 4 to 7 the first four
/// minima. The others have their low 4 bits in the halves of bytes 8 to 11, scales in the low ones,
/// and their high 2 bits on top of the first four.
pub(super) fn scale_and_min(packed: &[u8; 12], i: usize) -> (u8, u8) {
    if i < 4 {
        return (packed[i] & 63, packed[i + 4] & 63);
    }
    let low = packed[i + 4];
    (
        low & 15 | packed[i - 4] >> 6 << 4,
        low >> 4 | packed[i] >> 6 << 4,
    )
}

/// The 4-bit integers of part `i` of Q4_K and Q5_K.
pub(super) fn nibbles(qs: &[u8; SUPER_BLOCK / 2], i: usize) -> [i8; BLOCK] {
    let shift = i % 2 * 4;
    core::array::from_fn(|j| (qs[i / 2 * BLOCK + j] >> shift & 15) as i8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn high_scales_and_minima_are_joined_from_two_bytes() {
        let mut packed = [0; 12];
        // Part 6: scale 0b10_0101, minimum 0b01_1100.
        (packed[2], packed[6], packed[10]) = (0b1000_0000, 0b0100_0000, 0b1100_0101);
        assert_eq!(scale_and_min(&packed, 6), (0b10_0101, 0b01_1100));
        assert_eq!(scale_and_min(&packed, 2), (0, 0));
        packed[2] |= 63;
        packed[6] |= 1;
        assert_eq!(scale_and_min(&packed, 2), (63, 1));
        assert_eq!(scale_and_min(&packed, 6), (0b10_0101, 0b01_1100));
    }

    #[test]
    fn the_minimum_is_taken_away() {
        let mut block = BlockQ4K {
            d: [0, 0x3c],
            dmin: [0, 0x38],
            scales: [0; 12],
            qs: [0; 128],
        };
        (block.scales[1], block.scales[5], block.qs[31]) = (3, 4, 0xf0);
        let mut out = [f32::NAN; SUPER_BLOCK];
        block.dequantize(&mut out);
        assert_eq!((out[31], out[62], out[63], out[64]), (0.0, -2.0, 43.0, 0.0));
    }
}

//! Q6_K: element `i` is `(d · sc) · (q[i] - 32)` with 6-bit `q` and a signed 8-bit `sc` for each 16
//! elements.

use super::{BLOCK, Block, Format, Part, SUPER_BLOCK, SuperBlock, f16_at, sealed::Sealed};

/// 256 elements in 210 bytes.
///
/// Of each 128 elements, byte `i` of 64 bytes of `ql` holds the low four bits of element `i` in its
/// low half and of element `i + 64` in its high half; byte `i` of 32 bytes of `qh` holds the high
/// two bits of elements `i`, `i + 32`, `i + 64` and `i + 96`, from its lowest bits up.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BlockQ6K {
    /// Low four bits.
    pub ql: [u8; SUPER_BLOCK / 2],
    /// High two bits.
    pub qh: [u8; SUPER_BLOCK / 4],
    /// Scales of 16 elements each.
    pub scales: [i8; SUPER_BLOCK / 16],
    /// Scale of the scales, f16.
    pub d: [u8; 2],
}

const _: () =
    assert!(size_of::<BlockQ6K>() == Format::Q6_K.block_bytes() && align_of::<BlockQ6K>() == 1);

impl Sealed for BlockQ6K {}

impl Block for BlockQ6K {
    const FORMAT: Format = Format::Q6_K;

    fn dequantize(&self, out: &mut [f32]) {
        super::dequantize_parts(self, out);
    }
}

impl SuperBlock for BlockQ6K {
    const HAS_MIN: bool = false;

    fn part(&self, i: usize) -> Part {
        let (half, k) = (i / 4, i % 4);
        let low = &self.ql[64 * half + k % 2 * BLOCK..][..BLOCK];
        let high = &self.qh[BLOCK * half..][..BLOCK];
        let element =
            |j: usize| (low[j] >> (k / 2 * 4) & 15 | (high[j] >> (2 * k) & 3) << 4) as i8 - 32;
        Part {
            scale: f16_at(self.d),
            factors: [self.scales[2 * i], self.scales[2 * i + 1]],
            min: 0.0,
            min_factors: [0; 2],
            quants: core::array::from_fn(element),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_signed_and_integers_run_from_minus_32_to_31() {
        let block = |byte, scale| BlockQ6K {
            ql: [byte; 128],
            qh: [byte; 64],
            scales: [scale; 16],
            d: [0, 0x3c],
        };
        let mut out = [f32::NAN; SUPER_BLOCK];
        block(0, -128).dequantize(&mut out);
        assert_eq!(out, [4096.0; SUPER_BLOCK]);
        block(255, -2).dequantize(&mut out);
        assert_eq!(out, [-62.0; SUPER_BLOCK]);
    }

    #[test]
    fn a_scale_covers_sixteen_elements() {
        let block = BlockQ6K {
            ql: [0x11; 128],
            qh: [0xaa; 64],
            scales: core::array::from_fn(|i| i as i8),
            d: [0, 0x3c],
        };
        let mut out = [f32::NAN; SUPER_BLOCK];
        block.dequantize(&mut out);
        for (i, value) in out.into_iter().enumerate() {
            assert_eq!(value, (i / 16) as f32);
        }
    }
}

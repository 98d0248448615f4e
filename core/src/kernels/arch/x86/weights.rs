//! The quantised formats, as the kernels of this processor see them.

use core::mem::offset_of;

use crate::kernels::scalar;
use crate::quant::{
    BLOCK, Block, BlockIq4Nl, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0,
    BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, IQ4_NL_VALUES, Q8Activation, QuantBlock, SuperBlock,
};

/// A quantised format, as the kernels see it: rows of blocks of 32 columns, of which a super-block
/// has 8.
pub(in super::super) trait Weights:
    Block + super::sse41::Chunk + super::avx2::Chunk + super::avx512::Chunk
{
    /// True if a block has a minimum.
    const HAS_MIN: bool;
    /// True if its halves of 16 columns have integer factors ([`crate::quant::Part`]).
    const HAS_FACTORS: bool;
    /// Bits of an element in the registers.
    const BITS: u32;
    /// Number to add to the elements to make them unsigned as they are stored (as two's complement
    /// for 8 bits).
    const BIAS: i32;
    /// The contract's formula for one row and one token.
    fn dot(w: &[Self], x: &[Q8Activation]) -> f32;
}

/// Number of blocks of 32 columns in a block of the format.
pub(super) const fn parts<B: Block>() -> usize {
    B::FORMAT.block_len() / BLOCK
}

/// Offsets of the parts of a simple block, in bytes from its start; the scale is at 0.
pub(in super::super) trait Layout: QuantBlock {
    /// Bits of an element, or of its index in [`Layout::VALUES`].
    const BITS: u32;
    /// Offset of the minimum (0 if there is none).
    const MIN_AT: usize = 0;
    /// Offset of the fifth bits (0 if there are none).
    const HIGH_AT: usize = 0;
    /// Offset of the elements, or of their low 4 bits.
    const QUANTS_AT: usize;
    /// The same as [`Weights::BIAS`].
    const BIAS: i32;
    /// Values of 4-bit indices, if the format stores indices.
    const VALUES: Option<&'static [i8; 16]> = None;
}

impl Layout for BlockQ4_0 {
    const BITS: u32 = 4;
    const QUANTS_AT: usize = offset_of!(BlockQ4_0, qs);
    const BIAS: i32 = 8;
}

impl Layout for BlockQ4_1 {
    const BITS: u32 = 4;
    const MIN_AT: usize = offset_of!(BlockQ4_1, m);
    const QUANTS_AT: usize = offset_of!(BlockQ4_1, qs);
    const BIAS: i32 = 0;
}

impl Layout for BlockQ5_0 {
    const BITS: u32 = 5;
    const HIGH_AT: usize = offset_of!(BlockQ5_0, qh);
    const QUANTS_AT: usize = offset_of!(BlockQ5_0, qs);
    const BIAS: i32 = 16;
}

impl Layout for BlockQ5_1 {
    const BITS: u32 = 5;
    const MIN_AT: usize = offset_of!(BlockQ5_1, m);
    const HIGH_AT: usize = offset_of!(BlockQ5_1, qh);
    const QUANTS_AT: usize = offset_of!(BlockQ5_1, qs);
    const BIAS: i32 = 0;
}

impl Layout for BlockQ8_0 {
    const BITS: u32 = 8;
    const QUANTS_AT: usize = offset_of!(BlockQ8_0, qs);
    const BIAS: i32 = 128;
}

impl Layout for BlockIq4Nl {
    const BITS: u32 = 4;
    const QUANTS_AT: usize = offset_of!(BlockIq4Nl, qs);
    const BIAS: i32 = 128;
    const VALUES: Option<&'static [i8; 16]> = Some(&IQ4_NL_VALUES);
}

impl<B: Layout> Weights for B {
    const HAS_MIN: bool = <B as QuantBlock>::HAS_MIN;
    const HAS_FACTORS: bool = false;
    const BITS: u32 = if B::VALUES.is_some() {
        8
    } else {
        <B as Layout>::BITS
    };
    const BIAS: i32 = <B as Layout>::BIAS;

    fn dot(w: &[B], x: &[Q8Activation]) -> f32 {
        scalar::dot_q8(w, x)
    }
}

/// Implements [`Weights`] for a format of super-blocks.
macro_rules! super_block {
    ($block:ty, factors: $factors:literal, bits: $bits:literal, bias: $bias:literal) => {
        impl Weights for $block {
            const HAS_MIN: bool = <$block as SuperBlock>::HAS_MIN;
            const HAS_FACTORS: bool = $factors;
            const BITS: u32 = $bits;
            const BIAS: i32 = $bias;

            fn dot(w: &[Self], x: &[Q8Activation]) -> f32 {
                scalar::dot_super(w, x)
            }
        }
    };
}

super_block!(BlockQ2K, factors: true, bits: 2, bias: 0);
super_block!(BlockQ3K, factors: true, bits: 3, bias: 4);
super_block!(BlockQ4K, factors: false, bits: 4, bias: 0);
super_block!(BlockQ5K, factors: false, bits: 5, bias: 0);
super_block!(BlockQ6K, factors: true, bits: 6, bias: 32);

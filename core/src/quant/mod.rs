//! Block formats, in which weights are stored.
//!
//! A quantised row is a sequence of blocks. Simple blocks have 32 elements, an f16 scale `d` and
//! some an f16 minimum `m` ([`QuantBlock`]). Super-blocks, the `K` formats, have 256: 8 parts of
//! 32, whose scales are small integers that share an f16 ([`SuperBlock`]). The layouts are those of
//! ggml (`ggml-common.h`, the `block_*` structs); each file here holds one format: its struct, a
//! compile-time assertion of its size, and the scalar reference. All structs have alignment 1, so
//! that any offset in a file or in flash can be viewed in place.

mod activation;
mod float;
mod ggml;
mod iq4_nl;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

pub use activation::Q8Activation;
pub use float::{Bf16, F16, F32};
pub use ggml::GgmlType;
pub use iq4_nl::{BlockIq4Nl, VALUES as IQ4_NL_VALUES};
pub use q2_k::BlockQ2K;
pub use q3_k::BlockQ3K;
pub use q4_0::BlockQ4_0;
pub use q4_1::BlockQ4_1;
pub use q4_k::BlockQ4K;
pub use q5_0::BlockQ5_0;
pub use q5_1::BlockQ5_1;
pub use q5_k::BlockQ5K;
pub use q6_k::BlockQ6K;
pub use q8_0::BlockQ8_0;

/// Elements in a simple block, in a part of a super-block, and in a block of int8 activations.
pub const BLOCK: usize = 32;

/// Elements in a super-block.
pub const SUPER_BLOCK: usize = 256;

/// Defines [`Format`] and `with_block` from the one table of formats. A row holds the name, ggml's
/// number of the format, the type of its blocks, their kind (`float` of 1 element, `simple` of
/// [`BLOCK`], `super_block` of [`SUPER_BLOCK`]) and bytes, and the cargo feature that it belongs to
/// (or `always`).
macro_rules! formats {
    ($d:tt $($(#[$doc:meta])* $name:ident = $number:literal, $block:ident, $kind:ident, $bytes:literal, $built:tt;)+) => {
        /// A storage format of tensor elements.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[allow(
            non_camel_case_types,
            reason = "the names that everybody uses for these formats"
        )]
        #[non_exhaustive]
        pub enum Format {
            $($(#[$doc])* $name),+
        }

        impl Format {
            /// Every format, in the order of ggml's numbers.
            pub const ALL: [Format; [$($number),+].len()] = [$(Format::$name),+];

            /// Returns the format with this number in ggml's `enum ggml_type`, if this crate
            /// computes with it.
            pub const fn from_ggml_type(number: u32) -> Option<Format> {
                match number {
                    $($number => Some(Format::$name),)+
                    _ => None,
                }
            }

            /// The format's number in ggml's `enum ggml_type`, which GGUF files hold.
            pub const fn ggml_type(self) -> u32 {
                match self {
                    $(Format::$name => $number),+
                }
            }

            /// The usual name, as in ggml.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Format::$name => stringify!($name)),+
                }
            }

            /// Elements in a block: 1 for floats, [`SUPER_BLOCK`] or [`BLOCK`] for others.
            pub const fn block_len(self) -> usize {
                match self {
                    $(Format::$name => formats!(@ elements $kind)),+
                }
            }

            /// Bytes of a block.
            pub const fn block_bytes(self) -> usize {
                match self {
                    $(Format::$name => $bytes),+
                }
            }

            /// Returns true if this build has the format. Super-blocks and IQ4_NL need the feature
            /// `super-blocks`, which firmware leaves out to save flash.
            pub const fn is_built(self) -> bool {
                match self {
                    $(Format::$name => built!($built)),+
                }
            }
        }

        /// Matches a format and evaluates an expression with the type of its blocks:
        /// `with_block!(format; any B => ...)` with one for all, or
        /// `float F => ...; quantized Q => ...`, or
        /// `float F => ...; simple S => ...; super_block P => ...`. It panics on a format that this
        /// build does not have, for which there is no code.
        macro_rules! with_block {
            ($d format:expr; $d($d arms:tt)+) => {
                match $d format {
                    $($crate::quant::Format::$name => if $crate::quant::built!($built) {
                        $crate::quant::of_kind!($kind $block; $d($d arms)+)
                    } else {
                        $crate::quant::not_built()
                    }),+
                }
            };
        }
        pub(crate) use with_block;
    };
    (@ elements float) => { 1 };
    (@ elements simple) => { BLOCK };
    (@ elements super_block) => { SUPER_BLOCK };
}

/// True if this build has the formats that belong to a cargo feature.
macro_rules! built {
    (always) => {
        true
    };
    ($feature:literal) => {
        cfg!(feature = $feature)
    };
}

pub(crate) use built;

/// The arm of `with_block` for a format that this build leaves out. Whoever loads a model has
/// refused it before.
#[cold]
pub(crate) fn not_built() -> ! {
    panic!("this build has no such format")
}

/// The arm of `with_block` for a kind of block.
macro_rules! of_kind {
    ($kind:ident $block:ident; any $B:ident => $any:expr) => {{
        type $B = $crate::quant::$block;
        $any
    }};
    (float $block:ident; float $B:ident => $float:expr; $($others:tt)+) => {{
        type $B = $crate::quant::$block;
        $float
    }};
    ($kind:ident $block:ident; float $F:ident => $float:expr; quantized $B:ident => $quantized:expr) => {{
        type $B = $crate::quant::$block;
        $quantized
    }};
    (simple $block:ident; float $F:ident => $float:expr; simple $B:ident => $simple:expr; $($others:tt)+) => {{
        type $B = $crate::quant::$block;
        $simple
    }};
    (super_block $block:ident; float $F:ident => $float:expr; simple $S:ident => $simple:expr; super_block $B:ident => $super:expr) => {{
        type $B = $crate::quant::$block;
        $super
    }};
}

pub(crate) use of_kind;

formats! {$
    /// IEEE 754 binary32.
    F32 = 0, F32, float, 4, always;
    /// IEEE 754 binary16.
    F16 = 1, F16, float, 2, always;
    /// 4 bits, scale; 18 bytes for 32 elements.
    Q4_0 = 2, BlockQ4_0, simple, 18, always;
    /// 4 bits, scale and minimum; 20 bytes for 32 elements.
    Q4_1 = 3, BlockQ4_1, simple, 20, always;
    /// 5 bits, scale; 22 bytes for 32 elements.
    Q5_0 = 6, BlockQ5_0, simple, 22, always;
    /// 5 bits, scale and minimum; 24 bytes for 32 elements.
    Q5_1 = 7, BlockQ5_1, simple, 24, always;
    /// 8 bits, scale; 34 bytes for 32 elements.
    Q8_0 = 8, BlockQ8_0, simple, 34, always;
    /// 2 bits, scales and minima of 16 elements; 84 bytes for 256.
    Q2_K = 10, BlockQ2K, super_block, 84, "super-blocks";
    /// 3 bits, scales of 16 elements; 110 bytes for 256.
    Q3_K = 11, BlockQ3K, super_block, 110, "super-blocks";
    /// 4 bits, scales and minima of 32 elements; 144 bytes for 256.
    Q4_K = 12, BlockQ4K, super_block, 144, "super-blocks";
    /// 5 bits, scales and minima of 32 elements; 176 bytes for 256.
    Q5_K = 13, BlockQ5K, super_block, 176, "super-blocks";
    /// 6 bits, scales of 16 elements; 210 bytes for 256.
    Q6_K = 14, BlockQ6K, super_block, 210, "super-blocks";
    /// 4 bits that stand for 16 unevenly spaced integers, scale; 18 bytes for 32 elements.
    IQ4_NL = 20, BlockIq4Nl, simple, 18, "super-blocks";
    /// The upper half of a binary32.
    BF16 = 30, Bf16, float, 2, always;
}

impl Format {
    /// Returns true if elements are integers with a scale per block.
    pub const fn is_quantized(self) -> bool {
        !matches!(self, Format::F32 | Format::F16 | Format::BF16)
    }

    /// Bytes of a row of `cols` elements; `None` if they are not whole blocks or the number
    /// overflows.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }
}

/// A block of a format: plain bytes, alignment 1, every bit pattern valid.
///
/// The types here are the only implementors ([`crate::tensor::Matrix::blocks`] relies on it).
pub trait Block: Copy + sealed::Sealed + 'static {
    /// The format that this block belongs to.
    const FORMAT: Format;

    /// Writes the block's `FORMAT.block_len()` elements as f32 to the start of `out`.
    ///
    /// # Panics
    /// If `out` is shorter.
    fn dequantize(&self, out: &mut [f32]);
}

/// A block of 32 integers with an f16 scale, for products with int8 activations: element `i` is
/// `scale · q[i] + min`.
pub trait QuantBlock: Block {
    /// True if [`QuantBlock::min`] can be other than zero.
    const HAS_MIN: bool;

    /// The scale, widened exactly.
    fn scale(&self) -> f32;

    /// The minimum, widened exactly; 0 for formats without one.
    fn min(&self) -> f32;

    /// The 32 integers, with their offset (8 or 16) already subtracted.
    fn quants(&self) -> [i8; BLOCK];
}

/// A block of 256 integers, for products with int8 activations: eight parts of 32.
pub trait SuperBlock: Block {
    /// True if [`Part::min`] can be other than zero.
    const HAS_MIN: bool;

    /// Elements `32 i..32 i + 32`.
    ///
    /// # Panics
    /// If there are no such elements.
    fn part(&self, i: usize) -> Part;
}

/// 32 elements of a super-block: element `j` is `(scale · factors[j / 16]) · quants[j] + min ·
/// min_factors[j / 16]`.
///
/// An f16 times an integer of 8 bits needs 19 bits at most: it is exact in f32. An integer scale
/// can therefore be part of `scale` or one of `factors`, with the same result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// Scale of the part.
    pub scale: f32,
    /// Integer scales of its halves.
    pub factors: [i8; 2],
    /// Minimum of the part; 0 for formats without one.
    pub min: f32,
    /// Integer factors of the minimum in each half.
    pub min_factors: [i8; 2],
    /// The integers, with their offset already subtracted.
    pub quants: [i8; BLOCK],
}

impl Part {
    /// A part whose halves have the same scale and the same minimum.
    const fn with_min(scale: f32, min: f32, quants: [i8; BLOCK]) -> Part {
        Part {
            scale,
            factors: [1; 2],
            min,
            min_factors: [1; 2],
            quants,
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// Widens the little-endian f16 of a block, exactly.
pub(crate) fn f16_at(bytes: [u8; 2]) -> f32 {
    #[cfg(all(target_arch = "arm", feature = "dsp"))]
    return crate::nn::float16::widen(u16::from_le_bytes(bytes));
    #[cfg(not(all(target_arch = "arm", feature = "dsp")))]
    half::f16::from_le_bytes(bytes).to_f32()
}

/// `out[i] = scale * q[i] + min`, in that order, each step rounded to f32.
fn dequantize<B: QuantBlock>(block: &B, out: &mut [f32]) {
    let (scale, min) = (block.scale(), block.min());
    for (out, q) in out[..BLOCK].iter_mut().zip(block.quants()) {
        let value = scale * f32::from(q);
        *out = if B::HAS_MIN { value + min } else { value };
    }
}

/// Evaluates the formula of [`Part`] in its order, each step rounded to f32.
fn dequantize_parts<B: SuperBlock>(block: &B, out: &mut [f32]) {
    for (i, out) in out[..SUPER_BLOCK].chunks_exact_mut(BLOCK).enumerate() {
        let part = block.part(i);
        for (half, out) in out.chunks_exact_mut(BLOCK / 2).enumerate() {
            let scale = part.scale * f32::from(part.factors[half]);
            let min = part.min * f32::from(part.min_factors[half]);
            for (out, q) in out.iter_mut().zip(&part.quants[BLOCK / 2 * half..]) {
                let value = scale * f32::from(*q);
                *out = if B::HAS_MIN { value + min } else { value };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole_blocks_that_fit_in_memory() {
        assert_eq!(Format::Q4_0.row_bytes(64), Some(36));
        assert_eq!(Format::Q4_0.row_bytes(0), Some(0));
        assert_eq!(Format::Q4_0.row_bytes(33), None);
        assert_eq!(Format::F32.row_bytes(3), Some(12));
        assert_eq!(Format::F32.row_bytes(usize::MAX), None);
        assert_eq!(Format::Q8_0.row_bytes(usize::MAX - 31), None);
        assert_eq!(Format::Q6_K.row_bytes(512), Some(420));
        assert_eq!(Format::Q4_K.row_bytes(128), None);
    }

    #[test]
    fn a_format_and_its_number_name_each_other() {
        for format in Format::ALL {
            assert_eq!(Format::from_ggml_type(format.ggml_type()), Some(format));
        }
    }

    #[test]
    fn numbers_that_ggml_gives_to_other_formats_are_refused() {
        let known = (0..=u32::from(u16::MAX)).filter_map(Format::from_ggml_type);
        assert!(known.eq(Format::ALL));
        assert_eq!(Format::from_ggml_type(u32::MAX), None);
    }
}

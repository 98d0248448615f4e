//! Kernels for SSE4.1, with 4 rows in a group and chunks of one block.
//!
//! Pairs of bytes are summed in 16 bits with saturation, under the same bounds as in
//! [`super::avx2`]. The processors lack conversions of f16 ([`half`]) and have 16 registers.

mod float;
mod half;
mod lanes;
mod prefill;
mod super_blocks;
mod unpack;

use core::arch::x86_64::*;

use self::half::widen_halves;
use super::{Ahead, FLOAT_ROWS, Float, Kernels, MAX_PANEL_ROWS, Panel, Weights, parts};
use crate::kernels::dispatch::InstructionSet;
use crate::kernels::generic::Op;
use crate::kernels::isa::Sse41;
use crate::kernels::product::{ProductF32, ProductQ8};
use crate::quant::Q8Activation;

/// Rows of a group, as many as a register has 32-bit lanes.
const ROWS: usize = 4;

impl InstructionSet for Sse41 {
    fn run<O: Op>(self, op: O) -> O::Output {
        crate::__isa_features!(Sse41 compiled {
            fn run<O: Op>(isa: Sse41, op: O) -> O::Output {
                op.eval(isa)
            }
        });
        // SAFETY: contract 1 (the token says that the processor has the features).
        unsafe { run(self, op) }
    }

    fn product_q8<'p, 'c>(self, product: ProductQ8<'p, 'c>) -> Option<ProductQ8<'p, 'c>> {
        super::product_q8(self, product)
    }

    fn product_f32<'p, 'c>(self, product: ProductF32<'p, 'c>) -> Option<ProductF32<'p, 'c>> {
        super::product_f32(self, product)
    }
}

kernels!(Sse41, lanes: ROWS, groups: 1, tokens: 4);

/// Loads of a format's blocks of 32 columns into registers.
pub(in super::super) trait Chunk: Sized {
    /// Returns the low and the high 16 elements of block `part` of `block`. They are unsigned, but
    /// signed for 8 bits.
    ///
    /// # Safety
    /// `block` can be read, it has a block `part`, and the processor has the features of [`Sse41`].
    unsafe fn unpack(block: *const Self, part: usize) -> (__m128i, __m128i);

    /// Returns two words of each row's block `part`, row `j` in 32-bit lane `j`: for formats with
    /// factors two f16 (the minimum in the upper half) and four bytes (factors, then factors of the
    /// minimum), for others scale and minimum in f32.
    ///
    /// # Safety
    /// As for [`Chunk::unpack`], of all four.
    unsafe fn numbers(rows: [*const Self; ROWS], part: usize) -> [__m128i; 2];
}

/// Pointers to the blocks of four rows that hold block `block` (of 32 columns), and its index
/// there.
#[inline(always)]
fn four_rows<B: Weights>(blocks: &[B], row_blocks: usize, block: usize) -> ([*const B; 4], usize) {
    let row_len = row_blocks / parts::<B>();
    let start = blocks.as_ptr().wrapping_add(block / parts::<B>());
    let row = |row| start.wrapping_add(row * row_len);
    ([0, 1, 2, 3].map(row), block % parts::<B>())
}

/// Multipliers of the sums, a row in each lane; as those of [`super::avx2`].
struct Header {
    scale: __m128,
    min: __m128,
    factors: __m128i,
    bias: __m128i,
    min_sums: __m128i,
}

/// Builds the multipliers from the result of [`Chunk::numbers`], or from a panel.
#[inline]
#[target_feature(enable = "sse4.1,ssse3")]
fn header<B: Weights>([first, second]: [__m128i; 2]) -> Header {
    if !B::HAS_FACTORS {
        return Header {
            scale: _mm_castsi128_ps(first),
            min: _mm_castsi128_ps(second),
            factors: _mm_setzero_si128(),
            bias: _mm_set1_epi32(bias::<B>()),
            min_sums: _mm_setzero_si128(),
        };
    }
    let [scale, min] = widen_halves(first);
    let factors = byte_pairs(second);
    Header {
        scale,
        min: _mm_xor_ps(min, _mm_set1_ps(-0.0)),
        factors,
        bias: _mm_mullo_epi16(for_sums(factors), _mm_set1_epi16(B::BIAS as i16)),
        min_sums: for_sums(byte_pairs(_mm_srli_epi32::<16>(second))),
    }
}

/// Turns factors of both halves into factors of the whole sum and of the first half's sum:
/// `f · first + g · second` is `g · sum + (f - g) · first`.
#[inline]
#[target_feature(enable = "sse4.1")]
fn for_sums(factors: __m128i) -> __m128i {
    let swapped = _mm_or_si128(_mm_slli_epi32::<16>(factors), _mm_srli_epi32::<16>(factors));
    let high = _mm_and_si128(factors, _mm_set1_epi32(-0x1_0000));
    _mm_sub_epi16(swapped, high)
}

/// Sign-extends the two lowest bytes of each 32-bit lane to 16 bits each.
#[inline]
#[target_feature(enable = "sse4.1,ssse3")]
fn byte_pairs(lanes: __m128i) -> __m128i {
    // The bytes go to the upper halves of 16 bits, from where the shift keeps their sign.
    let map = _mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13);
    _mm_srai_epi16::<8>(_mm_shuffle_epi8(lanes, map))
}

/// Number to subtract from a sum of products for each unit of the activations' sum. It is 0 for 8
/// bits, which are multiplied without a bias.
const fn bias<B: Weights>() -> i32 {
    if B::BITS == 8 { 0 } else { B::BIAS }
}

/// Sums the four integers of each register: the sum of register `j` goes to lane `j`.
#[inline]
#[target_feature(enable = "sse4.1")]
fn sum_lanes([a, b, c, d]: [__m128i; 4]) -> __m128i {
    let ab = _mm_add_epi32(_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
    let cd = _mm_add_epi32(_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
    _mm_add_epi32(_mm_unpacklo_epi64(ab, cd), _mm_unpackhi_epi64(ab, cd))
}

/// Sums of two products in 16 bits.
#[inline]
#[target_feature(enable = "sse4.1,ssse3")]
fn pairs<B: Weights>(w: __m128i, x: __m128i) -> __m128i {
    if B::BITS == 8 {
        _mm_maddubs_epi16(_mm_abs_epi8(w), _mm_sign_epi8(x, w))
    } else {
        _mm_maddubs_epi16(w, x)
    }
}

/// Sums of two 16-bit numbers in 32 bits.
#[inline]
#[target_feature(enable = "sse4.1")]
fn widen(pairs: __m128i) -> __m128i {
    _mm_madd_epi16(pairs, _mm_set1_epi16(1))
}

/// Loads 16 bytes of an activation, from byte `AT` on.
#[inline]
#[target_feature(enable = "sse4.1")]
fn activation<const AT: usize>(x: &Q8Activation) -> __m128i {
    const { assert!(AT + 16 <= size_of::<Q8Activation>()) };
    // SAFETY: the 16 bytes lie inside one activation (asserted above).
    unsafe { _mm_loadu_si128((&raw const *x).cast::<u8>().add(AT).cast()) }
}

/// Returns the term of a block: scales times the sum of products, and the minimum's part.
#[inline]
#[target_feature(enable = "sse4.1,ssse3")]
fn term<B: Weights>(header: &Header, sum: __m128i, x: &Q8Activation) -> __m128 {
    let (mut sum, scale) = (sum, _mm_set1_ps(x.scale));
    let x_sums = _mm_set1_epi32(super::sums_of(x));
    if bias::<B>() != 0 {
        sum = _mm_sub_epi32(sum, _mm_madd_epi16(header.bias, x_sums));
    }
    let term = _mm_mul_ps(_mm_mul_ps(header.scale, scale), _mm_cvtepi32_ps(sum));
    if !B::HAS_MIN {
        return term;
    }
    let scaled_sum = if B::HAS_FACTORS {
        let sum = _mm_madd_epi16(header.min_sums, x_sums);
        _mm_mul_ps(scale, _mm_cvtepi32_ps(sum))
    } else {
        _mm_set1_ps(x.scaled_sum)
    };
    _mm_add_ps(term, _mm_mul_ps(header.min, scaled_sum))
}

#[target_feature(enable = "sse4.1,ssse3")]
fn decode<B: Weights>(blocks: &[B], x: &[Q8Activation], out: &mut [f32]) {
    let row_blocks = x.len();
    assert!(blocks.len() * parts::<B>() == ROWS * row_blocks && out.len() == ROWS);
    let mut acc = _mm_setzero_ps();
    for (block, x) in x.iter().enumerate() {
        let (x_low, x_high) = (activation::<12>(x), activation::<28>(x));
        let ahead = Ahead::<B, ROWS, 1>::new(blocks, block);
        let (rows, part) = four_rows(blocks, row_blocks, block);
        let mut sums = [[_mm_setzero_si128(); ROWS]; 2];
        for j in 0..ROWS {
            // SAFETY: contract 2: four rows of `row_blocks` blocks each are in `blocks` (asserted
            // above), and block < row_blocks; this function has the features.
            let (low, high) = unsafe { <B as Chunk>::unpack(rows[j], part) };
            ahead.after_row(j);
            let (low, high) = (pairs::<B>(low, x_low), pairs::<B>(high, x_high));
            if B::HAS_FACTORS {
                (sums[0][j], sums[1][j]) = (widen(low), widen(high));
            } else if B::BITS == 8 {
                sums[0][j] = _mm_add_epi32(widen(low), widen(high));
            } else {
                sums[0][j] = widen(_mm_add_epi16(low, high));
            }
        }
        ahead.after_four(0);
        // SAFETY: as above.
        let header = header::<B>(unsafe { <B as Chunk>::numbers(rows, part) });
        let mut sum = sum_lanes(sums[0]);
        if B::HAS_FACTORS {
            let low = _mm_srai_epi32::<16>(_mm_slli_epi32::<16>(header.factors));
            let high = _mm_srai_epi32::<16>(header.factors);
            let low = _mm_mullo_epi32(sum, low);
            sum = _mm_add_epi32(low, _mm_mullo_epi32(sum_lanes(sums[1]), high));
        }
        acc = _mm_add_ps(acc, term::<B>(&header, sum, x));
    }
    // SAFETY: `out` is 4 floats (asserted above).
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), acc) }
}

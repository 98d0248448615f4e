//! Kernels for AVX2, with 8 rows in a group and chunks of 2 blocks.
//!
//! Unsigned and signed bytes are multiplied and added in pairs to 16 bits with saturation, so every
//! sum must have a bound. A pair of 4-bit elements gives at most 15 · 127 · 2 = 3810, so that 8
//! pairs can be summed; 5 bits give 7874, for 4 pairs; 6 bits give 16002, for 2 pairs. 8 bits are
//! multiplied as `|w| · (x with w's sign)`, at most 128 · 127 · 2 = 32512, for one pair.

pub(super) mod float;
mod lanes;
pub(super) mod prefill;
mod quantize;
mod super_blocks;
mod unpack;

use core::arch::x86_64::*;

use self::unpack::widen_halves;
use super::{Ahead, FLOAT_ROWS, Float, Kernels, MAX_PANEL_ROWS, Panel, Weights, parts, sums_of};
use crate::kernels::dispatch::InstructionSet;
use crate::kernels::generic::Op;
use crate::kernels::isa::Avx2;
use crate::kernels::product::{ProductF32, ProductQ8};
use crate::quant::Q8Activation;

/// Rows of a group, as many as a register has 32-bit lanes.
pub(super) const ROWS: usize = 8;
/// Blocks of a chunk, as many as a register has 128-bit lanes.
pub(super) const CHUNK: usize = 2;

impl InstructionSet for Avx2 {
    fn run<O: Op>(self, op: O) -> O::Output {
        crate::__isa_features!(Avx2 compiled {
            fn run<O: Op>(isa: Avx2, op: O) -> O::Output {
                op.eval(isa)
            }
        });
        // SAFETY: contract 1 (the token says that the processor has the features).
        unsafe { run(self, op) }
    }

    fn product_q8<'p, 'c>(self, product: ProductQ8<'p, 'c>) -> Option<ProductQ8<'p, 'c>> {
        super::narrow::product_avx2(self, product)
    }

    fn product_f32<'p, 'c>(self, product: ProductF32<'p, 'c>) -> Option<ProductF32<'p, 'c>> {
        super::product_f32(self, product)
    }

    fn quantize(self, x: &[f32], out: &mut [Q8Activation]) {
        // SAFETY: contract 1 (the token says that the processor has the features).
        unsafe { quantize::quantize(x, out) }
    }
}

kernels!(Avx2, lanes: ROWS, groups: 1, tokens: 4);

/// Loads of a format's chunks into registers.
pub(in super::super) trait Chunk: Sized {
    /// Location of a row's chunk.
    type Raw: Copy;

    /// Returns the chunks of four rows, from row `first` and block (of 32 columns) `block` on. If
    /// the row has no second block there, another block takes its place.
    ///
    /// # Safety
    /// `blocks` holds rows `first` to `first + 3`, of `row_blocks` blocks of 32 columns each, and
    /// `block < row_blocks`.
    unsafe fn four_rows(
        blocks: &[Self],
        row_blocks: usize,
        first: usize,
        block: usize,
    ) -> [Self::Raw; 4];

    /// Returns the low and the high 16 elements of each block, block `k` in 128-bit lane `k`. They
    /// are unsigned, but signed for 8 bits.
    ///
    /// # Safety
    /// The blocks can be read and the processor has the features of [`Avx2`].
    unsafe fn unpack(raw: Self::Raw) -> (__m256i, __m256i);

    /// Returns the numbers that a panel holds of four rows beside their elements: block `k` and row
    /// `j` in 32-bit lane `4k + j`.
    ///
    /// # Safety
    /// The blocks can be read and the processor has the features of [`Avx2`].
    unsafe fn headers(rows: [Self::Raw; 4]) -> [__m256i; 2];
}

/// Multipliers of the sums, a row and a block in each lane. Formats without minima ignore minima
/// and their factors; formats without factors ignore factors.
pub(super) struct Header {
    scale: __m256,
    min: __m256,
    /// Factors of the sums of both halves, 16 bits each.
    factors: __m256i,
    /// Factors that give, in a product of 16-bit pairs with [`super::sums_of`] an activation, the
    /// part of the bias in a sum of products.
    bias: __m256i,
    /// Factors that give, in the same way, the sum that the minimum multiplies.
    min_sums: __m256i,
}

impl Header {
    /// The same, for elements to which `bias` was added.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn with_bias(self, bias: i32) -> Header {
        Header {
            bias: _mm256_set1_epi32(bias),
            ..self
        }
    }
}

/// Builds the multipliers from the result of [`Chunk::headers`], or from a panel.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn header<B: Weights>([first, second]: [__m256i; 2]) -> Header {
    if !B::HAS_FACTORS {
        return Header {
            scale: _mm256_castsi256_ps(first),
            min: _mm256_castsi256_ps(second),
            factors: _mm256_setzero_si256(),
            bias: _mm256_set1_epi32(bias::<B>()),
            min_sums: _mm256_setzero_si256(),
        };
    }
    let [scale, min] = widen_halves(first);
    // Bytes 0 and 1, then 2 and 3, of every 32-bit lane.
    let factors = byte_pairs(second);
    Header {
        scale,
        min: _mm256_xor_ps(min, _mm256_set1_ps(-0.0)),
        factors,
        bias: _mm256_mullo_epi16(for_sums(factors), _mm256_set1_epi16(B::BIAS as i16)),
        min_sums: for_sums(byte_pairs(_mm256_srli_epi32::<16>(second))),
    }
}

/// Turns factors of both halves into factors of the whole sum and of the first half's sum:
/// `f · first + g · second` is `g · sum + (f - g) · first`.
#[inline]
#[target_feature(enable = "avx2")]
fn for_sums(factors: __m256i) -> __m256i {
    let swapped = _mm256_or_si256(
        _mm256_slli_epi32::<16>(factors),
        _mm256_srli_epi32::<16>(factors),
    );
    let high = _mm256_and_si256(factors, _mm256_set1_epi32(-0x1_0000));
    _mm256_sub_epi16(swapped, high)
}

/// Sign-extends the two lowest bytes of each 32-bit lane to 16 bits each.
#[inline]
#[target_feature(enable = "avx2")]
fn byte_pairs(lanes: __m256i) -> __m256i {
    // The bytes go to the upper halves of 16 bits, from where the shift keeps their sign.
    let map = _mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13);
    _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(lanes, _mm256_broadcastsi128_si256(map)))
}

/// Number to subtract from a sum of products for each unit of the activations' sum. It is 0 for 8
/// bits, which AVX2 multiplies without a bias.
const fn bias<B: Weights>() -> i32 {
    if B::BITS == 8 { 0 } else { B::BIAS }
}

/// Sums the four integers of each 128-bit lane: the sum of register `j` goes to 32-bit lane `j` of
/// the 128-bit lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum_lanes([a, b, c, d]: [__m256i; 4]) -> __m256i {
    let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd))
}

/// Transposes a 2 x 2 matrix of 128-bit lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_lanes([a, b]: [__m256; 2]) -> [__m256; 2] {
    [
        _mm256_permute2f128_ps::<0x20>(a, b),
        _mm256_permute2f128_ps::<0x31>(a, b),
    ]
}

/// Loads 16 bytes of each of a chunk's activations, from byte `AT` on: block `k` in 128-bit lane
/// `k`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn activations<const AT: usize>(x: [&Q8Activation; CHUNK]) -> __m256i {
    const { assert!(AT + 16 <= size_of::<Q8Activation>()) };
    // SAFETY: the 16 bytes lie inside one activation (asserted above).
    let lane =
        |x: &Q8Activation| unsafe { _mm_loadu_si128((&raw const *x).cast::<u8>().add(AT).cast()) };
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(lane(x[0])), lane(x[1]))
}

/// Sums of two products in 16 bits: see the bounds above.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs<B: Weights>(w: __m256i, x: __m256i) -> __m256i {
    if B::BITS == 8 {
        _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
    } else {
        _mm256_maddubs_epi16(w, x)
    }
}

/// Sums of two 16-bit numbers in 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(pairs: __m256i) -> __m256i {
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// The head of activations, that is, the numbers beside their integers, in every lane that they
/// multiply.
pub(super) struct ActivationHead {
    scale: __m256,
    scaled_sum: __m256,
    /// [`super::sums_of`] an activation.
    sums: __m256i,
}

impl ActivationHead {
    /// Of a chunk: block `k` in 128-bit lane `k`.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn of_chunk(x: [&Q8Activation; CHUNK]) -> Self {
        let header = activations::<0>(x);
        ActivationHead {
            scale: _mm256_castsi256_ps(_mm256_shuffle_epi32::<0x00>(header)),
            scaled_sum: _mm256_castsi256_ps(_mm256_shuffle_epi32::<0x55>(header)),
            sums: _mm256_shuffle_epi32::<0xAA>(header),
        }
    }

    /// Of one block, in every lane.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn of_block(x: &Q8Activation) -> Self {
        ActivationHead {
            scale: _mm256_set1_ps(x.scale),
            scaled_sum: _mm256_set1_ps(x.scaled_sum),
            sums: _mm256_set1_epi32(sums_of(x)),
        }
    }
}

/// Multiplies the sums of both halves by their factors, and adds them.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn weigh(header: &Header, [low, high]: [__m256i; 2]) -> __m256i {
    let first = _mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(header.factors));
    let second = _mm256_srai_epi32::<16>(header.factors);
    _mm256_add_epi32(
        _mm256_mullo_epi32(low, first),
        _mm256_mullo_epi32(high, second),
    )
}

/// Returns what blocks add to the sums of their rows. `sum` holds the sums of products of the
/// elements as they are stored, with the bias.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn term<B: Weights>(header: &Header, x: &ActivationHead, sum: __m256i) -> __m256 {
    let sum = _mm256_sub_epi32(sum, _mm256_madd_epi16(header.bias, x.sums));
    let scale = _mm256_mul_ps(header.scale, x.scale);
    let term = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sum));
    if !B::HAS_MIN {
        return term;
    }
    let mut scaled_sum = x.scaled_sum;
    if B::HAS_FACTORS {
        let sum = _mm256_madd_epi16(header.min_sums, x.sums);
        scaled_sum = _mm256_mul_ps(x.scale, _mm256_cvtepi32_ps(sum));
    }
    _mm256_add_ps(term, _mm256_mul_ps(header.min, scaled_sum))
}

/// Adds the terms of a chunk of `blocks` blocks, which stand in `terms` as four rows and two
/// blocks each, to the sums of 8 rows: block after block.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_terms(acc: __m256, terms: [__m256; 2], blocks: usize) -> __m256 {
    let [first, second] = transpose_lanes(terms);
    let acc = _mm256_add_ps(acc, first);
    if blocks == CHUNK {
        return _mm256_add_ps(acc, second);
    }
    acc
}

#[target_feature(enable = "avx2,f16c")]
fn decode<B: Weights>(blocks: &[B], x: &[Q8Activation], out: &mut [f32]) {
    let row_blocks = x.len();
    assert!(blocks.len() * parts::<B>() == ROWS * row_blocks && out.len() == ROWS);
    let mut acc = _mm256_setzero_ps();
    for (chunk, x) in x.chunks(CHUNK).enumerate() {
        let x_blocks = [&x[0], &x[x.len() - 1]];
        let (x_low, x_high) = (activations::<12>(x_blocks), activations::<28>(x_blocks));
        let head = ActivationHead::of_chunk(x_blocks);
        let ahead = Ahead::<B, ROWS, CHUNK>::new(blocks, chunk);
        let mut terms = [_mm256_setzero_ps(); 2];
        for (i, term_of_four) in terms.iter_mut().enumerate() {
            // SAFETY: rows 4i to 4i + 3 < 8 of `row_blocks` blocks each are in `blocks`; x has a
            // block at 2·chunk.
            let rows = unsafe { <B as Chunk>::four_rows(blocks, row_blocks, 4 * i, CHUNK * chunk) };
            // SAFETY: the blocks are still borrowed, and this function has the features.
            let header = header::<B>(unsafe { <B as Chunk>::headers(rows) });
            let mut sums = [[_mm256_setzero_si256(); 4]; 2];
            for j in 0..4 {
                // SAFETY: as above.
                let (low, high) = unsafe { <B as Chunk>::unpack(rows[j]) };
                ahead.after_row(4 * i + j);
                let (low, high) = (pairs::<B>(low, x_low), pairs::<B>(high, x_high));
                if B::HAS_FACTORS {
                    (sums[0][j], sums[1][j]) = (widen(low), widen(high));
                } else if B::BITS == 8 {
                    sums[0][j] = _mm256_add_epi32(widen(low), widen(high));
                } else {
                    sums[0][j] = widen(_mm256_add_epi16(low, high));
                }
            }
            ahead.after_four(i);
            let mut sum = sum_lanes(sums[0]);
            if B::HAS_FACTORS {
                sum = weigh(&header, [sum, sum_lanes(sums[1])]);
            }
            *term_of_four = term::<B>(&header, &head, sum);
        }
        acc = add_terms(acc, terms, x.len());
    }
    // SAFETY: `out` is 8 floats.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), acc) }
}

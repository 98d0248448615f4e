//! Kernels for AVX-512 with VNNI and VBMI, with 16 rows in a group and chunks of 4 blocks.

mod float;
mod lanes;
mod prefill;
mod quantize;
mod super_blocks;
mod unpack;

use core::arch::x86_64::*;

use super::{Ahead, FLOAT_ROWS, Float, Kernels, MAX_PANEL_ROWS, Panel, Weights, parts};
use crate::kernels::dispatch::InstructionSet;
use crate::kernels::generic::Op;
use crate::kernels::isa::Avx512;
use crate::kernels::product::{ProductF32, ProductQ8};
use crate::quant::Q8Activation;

/// Rows of a group, as many as a register has 32-bit lanes.
const ROWS: usize = 16;
/// Groups of a panel.
const GROUPS: usize = 2;
/// Blocks of a chunk, as many as a register has 128-bit lanes.
const CHUNK: usize = 4;

impl InstructionSet for Avx512 {
    fn run<O: Op>(self, op: O) -> O::Output {
        crate::__isa_features!(Avx512 compiled {
            fn run<O: Op>(isa: Avx512, op: O) -> O::Output {
                op.eval(isa)
            }
        });
        // SAFETY: contract 1 (the token says that the processor has the features).
        unsafe { run(self, op) }
    }

    fn product_q8<'p, 'c>(self, product: ProductQ8<'p, 'c>) -> Option<ProductQ8<'p, 'c>> {
        super::narrow::product_avx512(self, product)
    }

    fn product_f32<'p, 'c>(self, product: ProductF32<'p, 'c>) -> Option<ProductF32<'p, 'c>> {
        super::product_f32(self, product)
    }

    fn quantize(self, x: &[f32], out: &mut [Q8Activation]) {
        // SAFETY: contract 1 (the token says that the processor has the features).
        unsafe { quantize::quantize(x, out) }
    }
}

// An activation is loaded once and multiplies two registers of weights. 6 tokens make 12 sums,
// which hide one another's latency and fit the registers.
kernels!(Avx512, lanes: ROWS, groups: GROUPS, tokens: 6);

/// Loads of a format's chunks into registers.
pub(in super::super) trait Chunk: Sized {
    /// One row's chunk, or its location.
    type Raw: Copy;
    /// Description of a chunk that may not be whole.
    type Masks: Copy;

    /// Returns the masks of a chunk of 1 to 4 blocks.
    fn masks(blocks: usize) -> Self::Masks;

    /// Loads a chunk of four rows, from row `first` and block (of 32 columns) `block` on.
    ///
    /// # Safety
    /// `blocks` holds rows `first` to `first + 3`, of `row_blocks` blocks of 32 columns each. The
    /// blocks from `block` on that `masks` was made for are in the row, and are a whole chunk if
    /// `WHOLE`. The processor has the features of [`Avx512`].
    unsafe fn load_four<const WHOLE: bool>(
        blocks: &[Self],
        row_blocks: usize,
        first: usize,
        block: usize,
        masks: &Self::Masks,
    ) -> [Self::Raw; 4];

    /// Returns the low and the high 16 elements of each block, unsigned: block `k` in 128-bit lane
    /// `k`.
    ///
    /// # Safety
    /// The processor has the features of [`Avx512`], and the blocks that were loaded are still
    /// borrowed.
    unsafe fn unpack(raw: &Self::Raw) -> (__m512i, __m512i);

    /// Returns the numbers that a panel holds of four rows beside their elements: block `k` and row
    /// `j` in 32-bit lane `4k + j`.
    ///
    /// # Safety
    /// The processor has the features of [`Avx512`], and the blocks that were loaded are still
    /// borrowed.
    unsafe fn headers(rows: &[Self::Raw; 4]) -> [__m512i; 2];
}

/// Multipliers of the sums, a row and a block in each lane. Formats without minima ignore minima
/// and their factors; formats without factors ignore factors.
struct Header {
    scale: __m512,
    min: __m512,
    /// Factors of the sums of both halves.
    factors: [__m512i; 2],
    /// Factors that give, in a product of 16-bit pairs with [`super::sums_of`] an activation, the
    /// correction of a sum of products for the bias.
    unbias: __m512i,
    /// Factors that give, in the same way, the sum that the minimum multiplies.
    min_sums: __m512i,
}

/// Builds the multipliers from the result of [`Chunk::headers`], or from a panel.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn header<B: Weights>([first, second]: [__m512i; 2]) -> Header {
    if !B::HAS_FACTORS {
        return Header {
            scale: _mm512_castsi512_ps(first),
            min: _mm512_castsi512_ps(second),
            factors: [_mm512_setzero_si512(); 2],
            unbias: _mm512_set1_epi32(-B::BIAS & 0xFFFF),
            min_sums: _mm512_setzero_si512(),
        };
    }
    let min = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(first)));
    let factors = byte_pairs(second);
    let low = _mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(factors));
    Header {
        scale: _mm512_cvtph_ps(_mm512_cvtepi32_epi16(first)),
        min: _mm512_sub_ps(_mm512_set1_ps(-0.0), min),
        factors: [low, _mm512_srai_epi32::<16>(factors)],
        unbias: _mm512_mullo_epi16(for_sums(factors), _mm512_set1_epi16(-B::BIAS as i16)),
        min_sums: for_sums(byte_pairs(_mm512_srli_epi32::<16>(second))),
    }
}

/// Sign-extends the two lowest bytes of each 32-bit lane to 16 bits each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn byte_pairs(lanes: __m512i) -> __m512i {
    // Byte 1 goes to byte 3 and byte 0 to byte 1, from where the shift keeps their sign.
    let map = _mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13);
    _mm512_srai_epi16::<8>(_mm512_shuffle_epi8(lanes, _mm512_broadcast_i32x4(map)))
}

/// Turns factors of both halves into factors of the whole sum and of the first half's sum:
/// `f · first + g · second` is `g · sum + (f - g) · first`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn for_sums(factors: __m512i) -> __m512i {
    let high = _mm512_and_si512(factors, _mm512_set1_epi32(-0x1_0000));
    _mm512_sub_epi16(_mm512_rol_epi32::<16>(factors), high)
}

/// Sums the four integers of each 128-bit lane: the sum of register `j` goes to 32-bit lane `j` of
/// the 128-bit lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_lanes([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
}

/// Transposes a 4 x 4 matrix of 128-bit lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_lanes([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let ab = (
        _mm512_shuffle_i32x4::<0x44>(a, b),
        _mm512_shuffle_i32x4::<0xEE>(a, b),
    );
    let cd = (
        _mm512_shuffle_i32x4::<0x44>(c, d),
        _mm512_shuffle_i32x4::<0xEE>(c, d),
    );
    [
        _mm512_shuffle_i32x4::<0x88>(ab.0, cd.0),
        _mm512_shuffle_i32x4::<0xDD>(ab.0, cd.0),
        _mm512_shuffle_i32x4::<0x88>(ab.1, cd.1),
        _mm512_shuffle_i32x4::<0xDD>(ab.1, cd.1),
    ]
}

/// Loads 16 bytes of each of a chunk's activations, from byte `AT` on: block `k` in 128-bit lane
/// `k`. Lanes past the end repeat the last block.
#[inline]
#[target_feature(enable = "avx512f")]
fn activations<const AT: usize>(x: &[Q8Activation]) -> __m512i {
    const { assert!(AT + 16 <= size_of::<Q8Activation>()) };
    let lane = |k: usize| {
        let x = &raw const x[k.min(x.len() - 1)];
        // SAFETY: the 16 bytes lie inside one activation (asserted above).
        unsafe { _mm_loadu_si128(x.cast::<u8>().add(AT).cast()) }
    };
    let x = _mm512_castsi128_si512(lane(0));
    let x = _mm512_inserti32x4::<1>(x, lane(1));
    let x = _mm512_inserti32x4::<2>(x, lane(2));
    _mm512_inserti32x4::<3>(x, lane(3))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
fn decode<B: Weights>(blocks: &[B], x: &[Q8Activation], out: &mut [f32]) {
    assert!(blocks.len() * parts::<B>() == ROWS * x.len() && out.len() == ROWS);
    let mut acc = _mm512_setzero_ps();
    let (chunks, rest) = x.as_chunks::<CHUNK>();
    for (chunk, now) in chunks.iter().enumerate() {
        // SAFETY: `x` has a whole chunk there, and `blocks` 16 rows as long as `x`.
        for term in unsafe { terms::<B, true>(blocks, x.len(), CHUNK * chunk, now) } {
            acc = _mm512_add_ps(acc, term);
        }
    }
    if !rest.is_empty() {
        // SAFETY: `rest` are the blocks of `x` from there on, and `blocks` 16 rows as long as `x`.
        let terms = unsafe { terms::<B, false>(blocks, x.len(), CHUNK * chunks.len(), rest) };
        for term in &terms[..rest.len()] {
            acc = _mm512_add_ps(acc, *term);
        }
    }
    // SAFETY: `out` is 16 floats.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), acc) }
}

/// Returns the terms that each block of a chunk adds to the sums of 16 rows.
///
/// # Safety
/// `blocks` are 16 rows of `row_blocks` blocks, each with at least `x.len()` blocks from `block`
/// on. `x` has 1 to 4 blocks, and 4 if `WHOLE`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
unsafe fn terms<B: Weights, const WHOLE: bool>(
    blocks: &[B],
    row_blocks: usize,
    block: usize,
    x: &[Q8Activation],
) -> [__m512; 4] {
    let masks = <B as Chunk>::masks(x.len());
    let ahead = Ahead::<B, ROWS, CHUNK>::new(blocks, block / CHUNK);
    let x_header = activations::<0>(x);
    let scale = _mm512_castsi512_ps(_mm512_shuffle_epi32::<0x00>(x_header));
    let scaled_sum = _mm512_castsi512_ps(_mm512_shuffle_epi32::<0x55>(x_header));
    let x_halves = [activations::<12>(x), activations::<28>(x)];
    let x_sums = _mm512_shuffle_epi32::<0xAA>(x_header);
    let mut terms = [_mm512_setzero_si512(); 4];
    for (i, term) in terms.iter_mut().enumerate() {
        // SAFETY: rows 4i to 4i + 3 < 16 are in `blocks`; the masks are those of `x.len()` blocks.
        let rows =
            unsafe { <B as Chunk>::load_four::<WHOLE>(blocks, row_blocks, 4 * i, block, &masks) };
        // SAFETY: this function has the features, and `blocks` is still borrowed.
        let header = header::<B>(unsafe { <B as Chunk>::headers(&rows) });
        let mut sums = [[_mm512_setzero_si512(); 4]; 2];
        for j in 0..4 {
            // SAFETY: as for the headers.
            let (low, high) = unsafe { <B as Chunk>::unpack(&rows[j]) };
            ahead.after_row(4 * i + j);
            let high_sums = if B::HAS_FACTORS { 1 } else { 0 };
            sums[0][j] = _mm512_dpbusd_epi32(sums[0][j], low, x_halves[0]);
            sums[high_sums][j] = _mm512_dpbusd_epi32(sums[high_sums][j], high, x_halves[1]);
        }
        ahead.after_four(i);
        let mut sum = sum_lanes(sums[0]);
        if B::HAS_FACTORS {
            let high = _mm512_mullo_epi32(sum_lanes(sums[1]), header.factors[1]);
            sum = _mm512_add_epi32(_mm512_mullo_epi32(sum, header.factors[0]), high);
        }
        if B::BIAS != 0 {
            sum = _mm512_dpwssd_epi32(sum, header.unbias, x_sums);
        }
        let mut value = _mm512_mul_ps(_mm512_mul_ps(header.scale, scale), _mm512_cvtepi32_ps(sum));
        if B::HAS_MIN {
            let mut scaled_sum = scaled_sum;
            if B::HAS_FACTORS {
                let sum = _mm512_madd_epi16(header.min_sums, x_sums);
                scaled_sum = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum));
            }
            value = _mm512_add_ps(value, _mm512_mul_ps(header.min, scaled_sum));
        }
        *term = _mm512_castps_si512(value);
    }
    transpose_lanes(terms).map(|term| _mm512_castsi512_ps(term))
}

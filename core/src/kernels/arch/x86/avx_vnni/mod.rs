//! Kernels for AVX2 with AVX-VNNI: AVX2's groups, chunks, unpacking and floats. Four products of
//! unsigned and signed bytes are added to a 32-bit sum by one instruction, and nothing saturates.

mod prefill;

use core::arch::x86_64::*;

use super::avx2::{
    ActivationHead, CHUNK, Chunk, Header, ROWS, activations, add_terms, float, header, sum_lanes,
    term, weigh,
};
use super::{Ahead, FLOAT_ROWS, Float, Kernels, MAX_PANEL_ROWS, Panel, Weights, parts};
use crate::kernels::dispatch::InstructionSet;
use crate::kernels::generic::Op;
use crate::kernels::isa::AvxVnni;
use crate::kernels::product::{ProductF32, ProductQ8};
use crate::quant::Q8Activation;

/// Groups of a panel.
const GROUPS: usize = 2;

impl InstructionSet for AvxVnni {
    fn run<O: Op>(self, op: O) -> O::Output {
        self.avx2().run(op)
    }

    fn product_q8<'p, 'c>(self, product: ProductQ8<'p, 'c>) -> Option<ProductQ8<'p, 'c>> {
        super::product_q8(self, product)
    }

    fn product_f32<'p, 'c>(self, product: ProductF32<'p, 'c>) -> Option<ProductF32<'p, 'c>> {
        super::product_f32(self.avx2(), product)
    }

    fn quantize(self, x: &[f32], out: &mut [Q8Activation]) {
        self.avx2().quantize(x, out);
    }
}

// An activation is loaded once and multiplies two registers of weights. 6 tokens make 12 sums,
// which hide one another's latency. They, the weights and the activation fit the 16 registers while
// a block is multiplied; the sums of floats wait in memory.
kernels!(AvxVnni, lanes: ROWS, groups: GROUPS, tokens: 6);

/// Makes elements unsigned, as the instruction wants its first factor: 8 bits are signed in AVX2's
/// registers and panels.
#[inline]
#[target_feature(enable = "avx2")]
fn unsigned<B: Weights>(elements: __m256i) -> __m256i {
    if B::BITS == 8 {
        _mm256_xor_si256(elements, _mm256_set1_epi8(i8::MIN))
    } else {
        elements
    }
}

/// AVX2's multipliers, with the bias that [`unsigned`] adds to elements of 8 bits.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn unsigned_header<B: Weights>(packed: [__m256i; 2]) -> Header {
    const { assert!(B::BITS != 8 || B::BIAS == 128) };
    let header = header::<B>(packed);
    if B::BITS == 8 {
        return header.with_bias(B::BIAS);
    }
    header
}

#[target_feature(enable = "avx2,f16c,avxvnni")]
fn decode<B: Weights>(blocks: &[B], x: &[Q8Activation], out: &mut [f32]) {
    let row_blocks = x.len();
    assert!(blocks.len() * parts::<B>() == ROWS * row_blocks && out.len() == ROWS);
    let mut acc = _mm256_setzero_ps();
    for (chunk, x) in x.chunks(CHUNK).enumerate() {
        let x_blocks = [&x[0], &x[x.len() - 1]];
        let x_halves = [activations::<12>(x_blocks), activations::<28>(x_blocks)];
        let head = ActivationHead::of_chunk(x_blocks);
        let ahead = Ahead::<B, ROWS, CHUNK>::new(blocks, chunk);
        let mut terms = [_mm256_setzero_ps(); 2];
        for (i, term_of_four) in terms.iter_mut().enumerate() {
            // SAFETY: rows 4i to 4i + 3 < 8 of `row_blocks` blocks each are in `blocks`; x has a
            // block at 2·chunk.
            let rows = unsafe { <B as Chunk>::four_rows(blocks, row_blocks, 4 * i, CHUNK * chunk) };
            // SAFETY: the blocks are still borrowed, and this function has the features.
            let header = unsigned_header::<B>(unsafe { <B as Chunk>::headers(rows) });
            let mut sums = [[_mm256_setzero_si256(); 4]; 2];
            for j in 0..4 {
                // SAFETY: as above.
                let (low, high) = unsafe { <B as Chunk>::unpack(rows[j]) };
                ahead.after_row(4 * i + j);
                let (low, high) = (unsigned::<B>(low), unsigned::<B>(high));
                let of_high = usize::from(B::HAS_FACTORS);
                sums[0][j] = _mm256_dpbusd_avx_epi32(sums[0][j], low, x_halves[0]);
                sums[of_high][j] = _mm256_dpbusd_avx_epi32(sums[of_high][j], high, x_halves[1]);
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

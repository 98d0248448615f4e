//! Code that SSE4.1, AVX2, AVX-VNNI and AVX-512 share.
//!
//! All see a weight matrix as groups of rows, and a row as chunks of blocks. A register of `n`
//! lanes of 128 bits holds the 16 low (or 16 high) elements of `n` consecutive blocks of one row;
//! `4 n` rows make a group, so that the transposed sums of a group's chunk fill whole registers
//! with one row per 32-bit lane, as the contract's order of blocks requires.
//!
//! - **Few tokens** ([`Kernels::decode`]): straight from the blocks to sums, limited by memory.
//! - **Many tokens** ([`Kernels::fill`], [`Kernels::tile`]): a group is unpacked once into a panel
//!   in the scratch, in which one register holds 4 columns of every row of the group; a broadcast
//!   of the same 4 columns of a token's activations then gives every row's sum without a horizontal
//!   step.
//!
//! A super-block is a number of chunks, of blocks of 32 columns. Only the loads into registers are
//! specific to it ([`weights`]).
//!
//! Rows that do not fill a group go through the scalar reference.

/// Implements [`Kernels`] by the functions of the module that uses this, which are compiled with
/// the features of `$isa`.
macro_rules! kernels {
    ($isa:ty, lanes: $lanes:expr, groups: $groups:expr, tokens: $tokens:expr) => {
        impl Kernels for $isa {
            const LANES: usize = $lanes;
            const GROUPS: usize = $groups;
            const TOKENS: usize = $tokens;

            #[inline]
            fn decode<B: Weights>(self, blocks: &[B], x: &[Q8Activation], out: &mut [f32]) {
                // SAFETY: contract 1 (the token says that the processor has the features).
                unsafe { decode(blocks, x, out) }
            }

            #[inline]
            fn fill<B: Weights>(self, blocks: &[B], panel: &mut Panel<'_>) {
                // SAFETY: contract 1 (the token says that the processor has the features).
                unsafe { prefill::fill(blocks, panel) }
            }

            #[inline]
            fn tile<B: Weights, const T: usize>(
                self,
                panel: &Panel<'_>,
                x: &[Q8Activation],
            ) -> [[f32; MAX_PANEL_ROWS]; T] {
                // SAFETY: contract 1 (the token says that the processor has the features).
                unsafe { prefill::tile::<B, T>(panel, x) }
            }

            #[inline]
            fn dots<W: Float, const T: usize>(
                self,
                w: &[W],
                x: &[f32],
                out: &mut [[f32; FLOAT_ROWS]; T],
            ) {
                // SAFETY: contract 1 (the token says that the processor has the features).
                unsafe { float::dots(w, x, out) }
            }
        }
    };
}

mod avx2;
mod avx512;
mod avx_vnni;
mod narrow;
mod sse41;
mod weights;

use core::arch::x86_64::*;
use core::mem::offset_of;
use core::ops::Range;

use crate::arena::{Carver, Columns};
use crate::kernels::product::{PANEL_ROWS as MAX_PANEL_ROWS, ProductF32, ProductQ8};
use crate::kernels::scalar;
use crate::quant::{BLOCK, Bf16, Block, F16, F32, Q8Activation, with_block};

use weights::{Layout, Weights, parts};

/// Rows of float weights in a group: enough independent sums to hide the latency of an addition.
const FLOAT_ROWS: usize = 4;

/// Fewest tokens for which unpacking a panel pays.
const PANEL_TOKENS: usize = 4;

/// Returns the sums of an activation: of all integers in the lower 16 bits, of the first half in
/// the upper.
#[inline(always)]
fn sums_of(x: &Q8Activation) -> i32 {
    i32::from(x.first_sum) << 16 | i32::from(x.sum) & 0xFFFF
}

const _: () =
    assert!(offset_of!(Q8Activation, sum) == 8 && offset_of!(Q8Activation, first_sum) == 10);

/// A float format, with one element a block.
pub(super) trait Float: Block {
    /// The element 0.
    const ZERO: Self;
}

impl Float for F32 {
    const ZERO: Self = F32([0; 4]);
}
impl Float for F16 {
    const ZERO: Self = F16([0; 2]);
}
impl Float for Bf16 {
    const ZERO: Self = Bf16([0; 2]);
}

/// Some groups of rows, unpacked, one group after the other.
pub(super) struct Panel<'s> {
    /// For each block of a group 8 registers; 32-bit lane `r` of register `j` holds elements
    /// `4j..4j + 4` of row `r`.
    quants: &'s mut [u8],
    /// For each block of a group every row's scale, then every row's minimum. For formats with
    /// factors, as bits: every row's two f16 (the minimum in the upper half), then every row's four
    /// bytes (factors, then factors of the minimum).
    scales: &'s mut [f32],
}

impl Panel<'_> {
    /// Returns group `group` of `groups`.
    fn group(&mut self, group: usize, groups: usize) -> Panel<'_> {
        let (quants, scales) = (self.quants.len() / groups, self.scales.len() / groups);
        Panel {
            quants: &mut self.quants[group * quants..][..quants],
            scales: &mut self.scales[group * scales..][..scales],
        }
    }
}

/// The kernels of one instruction set, for one group of rows.
pub(super) trait Kernels: Copy {
    /// Rows in a group.
    const LANES: usize;
    /// Groups in a panel.
    const GROUPS: usize;
    /// Number of tokens whose sums with a panel's rows fit the registers.
    const TOKENS: usize;

    /// Multiplies one token: `blocks` are `LANES` rows of `x.len()` blocks, `out` their `LANES`
    /// outputs.
    fn decode<B: Weights>(self, blocks: &[B], x: &[Q8Activation], out: &mut [f32]);

    /// Unpacks `LANES` rows into a panel of one group.
    fn fill<B: Weights>(self, blocks: &[B], panel: &mut Panel<'_>);

    /// Multiplies `T` tokens, one after the other in `x`, with a panel. The first `GROUPS · LANES`
    /// values of each token are its outputs.
    fn tile<B: Weights, const T: usize>(
        self,
        panel: &Panel<'_>,
        x: &[Q8Activation],
    ) -> [[f32; MAX_PANEL_ROWS]; T];

    /// Computes [`scalar::dot`] of each pair of `FLOAT_ROWS` rows and `T` tokens, one after the
    /// other in `w` and `x`.
    fn dots<W: Float, const T: usize>(self, w: &[W], x: &[f32], out: &mut [[f32; FLOAT_ROWS]; T]);
}

/// Implements [`InstructionSet::product_q8`](crate::kernels::dispatch::InstructionSet::product_q8)
/// for every quantised format.
fn product_q8<'p, 'c, K: Kernels>(isa: K, product: ProductQ8<'p, 'c>) -> Option<ProductQ8<'p, 'c>> {
    with_block!(product.weights.format();
        float _B => return Some(product);
        quantized B => multiply_groups::<K, B>(isa, product)
    );
    None
}

/// Multiplies group after group, then the remaining rows.
fn multiply_groups<K: Kernels, B: Weights>(isa: K, product: ProductQ8<'_, '_>) {
    let (w, x, out) = (product.weights, product.activations, product.out);
    let row_blocks = w.cols() / BLOCK;
    let tokens = out.rows();
    let blocks = w.blocks::<B>(product.rows);
    let row_len = row_blocks / parts::<B>();
    let group_blocks = K::LANES * row_len;
    let (blocks, rest) = blocks.split_at(blocks.len() / group_blocks * group_blocks);
    let mut at = 0;
    prefetch_first(&blocks[..blocks.len().min(group_blocks)]);
    if tokens < PANEL_TOKENS {
        for group in blocks.chunks_exact(group_blocks) {
            for (token, x) in x.chunks_exact(row_blocks).enumerate() {
                isa.decode(group, x, &mut out.row_mut(token)[at..at + K::LANES]);
            }
            at += K::LANES;
        }
    } else {
        let mut panel = panel::<K>(product.scratch, row_blocks);
        for groups in blocks.chunks(K::GROUPS * group_blocks) {
            for (i, group) in groups.chunks_exact(group_blocks).enumerate() {
                isa.fill(group, &mut panel.group(i, K::GROUPS));
            }
            // If a panel is not full, its old contents are multiplied, too, and the results
            // dropped.
            let rows = groups.len() / row_len;
            multiply::<K, B>(isa, &panel, row_blocks, x, out, at..at + rows);
            at += rows;
        }
    }
    for (i, row) in rest.chunks_exact(row_len).enumerate() {
        for (token, x) in x.chunks_exact(row_blocks).enumerate() {
            out.row_mut(token)[at + i] = B::dot(row, x);
        }
    }
}

/// Prefetches the first group. The kernels prefetch each following group themselves ([`Ahead`]).
fn prefetch_first<B>(group: &[B]) {
    for at in (0..size_of_val(group)).step_by(64) {
        prefetch(group.as_ptr().wrapping_byte_add(at));
    }
}

/// Asks for the line at an address, which need not be readable. The compiler moves no load across
/// this: it would gather the requests at the end of a loop, in a burst.
#[inline(always)]
fn prefetch<T>(at: *const T) {
    // SAFETY: every x86-64 has SSE, and a prefetch is a hint that faults on no address.
    unsafe { core::arch::asm!("prefetcht0 [{}]", in(reg) at, options(nostack, preserves_flags)) }
}

/// The part of the next group of `ROWS` rows that is asked for while a chunk of `CHUNK` blocks of
/// this group is computed. A group is read in `ROWS` streams at once, which the processor's own
/// prefetchers do not follow. Its lines are asked for in their order, a few after each row: a burst
/// of them fills the buffers of outstanding misses, and what is loaded next waits behind it. Their
/// numbers are constants, since the compiler would make loops of others.
#[derive(Clone, Copy)]
struct Ahead<B, const ROWS: usize, const CHUNK: usize>(*const B);

impl<B: Weights, const ROWS: usize, const CHUNK: usize> Ahead<B, ROWS, CHUNK> {
    /// Bytes of a chunk in all rows.
    const BYTES: usize = ROWS * CHUNK * size_of::<B>() / parts::<B>();
    /// Lines after each row.
    const BY_ROW: usize = Self::BYTES.div_ceil(64) / ROWS;
    /// Lines after four rows: what is left of them.
    const BY_FOUR: usize = (Self::BYTES.div_ceil(64) % ROWS).div_ceil(ROWS / 4);
    /// Distance beyond the next group's corresponding part, in bytes.
    const FURTHER: usize = 4096;

    /// The part for chunk `chunk` of the group after `blocks`, and somewhat further.
    #[inline(always)]
    fn new(blocks: &[B], chunk: usize) -> Self {
        let next = blocks.as_ptr_range().end;
        Ahead(next.wrapping_byte_add(Self::FURTHER + chunk * Self::BYTES))
    }

    /// Asks for the lines that belong to row `row`.
    #[inline(always)]
    fn after_row(self, row: usize) {
        for line in 0..Self::BY_ROW {
            prefetch(self.0.wrapping_byte_add(64 * (row * Self::BY_ROW + line)));
        }
    }

    /// Asks for the lines that belong to the `four`-th four rows.
    #[inline(always)]
    fn after_four(self, four: usize) {
        let first = ROWS * Self::BY_ROW + four * Self::BY_FOUR;
        for line in 0..Self::BY_FOUR {
            prefetch(self.0.wrapping_byte_add(64 * (first + line)));
        }
    }
}

/// Carves the panel from the scratch.
fn panel<K: Kernels>(scratch: &mut [u8], row_blocks: usize) -> Panel<'_> {
    let Some(mut carver) = Carver::new(scratch) else {
        panic!("scratch is not aligned")
    };
    let quants = carver.take(row_blocks * BLOCK * K::LANES * K::GROUPS);
    let scales = carver.take(row_blocks * 2 * K::LANES * K::GROUPS);
    let (Some(quants), Some(scales)) = (quants, scales) else {
        panic!("scratch is too small")
    };
    Panel { quants, scales }
}

/// Multiplies all tokens with one panel, whose rows' outputs go to columns `rows` of `out`.
fn multiply<K: Kernels, B: Weights>(
    isa: K,
    panel: &Panel<'_>,
    row_blocks: usize,
    x: &[Q8Activation],
    out: &mut Columns<'_, f32>,
    rows: Range<usize>,
) {
    let tokens = out.rows();
    let mut token = 0;
    while token < tokens {
        let (x, rows) = (&x[token * row_blocks..], rows.clone());
        token += match tokens - token {
            // Factors need twice the sums: four tokens leave more room for them.
            6.. if K::TOKENS >= 6 && !B::HAS_FACTORS => {
                store::<K, B, 6>(isa, panel, &x[..6 * row_blocks], out, token, rows)
            }
            4.. => store::<K, B, 4>(isa, panel, &x[..4 * row_blocks], out, token, rows),
            2.. => store::<K, B, 2>(isa, panel, &x[..2 * row_blocks], out, token, rows),
            _ => store::<K, B, 1>(isa, panel, &x[..row_blocks], out, token, rows),
        };
    }
}

/// Multiplies `T` tokens with one panel; returns `T`.
fn store<K: Kernels, B: Weights, const T: usize>(
    isa: K,
    panel: &Panel<'_>,
    x: &[Q8Activation],
    out: &mut Columns<'_, f32>,
    token: usize,
    rows: Range<usize>,
) -> usize {
    let sums = isa.tile::<B, T>(panel, x);
    for (i, sums) in sums.iter().enumerate() {
        // Group by group: a length that the compiler knows needs no call.
        let out = out.row_mut(token + i)[rows.clone()].chunks_exact_mut(K::LANES);
        for (out, sums) in out.zip(sums.chunks_exact(K::LANES)) {
            out.copy_from_slice(sums);
        }
    }
    T
}

/// Implements
/// [`InstructionSet::product_f32`](crate::kernels::dispatch::InstructionSet::product_f32) for every
/// float format.
fn product_f32<'p, 'c, K: Kernels>(
    isa: K,
    product: ProductF32<'p, 'c>,
) -> Option<ProductF32<'p, 'c>> {
    with_block!(product.weights.format();
        float B => multiply_floats::<K, B>(isa, product);
        quantized _B => return Some(product)
    );
    None
}

/// Multiplies four rows at a time, then the remaining rows.
fn multiply_floats<K: Kernels, W: Float>(isa: K, product: ProductF32<'_, '_>) {
    let (w, rows, x, out) = (
        product.weights,
        product.rows,
        product.activations,
        product.out,
    );
    let (cols, tokens) = (w.cols(), out.rows());
    let first_left = rows.len() / FLOAT_ROWS * FLOAT_ROWS;
    for at in (0..first_left).step_by(FLOAT_ROWS) {
        let w = w.blocks::<W>(rows.start + at..rows.start + at + FLOAT_ROWS);
        let mut token = 0;
        while token < tokens {
            let x = &x[token * cols..];
            token += match tokens - token {
                4.. => store_floats::<K, W, 4>(isa, w, &x[..4 * cols], out, token, at),
                _ => store_floats::<K, W, 1>(isa, w, &x[..cols], out, token, at),
            };
        }
    }
    for at in first_left..rows.len() {
        let w = w.blocks::<W>(rows.start + at..rows.start + at + 1);
        for token in 0..tokens {
            out.row_mut(token)[at] = dot_float(w, &x[token * cols..][..cols]);
        }
    }
}

/// Multiplies `T` tokens and one group of rows of float weights; returns `T`.
fn store_floats<K: Kernels, W: Float, const T: usize>(
    isa: K,
    w: &[W],
    x: &[f32],
    out: &mut Columns<'_, f32>,
    token: usize,
    at: usize,
) -> usize {
    let mut sums = [[0.0; FLOAT_ROWS]; T];
    isa.dots(w, x, &mut sums);
    for (i, sums) in sums.iter().enumerate() {
        out.row_mut(token + i)[at..at + FLOAT_ROWS].copy_from_slice(sums);
    }
    T
}

/// The last elements of a row, fewer than 16, and zeros after them: a step like any other. It
/// changes no other partial sum, since none is ever -0: each begins as 0, and only -0 and -0 add up
/// to -0.
#[inline(always)]
fn padded<V: Copy>(rest: &[V], zero: V) -> [V; 16] {
    let mut step = [zero; 16];
    step[..rest.len()].copy_from_slice(rest);
    step
}

/// The end of [`scalar::fold`], for four rows: partial sums `i`, with those 4, 8 and 12 after them
/// added, are lane `i`.
#[inline]
#[target_feature(enable = "sse4.1")]
fn fold_rows(rows: [__m128; FLOAT_ROWS]) -> [f32; FLOAT_ROWS] {
    let [a, b, c, d] = rows;
    let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
    let (first, second) = (_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
    let (ab, cd) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
    let (third, fourth) = (_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
    let sums = _mm_add_ps(_mm_add_ps(first, third), _mm_add_ps(second, fourth));
    let mut out = [0.0; FLOAT_ROWS];
    // SAFETY: contract 5 (four floats).
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), sums) };
    out
}

/// Does the same as [`scalar::dot`] for weights in any float format.
fn dot_float<W: Block>(w: &[W], x: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let steps = w.len() / 16;
    for (w, x) in w.chunks_exact(16).zip(x.chunks_exact(16)) {
        for i in 0..16 {
            sums[i] += element(&w[i]) * x[i];
        }
    }
    finish(sums, &w[16 * steps..], &x[16 * steps..])
}

/// Completes the partial sums with the last elements, fewer than 16, and folds them.
fn finish<W: Block>(mut sums: [f32; 16], w: &[W], x: &[f32]) -> f32 {
    for (sum, (w, x)) in sums.iter_mut().zip(w.iter().zip(x)) {
        *sum += element(w) * x;
    }
    scalar::fold(sums)
}

/// The only element of a block of a float format.
fn element<W: Block>(w: &W) -> f32 {
    let mut value = [0.0];
    w.dequantize(&mut value);
    value[0]
}

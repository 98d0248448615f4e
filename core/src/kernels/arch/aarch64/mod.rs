//! Kernels for AArch64: Advanced SIMD (NEON), with and without dot products and products of int8
//! matrices.
//!
//! Eight rows make a group; a register of four 32-bit lanes holds one number of each of four rows.
//! Every lane thus keeps the contract's order of blocks.
//!
//! - **Few tokens** ([`decode`]): straight from the blocks to sums.
//! - **Many tokens** ([`prefill`]): a group is unpacked once into a panel in the scratch, in which
//!   one register holds 4 columns of 4 rows; the same 4 columns of a token's activations then give
//!   4 rows' sums without a horizontal step. With products of matrices it holds 8 columns of 2
//!   rows, which meet 8 columns of 2 tokens.
//!
//! Both are written for simple blocks; [`super_blocks`] has its own decoding and unpacking, and the
//! same panels.
//!
//! A group at the end of a range may have fewer rows. It repeats its last row and drops the results
//! of the copies, so that no row needs other code.

mod decode;
mod dot;
mod float;
mod lanes;
mod multipliers;
mod prefill;
mod quantize;
mod super_blocks;
mod unpack;

use core::arch::asm;

use crate::kernels::dispatch::InstructionSet;
use crate::kernels::generic::Op;
use crate::kernels::isa::{Neon, NeonDotprod, NeonI8mm};
use crate::kernels::product::{ProductF32, ProductQ8};
use crate::quant::{BLOCK, Block, Format, Q8Activation, QuantBlock, with_block};

use dot::{Dot, Sdot, Smlal, SmlalWide, Smmla};
use unpack::Unpack;

/// Rows in a group.
const GROUP: usize = 8;

/// Fewest tokens for which unpacking a panel pays.
const PANEL_TOKENS: usize = 4;

impl InstructionSet for Neon {
    fn run<O: Op>(self, op: O) -> O::Output {
        crate::__isa_features!(Neon compiled {
            fn run<O: Op>(isa: Neon, op: O) -> O::Output {
                op.eval(isa)
            }
        });
        // SAFETY: contract 1 (the token says that the processor has the features).
        unsafe { run(self, op) }
    }

    fn product_q8<'p, 'c>(self, product: ProductQ8<'p, 'c>) -> Option<ProductQ8<'p, 'c>> {
        if matches!(product.weights.format(), Format::Q8_0 | Format::IQ4_NL) {
            product_q8(SmlalWide(self), product)
        } else {
            product_q8(Smlal(self), product)
        }
    }

    fn product_f32<'p, 'c>(self, product: ProductF32<'p, 'c>) -> Option<ProductF32<'p, 'c>> {
        float::product_f32(self, product);
        None
    }

    fn quantize(self, x: &[f32], out: &mut [Q8Activation]) {
        quantize::quantize(self, x, out);
    }
}

impl InstructionSet for NeonDotprod {
    // Vectors of floats have no use for dot products.
    fn run<O: Op>(self, op: O) -> O::Output {
        self.neon().run(op)
    }

    fn product_q8<'p, 'c>(self, product: ProductQ8<'p, 'c>) -> Option<ProductQ8<'p, 'c>> {
        product_q8(Sdot(self), product)
    }

    fn product_f32<'p, 'c>(self, product: ProductF32<'p, 'c>) -> Option<ProductF32<'p, 'c>> {
        self.neon().product_f32(product)
    }

    fn quantize(self, x: &[f32], out: &mut [Q8Activation]) {
        self.neon().quantize(x, out);
    }
}

impl InstructionSet for NeonI8mm {
    fn run<O: Op>(self, op: O) -> O::Output {
        self.dotprod().run(op)
    }

    fn product_q8<'p, 'c>(self, product: ProductQ8<'p, 'c>) -> Option<ProductQ8<'p, 'c>> {
        product_q8(Smmla(self), product)
    }

    fn product_f32<'p, 'c>(self, product: ProductF32<'p, 'c>) -> Option<ProductF32<'p, 'c>> {
        self.dotprod().product_f32(product)
    }

    fn quantize(self, x: &[f32], out: &mut [Q8Activation]) {
        self.dotprod().quantize(x, out);
    }
}

/// Implements [`InstructionSet::product_q8`] for every quantised format.
fn product_q8<'p, 'c, D: Dot>(dot: D, product: ProductQ8<'p, 'c>) -> Option<ProductQ8<'p, 'c>> {
    with_block!(product.weights.format();
        float _B => return Some(product);
        quantized B => multiply_groups::<D, B>(dot, product)
    );
    None
}

/// A quantised format, as [`multiply_groups`] sees it.
trait Weights: Block {
    /// True if a block has a minimum.
    const HAS_MIN: bool;
    /// True if its halves of 16 columns have integer factors ([`crate::quant::Part`]).
    const HAS_FACTORS: bool;

    /// Computes the outputs of consecutive rows for one token.
    ///
    /// # Panics
    /// If `blocks` are not `out.len()` rows as long as `x`.
    fn decode<D: Dot>(dot: D, blocks: &[Self], x: &[Q8Activation], out: &mut [f32]);

    /// Unpacks a group.
    ///
    /// # Panics
    /// If its rows are not as long as the panel.
    fn fill<D: Dot>(dot: D, rows: Group<'_, Self>, panel: &mut prefill::Panel<'_>);
}

impl<B: Unpack> Weights for B {
    const HAS_MIN: bool = <B as QuantBlock>::HAS_MIN;
    const HAS_FACTORS: bool = false;

    fn decode<D: Dot>(dot: D, blocks: &[B], x: &[Q8Activation], out: &mut [f32]) {
        decode::rows(dot, blocks, x, out);
    }

    fn fill<D: Dot>(dot: D, rows: Group<'_, B>, panel: &mut prefill::Panel<'_>) {
        panel.fill(dot, rows);
    }
}

/// Multiplies one group of rows after the other.
fn multiply_groups<D: Dot, B: Weights>(dot: D, product: ProductQ8<'_, '_>) {
    let (w, x, out) = (product.weights, product.activations, product.out);
    let row_blocks = w.cols() / BLOCK;
    let row_len = w.cols() / B::FORMAT.block_len();
    let (tokens, rows) = (out.rows(), product.rows.len());
    let blocks = w.blocks::<B>(product.rows);
    if tokens >= PANEL_TOKENS {
        let mut panel = prefill::Panel::new(product.scratch, row_blocks);
        for (i, blocks) in blocks.chunks(GROUP * row_len).enumerate() {
            B::fill(dot, Group { blocks, row_len }, &mut panel);
            panel.multiply::<D, B>(dot, x, tokens, |token, sums| {
                store(&mut out.row_mut(token)[GROUP * i..], sums)
            });
        }
        return;
    }
    // One token passes over all rows in one go; each of several over a group while it is near.
    let step = if tokens == 1 { rows } else { GROUP };
    for at in (0..rows).step_by(step.max(1)) {
        let end = rows.min(at + step);
        let blocks = &blocks[at * row_len..end * row_len];
        for (token, x) in x.chunks_exact(row_blocks).enumerate() {
            B::decode(dot, blocks, x, &mut out.row_mut(token)[at..end]);
        }
    }
}

/// Steps in which a group's blocks in one column are computed, each followed by [`prefetch`].
const STEPS: usize = 8;

/// Returns the first of the cache lines that are asked for after step `step`, of all lines of a
/// group's blocks in one column.
const fn first_line<B>(step: usize) -> usize {
    step * (size_of::<B>() * GROUP).div_ceil(64) / STEPS
}

/// Asks for the part of the next group that belongs to step `STEP`: a burst of all lines would fill
/// the buffers of outstanding misses, and what is loaded next would wait behind it. The next
/// group's bytes are asked for in the order of their addresses; `next` is the first of this
/// column's share.
#[inline(always)]
fn prefetch<B, const STEP: usize>(next: *const B) {
    /// The `$index`-th line of the step, if it has as many.
    macro_rules! line {
        ($($index:literal)*) => {$(
            if first_line::<B>(STEP) + $index < first_line::<B>(STEP + 1) {
                // SAFETY: a prefetch is a hint: it changes no state, and an address that cannot be
                // read is ignored.
                unsafe {
                    asm!(
                        "prfm pldl1strm, [{next}, #{offset}]", next = in(reg) next,
                        offset = const 64 * (first_line::<B>(STEP) + $index),
                        options(readonly, nostack, preserves_flags)
                    );
                }
            }
        )*};
    }
    const { assert!(first_line::<B>(STEP + 1) - first_line::<B>(STEP) <= 4) };
    line!(0 1 2 3);
}

/// Writes a group's outputs, as many as `out` holds.
#[inline(always)]
fn store(out: &mut [f32], sums: [f32; GROUP]) {
    if let Some(out) = out.first_chunk_mut() {
        *out = sums;
    } else {
        store_part(out, &sums);
    }
}

/// Writes the outputs of a group that lacks rows. It stands apart: otherwise every group's eight
/// numbers would be copied by a call, since their number could be any.
#[cold]
#[inline(never)]
fn store_part(out: &mut [f32], sums: &[f32; GROUP]) {
    out.copy_from_slice(&sums[..out.len()]);
}

/// Up to [`GROUP`] consecutive rows, at least one.
#[derive(Clone, Copy)]
struct Group<'w, B> {
    blocks: &'w [B],
    /// Blocks of a row.
    row_len: usize,
}

impl<B> Group<'_, B> {
    /// Starts of the rows, each of [`Group::row_len`] blocks. Missing rows are copies of the last.
    fn starts(self) -> [*const u8; GROUP] {
        let last = self.blocks[self.blocks.len() - self.row_len..].as_ptr();
        let mut next = self.blocks.as_ptr();
        core::array::from_fn(|_| {
            let start = next.min(last);
            next = start.wrapping_add(self.row_len);
            start.cast()
        })
    }
}

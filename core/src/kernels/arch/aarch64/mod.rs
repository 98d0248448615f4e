//! AArch64: Advanced SIMD (NEON), with and without the dot product instructions.
//!
//! Eight rows make a group; a register of four 32-bit lanes holds one number of each of four rows, so that the contract's order
//! of blocks is kept in every lane.
//!
//! - **Few tokens** ([`decode`]): straight from the blocks to sums.
//! - **Many tokens** ([`prefill`]): a group is unpacked once into a panel in the scratch, in which one register holds 4 columns of
//!   4 rows; the same 4 columns of a token's activations then give 4 rows' sums without a horizontal step.
//!
//! Both are written for simple blocks; [`super_blocks`] has its own decoding and unpacking, and the same panels.
//!
//! A group at the end of a range that has fewer rows repeats its last one and throws the copies' results away, so that no row
//! needs other code.

mod decode;
mod dot;
mod float;
mod prefill;
mod quantize;
mod super_blocks;
mod unpack;

use core::ops::Range;

use super::super::Q8Activation;
use super::{Neon, NeonDotprod};
use crate::arena::Columns;
use crate::quant::{
    BLOCK, Block, BlockIq4Nl, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1,
    BlockQ5K, BlockQ6K, BlockQ8_0, Format, QuantBlock,
};
use crate::tensor::Matrix;

use dot::{Dot, Sdot, Smlal, SmlalWide};
use unpack::Unpack;

pub(super) use float::matmul_f32;
pub(super) use quantize::quantize;

/// Rows in a group.
const GROUP: usize = 8;

/// From how many tokens on unpacking a panel pays.
const PANEL_TOKENS: usize = 4;

/// As [`super::matmul_q8`], without the dot product instructions.
pub(super) fn matmul_q8_neon(
    isa: Neon,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &[Q8Activation],
    out: &mut Columns<'_, f32>,
    scratch: &mut [u8],
) -> bool {
    if matches!(w.format(), Format::Q8_0 | Format::IQ4_NL) {
        matmul_q8(SmlalWide(isa), w, rows, x, out, scratch)
    } else {
        matmul_q8(Smlal(isa), w, rows, x, out, scratch)
    }
}

/// As [`super::matmul_q8`], with the dot product instructions.
pub(super) fn matmul_q8_dotprod(
    isa: NeonDotprod,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &[Q8Activation],
    out: &mut Columns<'_, f32>,
    scratch: &mut [u8],
) -> bool {
    matmul_q8(Sdot(isa), w, rows, x, out, scratch)
}

fn matmul_q8<D: Dot>(
    dot: D,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &[Q8Activation],
    out: &mut Columns<'_, f32>,
    scratch: &mut [u8],
) -> bool {
    match w.format() {
        Format::Q4_0 => matmul::<D, BlockQ4_0>(dot, w, rows, x, out, scratch),
        Format::Q4_1 => matmul::<D, BlockQ4_1>(dot, w, rows, x, out, scratch),
        Format::Q5_0 => matmul::<D, BlockQ5_0>(dot, w, rows, x, out, scratch),
        Format::Q5_1 => matmul::<D, BlockQ5_1>(dot, w, rows, x, out, scratch),
        Format::Q8_0 => matmul::<D, BlockQ8_0>(dot, w, rows, x, out, scratch),
        Format::Q2_K => matmul::<D, BlockQ2K>(dot, w, rows, x, out, scratch),
        Format::Q3_K => matmul::<D, BlockQ3K>(dot, w, rows, x, out, scratch),
        Format::Q4_K => matmul::<D, BlockQ4K>(dot, w, rows, x, out, scratch),
        Format::Q5_K => matmul::<D, BlockQ5K>(dot, w, rows, x, out, scratch),
        Format::Q6_K => matmul::<D, BlockQ6K>(dot, w, rows, x, out, scratch),
        Format::IQ4_NL => matmul::<D, BlockIq4Nl>(dot, w, rows, x, out, scratch),
        Format::F32 | Format::F16 | Format::BF16 => return false,
    }
    true
}

/// A quantised format, as [`matmul`] sees it.
trait Weights: Block {
    /// Whether a block has a minimum.
    const HAS_MIN: bool;
    /// Whether its halves of 16 columns have integer factors ([`crate::quant::Part`]).
    const HAS_FACTORS: bool;

    /// The outputs of a group for one token.
    ///
    /// # Panics
    /// If `x` is not as long as the rows.
    fn decode<D: Dot>(dot: D, rows: Group<'_, Self>, x: &[Q8Activation]) -> [f32; GROUP];

    /// Unpacks a group.
    ///
    /// # Panics
    /// If its rows are not as long as the panel.
    fn fill<D: Dot>(neon: D, rows: Group<'_, Self>, panel: &mut prefill::Panel<'_>);
}

impl<B: Unpack> Weights for B {
    const HAS_MIN: bool = <B as QuantBlock>::HAS_MIN;
    const HAS_FACTORS: bool = false;

    fn decode<D: Dot>(dot: D, rows: Group<'_, B>, x: &[Q8Activation]) -> [f32; GROUP] {
        decode::group(dot, rows, x)
    }

    fn fill<D: Dot>(neon: D, rows: Group<'_, B>, panel: &mut prefill::Panel<'_>) {
        panel.fill(neon, rows);
    }
}

/// Group after group of rows.
fn matmul<D: Dot, B: Weights>(
    dot: D,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &[Q8Activation],
    out: &mut Columns<'_, f32>,
    scratch: &mut [u8],
) {
    let row_blocks = w.cols() / BLOCK;
    let tokens = out.rows();
    let mut panel = (tokens >= PANEL_TOKENS).then(|| prefill::Panel::new(scratch, row_blocks));
    let mut at = 0;
    let row_len = w.cols() / B::FORMAT.block_len();
    for blocks in w.blocks::<B>(rows).chunks(GROUP * row_len) {
        let group = Group { blocks, row_len };
        if let Some(panel) = &mut panel {
            B::fill(dot, group, panel);
            panel.multiply::<D, B>(dot, x, tokens, |token, sums| {
                store(&mut out.row_mut(token)[at..], sums)
            });
        } else {
            for (token, x) in x.chunks_exact(row_blocks).enumerate() {
                store(&mut out.row_mut(token)[at..], B::decode(dot, group, x));
            }
        }
        at += GROUP;
    }
}

/// Writes a group's outputs, as many as there is room for.
fn store(out: &mut [f32], sums: [f32; GROUP]) {
    if let Some(out) = out.first_chunk_mut() {
        *out = sums;
    } else {
        out.copy_from_slice(&sums[..out.len()]);
    }
}

/// Up to [`GROUP`] consecutive rows, at least one.
#[derive(Clone, Copy)]
struct Group<'w, B> {
    blocks: &'w [B],
    /// Blocks of a row.
    row_len: usize,
}

impl<B> Group<'_, B> {
    /// Where each row's blocks start, of which each has [`Group::row_len`]; rows that there are not are copies of the last.
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

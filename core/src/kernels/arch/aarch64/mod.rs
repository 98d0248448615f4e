//! AArch64: Advanced SIMD (NEON), with and without the dot product instructions.
//!
//! Eight rows make a group; a register of four 32-bit lanes holds one number of each of four rows, so that the contract's order
//! of blocks is kept in every lane.
//!
//! - **Few tokens** ([`decode`]): straight from the blocks to sums.
//! - **Many tokens** ([`prefill`]): a group is unpacked once into a panel in the scratch, in which one register holds 4 columns of
//!   4 rows; the same 4 columns of a token's activations then give 4 rows' sums without a horizontal step.
//!
//! A group at the end of a range that has fewer rows repeats its last one and throws the copies' results away, so that no row
//! needs other code.

mod decode;
mod dot;
mod float;
mod prefill;
mod quantize;
mod unpack;

use core::ops::Range;

use super::super::{Q8Activation, scalar};
use super::{Neon, NeonDotprod};
use crate::arena::Columns;
use crate::quant::{BLOCK, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0, Format};
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
    if w.format() == Format::Q8_0 {
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
        _ => return false,
    }
    true
}

/// Group after group of rows.
fn matmul<D: Dot, B: Unpack>(
    dot: D,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &[Q8Activation],
    out: &mut Columns<'_, f32>,
    scratch: &mut [u8],
) {
    let row_blocks = w.cols() / BLOCK;
    let tokens = out.rows();
    if row_blocks == 0 {
        return scalar::matmul_q8::<B>(w, rows, x, out);
    }
    let mut panel = (tokens >= PANEL_TOKENS).then(|| prefill::Panel::new(scratch, row_blocks));
    let mut at = 0;
    for blocks in w.blocks::<B>(rows).chunks(GROUP * row_blocks) {
        let group = Group { blocks, row_blocks };
        if let Some(panel) = &mut panel {
            panel.fill(dot, group);
            panel.multiply::<D, B>(dot, x, tokens, |token, sums| {
                store(&mut out.row_mut(token)[at..], sums)
            });
        } else {
            for (token, x) in x.chunks_exact(row_blocks).enumerate() {
                store(&mut out.row_mut(token)[at..], decode::group(dot, group, x));
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
    row_blocks: usize,
}

impl<B> Group<'_, B> {
    /// Where each row's blocks start, of which each has [`Group::row_blocks`]; rows that there are not are copies of the last.
    fn starts(self) -> [*const u8; GROUP] {
        let last = self.blocks[self.blocks.len() - self.row_blocks..].as_ptr();
        let mut next = self.blocks.as_ptr();
        core::array::from_fn(|_| {
            let start = next.min(last);
            next = start.wrapping_add(self.row_blocks);
            start.cast()
        })
    }
}

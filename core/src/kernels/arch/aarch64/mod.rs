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

use super::super::Q8Activation;
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
        Format::F32 | Format::F16 | Format::BF16 => return false,
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
    let blocks = w.blocks::<B>(rows.clone());
    let mut panel = (tokens >= PANEL_TOKENS).then(|| prefill::Panel::new(scratch, row_blocks));
    for at in (0..rows.len()).step_by(GROUP) {
        let last = rows.len() - 1;
        let width = GROUP.min(rows.len() - at);
        let group: [&[B]; GROUP] =
            core::array::from_fn(|i| &blocks[(at + i).min(last) * row_blocks..][..row_blocks]);
        let mut store = |token: usize, sums: [f32; GROUP]| {
            out.row_mut(token)[at..at + width].copy_from_slice(&sums[..width]);
        };
        if let Some(panel) = &mut panel {
            panel.fill(dot, group);
            panel.multiply::<D, B>(dot, x, tokens, store);
        } else {
            for token in 0..tokens {
                store(
                    token,
                    decode::group(dot, group, &x[token * row_blocks..][..row_blocks]),
                );
            }
        }
    }
}

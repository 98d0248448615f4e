//! From (instruction set, format) to a kernel.

use core::ops::Range;

use super::{Isa, Q8Activation, arch, scalar};
use crate::arena::{Columns, Pod};
use crate::quant::{self, BLOCK, Format};
use crate::tensor::Matrix;

/// Activations of one or more tokens, token after token.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// `tokens x cols` floats.
    F32(&'a [f32]),
    /// `tokens x cols/32` blocks of int8.
    Q8(&'a [Q8Activation]),
}

/// Bytes of scratch that [`matmul`] needs for a matrix of `cols` columns: a panel of 32 rows, unpacked with their scales and
/// minima, for prefill on any instruction set; a row of f32 for one token.
pub const fn scratch_bytes(cols: usize, tokens: usize) -> usize {
    let row = cols * size_of::<f32>();
    if tokens == 1 {
        row.next_multiple_of(64)
    } else {
        row.next_multiple_of(64) + cols.div_ceil(BLOCK) * 32 * (BLOCK + 2 * size_of::<f32>())
    }
}

/// `out[t][r - rows.start] = Σ_c w[r][c] · x[t][c]` for every row `r` in `rows` and every token `t`.
///
/// `scratch` holds at least [`scratch_bytes`] and is aligned to [`crate::arena::ALIGN`].
///
/// # Panics
/// If `rows` or the shapes of `x` and `out` do not fit `w`, if int8 activations meet float weights, or if the scratch is too
/// small.
pub fn matmul(
    isa: Isa,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: Input<'_>,
    out: &mut Columns<'_, f32>,
    scratch: &mut [u8],
) {
    assert!(rows.start <= rows.end && rows.end <= w.rows() && out.width() == rows.len());
    if w.cols() == 0 {
        return (0..out.rows()).for_each(|token| out.row_mut(token).fill(0.0));
    }
    match x {
        Input::F32(x) => {
            assert!(x.len() == out.rows() * w.cols());
            matmul_f32(isa, w, rows, x, out, scratch);
        }
        Input::Q8(x) => {
            assert!(x.len() == out.rows() * (w.cols() / BLOCK));
            matmul_q8(isa, w, rows, x, out, scratch);
        }
    }
}

/// Quantises one token's activations `x` to int8 in blocks of 32: [`scalar::quantize_activations`], the same bits, faster.
///
/// # Panics
/// If `out` does not have a block for every 32 values of `x`.
pub fn quantize(isa: Isa, x: &[f32], out: &mut [Q8Activation]) {
    assert!(x.len() == out.len() * BLOCK);
    if !arch::quantize(isa, x, out) {
        scalar::quantize_activations(x, out);
    }
}

fn matmul_q8(
    isa: Isa,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &[Q8Activation],
    out: &mut Columns<'_, f32>,
    scratch: &mut [u8],
) {
    if arch::matmul_q8(isa, w, rows.clone(), x, out, scratch) {
        return;
    }
    assert!(w.format().is_built(), "this build has no such format");
    match w.format() {
        Format::Q4_0 => scalar::matmul_q8::<quant::BlockQ4_0>(w, rows, x, out),
        Format::Q4_1 => scalar::matmul_q8::<quant::BlockQ4_1>(w, rows, x, out),
        Format::Q5_0 => scalar::matmul_q8::<quant::BlockQ5_0>(w, rows, x, out),
        Format::Q5_1 => scalar::matmul_q8::<quant::BlockQ5_1>(w, rows, x, out),
        Format::Q8_0 => scalar::matmul_q8::<quant::BlockQ8_0>(w, rows, x, out),
        Format::IQ4_NL => scalar::matmul_q8::<quant::BlockIq4Nl>(w, rows, x, out),
        Format::Q2_K => scalar::matmul_super::<quant::BlockQ2K>(w, rows, x, out),
        Format::Q3_K => scalar::matmul_super::<quant::BlockQ3K>(w, rows, x, out),
        Format::Q4_K => scalar::matmul_super::<quant::BlockQ4K>(w, rows, x, out),
        Format::Q5_K => scalar::matmul_super::<quant::BlockQ5K>(w, rows, x, out),
        Format::Q6_K => scalar::matmul_super::<quant::BlockQ6K>(w, rows, x, out),
        Format::F32 | Format::F16 | Format::BF16 => panic!("float weights take f32 activations"),
    }
}

fn matmul_f32(
    isa: Isa,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &[f32],
    out: &mut Columns<'_, f32>,
    scratch: &mut [u8],
) {
    if arch::matmul_f32(isa, w, rows.clone(), x, out, scratch) {
        return;
    }
    scalar::matmul_f32(w, rows, x, out, view::<f32>(scratch, w.cols()));
}

/// The first `len` values of `T` of an aligned scratch.
pub(super) fn view<T: Pod>(scratch: &mut [u8], len: usize) -> &mut [T] {
    let Some(mut carver) = crate::arena::Carver::new(scratch) else {
        panic!("scratch is not aligned")
    };
    let Some(part) = carver.take(len) else {
        panic!("scratch is too small")
    };
    part
}

//! The operands of a product of weights and activations.

use core::ops::Range;

use super::Q8Activation;
use crate::arena::{Carver, Columns, Pod};
use crate::quant::BLOCK;
use crate::tensor::Matrix;

/// `out[t][r - rows.start] = Σ_c weights[r][c] ·
/// activations[t][c]` for every row `r` in `rows` and every token `t`.
///
/// `X` is [`Input`] for a caller of [`super::matmul`], and a slice of one kind of activations for a
/// kernel.
pub struct Product<'p, 'c, X = Input<'p>> {
    /// A matrix of `rows x cols`.
    pub weights: &'p Matrix<'p>,
    /// Range of the matrix's rows to compute.
    pub rows: Range<usize>,
    /// Activations of one or more tokens, token after token, each of as many columns as the matrix.
    pub activations: X,
    /// A row for each token, as wide as `rows`.
    pub out: &'p mut Columns<'c, f32>,
    /// At least [`scratch_bytes`], aligned to [`crate::arena::ALIGN`].
    pub scratch: &'p mut [u8],
}

/// Activations of one or more tokens, token after token.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// `tokens x cols` floats.
    F32(&'a [f32]),
    /// `tokens x cols/32` blocks of int8.
    Q8(&'a [Q8Activation]),
}

/// A product with activations in f32.
pub(super) type ProductF32<'p, 'c> = Product<'p, 'c, &'p [f32]>;
/// A product with activations in int8.
pub(super) type ProductQ8<'p, 'c> = Product<'p, 'c, &'p [Q8Activation]>;

impl<'p, 'c, X> Product<'p, 'c, X> {
    /// Returns the same product with other activations.
    pub(super) fn with<Y>(self, activations: Y) -> Product<'p, 'c, Y> {
        Product {
            weights: self.weights,
            rows: self.rows,
            activations,
            out: self.out,
            scratch: self.scratch,
        }
    }
}

/// Most rows of a prefill panel on any instruction set.
pub(super) const PANEL_ROWS: usize = 32;

/// Returns the bytes of scratch that [`super::matmul`] needs for a matrix of `cols` columns. One
/// token needs a row of f32; more tokens also need a panel of 32 rows, unpacked with their scales
/// and minima, which is enough on any instruction set.
pub const fn scratch_bytes(cols: usize, tokens: usize) -> usize {
    let row = (cols * size_of::<f32>()).next_multiple_of(crate::arena::ALIGN);
    if tokens == 1 {
        row
    } else {
        row + cols.div_ceil(BLOCK) * PANEL_ROWS * (BLOCK + 2 * size_of::<f32>())
    }
}

/// Returns the first `len` values of type `T` of an aligned scratch.
///
/// # Panics
/// If the scratch is not aligned or too small.
pub(super) fn view<T: Pod>(scratch: &mut [u8], len: usize) -> &mut [T] {
    let Some(mut carver) = Carver::new(scratch) else {
        panic!("scratch is not aligned")
    };
    let Some(part) = carver.take(len) else {
        panic!("scratch is too small")
    };
    part
}

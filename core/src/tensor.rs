//! Borrowed, shape-checked matrices over blocks.
#![allow(unsafe_code, reason = "viewing bytes as blocks in place")]

use core::fmt;
use core::ops::Range;

use crate::quant::{self, Block, Format};

/// A matrix of `rows` x `cols` elements, row-major, borrowed from the model file in the file's own
/// format.
///
/// As a linear layer it maps `cols` inputs to `rows` outputs.
#[derive(Clone, Copy)]
pub struct Matrix<'w> {
    format: Format,
    rows: usize,
    cols: usize,
    bytes: &'w [u8],
}

/// Error: the bytes do not hold a matrix of these dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ShapeError {
    /// Requested number of rows.
    pub rows: usize,
    /// Requested number of elements in a row.
    pub cols: usize,
    /// Number of bytes given.
    pub bytes: usize,
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes do not hold a matrix of {} x {}",
            self.bytes, self.rows, self.cols
        )
    }
}

impl core::error::Error for ShapeError {}

impl<'w> Matrix<'w> {
    /// Views `bytes` as a matrix.
    ///
    /// # Errors
    /// If the length is not exactly that of `rows` rows of `cols` elements in whole blocks.
    pub const fn new(
        format: Format,
        rows: usize,
        cols: usize,
        bytes: &'w [u8],
    ) -> Result<Self, ShapeError> {
        let error = ShapeError {
            rows,
            cols,
            bytes: bytes.len(),
        };
        let Some(row_bytes) = format.row_bytes(cols) else {
            return Err(error);
        };
        match row_bytes.checked_mul(rows) {
            Some(len) if len == bytes.len() => Ok(Matrix {
                format,
                rows,
                cols,
                bytes,
            }),
            _ => Err(error),
        }
    }

    /// The element format.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Number of rows (outputs of a linear layer).
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (inputs of a linear layer).
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// All bytes, row by row.
    pub const fn bytes(&self) -> &'w [u8] {
        self.bytes
    }

    /// Bytes of a row.
    pub const fn row_bytes(&self) -> usize {
        self.cols / self.format.block_len() * self.format.block_bytes()
    }

    /// Returns `count` rows from row `start` on, for files that store several matrices below each
    /// other.
    ///
    /// # Panics
    /// If the matrix has fewer rows.
    pub const fn row_range(&self, start: usize, count: usize) -> Matrix<'w> {
        assert!(start <= self.rows && count <= self.rows - start);
        let (_, rest) = self.bytes.split_at(start * self.row_bytes());
        let (bytes, _) = rest.split_at(count * self.row_bytes());
        Matrix {
            format: self.format,
            rows: count,
            cols: self.cols,
            bytes,
        }
    }

    /// Elements of an F32 matrix of one row, such as a norm's weight or a bias; `None` for any
    /// other matrix.
    pub const fn row(&self) -> Option<&'w [quant::F32]> {
        const { assert!(size_of::<quant::F32>() == 4 && align_of::<quant::F32>() == 1) };
        match self.format {
            Format::F32 if self.rows == 1 => {
                // SAFETY: F32 is four plain bytes with alignment 1 (asserted above), every bit
                // pattern of which is valid. The slice covers no more than `bytes`, whose lifetime
                // and immutability it inherits.
                Some(unsafe {
                    core::slice::from_raw_parts(self.bytes.as_ptr().cast(), self.bytes.len() / 4)
                })
            }
            _ => None,
        }
    }

    /// Returns the blocks of rows `rows`, one row after the other.
    ///
    /// # Panics
    /// If `B` is not this matrix's format, or the range is out of bounds.
    pub fn blocks<B: Block>(&self, rows: Range<usize>) -> &'w [B] {
        assert!(B::FORMAT == self.format && align_of::<B>() == 1);
        let bytes = &self.bytes[rows.start * self.row_bytes()..rows.end * self.row_bytes()];
        // SAFETY: `Block` is sealed: its implementors are plain bytes with alignment 1 (asserted
        // above) and no invalid bit patterns, and each is `FORMAT.block_bytes()` long (asserted at
        // compile time beside each struct). The slice covers exactly `bytes`, whose lifetime and
        // immutability it inherits.
        unsafe {
            core::slice::from_raw_parts(bytes.as_ptr().cast::<B>(), bytes.len() / size_of::<B>())
        }
    }

    /// Writes row `row` as f32.
    ///
    /// # Panics
    /// If there is no such row, `out` is not `cols` long, or the build does not have the format
    /// ([`Format::is_built`]).
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols);
        quant::with_block!(self.format; any B => self.dequantize_as::<B>(row, out))
    }

    fn dequantize_as<B: Block>(&self, row: usize, out: &mut [f32]) {
        let blocks = self.blocks::<B>(row..row + 1);
        for (block, out) in blocks
            .iter()
            .zip(out.chunks_exact_mut(B::FORMAT.block_len()))
        {
            block.dequantize(out);
        }
    }
}

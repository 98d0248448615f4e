//! Arrays of a model's weights on their way from one form of file to another.

use std::io::{BufWriter, Write};

use brooklet_core::quant::{BLOCK, Format};

use super::ConvertError;
use crate::convert::gguf_writer::Header;
use crate::convert::quantize::blocks::quantize;

/// An array of f32, the last dimension running fastest.
pub(super) struct Array {
    pub(super) dims: Vec<usize>,
    pub(super) values: Vec<f32>,
}

/// Number of values of an array; `None` if no array has these dimensions.
pub(super) fn count(dims: &[usize]) -> Option<usize> {
    let len = dims
        .iter()
        .try_fold(1, |len: usize, dim| len.checked_mul(*dim))?;
    (len > 0).then_some(len)
}

/// A source of the arrays of a file.
pub(super) trait Weights {
    /// The array that GGUF calls `name`.
    ///
    /// # Errors
    /// [`ConvertError::Missing`] if there is none, or another one of its values.
    fn read(&self, name: &str) -> Result<Array, ConvertError>;
}

/// Writes a file of `header` and the arrays called `names`, matrices in `format`; returns the
/// number of its bytes.
///
/// # Errors
/// Those of `weights`, values that no number of the format is near, and [`ConvertError::Write`].
pub(super) fn write<'n>(
    mut header: Header<'n>,
    names: &'n [String],
    weights: &impl Weights,
    format: Format,
    out: impl Write,
) -> Result<u64, ConvertError> {
    // Shapes first: the table of tensors stands before their bytes. Each is read twice, so that
    // one at a time is in memory.
    for name in names {
        let array = weights.read(name)?;
        let dims: Vec<usize> = array.dims.iter().rev().copied().collect();
        let added = header.tensor(name, &dims, format_of(name, format, &array));
        added.map_err(|_| ConvertError::Missing(format!("usable shape of {name}")))?;
    }
    let mut body = header.write(BufWriter::new(out))?;
    for name in names {
        let array = weights.read(name)?;
        body.write(&encoded(name, format_of(name, format, &array), &array)?)?;
    }
    Ok(body.finish()?.1)
}

/// The format of a tensor: `wanted` for matrices, convolutions and the embedding; F16 where their
/// rows are no whole blocks; F32 for rows, positions and the front end.
fn format_of(name: &str, wanted: Format, array: &Array) -> Format {
    let is_exact = name.ends_with("pos_emb.weight") || name.starts_with("frontend.");
    let cols = array.dims.last().copied().unwrap_or(1);
    match array.dims.len() {
        0 | 1 => Format::F32,
        _ if is_exact => Format::F32,
        _ if wanted.is_quantized() && !cols.is_multiple_of(BLOCK) => Format::F16,
        _ => wanted,
    }
}

/// The number in `general.file_type` of a file with matrices in `format` (`enum llama_ftype`).
pub(super) fn file_type(format: Format) -> u32 {
    match format {
        Format::F32 => 0,
        Format::F16 => 1,
        _ => 7,
    }
}

/// The bytes of a tensor.
fn encoded(name: &str, format: Format, array: &Array) -> Result<Vec<u8>, ConvertError> {
    let values = &array.values;
    if values.iter().any(|x| !x.is_finite()) {
        return Err(ConvertError::Value(name.to_owned()));
    }
    if format == Format::F32 {
        return Ok(values.iter().flat_map(|x| x.to_le_bytes()).collect());
    }
    let mut bytes = vec![0; format.row_bytes(values.len()).unwrap_or(0)];
    quantize(format, values, &mut bytes).ok_or_else(|| ConvertError::Value(name.to_owned()))?;
    Ok(bytes)
}

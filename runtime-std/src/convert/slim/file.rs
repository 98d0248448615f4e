//! Slim models as files: the tensors that `brooklet slim` adds to a GGUF file.
//!
//! A slim layer `N` has these tensors in addition:
//!
//! - `blk.N.attn_slim_map.weight`, `value columns x (key columns + rank)`: row `j` is column `j` of
//!   `A` over `B`;
//! - `blk.N.attn_slim_channels.weight`, `rank x d_model`, unless the rank is 0; both F16 or F32,
//!   F32 where a number is too large for F16;
//! - `blk.N.attn_slim_mean.weight` and `attn_slim_offset.weight`, F32: the keys' mean and its
//!   value, unless there is none. The mean has the key bias in it, the value has not: cached is
//!   what the projection alone gives.
//!
//! Biases move, which changes nothing but the last digits: softmax weights sum to 1, so that
//! `blk.N.attn_v.bias` comes out as `b_V·W_O`, which `blk.N.attn_output.bias` takes; and where keys
//! are not rotated, `blk.N.attn_k.bias` adds the same to all scores of a query.
//!
//! If queries, keys and values are one tensor, `blk.N.attn_qkv`, and one of these must go, its
//! parts become tensors of their own.

use std::borrow::Cow;
use std::io::{self, Write};

use brooklet_core::gguf::{Gguf, Value};
use brooklet_core::model::{Config, Layer, Linear};
use brooklet_core::quant::{F32, Format};
use brooklet_core::tensor::Matrix;
use faer::Mat;
use half::f16;

use super::solve::Solution;
use crate::convert::gguf_writer::Header;
use crate::stated::{ACCEPTED_KEY, ERROR_KEYS, SINKS_KEY, SlimErrors};

/// Prefix of the names of a slim layer's tensors, after `blk.N.`.
pub const PREFIX: &str = "attn_slim_";

/// The map from one layer's keys to its values.
pub struct SlimLayer {
    /// `value columns x (key columns + rank)`.
    pub map: Mat<f64>,
    /// `rank x d_model`.
    pub channels: Mat<f64>,
    /// The keys' mean, their bias included, and the value of what it is without the bias; `None`
    /// for zero.
    pub mean: Option<(Vec<f64>, Vec<f64>)>,
}

impl SlimLayer {
    /// The layer's tensors for a solution, the mean of keys without their bias, and the bias;
    /// `None` for zero.
    ///
    /// # Panics
    /// If the mean or the bias has not as many values as there are key columns.
    pub fn new(solution: &Solution, mean: Option<&[f64]>, key_bias: Option<&[f64]>) -> SlimLayer {
        let (keys, rank) = (solution.a.nrows(), solution.b.nrows());
        let map = Mat::from_fn(solution.a.ncols(), keys + rank, |j, i| {
            if i < keys {
                solution.a[(i, j)]
            } else {
                solution.b[(i - keys, j)]
            }
        });
        let of = |row: Option<&[f64]>, i: usize| row.map_or(0.0, |row| row[i]);
        let mean = (mean.is_some() || key_bias.is_some()).then(|| {
            // As it will be in the file.
            let whole = |i| f64::from((of(mean, i) + of(key_bias, i)) as f32);
            let whole: Vec<f64> = (0..keys).map(whole).collect();
            let value = |j| -> f64 {
                (0..keys)
                    .map(|i| (whole[i] - of(key_bias, i)) * solution.a[(i, j)])
                    .sum()
            };
            let offset = (0..map.nrows()).map(value).collect();
            (whole, offset)
        });
        SlimLayer {
            channels: solution.channels.transpose().to_owned(),
            mean,
            map,
        }
    }

    /// Number of rank-correction channels.
    pub fn rank(&self) -> usize {
        self.channels.nrows()
    }

    /// The format of the map in a file for which `format` is asked, F16 or F32.
    pub fn map_format(&self, format: Format) -> Format {
        format_of(&self.map, format)
    }

    fn tensors<'w>(&self, layer: usize, format: Format) -> Vec<Tensor<'w>> {
        let name = |part: &str| format!("blk.{layer}.{PREFIX}{part}.weight");
        let matrix = |part, matrix: &Mat<f64>| {
            let (rows, columns) = matrix.shape();
            let format = format_of(matrix, format);
            let numbers = (0..rows).flat_map(|i| (0..columns).map(move |j| matrix[(i, j)]));
            Tensor {
                name: name(part),
                dims: vec![columns, rows],
                format,
                bytes: bytes(numbers, format).into(),
            }
        };
        let mut tensors = vec![matrix("map", &self.map)];
        if self.rank() > 0 {
            tensors.push(matrix("channels", &self.channels));
        }
        if let Some((mean, offset)) = &self.mean {
            for (part, row) in [("mean", mean), ("offset", offset)] {
                tensors.push(Tensor::row(name(part), row));
            }
        }
        tensors
    }
}

/// The format of a matrix where `format` is asked for: a number too large for F16 would be
/// infinite, and make NaN of all values.
fn format_of(matrix: &Mat<f64>, format: Format) -> Format {
    let is_too_large = |j| {
        matrix
            .col_as_slice(j)
            .iter()
            .any(|x| f16::from_f64(*x).is_infinite())
    };
    match format {
        Format::F16 if (0..matrix.ncols()).any(is_too_large) => Format::F32,
        format => format,
    }
}

/// A matrix as it is read back from a file for which `format` is asked.
pub fn stored(matrix: &Mat<f64>, format: Format) -> Mat<f64> {
    let format = format_of(matrix, format);
    let (rows, columns) = matrix.shape();
    Mat::from_fn(rows, columns, |i, j| match format {
        Format::F16 => f16::from_f64(matrix[(i, j)]).to_f64(),
        _ => f64::from(matrix[(i, j)] as f32),
    })
}

/// The numbers of a row in a file.
pub(super) fn floats(row: &[F32]) -> Vec<f64> {
    row.iter().map(|x| f64::from(x.to_f32())).collect()
}

/// A tensor that the file gets.
struct Tensor<'w> {
    name: String,
    /// Fastest first.
    dims: Vec<usize>,
    format: Format,
    bytes: Cow<'w, [u8]>,
}

impl<'w> Tensor<'w> {
    /// One row of F32.
    fn row(name: String, row: &[f64]) -> Tensor<'w> {
        Tensor {
            name,
            dims: vec![row.len()],
            format: Format::F32,
            bytes: bytes(row.iter().copied(), Format::F32).into(),
        }
    }

    /// A matrix of the original, or a part of one.
    fn copied(name: String, matrix: &Matrix<'w>) -> Tensor<'w> {
        Tensor {
            name,
            dims: vec![matrix.cols(), matrix.rows()],
            format: matrix.format(),
            bytes: matrix.bytes().into(),
        }
    }
}

/// The changes to the original's tensors of a slim layer.
#[derive(Default)]
struct Changes<'w> {
    /// Names that the copy lacks, or does not take from the original.
    without: Vec<String>,
    /// The new tensors: the output's bias with the values' share; the parts of a fused tensor.
    instead: Vec<Tensor<'w>>,
}

impl<'w> Changes<'w> {
    fn new(
        config: &Config,
        index: usize,
        is_fused: bool,
        layer: &Layer<'w>,
        storage: Storage,
    ) -> Changes<'w> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let mut changes = Changes::default();
        let layer = &layer.attention;
        let value_bias = layer.value.and_then(|value| value.bias);
        // A bias that is added to all keys moves all scores of a query alike.
        let without_key_bias = config.rope_dim == 0 && layer.key.bias.is_some();
        if storage.drop_values {
            changes.without.push(name("attn_v.weight"));
        }
        if without_key_bias {
            changes.without.push(name("attn_k.bias"));
        }
        if is_fused && (storage.drop_values || without_key_bias || value_bias.is_some()) {
            let value = layer.value.as_ref().filter(|_| !storage.drop_values);
            let layers = [
                ("q", Some(&layer.query)),
                ("k", Some(&layer.key)),
                ("v", value),
            ];
            for (part, linear) in layers {
                let name = name(&format!("attn_{part}.weight"));
                let copied = |linear: &Linear<'w>| Tensor::copied(name, &linear.weight);
                changes.instead.extend(linear.map(copied));
            }
            let of_keys = layer.key.bias.filter(|_| !without_key_bias);
            for (part, bias) in [("q", layer.query.bias), ("k", of_keys)] {
                let row =
                    |bias: &[F32]| Tensor::row(name(&format!("attn_{part}.bias")), &floats(bias));
                changes.instead.extend(bias.map(row));
            }
            changes
                .without
                .extend([name("attn_qkv.weight"), name("attn_qkv.bias")]);
        }
        let Some(of_values) = value_bias else {
            return changes;
        };
        let of_values = floats(of_values);
        let mut bias = match layer.output.bias {
            Some(bias) => floats(bias),
            None => vec![0.0; config.d_model],
        };
        let (width, group) = (config.head_dim, config.group());
        for (row, bias) in bias.iter_mut().enumerate() {
            for (column, weight) in numbers(&layer.output.weight, row).iter().enumerate() {
                let (head, column) = (column / width, column % width);
                *bias += weight * of_values[head / group * width + column];
            }
        }
        changes
            .instead
            .push(Tensor::row(name("attn_output.bias"), &bias));
        changes
            .without
            .extend([name("attn_v.bias"), name("attn_output.bias")]);
        changes
    }
}

/// A row of a matrix.
fn numbers(matrix: &Matrix<'_>, row: usize) -> Vec<f64> {
    let mut numbers = vec![0.0; matrix.cols()];
    matrix.dequantize_row(row, &mut numbers);
    numbers.into_iter().map(f64::from).collect()
}

fn bytes(numbers: impl Iterator<Item = f64>, format: Format) -> Vec<u8> {
    match format {
        Format::F16 => numbers
            .flat_map(|x| f16::from_f64(x).to_le_bytes())
            .collect(),
        _ => numbers.flat_map(|x| (x as f32).to_le_bytes()).collect(),
    }
}

/// Key of the measurements, as JSON text.
pub const REPORT_KEY: &str = "brooklet.slim.report";

/// Statements of the file about its slim layers.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'r> {
    /// The measurements, as JSON text.
    pub report: &'r str,
    /// The largest errors of a layer.
    pub errors: SlimErrors,
    /// First tokens whose values were kept as they are when the errors were measured.
    pub sinks: usize,
}

/// Options of how slim layers are stored.
#[derive(Clone, Copy, Debug)]
pub struct Storage {
    /// Format of maps and channels, F16 or F32.
    pub format: Format,
    /// Leaves the value projection out: then the first sinks' values are made of their keys, and no
    /// cache can keep keys and values.
    pub drop_values: bool,
}

/// Writes `file` with the tensors of `layers` (one entry a layer) and a `statement` in the place of
/// any that it has; returns its length in bytes.
///
/// # Errors
/// Those of `out`; [`io::ErrorKind::InvalidInput`] if the file is no model, or a tensor is in a
/// format that this program does not know.
pub fn write(
    file: &Gguf<'_>,
    layers: &[Option<SlimLayer>],
    storage: Storage,
    statement: &Statement<'_>,
    out: impl Write,
) -> io::Result<u64> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let config = Config::from_gguf(file).map_err(invalid)?;
    let mut added = Vec::new();
    let mut without = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        if let Some(slim) = layer {
            let layer = Layer::read(file, &config, index).map_err(invalid)?;
            let is_fused = config.design.fuses_qkv(file, index);
            let changes = Changes::new(&config, index, is_fused, &layer, storage);
            added.extend(slim.tensors(index, storage.format));
            added.extend(changes.instead);
            without.extend(changes.without);
        }
    }
    let is_kept = |name: &str| !name.contains(PREFIX) && !without.iter().any(|other| other == name);
    let kept = || file.tensors().filter(|tensor| is_kept(tensor.name()));
    let mut header = Header::with_metadata_of(file);
    header.set(REPORT_KEY, Value::Str(statement.report.as_bytes()));
    let SlimErrors { by_type, accepted } = statement.errors;
    for ((_, key), error) in ERROR_KEYS.into_iter().zip(by_type) {
        header.set(key, Value::F32(error));
    }
    header.set(ACCEPTED_KEY, Value::F32(accepted));
    let sinks = u32::try_from(statement.sinks).unwrap_or(u32::MAX);
    header.set(SINKS_KEY, Value::U32(sinks));
    for tensor in kept() {
        let format = tensor.format().ok_or_else(|| {
            let text = format!(
                "{} has a format that this program does not know",
                tensor.name()
            );
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        header.tensor(tensor.name(), &tensor.dims()[..tensor.rank()], format)?;
    }
    for tensor in &added {
        header.tensor(&tensor.name, &tensor.dims, tensor.format)?;
    }
    let mut body = header.write(out)?;
    for tensor in kept() {
        body.write(tensor.data())?;
    }
    for tensor in &added {
        body.write(&tensor.bytes)?;
    }
    body.finish().map(|(_, len)| len)
}

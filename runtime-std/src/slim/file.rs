//! Slim models as files: what `brooklet slim` adds to a GGUF file.
//!
//! A slim layer `N` has beside its tensors:
//!
//! - `blk.N.attn_slim_map.weight`, `value columns x (key columns + rank)`: row `j` is column `j` of `A` over `B`;
//! - `blk.N.attn_slim_channels.weight`, `rank x d_model`, unless the rank is 0;
//! - `blk.N.attn_slim_mean.weight` and `attn_slim_offset.weight`, F32: the keys' mean and its value, unless there is none.

use std::io::{self, Write};

use brooklet_core::gguf::{Gguf, Value};
use brooklet_core::quant::Format;
use faer::Mat;
use half::f16;

use super::solve::Solution;
use crate::gguf_writer::Header;

/// What the names of a slim layer's tensors begin with, after `blk.N.`.
pub const PREFIX: &str = "attn_slim_";

/// What makes one layer's values.
pub struct SlimLayer {
    /// `value columns x (key columns + rank)`.
    pub map: Mat<f64>,
    /// `rank x d_model`.
    pub channels: Mat<f64>,
    /// The keys' mean, and its value; `None` for zero.
    pub mean: Option<(Vec<f64>, Vec<f64>)>,
}

impl SlimLayer {
    /// The layer's tensors for a solution, and the keys' mean.
    pub fn new(solution: &Solution, mean: Option<Vec<f64>>) -> SlimLayer {
        let (keys, rank) = (solution.a.nrows(), solution.b.nrows());
        let map = Mat::from_fn(solution.a.ncols(), keys + rank, |j, i| {
            if i < keys {
                solution.a[(i, j)]
            } else {
                solution.b[(i - keys, j)]
            }
        });
        let offset = |mean: &[f64]| -> Vec<f64> {
            (0..map.nrows())
                .map(|j| {
                    mean.iter()
                        .enumerate()
                        .map(|(i, mean)| mean * solution.a[(i, j)])
                        .sum()
                })
                .collect()
        };
        SlimLayer {
            channels: solution.channels.transpose().to_owned(),
            mean: mean.map(|mean| {
                let offset = offset(&mean);
                (mean, offset)
            }),
            map,
        }
    }

    /// Further channels.
    pub fn rank(&self) -> usize {
        self.channels.nrows()
    }

    /// Name, dimensions (fastest first), format and bytes of each tensor.
    fn tensors(&self, layer: usize, format: Format) -> Vec<(String, [usize; 2], Format, Vec<u8>)> {
        let name = |part: &str| format!("blk.{layer}.{PREFIX}{part}.weight");
        let matrix = |part, matrix: &Mat<f64>| {
            let (rows, columns) = matrix.shape();
            let numbers = (0..rows).flat_map(|i| (0..columns).map(move |j| matrix[(i, j)]));
            (name(part), [columns, rows], format, bytes(numbers, format))
        };
        let mut tensors = vec![matrix("map", &self.map)];
        if self.rank() > 0 {
            tensors.push(matrix("channels", &self.channels));
        }
        if let Some((mean, offset)) = &self.mean {
            for (part, row) in [("mean", mean), ("offset", offset)] {
                let bytes = bytes(row.iter().copied(), Format::F32);
                tensors.push((name(part), [row.len(), 1], Format::F32, bytes));
            }
        }
        tensors
    }
}

fn bytes(numbers: impl Iterator<Item = f64>, format: Format) -> Vec<u8> {
    match format {
        Format::F16 => numbers.flat_map(|x| f16::from_f64(x).to_le_bytes()).collect(),
        _ => numbers.flat_map(|x| (x as f32).to_le_bytes()).collect(),
    }
}

/// Key of what was measured, as JSON text.
pub const REPORT_KEY: &str = "brooklet.slim.report";

/// Writes `file` with the tensors of `layers` (one entry a layer; in F16 or F32) and a `report` in the place of any that it has; returns
/// its length in bytes.
///
/// # Errors
/// Those of `out`; [`io::ErrorKind::InvalidInput`] if a tensor is in a format that this program does not know.
pub fn write(
    file: &Gguf<'_>,
    layers: &[Option<SlimLayer>],
    format: Format,
    report: &str,
    out: impl Write,
) -> io::Result<u64> {
    let kept = || file.tensors().filter(|tensor| !tensor.name().contains(PREFIX));
    let added: Vec<_> = layers
        .iter()
        .enumerate()
        .filter_map(|(index, layer)| Some((index, layer.as_ref()?)))
        .flat_map(|(index, layer)| layer.tensors(index, format))
        .collect();
    let mut header = Header::with_metadata_of(file);
    header.set(REPORT_KEY, Value::Str(report.as_bytes()));
    for tensor in kept() {
        let format = tensor.format().ok_or_else(|| {
            let text = format!("{} has a format that is not known here", tensor.name());
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        header.tensor(tensor.name(), &tensor.dims()[..tensor.rank()], format)?;
    }
    for (name, dims, format, _) in &added {
        header.tensor(name, dims, *format)?;
    }
    let mut body = header.write(out)?;
    for tensor in kept() {
        body.write(tensor.data())?;
    }
    for (.., bytes) in &added {
        body.write(bytes)?;
    }
    body.finish().map(|(_, len)| len)
}

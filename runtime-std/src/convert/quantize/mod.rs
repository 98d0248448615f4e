//! A copy of a model with its weights in another format.
//!
//! Each tensor gets the format that llama.cpp's `llama-quantize` gives it, in that program's order
//! (`choice.rs`); so do the metadata. In F16, Q8_0, Q5_0, Q5_1, Q4_0 and Q4_1 its bytes are that
//! program's, too (`blocks.rs`). The super-blocks and IQ4_NL are searched for the least squared
//! error (`search.rs`), which that program weights differently.
//!
//! A tensor is a row of blocks whatever its shape, and is converted slab by slab: memory depends on
//! the number of threads (a quarter of a MiB each) and the length of the tensor table, never on a
//! tensor's size. Values that are not finite are refused, also in tensors that are only copied.

pub(super) mod blocks;
mod choice;
#[cfg(test)]
mod errors;
mod iq4_nl;
mod search;
mod super_blocks;
mod target;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::sync::{Mutex, PoisonError};

use brooklet_core::gguf::{Gguf, TensorInfo, Value};
use brooklet_core::quant::{Format, GgmlType, SUPER_BLOCK};
use brooklet_core::tensor::Matrix;
use brooklet_core::threads::Threads;

use crate::convert::gguf_writer::Header;
use crate::stated::SINKS_KEY;
use choice::Chooser;

pub use target::{Target, TargetError};

/// Elements that a thread converts between two writes; a multiple of [`PIECE`].
const SLAB: usize = 1 << 16;

/// Elements that are f32 at a time: they stay in a core's nearest cache.
const PIECE: usize = 1 << 10;

/// ggml's name of a format, or its number where it has no name.
fn format_name(ggml_type: u32) -> String {
    GgmlType::of(ggml_type).map_or_else(|| format!("number {ggml_type}"), |known| known.name.into())
}

/// The reason why a file cannot be quantised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// A tensor's bytes cannot be read.
    #[error(
        "tensor {name:?} is in a format ({}) that this program does not read", format_name(*.ggml_type)
    )]
    UnknownFormat {
        /// The tensor.
        name: String,
        /// Its format.
        ggml_type: u32,
    },
    /// The file holds only some of the model's tensors.
    #[error("it is one of {0} parts of a model: join them to one file first")]
    Split(u64),
    /// The maps from keys to values were made for the weights as they are.
    #[error(
        "it is slim, and its maps from keys to values fit only its present weights: quantise the original, then make the copy slim"
    )]
    Slim,
    /// Tensors share bytes, so that the new file might be any number of times as large.
    #[error("its tensors overlap")]
    Overlap,
    /// A value is infinite or not a number.
    #[error("tensor {name:?} holds a value that is not finite")]
    NotFinite {
        /// The tensor.
        name: String,
    },
    /// A value or a block's scale is too large for f16.
    #[error("tensor {name:?} holds a value that is too large for {}", .format.name())]
    TooLarge {
        /// The tensor.
        name: String,
        /// The format that it should get.
        format: Format,
    },
    /// The caller has interrupted the conversion.
    #[error("interrupted, nothing was written")]
    Interrupted,
    /// The output fails.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// Conversion of one tensor.
#[derive(Clone, Copy, Debug)]
struct Step<'a> {
    tensor: TensorInfo<'a>,
    from: Format,
    to: Format,
}

/// The size of a conversion, in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Tensors of the file.
    pub tensors: usize,
    /// Those among them that change their format.
    pub converted: usize,
    /// Those among the converted that were quantised before, and so lose twice.
    pub requantized: usize,
    /// Elements of all tensors.
    pub elements: u64,
    /// Bytes of all tensors in the old file, without header and padding.
    pub bytes_before: u64,
    /// Bytes of all tensors in the new file, without header and padding.
    pub bytes_after: u64,
    /// Tensors and bytes of the new file by the name of their format.
    pub formats: BTreeMap<&'static str, (usize, u64)>,
}

impl Summary {
    /// Bits for an element in the new file, on average.
    pub fn bits_per_weight(&self) -> f64 {
        self.bytes_after as f64 * 8.0 / self.elements.max(1) as f64
    }
}

/// A copy of a file that is to be made.
#[derive(Debug)]
pub struct Conversion<'a> {
    header: Header<'a>,
    steps: Vec<Step<'a>>,
}

impl<'a> Conversion<'a> {
    /// Plans the copy of `file` in the format `target`. Reads no tensor's bytes yet.
    ///
    /// # Errors
    /// [`QuantizeError::UnknownFormat`], [`QuantizeError::Split`], [`QuantizeError::Slim`] or
    /// [`QuantizeError::Overlap`], if that is what `file` is.
    pub fn plan(file: &Gguf<'a>, target: Target) -> Result<Conversion<'a>, QuantizeError> {
        match file.get("split.count").and_then(|value| value.as_u64()) {
            Some(parts) if parts > 1 => return Err(QuantizeError::Split(parts)),
            _ => {}
        }
        if file
            .tensors()
            .any(|tensor| tensor.name().contains(crate::convert::slim::file::PREFIX))
        {
            return Err(QuantizeError::Slim);
        }
        let mut tensors: Vec<TensorInfo<'a>> = file.tensors().collect();
        // Stable: where a name is repeated, the first one still counts.
        tensors.sort_by_key(choice::order);
        let mut chooser = Chooser::new(file, target);
        let mut steps = Vec::new();
        for tensor in tensors {
            let from = tensor
                .format()
                .ok_or_else(|| QuantizeError::UnknownFormat {
                    name: tensor.name().to_owned(),
                    ggml_type: tensor.ggml_type(),
                })?;
            let to = chooser.format_of(&tensor).unwrap_or(from);
            steps.push(Step { tensor, from, to });
        }
        let bytes = steps.iter().fold(0, |sum: usize, step| {
            sum.saturating_add(step.tensor.data().len())
        });
        if bytes > file.bytes().len() {
            return Err(QuantizeError::Overlap);
        }
        Ok(Conversion {
            header: header(file, &steps, target)?,
            steps,
        })
    }

    /// Has the copy state the sinks that the model needs.
    pub fn state_sinks(&mut self, sinks: usize) {
        let sinks = u32::try_from(sinks).unwrap_or(u32::MAX);
        self.header.set(SINKS_KEY, Value::U32(sinks));
    }

    /// The numbers of the conversion that is planned.
    pub fn summary(&self) -> Summary {
        let mut formats = BTreeMap::new();
        for step in &self.steps {
            let entry: &mut (usize, u64) = formats.entry(step.to.name()).or_default();
            entry.0 += 1;
            entry.1 += step.bytes_after();
        }
        let converted = || self.steps.iter().filter(|step| step.from != step.to);
        Summary {
            tensors: self.steps.len(),
            converted: converted().count(),
            requantized: converted().filter(|step| step.from.is_quantized()).count(),
            elements: self.steps.iter().map(Step::elements).sum(),
            bytes_before: self
                .steps
                .iter()
                .map(|step| step.tensor.data().len() as u64)
                .sum(),
            bytes_after: self.steps.iter().map(Step::bytes_after).sum(),
            formats,
        }
    }

    /// Makes the copy and returns its length. The copy's bytes depend on nothing but the file and
    /// the target.
    ///
    /// Before each slab, `watch` gets the number of finished tensors and says whether to go on.
    ///
    /// # Errors
    /// [`QuantizeError::NotFinite`] or [`QuantizeError::TooLarge`] for values that the format
    /// cannot hold, [`QuantizeError::Interrupted`] when `watch` says no, [`QuantizeError::Write`]
    /// when `out` fails. What `out` got is no model then.
    pub fn write(
        &self,
        out: impl Write,
        threads: &dyn Threads,
        watch: &mut dyn FnMut(usize) -> bool,
    ) -> Result<u64, QuantizeError> {
        let mut body = self.header.write(BufWriter::new(out))?;
        let mut converted = vec![0; threads.workers() * bytes_of(Format::F32, SLAB)];
        for (done, step) in self.steps.iter().enumerate() {
            // A slab for each worker at a time.
            let slabs = threads.workers() * bytes_of(step.from, SLAB);
            for input in step.tensor.data().chunks(slabs) {
                if !watch(done) {
                    return Err(QuantizeError::Interrupted);
                }
                let output = &mut converted[..bytes_of(step.to, elements_of(step.from, input))];
                step.convert_in_parallel(input, output, threads)?;
                body.write(output)?;
            }
        }
        Ok(body.finish()?.1)
    }
}

/// The new file's header: the old one's metadata, the two keys that every quantised file has, and
/// the table of `steps`.
fn header<'a>(
    file: &Gguf<'a>,
    steps: &[Step<'a>],
    target: Target,
) -> Result<Header<'a>, QuantizeError> {
    let mut header = Header::with_metadata_of(file);
    // Version 2 of ggml's block formats: the only one that GGUF files were ever written with.
    header.set("general.quantization_version", Value::U32(2));
    header.set("general.file_type", Value::U32(target.file_type()));
    for key in ["split.no", "split.count", "split.tensors.count"] {
        header.remove(key);
    }
    for step in steps {
        let tensor = &step.tensor;
        header.tensor(tensor.name(), &tensor.dims()[..tensor.rank()], step.to)?;
    }
    Ok(header)
}

/// A worker's part of a tensor: bytes to read, bytes to write, and the result.
type Slab<'b> = (&'b [u8], &'b mut [u8], Result<(), QuantizeError>);

impl Step<'_> {
    fn elements(&self) -> u64 {
        elements_of(self.from, self.tensor.data()) as u64
    }

    fn bytes_after(&self) -> u64 {
        self.elements() / self.to.block_len() as u64 * self.to.block_bytes() as u64
    }

    /// Converts blocks of the tensor to as many of the new format.
    fn convert_in_parallel(
        &self,
        input: &[u8],
        output: &mut [u8],
        threads: &dyn Threads,
    ) -> Result<(), QuantizeError> {
        let slabs: Vec<Mutex<Slab<'_>>> = input
            .chunks(bytes_of(self.from, SLAB))
            .zip(output.chunks_mut(bytes_of(self.to, SLAB)))
            .map(|(input, output)| Mutex::new((input, output, Ok(()))))
            .collect();
        // Each slab is locked by one job, once: the locks only prove that.
        threads.run(slabs.len(), &|_worker, index| {
            let mut slab = slabs[index].lock().unwrap_or_else(PoisonError::into_inner);
            let (input, output, result) = &mut *slab;
            *result = self.convert(input, output);
        });
        slabs
            .into_iter()
            .try_for_each(|slab| slab.into_inner().unwrap_or_else(PoisonError::into_inner).2)
    }

    fn convert(&self, input: &[u8], output: &mut [u8]) -> Result<(), QuantizeError> {
        let mut values = [0.0; PIECE];
        let pieces = input
            .chunks(bytes_of(self.from, PIECE))
            .zip(output.chunks_mut(bytes_of(self.to, PIECE)));
        for (input, output) in pieces {
            let values = &mut values[..elements_of(self.from, input)];
            Matrix::new(self.from, 1, values.len(), input)
                .expect("pieces are whole blocks")
                .dequantize_row(0, values);
            if !values.iter().all(|value| value.is_finite()) {
                return Err(QuantizeError::NotFinite {
                    name: self.tensor.name().to_owned(),
                });
            }
            if self.from == self.to {
                output.copy_from_slice(input);
                continue;
            }
            blocks::quantize(self.to, values, output).ok_or_else(|| QuantizeError::TooLarge {
                name: self.tensor.name().to_owned(),
                format: self.to,
            })?;
        }
        Ok(())
    }
}

/// Number of elements in `bytes`, which are whole blocks.
const fn elements_of(format: Format, bytes: &[u8]) -> usize {
    bytes.len() / format.block_bytes() * format.block_len()
}

/// Number of bytes of `elements` elements, which are whole blocks.
const fn bytes_of(format: Format, elements: usize) -> usize {
    elements / format.block_len() * format.block_bytes()
}

const _: () = assert!(SLAB.is_multiple_of(PIECE) && PIECE.is_multiple_of(SUPER_BLOCK));

#[cfg(test)]
mod tests;

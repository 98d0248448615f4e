//! Whisper in the form of whisper.cpp: `ggml-*.bin`.
//!
//! Numbers little-endian: the magic `lmgg`; eleven i32: tokens, positions, width, heads and layers
//! of the encoder, positions, width, heads and layers of the decoder, mels, file type; the mel
//! filters (i32 rows, i32 columns, f32 values); i32 number of tokens, each a u32 length and its
//! bytes; then tensors until the file ends: i32 number of dimensions, i32 length of the name, i32
//! type, i32 dimensions, fastest first, name, data (`models/convert-pt-to-ggml.py` of whisper.cpp).
//! The names are those of OpenAI's program. Types are ggml's.

use std::collections::HashMap;
use std::io::Write;

use brooklet_core::quant::Format;
use brooklet_core::tensor::Matrix;

use super::ConvertError;
use super::array::{Array, Weights, count};
use super::bytes::Bytes;
use super::whisper::{self, Shape, Vocabulary, from_bytes};

/// The file, in messages.
const FILE: &str = "the ggml file";

const MAGIC: &[u8] = b"lmgg";

/// Most dimensions of a tensor.
const MOST_DIMS: usize = 4;

/// True if `file` begins as a file of whisper.cpp does.
pub fn is_whisper(file: &[u8]) -> bool {
    file.starts_with(MAGIC)
}

/// A tensor as it is stored, dimensions slowest first.
struct Stored<'b> {
    dims: Vec<usize>,
    format: Format,
    bytes: &'b [u8],
}

/// A file.
struct Model<'b> {
    sizes: [usize; 11],
    texts: Vec<&'b [u8]>,
    tensors: HashMap<&'b str, Stored<'b>>,
}

/// The tensors' table is damaged, or holds a type that is not read.
enum Wrong {
    Damaged,
    Type(String, u32),
}

impl<'b> Model<'b> {
    fn read(file: &'b [u8]) -> Result<Model<'b>, ConvertError> {
        let mut bytes = Bytes(file);
        if bytes.take(MAGIC.len()) != Some(MAGIC) {
            let form = "whisper.cpp (ggml)";
            return Err(ConvertError::Form { file: FILE, form });
        }
        let damaged = || ConvertError::Damaged(FILE);
        let (sizes, texts) = Model::front(&mut bytes).ok_or_else(damaged)?;
        let mut tensors = HashMap::new();
        while !bytes.0.is_empty() {
            match Model::tensor(&mut bytes) {
                Ok((name, tensor)) => _ = tensors.insert(name, tensor),
                Err(Wrong::Damaged) => return Err(damaged()),
                Err(Wrong::Type(what, number)) => return Err(ConvertError::Type { what, number }),
            }
        }
        Ok(Model {
            sizes,
            texts,
            tensors,
        })
    }

    /// Reads everything before the tensors.
    fn front(bytes: &mut Bytes<'b>) -> Option<([usize; 11], Vec<&'b [u8]>)> {
        let mut sizes = [0; 11];
        for size in &mut sizes {
            *size = bytes.count()?;
        }
        // The filters follow from their number.
        let (rows, cols) = (bytes.count()?, bytes.count()?);
        bytes.take(rows.checked_mul(cols)?.checked_mul(4)?)?;
        let mut texts = Vec::new();
        for _ in 0..bytes.u32()? {
            let len = bytes.count()?;
            texts.push(bytes.take(len)?);
        }
        Some((sizes, texts))
    }

    fn tensor(bytes: &mut Bytes<'b>) -> Result<(&'b str, Stored<'b>), Wrong> {
        let mut number = || bytes.count().ok_or(Wrong::Damaged);
        let (rank, len, kind) = (number()?, number()?, number()? as u32);
        if !(1..=MOST_DIMS).contains(&rank) {
            return Err(Wrong::Damaged);
        }
        let mut dims = (0..rank).map(|_| number()).collect::<Result<Vec<_>, _>>()?;
        let name = bytes
            .take(len)
            .and_then(|name| std::str::from_utf8(name).ok());
        let name = name.ok_or(Wrong::Damaged)?;
        let format =
            Format::from_ggml_type(kind).ok_or_else(|| Wrong::Type(name.to_owned(), kind))?;
        let rows = count(&dims[1..]);
        let size = format
            .row_bytes(dims[0])
            .filter(|_| count(&dims).is_some())
            .and_then(|row| row.checked_mul(if rank == 1 { 1 } else { rows? }));
        let bytes = size
            .and_then(|size| bytes.take(size))
            .ok_or(Wrong::Damaged)?;
        dims.reverse();
        Ok((
            name,
            Stored {
                dims,
                format,
                bytes,
            },
        ))
    }
}

/// Name of a tensor in OpenAI's program.
fn place(name: &str) -> Option<String> {
    let (side, rest) = name.split_once('.')?;
    let side = match side {
        "enc" => "encoder",
        "dec" => "decoder",
        _ => return None,
    };
    match rest {
        "token_embd.weight" => return Some("decoder.token_embedding.weight".into()),
        "pos_emb.weight" => return Some(format!("{side}.positional_embedding")),
        _ => {}
    }
    let (module, ending) = rest.rsplit_once('.')?;
    let theirs = match module.strip_prefix("blocks.") {
        None => match module {
            "conv.0" => "conv1".into(),
            "conv.1" => "conv2".into(),
            _ if side == "encoder" => "ln_post".into(),
            _ => "ln".into(),
        },
        Some(inner) => {
            let (layer, module) = inner.split_once('.')?;
            let theirs = match module {
                "norm_attn" | "norm_self" => "attn_ln".into(),
                "norm_cross" => "cross_attn_ln".into(),
                "norm_ffn" => "mlp_ln".into(),
                "ffn.fc1" => "mlp.0".into(),
                "ffn.fc2" => "mlp.2".into(),
                _ => {
                    let (attention, matrix) = module.split_once('.')?;
                    let attention = match attention {
                        "cross_attn" => "cross_attn",
                        _ => "attn",
                    };
                    let matrix = match matrix {
                        "q" => "query",
                        "k" => "key",
                        "v" => "value",
                        _ => "out",
                    };
                    format!("{attention}.{matrix}")
                }
            };
            format!("blocks.{layer}.{theirs}")
        }
    };
    Some(format!("{side}.{theirs}.{ending}"))
}

impl Weights for Model<'_> {
    fn read(&self, name: &str) -> Result<Array, ConvertError> {
        let theirs = place(name).unwrap_or_default();
        let stored = self.tensors.get(&theirs[..]);
        let stored = stored.ok_or_else(|| ConvertError::Missing(name.into()))?;
        let mut values = vec![0.0; count(&stored.dims).unwrap_or(0)];
        Matrix::new(stored.format, 1, values.len(), stored.bytes)
            .map_err(|_| ConvertError::Missing(name.into()))?
            .dequantize_row(0, &mut values);
        // A bias of a convolution is [rows, 1] there.
        let is_row = name.ends_with(".bias");
        let dims = if is_row {
            vec![values.len()]
        } else {
            stored.dims.clone()
        };
        Ok(Array { dims, values })
    }
}

/// Number of tensors that are quantised in other formats than Q8_0, which is written as it was, and
/// of all.
///
/// # Errors
/// [`ConvertError::Form`] and [`ConvertError::Damaged`].
pub(super) fn quantized(file: &[u8]) -> Result<(usize, usize), ConvertError> {
    let tensors = Model::read(file)?.tensors;
    let loses =
        |tensor: &&Stored<'_>| tensor.format.is_quantized() && tensor.format != Format::Q8_0;
    Ok((tensors.values().filter(loses).count(), tensors.len()))
}

/// Writes a model with its matrices in `format`, one of F32, F16 and Q8_0; returns the number of
/// bytes. `out` gets the same bytes for the same file always.
///
/// # Errors
/// The first thing that is wrong with the file, or [`ConvertError::Write`].
pub fn write(file: &[u8], format: Format, out: impl Write) -> Result<u64, ConvertError> {
    let model = Model::read(file)?;
    let [
        vocab,
        source,
        width,
        heads,
        encoder,
        target,
        other,
        others,
        decoder,
        mels,
        _,
    ] = model.sizes;
    let shape = Shape::of(&model, heads)?;
    let said = Shape {
        layers: [encoder, decoder],
        width,
        heads: others,
        ffn: shape.ffn,
        mels,
        positions: [source, target],
        vocab,
    };
    if shape != said || other != width {
        return Err(ConvertError::Family {
            family: "Whisper",
            why: "its matrices have other sizes than its header says".into(),
        });
    }
    let vocabulary = Vocabulary::new(from_bytes(&model.texts, vocab)?)?;
    whisper::write(&model, &shape, &vocabulary, format, out)
}

#[cfg(test)]
mod tests;

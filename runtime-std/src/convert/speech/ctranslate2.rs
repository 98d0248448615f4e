//! Whisper in the form of CTranslate2, which faster-whisper uses: `model.bin` and its vocabulary.
//!
//! `model.bin`, numbers little-endian, a string being a u16 length that counts a closing NUL, and
//! its bytes: u32 version (6), the string `WhisperSpec`, u32 revision, u32 number of variables;
//! each variable: string name, u8 rank, u32 dimensions, u8 type, u32 bytes, data; then u32 number
//! of aliases, each two strings (`python/ctranslate2/specs/model_spec.py`, `_serialize`). A matrix
//! is [out, in], a convolution [out, in, taps]. Of 8-bit matrices each row has a scale, by which
//! its values were multiplied.

use std::collections::HashMap;
use std::io::Write;

use brooklet_core::quant::Format;

use super::ConvertError;
use super::array::{Array, Weights, count};
use super::bytes::Bytes;
use super::whisper::{self, Shape, Vocabulary};

/// The file with the weights, in messages.
const FILE: &str = "model.bin";

/// The version of the form.
const VERSION: u32 = 6;

/// The files of a model.
#[derive(Clone, Copy, Debug)]
pub struct Files<'f> {
    /// `model.bin`
    pub model: &'f [u8],
    /// `vocabulary.txt`, a token a line, or `vocabulary.json`, a list of them
    pub vocabulary: &'f [u8],
    /// `config.json`, if there is one: tokens that are never written. Without it they are those
    /// that OpenAI's program finds by their texts.
    pub config: Option<&'f [u8]>,
}

/// True if `file` begins as a `model.bin` with a Whisper does.
pub fn is_whisper(file: &[u8]) -> bool {
    let mut bytes = Bytes(file);
    bytes.u32() == Some(VERSION) && text(&mut bytes) == Some("WhisperSpec")
}

/// A string, if it ends as its length says.
fn text<'b>(bytes: &mut Bytes<'b>) -> Option<&'b str> {
    let len = bytes.u16()?;
    let bytes = bytes.take(len.into())?;
    std::str::from_utf8(bytes.strip_suffix(b"\0")?).ok()
}

/// A variable as it is stored.
struct Variable<'b> {
    dims: Vec<usize>,
    kind: u8,
    bytes: &'b [u8],
}

/// Every variable of a file.
struct Variables<'b> {
    found: HashMap<&'b str, Variable<'b>>,
    /// Other names of variables.
    aliases: HashMap<&'b str, &'b str>,
}

impl<'b> Variables<'b> {
    fn read(file: &'b [u8]) -> Result<Variables<'b>, ConvertError> {
        let mut bytes = Bytes(file);
        let (version, spec) = (bytes.u32(), text(&mut bytes));
        if version != Some(VERSION) || spec != Some("WhisperSpec") {
            let form = "CTranslate2, version 6, with a Whisper";
            return Err(ConvertError::Form { file: FILE, form });
        }
        Variables::list(&mut bytes).ok_or(ConvertError::Damaged(FILE))
    }

    fn list(bytes: &mut Bytes<'b>) -> Option<Variables<'b>> {
        bytes.u32()?;
        let (mut found, mut aliases) = (HashMap::new(), HashMap::new());
        for _ in 0..bytes.u32()? {
            let name = text(bytes)?;
            let rank = bytes.u8()?;
            let dims = (0..rank).map(|_| usize::try_from(bytes.u32()?).ok());
            let dims = dims.collect::<Option<_>>()?;
            let kind = bytes.u8()?;
            let len = bytes.u32()? as usize;
            let bytes = bytes.take(len)?;
            found.insert(name, Variable { dims, kind, bytes });
        }
        for _ in 0..bytes.u32()? {
            let name = text(bytes)?;
            aliases.insert(name, text(bytes)?);
        }
        Some(Variables { found, aliases })
    }

    fn find(&self, name: &str) -> Result<&Variable<'b>, ConvertError> {
        let alias = || self.found.get(self.aliases.get(name)?);
        let variable = self.found.get(name).or_else(alias);
        variable.ok_or_else(|| ConvertError::Missing(name.into()))
    }

    /// The variable called `name` in f32, without the scales that it may have.
    fn array(&self, name: &str) -> Result<Array, ConvertError> {
        let variable = self.find(name)?;
        let mut array = variable.array().ok_or_else(|| ConvertError::Type {
            what: name.into(),
            number: variable.kind.into(),
        })?;
        if variable.kind == INT8 {
            let scales = self.array(&format!("{name}_scale"))?.values;
            let rows = array.dims.first().copied().unwrap_or(0);
            if scales.len() != rows {
                return Err(ConvertError::Size {
                    what: format!("{name}_scale"),
                    found: scales.len(),
                    expected: rows,
                });
            }
            let cols = array.values.len() / rows;
            for (row, scale) in array.values.chunks_exact_mut(cols).zip(scales) {
                row.iter_mut().for_each(|x| *x /= scale);
            }
        }
        Ok(array)
    }

    /// The whole number called `name`.
    fn setting(&self, name: &str) -> Result<i64, ConvertError> {
        let variable = self.find(name)?;
        let wrong = || ConvertError::Type {
            what: name.into(),
            number: variable.kind.into(),
        };
        let bytes = variable.bytes;
        match (variable.kind, bytes.len()) {
            (INT8, 1) => Ok((bytes[0] as i8).into()),
            (2, 2) => Ok(bytes
                .as_array()
                .map_or(0, |b| i16::from_le_bytes(*b))
                .into()),
            (3, 4) => Ok(bytes
                .as_array()
                .map_or(0, |b| i32::from_le_bytes(*b))
                .into()),
            _ => Err(wrong()),
        }
    }
}

/// The number of the type of 8-bit integers.
const INT8: u8 = 1;

impl Variable<'_> {
    /// The values in f32; `None` for other types than f32, f16, bf16 and i8, and for a number of
    /// bytes that does not fit the dimensions.
    fn array(&self) -> Option<Array> {
        let halves = |from: fn(u16) -> f32| {
            let (values, rest) = self.bytes.as_chunks();
            let values = values.iter().map(|x| from(u16::from_le_bytes(*x)));
            rest.is_empty().then(|| values.collect::<Vec<f32>>())
        };
        let values = match self.kind {
            0 => {
                let (values, rest) = self.bytes.as_chunks();
                rest.is_empty().then_some(())?;
                values.iter().map(|x| f32::from_le_bytes(*x)).collect()
            }
            INT8 => self.bytes.iter().map(|x| f32::from(*x as i8)).collect(),
            4 => halves(|bits| half::f16::from_bits(bits).to_f32())?,
            5 => halves(|bits| half::bf16::from_bits(bits).to_f32())?,
            _ => return None,
        };
        (count(&self.dims) == Some(values.len())).then(|| Array {
            dims: self.dims.clone(),
            values,
        })
    }
}

/// Place of a tensor in CTranslate2: its variable, and which part of how many equal ones by rows.
fn place(name: &str) -> Option<(String, usize, usize)> {
    let (side, rest) = name.split_once('.')?;
    let side = match side {
        "enc" => "encoder",
        "dec" => "decoder",
        _ => return None,
    };
    let whole = |name: &str| Some((format!("{side}/{name}"), 0, 1));
    match rest {
        "token_embd.weight" => return whole("embeddings/weight"),
        "pos_emb.weight" => return whole("position_encodings/encodings"),
        _ => {}
    }
    let (module, ending) = rest.rsplit_once('.')?;
    let norm = match ending {
        "weight" => "gamma",
        _ => "beta",
    };
    let Some(inner) = module.strip_prefix("blocks.") else {
        return match module {
            "conv.0" => whole(&format!("conv1/{ending}")),
            "conv.1" => whole(&format!("conv2/{ending}")),
            _ => whole(&format!("layer_norm/{norm}")),
        };
    };
    let (layer, module) = inner.split_once('.')?;
    let (theirs, part, parts) = match module {
        "norm_attn" | "norm_self" => (format!("self_attention/layer_norm/{norm}"), 0, 1),
        "norm_cross" => (format!("attention/layer_norm/{norm}"), 0, 1),
        "norm_ffn" => (format!("ffn/layer_norm/{norm}"), 0, 1),
        "ffn.fc1" => (format!("ffn/linear_0/{ending}"), 0, 1),
        "ffn.fc2" => (format!("ffn/linear_1/{ending}"), 0, 1),
        _ => {
            let (attention, matrix) = module.split_once('.')?;
            let (theirs, linear, part, parts) = match (attention, matrix) {
                ("cross_attn", "q") => ("attention", 0, 0, 1),
                ("cross_attn", "k") => ("attention", 1, 0, 2),
                ("cross_attn", "v") => ("attention", 1, 1, 2),
                ("cross_attn", _) => ("attention", 2, 0, 1),
                (_, "q") => ("self_attention", 0, 0, 3),
                (_, "k") => ("self_attention", 0, 1, 3),
                (_, "v") => ("self_attention", 0, 2, 3),
                _ => ("self_attention", 1, 0, 1),
            };
            (format!("{theirs}/linear_{linear}/{ending}"), part, parts)
        }
    };
    Some((format!("{side}/layer_{layer}/{theirs}"), part, parts))
}

impl Weights for Variables<'_> {
    fn read(&self, name: &str) -> Result<Array, ConvertError> {
        let missing = || ConvertError::Missing(name.into());
        let (variable, part, parts) = place(name).ok_or_else(missing)?;
        let mut array = self.array(&variable)?;
        let rows = array.dims.first_mut().ok_or_else(missing)?;
        if parts > 1 {
            if !rows.is_multiple_of(parts) {
                return Err(missing());
            }
            *rows /= parts;
            let len = array.values.len() / parts;
            array.values = array.values[part * len..][..len].to_vec();
        }
        Ok(array)
    }
}

/// Settings that are the same in every Whisper, and their values.
const SETTINGS: [(&str, i64); 4] = [
    ("decoder/activation", 3),
    ("decoder/pre_norm", 1),
    ("decoder/scale_embeddings", 0),
    ("decoder/alibi", 0),
];

/// Number of variables that are 8-bit integers, and of all.
///
/// # Errors
/// [`ConvertError::Form`] and [`ConvertError::Damaged`].
pub(super) fn quantized(file: &[u8]) -> Result<(usize, usize), ConvertError> {
    let found = Variables::read(file)?.found;
    let is_matrix = |variable: &&Variable<'_>| variable.kind == INT8 && variable.dims.len() > 1;
    Ok((found.values().filter(is_matrix).count(), found.len()))
}

/// Writes a model with its matrices in `format`, one of F32, F16 and Q8_0; returns the number of
/// bytes. `out` gets the same bytes for the same files always.
///
/// # Errors
/// The first thing that is wrong with the files, or [`ConvertError::Write`].
pub fn write(files: &Files<'_>, format: Format, out: impl Write) -> Result<u64, ConvertError> {
    let variables = Variables::read(files.model)?;
    for (name, expected) in SETTINGS {
        let found = variables.setting(name);
        if found.as_ref().is_ok_and(|found| *found != expected) {
            return Err(other(format!("{name} is not {expected}")));
        }
    }
    let heads = variables.setting("encoder/num_heads")?;
    if variables.setting("decoder/num_heads")? != heads {
        return Err(other("encoder and decoder have other heads".into()));
    }
    let heads = usize::try_from(heads).unwrap_or(0);
    let shape = Shape::of(&variables, heads)?;
    for (side, layers) in ["encoder", "decoder"].into_iter().zip(shape.layers) {
        let after = format!("{side}/layer_{layers}/");
        if variables.found.keys().any(|name| name.starts_with(&after)) {
            return Err(ConvertError::Missing(format!("{after}ffn/linear_0/bias")));
        }
    }
    for name in whisper::names(shape.layers) {
        // Stored as zeros, where Whisper has none.
        if let Some(matrix) = name.strip_suffix(".k.weight") {
            let bias = format!("{matrix}.k.bias");
            if variables.read(&bias)?.values.iter().any(|x| *x != 0.0) {
                return Err(other(format!("it has {bias}")));
            }
        }
    }
    let mut vocabulary = Vocabulary::new(tokens(files.vocabulary)?)?;
    if let Some(config) = files.config {
        let config: serde_json::Value =
            serde_json::from_slice(config).map_err(|_| ConvertError::Damaged("config.json"))?;
        let list = |key| match config.get(key) {
            None | Some(serde_json::Value::Null) => Ok(Vec::new()),
            Some(list) => {
                let number = |number: &serde_json::Value| i32::try_from(number.as_i64()?).ok();
                let numbers = list
                    .as_array()
                    .map(|list| list.iter().map(number).collect());
                let numbers: Option<Option<Vec<i32>>> = numbers;
                let damaged = || ConvertError::Damaged("config.json");
                numbers.flatten().ok_or_else(damaged)
            }
        };
        for (tokens, key) in [
            (&mut vocabulary.suppressed, "suppress_ids"),
            (&mut vocabulary.suppressed_first, "suppress_ids_begin"),
        ] {
            let given = list(key)?;
            if !given.is_empty() {
                *tokens = given;
            }
        }
    }
    whisper::write(&variables, &shape, &vocabulary, format, out)
}

fn other(why: String) -> ConvertError {
    let family = "Whisper";
    ConvertError::Family { family, why }
}

/// The tokens of a vocabulary in either form.
fn tokens(file: &[u8]) -> Result<Vec<Vec<u8>>, ConvertError> {
    if file.first() == Some(&b'[') {
        let tokens: Vec<String> =
            serde_json::from_slice(file).map_err(|_| ConvertError::Damaged("vocabulary.json"))?;
        return Ok(tokens.into_iter().map(String::into_bytes).collect());
    }
    let lines = file.strip_suffix(b"\n").unwrap_or(file);
    Ok(lines
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect())
}

#[cfg(test)]
mod tests;

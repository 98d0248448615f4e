//! Whisper's GGUF file, whatever program's file the weights are from.
//!
//! The names of tensors and keys are those of transcribe.cpp. In this order, each importing only
//! what stands before it:
//!
//! - `front_end`: the mel filters and the window.
//! - `vocabulary`: the tokens, and what follows from them.
//!
//! Sizes: *Robust Speech Recognition via Large-Scale Weak Supervision*, table 1. The widths and the
//! heads of encoder and decoder are equal in every Whisper.

mod front_end;
mod vocabulary;

use std::io::Write;

use brooklet_core::gguf::Value;
use brooklet_core::quant::Format;
use brooklet_core::speech::SAMPLE_RATE;

pub(super) use self::vocabulary::{Vocabulary, from_bytes};
use super::ConvertError;
use super::array::{self, Array, Weights, file_type};
use crate::convert::gguf_writer::Header;

/// Samples of a transform, and between two.
const N_FFT: usize = 400;
const HOP: usize = 160;

/// The filters' name, and the window's.
const FILTERS: &str = "frontend.mel_filterbank";
const WINDOW: &str = "frontend.window";

/// Most layers of a side, and most bands of a sound, several times those of the largest model.
const MOST_LAYERS: usize = 1 << 10;
const MOST_MELS: usize = 1 << 10;

/// OpenAI's models with this vocabulary or a larger one know more than one language
/// (`whisper/model.py`, `is_multilingual`).
const MULTILINGUAL: usize = 51_865;

/// Sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    /// Layers of the encoder and of the decoder.
    pub(super) layers: [usize; 2],
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) ffn: usize,
    pub(super) mels: usize,
    /// Positions of the encoder and of the decoder.
    pub(super) positions: [usize; 2],
    pub(super) vocab: usize,
}

impl Shape {
    /// The sizes that the weights show, for the number of heads, which none shows.
    ///
    /// # Errors
    /// [`ConvertError::Missing`] for a weight that is not there, or has other dimensions.
    pub(super) fn of(weights: &impl Weights, heads: usize) -> Result<Shape, ConvertError> {
        let dims = |name: &str| Ok::<_, ConvertError>(weights.read(name)?.dims);
        let missing = |name: &str| ConvertError::Missing(format!("usable shape of {name}"));
        let rows = |name: &str| match dims(name)?[..] {
            [rows, _] => Ok(rows),
            _ => Err(missing(name)),
        };
        let mut layers = [0; 2];
        for (side, layers) in ["enc", "dec"].into_iter().zip(&mut layers) {
            // Whatever else is wrong with a layer is no end of the model.
            loop {
                match weights.read(&format!("{side}.blocks.{layers}.ffn.fc1.bias")) {
                    Ok(_) if *layers < MOST_LAYERS => *layers += 1,
                    Err(ConvertError::Missing(_)) => break,
                    Ok(_) => return Err(missing("the last layer")),
                    Err(error) => return Err(error),
                }
            }
        }
        let stem = "enc.conv.0.weight";
        let [width, mels, _] = dims(stem)?[..] else {
            return Err(missing(stem));
        };
        let shape = Shape {
            layers,
            width,
            heads,
            ffn: rows("enc.blocks.0.ffn.fc1.weight")?,
            mels,
            positions: [rows("enc.pos_emb.weight")?, rows("dec.pos_emb.weight")?],
            vocab: rows("dec.token_embd.weight")?,
        };
        let other = |why: String| {
            let family = "Whisper";
            Err(ConvertError::Family { family, why })
        };
        if shape.mels > MOST_MELS {
            return other(format!("its sound has {} bands", shape.mels));
        }
        if heads == 0 || !width.is_multiple_of(heads) {
            return other(format!("its {width} columns are not {heads} heads"));
        }
        if layers.contains(&0) {
            return other("it has no layers on one side".into());
        }
        Ok(shape)
    }

    /// The dimensions of the array called `name`; `None` for one that Whisper has not.
    fn dims(&self, name: &str) -> Option<Vec<usize>> {
        let (width, ffn) = (self.width, self.ffn);
        Some(match name {
            "enc.conv.0.weight" => vec![width, self.mels, 3],
            "enc.conv.1.weight" => vec![width, width, 3],
            "enc.pos_emb.weight" => vec![self.positions[0], width],
            "dec.pos_emb.weight" => vec![self.positions[1], width],
            "dec.token_embd.weight" => vec![self.vocab, width],
            _ => {
                let (module, ending) = name.rsplit_once('.')?;
                let is_norm = module.contains("norm");
                match (ending, module.ends_with(".fc1"), module.ends_with(".fc2")) {
                    ("weight", true, _) => vec![ffn, width],
                    ("weight", _, true) => vec![width, ffn],
                    ("weight", ..) if !is_norm => vec![width, width],
                    ("bias", true, _) => vec![ffn],
                    _ => vec![width],
                }
            }
        })
    }

    /// OpenAI's name of a model of these sizes; the first two large models have the same.
    fn variant(&self) -> String {
        let size = match (self.width, self.layers) {
            (384, [4, 4]) => "tiny",
            (512, [6, 6]) => "base",
            (768, [12, 12]) => "small",
            (1024, [24, 24]) => "medium",
            (1280, [32, 32] | [32, 4]) => "large",
            _ => &self.width.to_string(),
        };
        let version = match (self.mels, self.layers) {
            (128, [32, 4]) => "-v3-turbo",
            (128, _) => "-v3",
            _ => "",
        };
        let languages = if self.is_multilingual() { "" } else { ".en" };
        format!("{size}{version}{languages}")
    }

    fn is_multilingual(&self) -> bool {
        self.vocab >= MULTILINGUAL
    }
}

/// Names of all weights, in the order of the file, without the front end's two.
pub(super) fn names(layers: [usize; 2]) -> Vec<String> {
    let mut names = Vec::new();
    for (side, layers) in ["enc", "dec"].into_iter().zip(layers) {
        let is_encoder = side == "enc";
        if !is_encoder {
            names.push("dec.token_embd.weight".into());
        }
        names.push(format!("{side}.pos_emb.weight"));
        // Norms and linear layers, each with a weight and, but for keys, a bias.
        let mut modules = Vec::new();
        if is_encoder {
            modules.extend(["enc.conv.0".into(), "enc.conv.1".into()]);
        }
        modules.push(format!("{side}.final_norm"));
        let attentions: &[_] = if is_encoder {
            &[("norm_attn", "attn")]
        } else {
            &[("norm_self", "self_attn"), ("norm_cross", "cross_attn")]
        };
        for layer in 0..layers {
            let mut add = |module: String| modules.push(format!("{side}.blocks.{layer}.{module}"));
            for (norm, attention) in attentions {
                add((*norm).into());
                for part in ["q", "k", "v", "out"] {
                    add(format!("{attention}.{part}"));
                }
            }
            for module in ["norm_ffn", "ffn.fc1", "ffn.fc2"] {
                add(module.into());
            }
        }
        for module in modules {
            names.push(format!("{module}.weight"));
            if !module.ends_with(".k") {
                names.push(format!("{module}.bias"));
            }
        }
    }
    names
}

/// The weights, and the front end's two arrays, which no other program's file has in this form.
struct WithFrontEnd<'w, W> {
    weights: &'w W,
    shape: &'w Shape,
}

impl<W: Weights> Weights for WithFrontEnd<'_, W> {
    fn read(&self, name: &str) -> Result<Array, ConvertError> {
        match name {
            FILTERS => Ok(front_end::filters(self.shape.mels, N_FFT, SAMPLE_RATE)),
            WINDOW => Ok(front_end::window(N_FFT)),
            _ => {
                let array = self.weights.read(name)?;
                if self.shape.dims(name).as_ref() == Some(&array.dims) {
                    Ok(array)
                } else {
                    Err(ConvertError::Family {
                        family: "Whisper",
                        why: format!("{name} is {:?}", array.dims),
                    })
                }
            }
        }
    }
}

/// Writes a model with its matrices in `format`, one of F32, F16 and Q8_0; returns the number of
/// bytes.
///
/// # Errors
/// The first thing that is wrong with the weights, or [`ConvertError::Write`].
pub(super) fn write(
    weights: &impl Weights,
    shape: &Shape,
    vocabulary: &Vocabulary,
    format: Format,
    out: impl Write,
) -> Result<u64, ConvertError> {
    if vocabulary.tokens.len() != shape.vocab {
        return Err(ConvertError::Size {
            what: "the vocabulary".into(),
            found: vocabulary.tokens.len(),
            expected: shape.vocab,
        });
    }
    let variant = shape.variant();
    let (name, variant) = (format!("Whisper {variant}"), format!("whisper-{variant}"));
    let multilingual = shape.is_multilingual();
    let languages = if multilingual {
        vocabulary.languages()
    } else {
        vec![b"en".to_vec()]
    };
    let (types, end) = (vocabulary.types()?, vocabulary.end()?);
    let mut header = Header::default();
    header.set("general.architecture", Value::Str(b"whisper"));
    header.set("general.name", Value::Str(name.as_bytes()));
    header.set("general.license", Value::Str(b"MIT"));
    header.set("general.file_type", Value::U32(file_type(format)));
    header.set_strings("general.languages", &languages);
    header.set("stt.variant", Value::Str(variant.as_bytes()));
    for (key, value) in [
        ("stt.capability.lang_detect", multilingual),
        ("stt.capability.translate", multilingual),
        ("stt.capability.timestamps", true),
    ] {
        header.set(key, Value::Bool(value));
    }
    for key in ["tokenizer.ggml.model", "tokenizer.ggml.pre"] {
        header.set(key, Value::Str(b"gpt2"));
    }
    header.set_strings("tokenizer.ggml.tokens", &vocabulary.tokens);
    header.set_integers("tokenizer.ggml.token_type", &types);
    header.set_strings("tokenizer.ggml.merges", &vocabulary.merges);
    for key in [
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.padding_token_id",
    ] {
        header.set(key, Value::U32(end));
    }
    header.set("tokenizer.ggml.add_bos_token", Value::Bool(false));
    let mut keys = sizes(shape);
    keys.extend(vocabulary.prompt()?);
    for (key, value) in &keys {
        header.set(key, *value);
    }
    for (key, tokens) in [
        ("stt.whisper.suppress_tokens", &vocabulary.suppressed),
        (
            "stt.whisper.begin_suppress_tokens",
            &vocabulary.suppressed_first,
        ),
    ] {
        header.set_integers(key, tokens);
    }
    let keys = front_end_keys(shape);
    for (key, value) in &keys {
        header.set(key, *value);
    }
    let mut all = vec![FILTERS.to_owned(), WINDOW.to_owned()];
    all.extend(names(shape.layers));
    array::write(header, &all, &WithFrontEnd { weights, shape }, format, out)
}

fn number(value: usize) -> Value<'static> {
    Value::U32(u32::try_from(value).unwrap_or(u32::MAX))
}

/// The keys that say how large the model is.
fn sizes(shape: &Shape) -> Vec<(String, Value<'static>)> {
    let mut keys = Vec::new();
    let mut add = |key: String, value| keys.push((format!("stt.whisper.{key}"), value));
    for (i, side) in ["encoder", "decoder"].into_iter().enumerate() {
        add(format!("{side}.n_layers"), number(shape.layers[i]));
        let positions = number(shape.positions[i]);
        if side == "encoder" {
            add("encoder.num_mel_bins".into(), number(shape.mels));
            add("encoder.max_source_positions".into(), positions);
        } else {
            add("decoder.max_target_positions".into(), positions);
            add("decoder.vocab_size".into(), number(shape.vocab));
        }
        add(format!("{side}.d_model"), number(shape.width));
        add(format!("{side}.n_heads"), number(shape.heads));
        add(format!("{side}.ffn_dim"), number(shape.ffn));
        add(format!("{side}.activation"), Value::Str(b"gelu"));
    }
    add("decoder.tie_word_embeddings".into(), Value::Bool(true));
    add("decoder.scale_embedding".into(), Value::Bool(false));
    keys
}

/// The keys that say how features are computed.
fn front_end_keys(shape: &Shape) -> Vec<(String, Value<'static>)> {
    let mut keys = Vec::new();
    let mut add = |key: &str, value| keys.push((format!("stt.frontend.{key}"), value));
    for (key, word) in [
        ("type", "mel"),
        ("window", "hann_periodic"),
        ("normalize", "whisper_logmel"),
        ("pad_mode", "reflect"),
        ("mel_norm", "slaney"),
    ] {
        add(key, Value::Str(word.as_bytes()));
    }
    // The stem has a step of two.
    let frames = 2 * shape.positions[0];
    let (samples, rate) = (frames * HOP, SAMPLE_RATE);
    for (key, value) in [
        ("num_mels", shape.mels),
        ("sample_rate", rate),
        ("n_fft", N_FFT),
        ("win_length", N_FFT),
        ("hop_length", HOP),
        ("n_samples", samples),
        ("nb_max_frames", frames),
    ] {
        add(key, number(value));
    }
    if samples.is_multiple_of(rate) {
        add("chunk_length", number(samples / rate));
    }
    for (key, value) in [
        ("dither", 0.0),
        ("pre_emphasis", 0.0),
        ("f_min", 0.0),
        ("f_max", SAMPLE_RATE as f32 / 2.0),
    ] {
        add(key, Value::F32(value));
    }
    add("center", Value::Bool(true));
    keys
}

//! Moonshine, from its files in the form of ONNX Runtime, as the Python packages `moonshine-voice`
//! and `moonshine-cpp` hold them.
//!
//! The names of tensors and keys are those of transcribe.cpp. `proj_out` was quantised apart from
//! the embedding, whose transpose it is; it is left out, and so the output is the embedding.

use std::collections::HashMap;
use std::io::Write;

use brooklet_core::gguf::Value;
use brooklet_core::quant::Format;
use brooklet_core::speech::SAMPLE_RATE;

use super::ConvertError;
use super::array::{self, Array, Weights, file_type};
use super::graph::Graph;
use crate::convert::gguf_writer::Header;

/// Taps of the three convolutions, and their steps.
const KERNELS: [i32; 3] = [127, 7, 3];
const STRIDES: [i32; 3] = [64, 3, 2];

/// Sizes that no weight shows; every published model has them.
const HEADS: usize = 8;
const ROTATED: usize = 32;

/// Most tokens of a text: 6.5 for each of the 30 seconds that the models were trained with at
/// most.
const POSITIONS: usize = 194;

/// Tokens that begin and end a text, and one that is in none.
const START: u32 = 1;
const END: u32 = 2;
const UNKNOWN: u32 = 0;

/// Keys of abilities beside writing text, which other families have.
const CAPABILITIES: [&str; 3] = [
    "stt.capability.lang_detect",
    "stt.capability.translate",
    "stt.capability.timestamps",
];

/// The contents of the three files of a model.
#[derive(Clone, Copy, Debug)]
pub struct Files<'f> {
    /// `encoder_model.ort`
    pub encoder: &'f [u8],
    /// `decoder_model_merged.ort`
    pub decoder: &'f [u8],
    /// `tokenizer.bin`
    pub tokenizer: &'f [u8],
}

/// The graph and the node or constant that has a tensor, and what becomes of it.
struct Place<'m> {
    graph: &'m Graph<'m>,
    source: Source,
}

enum Source {
    /// The matrix of a node, as it is.
    Weight(String),
    /// The matrix of a node, which is [in, out] there and [out, in] here.
    Transposed(String),
    /// The weight of a node, as one row.
    Row(String),
    Constant(String),
}

impl Place<'_> {
    fn read(&self) -> Result<Array, ConvertError> {
        let mut array = match &self.source {
            Source::Weight(name) | Source::Row(name) | Source::Transposed(name) => {
                self.graph.weight(name)?
            }
            Source::Constant(name) => self.graph.constant(name)?,
        };
        match (&self.source, &array.dims[..]) {
            (Source::Row(_), _) => array.dims = vec![array.values.len()],
            (Source::Transposed(_), &[rows, cols]) => array = transposed(&array, rows, cols),
            (Source::Transposed(name), _) => {
                return Err(ConvertError::Missing(format!("matrix of {name}")));
            }
            _ => {}
        }
        Ok(array)
    }
}

fn transposed(array: &Array, rows: usize, cols: usize) -> Array {
    let mut values = Vec::with_capacity(array.values.len());
    for col in 0..cols {
        values.extend((0..rows).map(|row| array.values[row * cols + col]));
    }
    Array {
        dims: vec![cols, rows],
        values,
    }
}

/// Sizes of a model; encoder and decoder have the same widths.
struct Shape {
    layers: [usize; 2],
    width: usize,
    ffn: usize,
    vocab: usize,
}

impl Shape {
    fn of(encoder: &Graph<'_>, decoder: &Graph<'_>) -> Result<Shape, ConvertError> {
        let count = |graph: &Graph<'_>, start: &str| {
            let query = |layer| format!("{start}layers.{layer}/self_attn/q_proj/MatMul");
            (0..).take_while(|layer| graph.has(&query(*layer))).count()
        };
        let embedding = decoder.weight("/model/decoder/embed_tokens/Gather")?;
        let &[vocab, width] = &embedding.dims[..] else {
            return Err(ConvertError::Missing("embedding of two dimensions".into()));
        };
        Ok(Shape {
            layers: [count(encoder, "/"), count(decoder, "/model/decoder/")],
            width,
            ffn: encoder.constant("layers.0.mlp.fc1.bias")?.values.len(),
            vocab,
        })
    }
}

/// Every tensor of the model and its place, in the order of the file.
fn tensors<'m>(
    encoder: &'m Graph<'m>,
    decoder: &'m Graph<'m>,
    layers: [usize; 2],
) -> Vec<(String, Place<'m>)> {
    let mut all = Vec::new();
    let mut add = |graph, name: String, source| all.push((name, Place { graph, source }));
    for i in 0..3 {
        let name = format!("enc.conv.{i}.weight");
        add(
            encoder,
            name,
            Source::Weight(format!("/conv{}/Conv", i + 1)),
        );
        if i > 0 {
            let bias = Source::Constant(format!("conv{}.bias", i + 1));
            add(encoder, format!("enc.conv.{i}.bias"), bias);
        }
    }
    for (ending, node) in [("weight", "Mul"), ("bias", "Add")] {
        let name = format!("enc.conv.norm.{ending}");
        add(encoder, name, Source::Row(format!("/groupnorm/{node}")));
    }
    let sides = [
        (encoder, "enc", "/", ""),
        (decoder, "dec", "/model/decoder/", "model.decoder."),
    ];
    for ((graph, short, nodes, constants), layers) in sides.into_iter().zip(layers) {
        let is_encoder = short == "enc";
        if !is_encoder {
            let rows = Source::Weight("/model/decoder/embed_tokens/Gather".into());
            add(graph, "dec.token_embd.weight".into(), rows);
        }
        let (norms, attentions): (&[_], &[_]) = if is_encoder {
            (
                &[("norm_attn", "input"), ("norm_ffn", "post_attention")],
                &[("attn", "self_attn")],
            )
        } else {
            (
                &[
                    ("norm_self", "input"),
                    ("norm_cross", "post_attention"),
                    ("norm_ffn", "final"),
                ],
                &[("self_attn", "self_attn"), ("cross_attn", "encoder_attn")],
            )
        };
        for layer in 0..layers {
            let (ours, theirs) = (format!("{short}.blocks.{layer}"), format!("layers.{layer}"));
            for (norm, name) in norms {
                let weight = format!("{constants}{theirs}.{name}_layernorm.weight");
                add(
                    graph,
                    format!("{ours}.{norm}.weight"),
                    Source::Constant(weight),
                );
            }
            // The first of these names that the file has.
            let first = |place: &str, names: [&'static str; 2]| {
                let node = |name: &str| format!("{nodes}{theirs}/{place}/{name}/MatMul");
                let name = names.into_iter().find(|name| graph.has(&node(name)));
                let name = name.unwrap_or(names[0]);
                (name, Source::Transposed(node(name)))
            };
            for (attention, place) in attentions {
                for part in ["q", "k", "v"] {
                    let node = format!("{nodes}{theirs}/{place}/{part}_proj/MatMul");
                    let name = format!("{ours}.{attention}.{part}.weight");
                    add(graph, name, Source::Transposed(node));
                }
                let (_, output) = first(place, ["o_proj", "dense"]);
                add(graph, format!("{ours}.{attention}.out.weight"), output);
            }
            for (matrix, names) in [("fc1", ["fc1", "up_proj"]), ("fc2", ["fc2", "down_proj"])] {
                let (name, weight) = first("mlp", names);
                add(graph, format!("{ours}.ffn.{matrix}.weight"), weight);
                let bias = format!("{constants}{theirs}.mlp.{name}.bias");
                add(
                    graph,
                    format!("{ours}.ffn.{matrix}.bias"),
                    Source::Constant(bias),
                );
            }
        }
        let norm = if is_encoder { "layer_norm" } else { "norm" };
        let weight = Source::Constant(format!("{constants}{norm}.weight"));
        add(graph, format!("{short}.final_norm.weight"), weight);
    }
    all
}

/// The tokens as GGUF spells them. `file` has for each its length, in one byte if that is under
/// 128, else in two, of which the first counts 128 more than the length modulo 128 and the second
/// 128s; and its bytes. Those of the vocabulary that the file leaves out are special ones.
fn tokens(file: &[u8], vocab: usize) -> Result<Vec<Vec<u8>>, ConvertError> {
    let damaged = || ConvertError::Damaged("tokenizer.bin");
    let mut tokens = Vec::new();
    let mut rest = file;
    let mut take = |len: usize| {
        let (token, after) = rest.split_at_checked(len).ok_or_else(damaged)?;
        rest = after;
        Ok::<_, ConvertError>((token, after.is_empty()))
    };
    let mut is_over = file.is_empty();
    while !is_over {
        let mut len = usize::from(take(1)?.0[0]);
        if len >= 128 {
            len = len + 128 * usize::from(take(1)?.0[0]) - 128;
        }
        let token;
        (token, is_over) = take(len)?;
        tokens.push(token.to_vec());
    }
    // Real files lack at most one in 42.
    if tokens.len() > vocab || tokens.len() < (3 + 256).max(vocab / 32 * 31) {
        return Err(ConvertError::Size {
            what: "tokenizer.bin".into(),
            found: tokens.len(),
            expected: vocab,
        });
    }
    // After the three special ones come all bytes.
    for byte in 0..=u8::MAX {
        let token = &mut tokens[3 + usize::from(byte)];
        if *token != [byte] {
            return Err(damaged());
        }
        *token = format!("<0x{byte:02X}>").into_bytes();
    }
    let special = tokens.len()..vocab;
    tokens.extend(special.map(|number| format!("<<ST_{number}>>").into_bytes()));
    Ok(tokens)
}

/// The number in `tokenizer.ggml.token_type` of a token.
fn token_type(number: usize, token: &[u8]) -> i32 {
    let is_byte = (3..3 + 256).contains(&number);
    let is_special = [&b"<s>"[..], b"</s>"].contains(&token)
        || token.starts_with(b"<<") && token.ends_with(b">>");
    match number as u32 {
        UNKNOWN => 2,
        _ if is_byte => 6,
        _ if is_special => 3,
        _ => 1,
    }
}

/// Writes a model with its matrices in `format`, one of F32, F16 and Q8_0; returns the number of
/// bytes. `out` gets the same bytes for the same files always.
///
/// # Errors
/// The first thing that is wrong with the files, or [`ConvertError::Write`].
pub fn write(files: &Files<'_>, format: Format, out: impl Write) -> Result<u64, ConvertError> {
    let encoder = Graph::read(files.encoder, "encoder_model.ort")?;
    let decoder = Graph::read(files.decoder, "decoder_model_merged.ort")?;
    let shape = Shape::of(&encoder, &decoder)?;
    let tokens = tokens(files.tokenizer, shape.vocab)?;
    let types: Vec<i32> = tokens
        .iter()
        .enumerate()
        .map(|(number, token)| token_type(number, token))
        .collect();
    let variant = match shape.width {
        288 => "tiny".into(),
        416 => "base".into(),
        width => width.to_string(),
    };
    let (name, variant) = (
        format!("Moonshine {variant}"),
        format!("moonshine-{variant}"),
    );
    let languages = [b"en".to_vec()];
    let width = shape.width as i32;
    let channels = [width, 2 * width, width];
    let mut header = Header::default();
    header.set("general.architecture", Value::Str(b"moonshine"));
    header.set("general.name", Value::Str(name.as_bytes()));
    header.set("general.license", Value::Str(b"MIT"));
    header.set("general.file_type", Value::U32(file_type(format)));
    header.set_strings("general.languages", &languages);
    header.set("stt.variant", Value::Str(variant.as_bytes()));
    for key in CAPABILITIES {
        header.set(key, Value::Bool(false));
    }
    header.set("tokenizer.ggml.model", Value::Str(b"bpe"));
    header.set_strings("tokenizer.ggml.tokens", &tokens);
    header.set_integers("tokenizer.ggml.token_type", &types);
    header.set("tokenizer.ggml.bos_token_id", Value::U32(START));
    header.set("tokenizer.ggml.eos_token_id", Value::U32(END));
    header.set("tokenizer.ggml.unknown_token_id", Value::U32(UNKNOWN));
    header.set("tokenizer.ggml.add_bos_token", Value::Bool(true));
    header.set("tokenizer.ggml.byte_fallback", Value::Bool(true));
    let keys = sizes(&shape);
    for (key, value) in &keys {
        header.set(key, *value);
    }
    header.set_integers("stt.moonshine.conv_stem.channels", &channels);
    header.set_integers("stt.moonshine.conv_stem.kernel_sizes", &KERNELS);
    header.set_integers("stt.moonshine.conv_stem.strides", &STRIDES);
    let groups = "stt.moonshine.conv_stem.groupnorm_num_groups";
    header.set(groups, Value::U32(1));
    header.set("stt.moonshine.conv_stem.groupnorm_eps", Value::F32(1e-5));
    header.set("stt.frontend.type", Value::Str(b"raw"));
    header.set("stt.frontend.sample_rate", Value::U32(SAMPLE_RATE as u32));
    header.set("stt.frontend.num_mels", Value::U32(1));
    let tensors = tensors(&encoder, &decoder, shape.layers);
    let names: Vec<String> = tensors.iter().map(|(name, _)| name.clone()).collect();
    let weights = Named(tensors.into_iter().collect());
    array::write(header, &names, &weights, format, out)
}

/// The place of every tensor, by its name.
struct Named<'m>(HashMap<String, Place<'m>>);

impl Weights for Named<'_> {
    fn read(&self, name: &str) -> Result<Array, ConvertError> {
        let place = self.0.get(name);
        place
            .ok_or_else(|| ConvertError::Missing(name.into()))?
            .read()
    }
}

/// The keys that say how large the model is, and how it computes.
fn sizes(shape: &Shape) -> Vec<(String, Value<'static>)> {
    let number = |value: usize| Value::U32(u32::try_from(value).unwrap_or(u32::MAX));
    let mut keys = Vec::new();
    let mut add = |key: String, value| keys.push((format!("stt.moonshine.{key}"), value));
    for (side, layers) in ["encoder", "decoder"].into_iter().zip(shape.layers) {
        let is_decoder = side == "decoder";
        add(format!("{side}.n_layers"), number(layers));
        add(format!("{side}.d_model"), number(shape.width));
        add(format!("{side}.n_heads"), number(HEADS));
        add(format!("{side}.n_kv_heads"), number(HEADS));
        add(format!("{side}.ffn_dim"), number(shape.ffn));
        if is_decoder {
            add(format!("{side}.vocab_size"), number(shape.vocab));
            add(format!("{side}.max_position_embeddings"), number(POSITIONS));
        }
        let activation: &[u8] = if is_decoder { b"silu" } else { b"gelu" };
        add(format!("{side}.activation"), Value::Str(activation));
    }
    add("decoder.tie_word_embeddings".into(), Value::Bool(true));
    for (token, id) in [
        ("decoder_start", START),
        ("bos", START),
        ("eos", END),
        ("pad", END),
    ] {
        add(format!("{token}_token_id"), Value::U32(id));
    }
    // A little more than the rotated part, which is rounded down from it.
    let part = (ROTATED as f64 + 0.25) * HEADS as f64 / shape.width as f64;
    add("partial_rotary_factor".into(), Value::F32(part as f32));
    add("rope_theta".into(), Value::F32(10_000.0));
    add("attention_bias".into(), Value::Bool(false));
    keys
}

#[cfg(test)]
mod tests;

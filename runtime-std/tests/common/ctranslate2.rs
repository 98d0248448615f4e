//! The random Whisper of core's goldens, written in the form of CTranslate2.

use std::collections::BTreeMap;

use brooklet_core::gguf::Gguf;

pub const GOLDEN: &[u8] = include_bytes!("../../../core/tests/data/random-whisper-f32.gguf");

/// Layers of each side of the golden.
const LAYERS: usize = 2;

/// Types in which CTranslate2's variables are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    F32,
    F16,
    Bf16,
    /// Matrices with a scale for each row, the rest in f32.
    Int8,
}

/// The names of CTranslate2, each with the tensors of GGUF that stand below one another in it.
fn variables() -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for (side, short) in [("encoder", "enc"), ("decoder", "dec")] {
        let mut add = |theirs: &str, ours: &[String]| {
            let is_norm = theirs.ends_with("layer_norm");
            for (ending, end) in [("weight", "gamma"), ("bias", "beta")] {
                let end = if is_norm { end } else { ending };
                let ours = ours.iter().map(|name| format!("{name}.{ending}"));
                all.push((format!("{side}/{theirs}/{end}"), ours.collect()));
            }
        };
        if side == "encoder" {
            add("conv1", &["enc.conv.0".into()]);
            add("conv2", &["enc.conv.1".into()]);
        }
        add("layer_norm", &[format!("{short}.final_norm")]);
        for layer in 0..LAYERS {
            let ours = |name: &str| format!("{short}.blocks.{layer}.{name}");
            let mut add = |theirs: &str, names: &[&str]| {
                let names: Vec<String> = names.iter().map(|name| ours(name)).collect();
                add(&format!("layer_{layer}/{theirs}"), &names);
            };
            let (norm, attention) = match side {
                "encoder" => ("norm_attn", "attn"),
                _ => ("norm_self", "self_attn"),
            };
            let of = |part| format!("{attention}.{part}");
            let (q, k, v, out) = (&of("q")[..], &of("k")[..], &of("v")[..], &of("out")[..]);
            add("self_attention/layer_norm", &[norm]);
            add("self_attention/linear_0", &[q, k, v]);
            add("self_attention/linear_1", &[out]);
            if side == "decoder" {
                add("attention/layer_norm", &["norm_cross"]);
                add("attention/linear_0", &["cross_attn.q"]);
                add("attention/linear_1", &["cross_attn.k", "cross_attn.v"]);
                add("attention/linear_2", &["cross_attn.out"]);
            }
            add("ffn/layer_norm", &["norm_ffn"]);
            add("ffn/linear_0", &["ffn.fc1"]);
            add("ffn/linear_1", &["ffn.fc2"]);
        }
        let encodings = format!("{side}/position_encodings/encodings");
        all.push((encodings, vec![format!("{short}.pos_emb.weight")]));
    }
    let rows = "decoder/embeddings/weight".to_owned();
    all.push((rows, vec!["dec.token_embd.weight".into()]));
    all
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16 + 1).to_le_bytes());
    out.extend(text.as_bytes());
    out.push(0);
}

fn put(out: &mut Vec<u8>, name: &str, dims: &[usize], kind: u8, bytes: &[u8]) {
    put_text(out, name);
    out.push(dims.len() as u8);
    out.extend(dims.iter().flat_map(|dim| (*dim as u32).to_le_bytes()));
    out.push(kind);
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

/// Dimensions and values of every tensor of a file in F32.
pub fn floats(file: &[u8]) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let file = Gguf::parse(file).unwrap();
    let tensors = file.tensors().map(|tensor| {
        // The slowest of four is 1 where there are fewer.
        let dims = tensor.dims().into_iter().rev().skip_while(|dim| *dim == 1);
        let values = tensor.data().as_chunks().0.iter();
        let values = values.map(|bytes| f32::from_le_bytes(*bytes)).collect();
        (tensor.name().to_owned(), (dims.collect(), values))
    });
    tensors.collect()
}

/// `model.bin` and `vocabulary.txt`; `key_bias` is the value of all biases of keys.
pub fn package(kind: Kind, key_bias: f32) -> (Vec<u8>, Vec<u8>) {
    let golden = floats(GOLDEN);
    let mut body = Vec::new();
    let mut number = 0u32;
    for (theirs, ours) in variables() {
        let mut dims = Vec::new();
        let mut values = Vec::new();
        for name in &ours {
            let width = golden["enc.final_norm.bias"].1.len();
            let none = (vec![width], vec![key_bias; width]);
            let (part, numbers) = match name.ends_with(".k.bias") {
                true => &none,
                false => &golden[name],
            };
            values.extend(numbers);
            match dims.first_mut() {
                Some(rows) => *rows += part[0],
                None => dims.clone_from(part),
            }
        }
        let rows = dims[0];
        number += 1;
        let of = |bytes: Vec<[u8; 2]>| bytes.concat();
        match kind {
            Kind::F16 => {
                let values = values.iter().map(|x| half::f16::from_f32(*x).to_le_bytes());
                put(&mut body, &theirs, &dims, 4, &of(values.collect()));
            }
            Kind::Bf16 => {
                let values = values
                    .iter()
                    .map(|x| half::bf16::from_f32(*x).to_le_bytes());
                put(&mut body, &theirs, &dims, 5, &of(values.collect()));
            }
            Kind::Int8 if dims.len() == 2 && theirs.ends_with("weight") => {
                let (mut scales, mut bytes) = (Vec::new(), Vec::new());
                for row in values.chunks(values.len() / rows) {
                    let largest = row.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                    let scale = 127.0 / largest;
                    scales.extend(scale.to_le_bytes());
                    bytes.extend(row.iter().map(|x| (x * scale).round() as i8 as u8));
                }
                put(&mut body, &theirs, &dims, 1, &bytes);
                put(&mut body, &format!("{theirs}_scale"), &[rows], 0, &scales);
                number += 1;
            }
            Kind::F32 | Kind::Int8 => {
                let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                put(&mut body, &theirs, &dims, 0, &bytes);
            }
        }
    }
    let heads = Gguf::parse(GOLDEN).unwrap();
    let heads = heads.get("stt.whisper.encoder.n_heads").unwrap();
    let heads = heads.as_u64().unwrap() as u8;
    for (name, value) in [
        ("encoder/num_heads", heads),
        ("decoder/num_heads", heads),
        ("decoder/pre_norm", 1),
        ("decoder/activation", 3),
        ("decoder/alibi", 0),
    ] {
        put(&mut body, name, &[], 1, &[value]);
        number += 1;
    }
    let mut model = 6u32.to_le_bytes().to_vec();
    put_text(&mut model, "WhisperSpec");
    model.extend(3u32.to_le_bytes());
    model.extend(number.to_le_bytes());
    model.extend(body);
    model.extend(1u32.to_le_bytes());
    put_text(&mut model, "decoder/projection/weight");
    put_text(&mut model, "decoder/embeddings/weight");
    (model, strings("tokenizer.ggml.tokens").join(&b'\n'))
}

/// An array of strings of the golden.
fn strings(key: &str) -> Vec<Vec<u8>> {
    let file = Gguf::parse(GOLDEN).unwrap();
    let array = file.get(key).unwrap().as_array().unwrap();
    let strings = array
        .elements()
        .map(|text| text.as_bytes().unwrap().to_vec());
    strings.collect()
}

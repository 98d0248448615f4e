//! A model of one layer on each side, whose files are written here in every form that the packages
//! have: matrices that are multiplied by as integers, and as floats that the graph computes.

use brooklet_core::gguf::Gguf;
use proptest::prelude::*;

use super::*;

/// A value of a FlatBuffer.
enum Flat {
    Number(i32),
    /// Elements of so many bytes, one after the other.
    Vector(usize, Vec<u8>),
    Table(Vec<(usize, Flat)>),
    List(Vec<Flat>),
}

fn text(text: &str) -> Flat {
    Flat::Vector(1, text.as_bytes().to_vec())
}

fn texts(list: &[&str]) -> Flat {
    Flat::List(list.iter().map(|word| text(word)).collect())
}

/// Appends a value, and returns where it is.
fn emit(buffer: &mut Vec<u8>, value: &Flat) -> usize {
    let set = |buffer: &mut Vec<u8>, at: usize, value: u32| {
        buffer[at..at + 4].copy_from_slice(&value.to_le_bytes());
    };
    match value {
        Flat::Number(_) => unreachable!("a number stands in its table"),
        Flat::Vector(width, bytes) => {
            let at = buffer.len();
            buffer.extend(((bytes.len() / width) as u32).to_le_bytes());
            buffer.extend(bytes);
            at
        }
        Flat::List(values) => {
            let at = buffer.len();
            buffer.extend((values.len() as u32).to_le_bytes());
            buffer.resize(at + 4 + 4 * values.len(), 0);
            for (i, value) in values.iter().enumerate() {
                let (slot, target) = (at + 4 + 4 * i, emit(buffer, value));
                set(buffer, slot, (target - slot) as u32);
            }
            at
        }
        Flat::Table(fields) => {
            let count = fields.iter().map(|(field, _)| field + 1).max().unwrap_or(0);
            let list = buffer.len();
            let mut offsets = vec![0u16; 2 + count];
            offsets[0] = (2 * offsets.len()) as u16;
            for (i, (field, _)) in fields.iter().enumerate() {
                offsets[2 + field] = (4 + 4 * i) as u16;
            }
            buffer.extend(offsets.iter().flat_map(|offset| offset.to_le_bytes()));
            let at = buffer.len();
            buffer.extend(((at - list) as i32).to_le_bytes());
            buffer.resize(at + 4 + 4 * fields.len(), 0);
            for (i, (_, value)) in fields.iter().enumerate() {
                let slot = at + 4 + 4 * i;
                let value = match value {
                    Flat::Number(number) => *number as u32,
                    value => (emit(buffer, value) - slot) as u32,
                };
                set(buffer, slot, value);
            }
            at
        }
    }
}

/// A graph under construction.
#[derive(Default)]
struct Parts {
    constants: Vec<Flat>,
    nodes: Vec<Flat>,
}

impl Parts {
    fn constant(&mut self, name: &str, dims: &[usize], kind: i32, bytes: Vec<u8>) {
        let dims = dims.iter().flat_map(|dim| (*dim as u64).to_le_bytes());
        self.constants.push(Flat::Table(vec![
            (0, text(name)),
            (2, Flat::Vector(8, dims.collect())),
            (3, Flat::Number(kind)),
            (4, Flat::Vector(1, bytes)),
        ]));
    }

    fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.constant(name, dims, 1, bytes);
    }

    fn node(&mut self, operation: &str, name: &str, inputs: &[&str], output: &str) {
        self.nodes.push(Flat::Table(vec![
            (0, text(name)),
            (5, text(operation)),
            (8, texts(inputs)),
            (9, texts(&[output])),
        ]));
    }

    fn graph(self) -> Flat {
        Flat::Table(vec![
            (0, Flat::List(self.constants)),
            (2, Flat::List(self.nodes)),
        ])
    }
}

fn file(graph: Flat) -> Vec<u8> {
    let session = Flat::Table(vec![(1, Flat::Table(vec![(7, graph)]))]);
    let mut buffer = vec![0; 4];
    buffer.extend(b"ORTM");
    let root = emit(&mut buffer, &session) as u32;
    buffer[..4].copy_from_slice(&root.to_le_bytes());
    buffer
}

const WIDTH: usize = 32;
const FFN: usize = 64;
const VOCAB: usize = 262;

/// A number that depends on the name and the place.
fn sample(name: &str, i: usize) -> u8 {
    let hash = name
        .bytes()
        .fold(7u32, |hash, byte| hash.wrapping_mul(31) + u32::from(byte));
    (hash.wrapping_add(i as u32).wrapping_mul(2_654_435_761) >> 24) as u8
}

/// Forms in which a graph multiplies by a matrix.
#[derive(Clone, Copy)]
enum Form {
    Floats,
    Integers,
    Dynamic,
    Computed,
}

/// Scale and zero point of integers: u8, i8 where the graph computes floats.
const SCALE: f32 = 0.25;
const ZERO: u8 = 100;

/// The value of a matrix [in, out] at a place.
fn expected(form: Form, name: &str, i: usize) -> f32 {
    match form {
        Form::Floats => f32::from(sample(name, i)) * 0.5,
        Form::Integers | Form::Dynamic => (f32::from(sample(name, i)) - f32::from(ZERO)) * SCALE,
        Form::Computed => f32::from(sample(name, i) as i8) * SCALE + 3.0,
    }
}

/// Adds a node that multiplies by a matrix of `rows` x `cols`.
fn multiply(parts: &mut Parts, form: Form, node: &str, rows: usize, cols: usize) {
    let (dims, len) = ([rows, cols], rows * cols);
    let bytes: Vec<u8> = (0..len).map(|i| sample(node, i)).collect();
    let [w, scale, zero] = ["w", "scale", "zero"].map(|end| format!("{node}.{end}"));
    let (w, scale, zero, out) = (&w[..], &scale[..], &zero[..], &format!("{node}.out")[..]);
    let quant = format!("{node}_quant");
    match form {
        Form::Floats => {
            let values: Vec<f32> = (0..len).map(|i| expected(form, node, i)).collect();
            parts.floats(w, &dims, &values);
            parts.node("MatMul", node, &["x", w], out);
        }
        Form::Integers | Form::Dynamic => {
            parts.constant(w, &dims, 2, bytes);
            parts.floats(scale, &[1], &[SCALE]);
            parts.constant(zero, &[], 2, vec![ZERO]);
            if matches!(form, Form::Integers) {
                let inputs = ["x", w, "x.scale", scale, "x.zero", zero];
                parts.node("MatMulIntegerToFloat", &quant, &inputs, out);
            } else {
                parts.node(
                    "DynamicQuantizeMatMul",
                    &quant,
                    &["x", w, scale, zero, ""],
                    out,
                );
            }
        }
        Form::Computed => {
            parts.constant(w, &dims, 3, bytes);
            parts.floats(scale, &[1], &[SCALE]);
            parts.floats(zero, &[], &[3.0]);
            let [cast, product, sum] =
                ["cast", "product", "sum"].map(|end| format!("{node}.{end}"));
            // What comes first in the file may depend on what comes last.
            parts.node("MatMul", node, &["x", &sum], out);
            parts.node("Add", &sum, &[&product, zero], &sum);
            parts.node("Mul", &product, &[&cast, scale], &product);
            parts.node("Cast", &cast, &[w], &cast);
        }
    }
}

fn row(parts: &mut Parts, name: &str, len: usize) {
    let values: Vec<f32> = (0..len).map(|i| f32::from(sample(name, i)) / 8.0).collect();
    parts.floats(name, &[len], &values);
}

/// The three files.
fn model() -> [Vec<u8>; 3] {
    let mut encoder = Parts::default();
    let convolutions = [
        (WIDTH, 1, 127),
        (2 * WIDTH, WIDTH, 7),
        (WIDTH, 2 * WIDTH, 3),
    ];
    for (i, (outputs, inputs, taps)) in convolutions.into_iter().enumerate() {
        let node = format!("/conv{}/Conv", i + 1);
        let values: Vec<f32> = (0..outputs * inputs * taps)
            .map(|at| expected(Form::Floats, &node, at))
            .collect();
        let weight = format!("{node}.w");
        encoder.floats(&weight, &[outputs, inputs, taps], &values);
        encoder.node("Conv", &node, &["x", &weight], "y");
        if i > 0 {
            row(&mut encoder, &format!("conv{}.bias", i + 1), outputs);
        }
    }
    for node in ["Mul", "Add"] {
        let (name, values) = (format!("/groupnorm/{node}"), [1.5; WIDTH]);
        encoder.floats(&format!("{name}.w"), &[WIDTH, 1], &values);
        encoder.node(node, &name, &["x", &format!("{name}.w")], "y");
    }
    let attention = |parts: &mut Parts, start: &str, forms: [Form; 4], output: &str| {
        for (part, form) in ["q_proj", "k_proj", "v_proj", output]
            .into_iter()
            .zip(forms)
        {
            multiply(parts, form, &format!("{start}/{part}/MatMul"), WIDTH, WIDTH);
        }
    };
    use Form::{Computed, Dynamic, Floats, Integers};
    let all = [Integers, Floats, Dynamic, Computed];
    attention(&mut encoder, "/layers.0/self_attn", all, "o_proj");
    multiply(
        &mut encoder,
        Computed,
        "/layers.0/mlp/fc1/MatMul",
        WIDTH,
        FFN,
    );
    multiply(
        &mut encoder,
        Dynamic,
        "/layers.0/mlp/fc2/MatMul",
        FFN,
        WIDTH,
    );
    row(&mut encoder, "layers.0.mlp.fc1.bias", FFN);
    row(&mut encoder, "layers.0.mlp.fc2.bias", WIDTH);
    for norm in [
        "layers.0.input_layernorm",
        "layers.0.post_attention_layernorm",
        "layer_norm",
    ] {
        row(&mut encoder, &format!("{norm}.weight"), WIDTH);
    }
    let (mut decoder, mut branch) = (Parts::default(), Parts::default());
    let embedding = (0..VOCAB * WIDTH).map(|i| sample("embedding", i)).collect();
    decoder.constant("e_quantized", &[VOCAB, WIDTH], 2, embedding);
    decoder.floats("e_scale", &[1], &[SCALE]);
    decoder.constant("e_zero_point", &[], 2, vec![ZERO]);
    let rows = "/model/decoder/embed_tokens/Gather";
    branch.node("Gather", rows, &["e_quantized", "ids"], "y");
    let start = "/model/decoder/layers.0";
    attention(&mut branch, &format!("{start}/self_attn"), all, "dense");
    attention(&mut branch, &format!("{start}/encoder_attn"), all, "dense");
    multiply(
        &mut branch,
        Integers,
        &format!("{start}/mlp/up_proj/MatMul"),
        WIDTH,
        2 * FFN,
    );
    multiply(
        &mut branch,
        Floats,
        &format!("{start}/mlp/down_proj/MatMul"),
        FFN,
        WIDTH,
    );
    let named = |name: &str| format!("model.decoder.{name}_merged_0");
    row(&mut decoder, &named("layers.0.mlp.up_proj.bias"), 2 * FFN);
    row(&mut decoder, &named("layers.0.mlp.down_proj.bias"), WIDTH);
    for norm in ["input", "post_attention", "final"] {
        row(
            &mut decoder,
            &named(&format!("layers.0.{norm}_layernorm.weight")),
            WIDTH,
        );
    }
    row(&mut decoder, &named("norm.weight"), WIDTH);
    let branches = vec![
        Flat::Table(vec![
            (0, text("then_branch")),
            (7, Parts::default().graph()),
        ]),
        Flat::Table(vec![(0, text("else_branch")), (7, branch.graph())]),
    ];
    decoder.nodes.push(Flat::Table(vec![
        (0, text("if")),
        (5, text("If")),
        (10, Flat::List(branches)),
    ]));
    let mut tokenizer = Vec::new();
    let bytes = (0..=u8::MAX).map(|byte| vec![byte]);
    let special = [b"<unk>".to_vec(), b"<s>".to_vec(), b"</s>".to_vec()];
    let long = vec![b'a'; 300];
    for token in special.into_iter().chain(bytes).chain([long]) {
        match token.len() {
            len @ ..128 => tokenizer.push(len as u8),
            len => tokenizer.extend([128 + (len % 128) as u8, (len / 128) as u8]),
        }
        tokenizer.extend(token);
    }
    [file(encoder.graph()), file(decoder.graph()), tokenizer]
}

fn converted(files: &[Vec<u8>; 3], format: Format) -> Result<Vec<u8>, ConvertError> {
    let [encoder, decoder, tokenizer] = files;
    let files = Files {
        encoder,
        decoder,
        tokenizer,
    };
    let mut out = Vec::new();
    let bytes = write(&files, format, &mut out)?;
    assert_eq!(bytes, out.len() as u64);
    Ok(out)
}

#[test]
fn every_form_of_a_matrix_gives_its_numbers() {
    let bytes = converted(&model(), Format::F32).unwrap();
    let file = Gguf::parse(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        let tensor = file.tensor(name).unwrap_or_else(|| panic!("{name}"));
        let data = tensor.data().as_chunks().0;
        data.iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()
    };
    let check = |name: &str, form, node: &str, rows: usize, cols: usize| {
        // [in, out] there, [out, in] here.
        let turned = (0..cols).flat_map(|col| (0..rows).map(move |row| row * cols + col));
        let values: Vec<f32> = turned.map(|i| expected(form, node, i)).collect();
        assert!(floats(name) == values, "{name}");
    };
    use Form::{Computed, Dynamic, Floats, Integers};
    let parts = [("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj")];
    for ((part, theirs), form) in parts.into_iter().zip([Integers, Floats, Dynamic]) {
        let node = format!("/layers.0/self_attn/{theirs}/MatMul");
        check(
            &format!("enc.blocks.0.attn.{part}.weight"),
            form,
            &node,
            WIDTH,
            WIDTH,
        );
        let node = format!("/model/decoder/layers.0/encoder_attn/{theirs}/MatMul");
        check(
            &format!("dec.blocks.0.cross_attn.{part}.weight"),
            form,
            &node,
            WIDTH,
            WIDTH,
        );
    }
    let node = "/model/decoder/layers.0/self_attn/dense/MatMul";
    check(
        "dec.blocks.0.self_attn.out.weight",
        Computed,
        node,
        WIDTH,
        WIDTH,
    );
    check(
        "enc.blocks.0.ffn.fc1.weight",
        Computed,
        "/layers.0/mlp/fc1/MatMul",
        WIDTH,
        FFN,
    );
    let node = "/model/decoder/layers.0/mlp/up_proj/MatMul";
    check(
        "dec.blocks.0.ffn.fc1.weight",
        Integers,
        node,
        WIDTH,
        2 * FFN,
    );
    let rows = (0..VOCAB * WIDTH).map(|i| expected(Integers, "embedding", i));
    assert!(floats("dec.token_embd.weight").into_iter().eq(rows));
    assert_eq!(floats("enc.conv.norm.bias"), [1.5; WIDTH]);
    assert_eq!(
        file.tensor("enc.conv.1.weight").unwrap().dims()[..3],
        [7, 32, 64]
    );
    let strings = |key| file.get(key).unwrap().as_array().unwrap();
    let tokens: Vec<&[u8]> = strings("tokenizer.ggml.tokens")
        .elements()
        .map(|token| token.as_bytes().unwrap())
        .collect();
    assert_eq!(tokens.len(), VOCAB);
    assert_eq!(
        [tokens[2], tokens[13], tokens[260]],
        [&b"</s>"[..], b"<0x0A>", b"<<ST_260>>"]
    );
    assert_eq!(tokens[259], [b'a'; 300]);
    let types: Vec<_> = strings("tokenizer.ggml.token_type").elements().collect();
    let kinds = [0, 1, 13, 259, 260].map(|i| types[i].as_u64().unwrap());
    assert_eq!(kinds, [2, 3, 6, 1, 3]);
}

#[test]
fn rows_that_are_no_whole_blocks_are_f16() {
    let bytes = converted(&model(), Format::Q8_0).unwrap();
    let file = Gguf::parse(&bytes).unwrap();
    let format = |name| file.tensor(name).unwrap().format().unwrap();
    assert_eq!(format("enc.conv.0.weight"), Format::F16);
    assert_eq!(format("enc.blocks.0.attn.q.weight"), Format::Q8_0);
    assert_eq!(format("dec.blocks.0.norm_ffn.weight"), Format::F32);
}

#[test]
fn what_is_wrong_is_one_sentence() {
    let right = model();
    let fails = |change: &dyn Fn(&mut [Vec<u8>; 3]), expected: &str| {
        let mut files = right.clone();
        change(&mut files);
        let error = converted(&files, Format::Q8_0).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    fails(
        &|files| files[0].clear(),
        "encoder_model.ort is not in the form of ONNX Runtime",
    );
    fails(&|files| files.swap(0, 1), "has no weight of the node");
    fails(&|files| files[2].truncate(700), "tokenizer.bin is damaged");
    fails(&|files| files[2].truncate(40), "tokenizer.bin");
    fails(&|files| files[2].extend([1, b'x'].repeat(9)), "and not 262");
    let at = right[0]
        .windows(13)
        .position(|word| word == b"conv2.bias\0\0\0" || word.starts_with(b"conv2.bias"));
    fails(
        &|files| files[0][at.unwrap()] = b'k',
        "has no constant conv2.bias",
    );
}

proptest! {
    /// Damaged files are refused or converted, and nothing else.
    #[test]
    fn damage_is_no_panic(which in 0usize..2, at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
        let mut files = model();
        let at = at.index(files[which].len());
        if cut {
            files[which].truncate(at);
        } else {
            files[which][at] = byte;
        }
        let _ = converted(&files, Format::Q8_0);
    }
}

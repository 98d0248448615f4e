//! A model of one layer on each side with the vocabulary of a real one, written here in the form of
//! whisper.cpp.

use brooklet_core::gguf::Gguf;
use proptest::prelude::*;

use super::*;

const WIDTH: usize = 32;
const HEADS: usize = 2;
const FFN: usize = 64;
const MELS: usize = 80;
const POSITIONS: [usize; 2] = [6, 8];

/// A number that depends on the name and the place; f16 has it.
fn sample(name: &str, i: usize) -> f32 {
    let hash = name
        .bytes()
        .fold(7u32, |hash, byte| hash.wrapping_mul(31) + u32::from(byte));
    let byte = (hash.wrapping_add(i as u32).wrapping_mul(2_654_435_761) >> 24) as u8;
    f32::from(byte as i8) / 64.0
}

/// Names of OpenAI's program, with their dimensions, slowest first.
fn tensors(vocab: usize) -> Vec<(String, Vec<usize>)> {
    let mut all = vec![
        (
            "encoder.positional_embedding".into(),
            vec![POSITIONS[0], WIDTH],
        ),
        ("encoder.conv1.weight".into(), vec![WIDTH, MELS, 3]),
        ("encoder.conv1.bias".into(), vec![WIDTH, 1]),
        ("encoder.conv2.weight".into(), vec![WIDTH, WIDTH, 3]),
        ("encoder.conv2.bias".into(), vec![WIDTH, 1]),
        (
            "decoder.positional_embedding".into(),
            vec![POSITIONS[1], WIDTH],
        ),
        ("decoder.token_embedding.weight".into(), vec![vocab, WIDTH]),
    ];
    let mut row = |name: String, len: usize| all.push((name, vec![len]));
    for (norm, parts) in [("encoder.ln_post", 1), ("decoder.ln", 1)] {
        for _ in 0..parts {
            row(format!("{norm}.weight"), WIDTH);
            row(format!("{norm}.bias"), WIDTH);
        }
    }
    for (side, attentions) in [
        ("encoder", &["attn"][..]),
        ("decoder", &["attn", "cross_attn"]),
    ] {
        let at = |name: &str| format!("{side}.blocks.0.{name}");
        for attention in attentions {
            for part in ["query", "key", "value", "out"] {
                all.push((
                    at(&format!("{attention}.{part}.weight")),
                    vec![WIDTH, WIDTH],
                ));
                if part != "key" {
                    all.push((at(&format!("{attention}.{part}.bias")), vec![WIDTH]));
                }
            }
            for ending in ["weight", "bias"] {
                all.push((at(&format!("{attention}_ln.{ending}")), vec![WIDTH]));
            }
        }
        for (name, dims) in [
            ("mlp.0.weight", vec![FFN, WIDTH]),
            ("mlp.0.bias", vec![FFN]),
            ("mlp.2.weight", vec![WIDTH, FFN]),
            ("mlp.2.bias", vec![WIDTH]),
            ("mlp_ln.weight", vec![WIDTH]),
            ("mlp_ln.bias", vec![WIDTH]),
        ] {
            all.push((at(name), dims));
        }
    }
    all
}

/// A file with so many tokens, of which the first are bytes; matrices are f16.
fn file(vocab: usize, texts: usize) -> Vec<u8> {
    let sizes = [
        vocab,
        POSITIONS[0],
        WIDTH,
        HEADS,
        1,
        POSITIONS[1],
        WIDTH,
        HEADS,
        1,
        MELS,
        1,
    ];
    let mut out = b"lmgg".to_vec();
    let put = |out: &mut Vec<u8>, number: usize| out.extend((number as u32).to_le_bytes());
    sizes.iter().for_each(|size| put(&mut out, *size));
    // Filters, which are computed instead.
    put(&mut out, 2);
    put(&mut out, 3);
    out.extend([0; 24]);
    put(&mut out, texts);
    for number in 0..texts {
        let text = match number {
            ..256 => vec![number as u8],
            256 => b" t".to_vec(),
            257 => b" th".to_vec(),
            _ => format!("<{number}>").into_bytes(),
        };
        put(&mut out, text.len());
        out.extend(text);
    }
    for (name, dims) in tensors(vocab) {
        let is_half = dims.len() > 1 && !name.ends_with("bias");
        put(&mut out, dims.len());
        put(&mut out, name.len());
        put(&mut out, usize::from(is_half));
        dims.iter().rev().for_each(|dim| put(&mut out, *dim));
        out.extend(name.as_bytes());
        for i in 0..dims.iter().product() {
            let value = sample(&name, i);
            if is_half {
                out.extend(half::f16::from_f32(value).to_le_bytes());
            } else {
                out.extend(value.to_le_bytes());
            }
        }
    }
    out
}

fn converted(file: &[u8]) -> Result<Vec<u8>, ConvertError> {
    let mut out = Vec::new();
    let bytes = write(file, Format::F32, &mut out)?;
    assert_eq!(bytes, out.len() as u64);
    Ok(out)
}

#[test]
fn tensors_and_tokens_are_the_models() {
    let bytes = converted(&file(51_865, 50_257)).unwrap();
    let file = Gguf::parse(&bytes).unwrap();
    let check = |name: &str, theirs: &str, dims: &[usize]| {
        let tensor = file.tensor(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(&tensor.dims()[..dims.len()], dims, "{name}");
        let values = tensor.data().as_chunks().0.iter();
        let values = values.map(|bytes| f32::from_le_bytes(*bytes));
        let len = dims.iter().product::<usize>();
        assert!(values.eq((0..len).map(|i| sample(theirs, i))), "{name}");
    };
    let (width, ffn) = (WIDTH, FFN);
    check("enc.conv.0.weight", "encoder.conv1.weight", &[3, 80, width]);
    check("enc.conv.1.bias", "encoder.conv2.bias", &[width]);
    check("enc.final_norm.weight", "encoder.ln_post.weight", &[width]);
    check("dec.final_norm.bias", "decoder.ln.bias", &[width]);
    check(
        "dec.pos_emb.weight",
        "decoder.positional_embedding",
        &[width, 8],
    );
    for (ours, theirs) in [
        ("enc.blocks.0.attn.k", "encoder.blocks.0.attn.key"),
        ("dec.blocks.0.self_attn.q", "decoder.blocks.0.attn.query"),
        (
            "dec.blocks.0.cross_attn.v",
            "decoder.blocks.0.cross_attn.value",
        ),
        (
            "dec.blocks.0.cross_attn.out",
            "decoder.blocks.0.cross_attn.out",
        ),
    ] {
        let (ours, theirs) = (format!("{ours}.weight"), format!("{theirs}.weight"));
        check(&ours, &theirs, &[width, width]);
    }
    check(
        "enc.blocks.0.ffn.fc1.weight",
        "encoder.blocks.0.mlp.0.weight",
        &[width, ffn],
    );
    check(
        "dec.blocks.0.norm_cross.bias",
        "decoder.blocks.0.cross_attn_ln.bias",
        &[width],
    );
    check(
        "dec.blocks.0.norm_self.weight",
        "decoder.blocks.0.attn_ln.weight",
        &[width],
    );
    check(
        "enc.blocks.0.norm_ffn.weight",
        "encoder.blocks.0.mlp_ln.weight",
        &[width],
    );
    let strings = |key| {
        let array = file.get(key).unwrap().as_array().unwrap();
        let strings = array.elements().map(|text| text.as_bytes().unwrap());
        strings.collect::<Vec<_>>()
    };
    let tokens = strings("tokenizer.ggml.tokens");
    assert_eq!(tokens.len(), 51_865);
    assert_eq!(
        [tokens[65], tokens[10], tokens[257]],
        ["A", "Ċ", "Ġth"].map(str::as_bytes)
    );
    for (number, token) in [
        (50_257, "<|endoftext|>"),
        (50_258, "<|startoftranscript|>"),
        (50_259, "<|en|>"),
        (50_357, "<|su|>"),
        (50_358, "<|translate|>"),
        (50_363, "<|notimestamps|>"),
        (50_364, "<|0.00|>"),
        (51_864, "<|30.00|>"),
    ] {
        assert_eq!(tokens[number], token.as_bytes());
    }
    assert_eq!(
        strings("tokenizer.ggml.merges"),
        ["Ġ t", "Ġt h"].map(str::as_bytes)
    );
    assert_eq!(strings("general.languages").len(), 99);
    let number = |key| file.get(key).unwrap().as_u64().unwrap();
    assert_eq!(number("stt.whisper.encoder.n_heads"), HEADS as u64);
    assert_eq!(number("stt.whisper.encoder.max_source_positions"), 6);
}

#[test]
fn models_of_one_language_have_a_token_less_and_other_sizes_are_refused() {
    let bytes = converted(&file(51_864, 50_256)).unwrap();
    let model = Gguf::parse(&bytes).unwrap();
    let number = |key| model.get(key).unwrap().as_u64().unwrap();
    assert_eq!(number("tokenizer.ggml.eos_token_id"), 50_256);
    assert_eq!(number("stt.whisper.no_timestamps_token_id"), 50_362);
    let error = converted(&file(51_000, 50_256)).unwrap_err();
    assert!(
        matches!(error, ConvertError::Size { found: 51_000, .. }),
        "{error}"
    );
    let error = converted(&file(51_865, 50_000)).unwrap_err();
    assert!(
        matches!(error, ConvertError::Size { found: 50_000, .. }),
        "{error}"
    );
}

#[test]
fn sizes_that_are_none_or_too_large_are_refused() {
    let set = |at: usize, number: u32| {
        let mut bytes = file(51_865, 50_257);
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        converted(&bytes).unwrap_err().to_string()
    };
    // The header's eleven numbers: heads, layers, width of the decoder, bands.
    for (number, value) in [(3, 0), (3, 7), (4, 2), (6, 16), (9, 1 << 31)] {
        let said = set(4 + 4 * number, value);
        assert!(said.starts_with("this is no Whisper"), "{said}");
    }
    // A tensor without values takes no bytes, whatever its other dimensions are.
    let mut bytes = file(51_865, 50_257);
    for number in [3u32, 5, 0, 0, 1 << 31, 32] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(b"other");
    let error = converted(&bytes).unwrap_err();
    assert!(matches!(error, ConvertError::Damaged(_)), "{error}");
}

proptest! {
    /// Whatever is damaged: an error, or a file; never a panic, and no memory by what is claimed.
    #[test]
    fn damaged_files_give_an_error_or_a_model(
        places in prop::collection::vec((0usize..1 << 26, any::<u8>()), 1..6),
        part in 0usize..3,
        len in 0usize..1 << 26,
    ) {
        // Few tokens: what is wrong with their number is found first, or a damaged byte is.
        let mut bytes = file(300, 260);
        let reach = [60, 4000, bytes.len()][part];
        for (place, byte) in places {
            bytes[place % reach] = byte;
        }
        _ = converted(&bytes);
        _ = converted(&bytes[..len % bytes.len()]);
    }
}

//! Token ids compared with llama.cpp's on real models, with the texts and ids of `data/tokenizer`
//! (see the README there).
//!
//! The models are looked for in the store (`BROOKLET_MODELS`, else `~/.cache/brooklet`). The tests
//! of a missing model are skipped, but `BROOKLET_REQUIRE_MODELS=1` requires those that can be
//! pulled.

use std::fs;
use std::path::{Path, PathBuf};

use brooklet::core::arena::ALIGN;
use brooklet::core::gguf::Gguf;
use brooklet::core::tokenizer::{EncodeOptions, Mark, Tokenizer, Utf8Stream, Vocab};
use brooklet::models::manifest::Manifest;
use brooklet::models::store::Store;

/// Bytes without a token in SmolLM2's vocabulary, which an encoded text loses.
const WITHOUT_TOKEN: &[u8] =
    b"\x04\x06\x13\x14\x16\x1d\xc0\xc1\xf1\xf2\xf5\xf6\xf7\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff";

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizer")
}

/// The texts, sorted by file name, as the ids are.
fn texts() -> Vec<(String, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(data())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    paths
        .iter()
        .map(|path| (name(path), fs::read(path).unwrap()))
        .collect()
}

/// Returns SmolLM2's file, if it was pulled.
fn smollm2() -> Option<Vec<u8>> {
    let required = std::env::var_os("BROOKLET_REQUIRE_MODELS").is_some_and(|value| value == "1");
    pulled("smollm2-135m", required)
}

/// Returns Gemma's file, if it was pulled. No test requires that, since a person must accept its
/// terms.
fn gemma3() -> Option<Vec<u8>> {
    pulled("gemma3-270m", false)
}

fn pulled(name: &str, required: bool) -> Option<Vec<u8>> {
    let store = Store::from_environment().unwrap();
    let path = store.path(&Manifest::find(name).unwrap());
    assert!(
        path.exists() || !required,
        "{} is missing: pull {name}",
        path.display()
    );
    if !path.exists() {
        eprintln!("skipped: {} is missing", path.display());
        return None;
    }
    Some(fs::read(path).unwrap())
}

/// Returns the stories model, if somebody put it into the store. It cannot be pulled.
fn stories260k() -> Option<Vec<u8>> {
    let path = Store::from_environment()
        .unwrap()
        .folder()
        .join("stories260k-f32.gguf");
    if !path.exists() {
        eprintln!("skipped: {} is missing", path.display());
    }
    fs::read(path).ok()
}

/// Returns `model` with another value of `tokenizer.ggml.pre`. The tensors move, so that only its
/// metadata is usable.
fn with_pre(mut model: Vec<u8>, pre: &str) -> Vec<u8> {
    let key = b"tokenizer.ggml.pre";
    let start = model
        .windows(key.len())
        .position(|bytes| bytes == key)
        .unwrap();
    let length = start + key.len() + 4;
    let old = u64::from_le_bytes(model[length..length + 8].try_into().unwrap()) as usize;
    let value = (pre.len() as u64)
        .to_le_bytes()
        .into_iter()
        .chain(pre.bytes());
    model.splice(length..length + 8 + old, value);
    model.extend([0; ALIGN]);
    model
}

fn with_tokenizer(model: &[u8], window: usize, run: impl FnOnce(&mut Tokenizer<'_>)) {
    let vocab = Vocab::from_gguf(&Gguf::parse(model).unwrap()).unwrap();
    let bytes = vocab.index_bytes(window);
    let mut memory = vec![0; bytes + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    run(&mut Tokenizer::new(&vocab, &mut memory[start..start + bytes]).unwrap());
}

fn encode(tokenizer: &mut Tokenizer<'_>, text: &[u8]) -> Vec<u32> {
    let options = EncodeOptions {
        bos: Mark::Never,
        eos: Mark::Never,
        special: false,
        ..EncodeOptions::default()
    };
    let mut ids = Vec::new();
    tokenizer.encode(text, options, &mut |id| ids.push(id));
    ids
}

/// Compares every text's ids with a line of `goldens`.
fn check(model: &[u8], window: usize, goldens: &str) {
    let goldens = fs::read_to_string(data().join(goldens)).unwrap();
    let texts = texts();
    assert_eq!(goldens.lines().count(), texts.len());
    with_tokenizer(model, window, |tokenizer| {
        for ((name, text), golden) in texts.iter().zip(goldens.lines()) {
            let golden: Vec<u32> = golden
                .split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect();
            let ids = encode(tokenizer, text);
            let same = ids.iter().zip(&golden).take_while(|(a, b)| a == b).count();
            assert_eq!(
                ids.get(same),
                golden.get(same),
                "{name}: id number {same} differs"
            );
        }
    });
}

#[test]
fn smollm2_has_llama_cpp_s_ids() {
    let Some(model) = smollm2() else { return };
    check(&model, 4096, "smollm2.ids");
    // Four times the longest token is enough.
    check(&model, 1024, "smollm2.ids");
}

#[test]
fn other_pre_tokenizers_have_llama_cpp_s_ids() {
    let Some(model) = smollm2() else { return };
    check(
        &with_pre(model.clone(), "gpt-2"),
        4096,
        "smollm2-as-gpt-2.ids",
    );
    // SmolLM2 has no token of several digits, and no word that merges do not build. llama.cpp
    // therefore gives the same ids by all three rules.
    for pre in ["llama-bpe", "dbrx", "qwen2"] {
        check(
            &with_pre(model.clone(), pre),
            4096,
            "smollm2-as-llama-bpe.ids",
        );
    }
}

#[test]
fn stories260k_has_llama_cpp_s_ids() {
    let Some(model) = stories260k() else { return };
    check(&model, 4096, "stories260k.ids");
    check(&model, 64, "stories260k.ids");
}

#[test]
fn gemma3_has_llama_cpp_s_ids() {
    let Some(model) = gemma3() else { return };
    check(&model, 4096, "gemma3.ids");
    check(&model, 512, "gemma3.ids");
}

#[test]
fn gemma3_gives_back_any_text() {
    let Some(model) = gemma3() else { return };
    let vocab = Vocab::from_gguf(&Gguf::parse(&model).unwrap()).unwrap();
    assert_eq!(vocab.len(), 262_144);
    assert!(
        vocab.index_bytes(4096) < 2_800_000,
        "{}",
        vocab.index_bytes(4096)
    );
    with_tokenizer(&model, 4096, |tokenizer| {
        let end = tokenizer.special(b"<end_of_turn>").unwrap();
        assert!(
            tokenizer.is_end_of_generation(end)
                && tokenizer.is_end_of_generation(tokenizer.eos().unwrap())
        );
        for (name, mut text) in texts() {
            let ids = encode(tokenizer, &text);
            // The vocabulary's character for a space is decoded as a space.
            while let Some(at) = text
                .windows(3)
                .position(|bytes| bytes == "\u{2581}".as_bytes())
            {
                text.splice(at..at + 3, *b" ");
            }
            let back: Vec<u8> = ids
                .iter()
                .flat_map(|&id| tokenizer.piece(id, false))
                .collect();
            assert!(back == text, "{name}");
            // The text is decoded token by token, as in an answer.
            let (mut stream, mut written) = (Utf8Stream::new(), String::new());
            for &id in &ids {
                stream.push(tokenizer.piece(id, false), &mut |text| written += text);
            }
            stream.finish(&mut |text| written += text);
            assert!(written == String::from_utf8_lossy(&text), "{name}");
        }
    });
}

#[test]
fn smollm2_gives_back_what_it_has_tokens_for() {
    let Some(model) = smollm2() else { return };
    with_tokenizer(&model, 4096, |tokenizer| {
        for (name, mut text) in texts() {
            let ids = encode(tokenizer, &text);
            let back: Vec<u8> = ids
                .iter()
                .flat_map(|&id| tokenizer.piece(id, false))
                .collect();
            text.retain(|byte| !WITHOUT_TOKEN.contains(byte));
            assert!(back == text, "{name}");
        }
    });
}

#[test]
fn smollm2_knows_its_special_tokens() {
    let Some(model) = smollm2() else { return };
    let vocab = Vocab::from_gguf(&Gguf::parse(&model).unwrap()).unwrap();
    assert_eq!(vocab.len(), 49152);
    assert!(
        vocab.index_bytes(4096) < 1_200_000,
        "{}",
        vocab.index_bytes(4096)
    );
    with_tokenizer(&model, 64, |tokenizer| {
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
        assert_eq!(tokenizer.special(b"<|im_start|>"), Some(1));
        // As in llama.cpp: <|endoftext|>, <|im_end|>, <reponame>.
        let ends: Vec<u32> = (0..49152)
            .filter(|&id| tokenizer.is_end_of_generation(id))
            .collect();
        assert_eq!(ends, [0, 2, 4]);
        let options = EncodeOptions {
            special: true,
            ..EncodeOptions::default()
        };
        let mut ids = Vec::new();
        tokenizer.encode(b"<|im_start|>user\nHi<|im_end|>\n", options, &mut |id| {
            ids.push(id)
        });
        assert_eq!(ids, [1, 4093, 198, 26843, 2, 198]);
    });
}

//! The hostile set over every model here, through the library: each file is refused in a sentence
//! or works, and nothing breaks. (`runtime-std/tests/hostile.rs` keeps the sentences, and gives the
//! files to the command.)

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use brooklet_core::gguf::Gguf;
use brooklet_core::kernels::Isa;
use brooklet_core::model::{Config, Layer};
use brooklet_core::transcribe::SpeechTokens;

#[path = "common/gguf_edit.rs"]
mod gguf_edit;
#[path = "common/hostile.rs"]
mod hostile;
#[path = "common/hostile_parts.rs"]
mod hostile_parts;
#[path = "common/load_walk.rs"]
mod load_walk;

use gguf_edit::Edit;

/// Loads `bytes`, and compares the build's instruction set with the scalar reference; a panic names
/// the file.
fn load(name: &str, bytes: &[u8]) -> Result<(), String> {
    let isas = [Isa::Scalar, Isa::of_target()];
    // A plain build for x86 has only the scalar one.
    let isas = if isas[0] == isas[1] {
        &isas[..1]
    } else {
        &isas
    };
    catch_unwind(AssertUnwindSafe(|| load_walk::walk(bytes, isas)))
        .unwrap_or_else(|_| panic!("{name} breaks a promise"))
}

/// Returns the good models of every family and format here, by path.
fn good() -> Vec<(String, Vec<u8>)> {
    let mut models = hostile::models();
    models.retain(|(name, bytes)| load(name, bytes).is_ok());
    models
}

#[test]
fn every_hostile_file_of_every_model_is_refused_or_works() {
    let good = good();
    assert!(good.len() > 20, "{} good models", good.len());
    let mut tried = 0;
    for (of, bytes) in good {
        let parts = hostile_parts::each_part(&bytes);
        for (name, bytes) in hostile::hostile(&bytes).into_iter().chain(parts) {
            let _ = load(&format!("{name} of {of}"), &bytes);
            tried += 1;
        }
    }
    println!("{tried} hostile files");
}

/// Returns the smallest models without and with a tokenizer, and the ends of their headers.
fn small() -> [(Vec<u8>, usize); 2] {
    ["tests/data/random-gqa-q4_0.gguf", "tests/data/other.gguf"].map(|path| {
        let bytes = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let (same, header) = gguf_edit::Edit::new(&bytes).bytes();
        assert!(same == bytes);
        (bytes, header)
    })
}

#[test]
fn a_file_that_ends_at_any_byte_of_its_header_is_refused() {
    for (bytes, header) in small() {
        for end in 0..=header {
            let error = load(&format!("{end} bytes"), &bytes[..end]).unwrap_err();
            assert!(
                end < 4 || error.contains("truncated") || error.contains("count"),
                "{end}: {error}"
            );
        }
    }
}

#[test]
fn any_bit_of_a_header_can_be_wrong() {
    for (bytes, header) in small() {
        let mut bytes = bytes;
        let bits = if header < 4096 { 0..8 } else { 6..8 };
        for at in 0..header {
            for bit in bits.clone() {
                bytes[at] ^= 1 << bit;
                let _ = load(&format!("bit {bit} of byte {at}"), &bytes);
                bytes[at] ^= 1 << bit;
            }
        }
    }
}

/// `brooklet slim` moves the value bias into the output's bias: a file that still has it would give
/// another result than its slim layer.
#[test]
fn a_fused_value_bias_beside_a_slim_map_is_refused() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families/gptneox.gguf");
    let mut edit = gguf_edit::Edit::new(&fs::read(path).unwrap());
    edit.add_zeros("blk.0.attn_slim_map.weight", &[32, 32]);
    let bytes = edit.bytes().0;
    let file = Gguf::parse(&bytes).unwrap();
    let config = Config::from_gguf(&file).unwrap();
    // The values are in the fused tensor.
    assert!(config.layouts.any_slim() && !config.values_dropped);
    let error = Layer::read(&file, &config, 0).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("a value bias"), "{error}");
}

/// Ignoring what some files of MPT have beside ALiBi would change every logit.
#[test]
fn an_mpt_with_more_than_alibi_is_refused() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families/mpt.gguf");
    let good = Edit::new(&fs::read(path).unwrap());
    let read = |edit: &Edit| {
        let bytes = edit.bytes().0;
        let config = Config::from_gguf(&Gguf::parse(&bytes).unwrap());
        config.map_err(|error| error.to_string())
    };
    let config = read(&good).unwrap();
    let alibi = config.alibi.get().unwrap();
    assert_eq!([alibi.of(0), alibi.of(3)], [0.25, 0.00390625]);
    let refused = |edit: &Edit, why: &str| {
        let error = read(edit).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    for (key, value, why) in [
        ("mpt.attention.max_alibi_bias", 0.0, "other than ALiBi"),
        ("mpt.attention.max_alibi_bias", 7.5, "out of range"),
        ("mpt.attention.max_alibi_bias", 64.0, "out of range"),
        ("mpt.attention.max_alibi_bias", f32::NAN, "out of range"),
        ("mpt.attention.clamp_kqv", 6.0, "clamped"),
    ] {
        let mut edit = good.clone();
        edit.set_f32(key, value);
        refused(&edit, why);
    }
    for (name, why) in [
        ("position_embd.weight", "other than ALiBi"),
        ("blk.0.attn_q_norm.weight", "normed queries and keys"),
        ("blk.0.ffn.act.scales", "scales of its activations"),
    ] {
        let mut edit = good.clone();
        edit.add_zeros(name, &[32]);
        refused(&edit, why);
    }
}

/// A speech model, which has an encoder.
const WHISPER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/random-whisper-f32.gguf"
);

/// Loads a speech model, hears, feeds a few tokens, and reads the tokens of a transcript.
fn hear(edit: &Edit) -> Result<(), String> {
    let mut bytes = edit.bytes().0;
    // The policy dense, which learned positions need.
    bytes.push(1);
    let walked = load_walk::walk(&bytes, &[Isa::of_target()]);
    if let Ok(file) = Gguf::parse(&bytes) {
        let _ = SpeechTokens::from_gguf(&file, 300);
    }
    walked
}

/// Every number of the metadata, at its limits: the file is refused by one sentence, or it runs.
#[test]
fn hostile_numbers_are_refused_or_run() {
    let original = fs::read(WHISPER).unwrap();
    hear(&Edit::new(&original)).unwrap();
    let keys: Vec<String> = Edit::new(&original)
        .entries
        .iter()
        .filter(|entry| matches!(entry.kind, 4 | 5 | 10))
        .map(|entry| String::from_utf8(entry.key.clone()).unwrap())
        .collect();
    assert!(keys.len() > 20);
    let most = u64::from(u32::MAX);
    let (mut refused, mut ran) = (0, 0);
    for key in &keys {
        for value in [0, 1, 2, 3, 31, 64, 257, 1 << 16, 1 << 24, most, u64::MAX] {
            let mut edit = Edit::new(&original);
            edit.set_u64(key, value);
            match hear(&edit) {
                Ok(()) => ran += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 100 && ran > 50, "{refused} refused, {ran} ran");
}

/// A file with more heads than attention can divide among workers is refused, not run.
#[test]
fn more_heads_than_parts_are_refused() {
    let mut edit = Edit::new(&fs::read(WHISPER).unwrap());
    for stack in ["encoder", "decoder"] {
        edit.set_u64(&format!("stt.whisper.{stack}.n_heads"), 257);
        edit.set_u64(&format!("stt.whisper.{stack}.d_model"), 514);
    }
    let error = hear(&edit).unwrap_err();
    assert!(error.contains("head_count"), "{error}");
}

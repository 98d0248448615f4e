//! The hostile set over every model here, through the library: each file is refused in a sentence
//! or works, and nothing breaks. (`runtime-std/tests/hostile.rs` keeps the sentences, and gives the
//! files to the command.)

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use brooklet_core::gguf::Gguf;
use brooklet_core::kernels::Isa;
use brooklet_core::model::{Config, Layer};

#[path = "common/gguf_edit.rs"]
mod gguf_edit;
#[path = "common/hostile.rs"]
mod hostile;
#[path = "common/hostile_parts.rs"]
mod hostile_parts;
#[path = "common/load_walk.rs"]
mod load_walk;

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
    edit.tensors.push(gguf_edit::Tensor {
        name: b"blk.0.attn_slim_map.weight".to_vec(),
        dims: vec![32, 32],
        kind: 0,
        offset: 0,
    });
    let bytes = edit.bytes().0;
    let file = Gguf::parse(&bytes).unwrap();
    let config = Config::from_gguf(&file).unwrap();
    // The values are in the fused tensor.
    assert!(config.layouts.any_slim() && !config.values_dropped);
    let error = Layer::read(&file, &config, 0).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("a value bias"), "{error}");
}

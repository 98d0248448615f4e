//! Replays every committed input of the fuzz targets (`fuzz`), on the stable toolchain.

use std::fs;
use std::path::Path;

use brooklet_core::kernels::Isa;

#[path = "common/dequantize_walk.rs"]
mod dequantize_walk;
#[path = "common/gguf_walk.rs"]
mod gguf_walk;
#[path = "common/load_input.rs"]
mod load_input;
#[path = "common/load_walk.rs"]
mod load_walk;
#[path = "common/tokenizer_walk.rs"]
mod tokenizer_walk;

/// Calls `target` with every file under `tests/corpus/{name}`.
fn replay(name: &str, target: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name);
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        target(&fs::read(path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", folder.display());
}

#[test]
fn gguf() {
    replay("gguf", gguf_walk::walk);
}

#[test]
fn tokenizer() {
    replay("tokenizer", tokenizer_walk::walk);
}

/// The instruction sets that this test is compiled for: `runtime-std/tests/corpus.rs` replays on
/// every instruction set of the machine.
const ISAS: [Isa; 2] = [Isa::Scalar, Isa::of_target()];

#[test]
fn dequantize() {
    replay("dequantize", |bytes| dequantize_walk::walk(bytes, &ISAS));
}

#[test]
fn load() {
    let loaded = std::cell::Cell::new(0);
    replay("load", |input| {
        let result = load_walk::walk(&load_input::file_of(input), &ISAS);
        loaded.set(loaded.get() + usize::from(result.is_ok()));
    });
    assert!(loaded.get() > 0, "no input of the corpus is a good file");
}

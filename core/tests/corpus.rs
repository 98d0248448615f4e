//! Replays every committed input of the fuzz targets (`../fuzz`), on the stable toolchain.

use std::fs;
use std::path::Path;

#[path = "common/gguf_walk.rs"]
mod gguf_walk;
#[path = "common/tokenizer_walk.rs"]
mod tokenizer_walk;

/// Calls `target` with every file under `fuzz/corpus/{name}`.
fn replay(name: &str, target: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
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

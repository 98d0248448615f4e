//! Replays the committed inputs of the fuzz targets of this crate, and of those of core's fuzz
//! targets that need the host for its instruction sets.

use std::fs;
use std::path::Path;

use brooklet::chat as template;
use brooklet::system::isa::available_isas;

#[path = "../../core/tests/common/dequantize_walk.rs"]
mod dequantize_walk;
#[path = "../../core/tests/common/load_input.rs"]
mod load_input;
#[path = "../../core/tests/common/load_walk.rs"]
mod load_walk;
#[path = "common/speech_walk.rs"]
mod speech_walk;
#[path = "common/template_walk.rs"]
mod template_walk;

/// Contents of every file in this folder beside the crate's manifest.
fn corpus(folder: &str) -> impl Iterator<Item = Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = fs::read_dir(&folder).unwrap().peekable();
    assert!(files.peek().is_some(), "{} is empty", folder.display());
    files.map(|entry| {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        fs::read(path).unwrap()
    })
}

#[test]
fn dequantize() {
    corpus("../core/tests/corpus/dequantize")
        .for_each(|bytes| dequantize_walk::walk(&bytes, &available_isas()));
}

#[test]
fn load() {
    let isas = available_isas();
    let walk = |input: Vec<u8>| load_walk::walk(&load_input::file_of(&input), &isas);
    let loaded = corpus("../core/tests/corpus/load")
        .filter_map(|input| walk(input).ok())
        .count();
    assert!(loaded > 0, "no input of the corpus is a good file");
}

#[test]
fn template() {
    let works = corpus("tests/corpus/template")
        .filter(|input| template_walk::walk(input))
        .count();
    assert!(works > 0, "no input of the corpus is a good template");
}

#[test]
fn speech() {
    let works = corpus("tests/corpus/speech")
        .filter(|input| speech_walk::walk(input))
        .count();
    assert!(works > 0, "no input of the corpus is a good sound");
}

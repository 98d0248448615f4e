//! Any bytes: parsed, and if they are a GGUF file, read to the last element.
#![no_main]

#[path = "../../tests/common/gguf_walk.rs"]
mod gguf_walk;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gguf_walk::walk(bytes));

//! Any bytes: a file with a tokenizer, and after it the text that it encodes and decodes.
#![no_main]

#[path = "../../tests/common/tokenizer_walk.rs"]
mod tokenizer_walk;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tokenizer_walk::walk(bytes));

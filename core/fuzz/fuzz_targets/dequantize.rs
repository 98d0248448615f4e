//! Any bytes as weights, in every format, on every instruction set of this machine.
#![no_main]

#[path = "../../tests/common/dequantize_walk.rs"]
mod dequantize_walk;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dequantize_walk::walk(bytes, &brooklet_core::detected_isas!()));

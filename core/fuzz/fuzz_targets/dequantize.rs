//! Any bytes as weights, in every format, on every instruction set of this machine.
#![no_main]

#[path = "../../tests/common/dequantize_walk.rs"]
mod dequantize_walk;
#[path = "../../../runtime-std/src/system/pool.rs"]
#[expect(unused, reason = "only what it says of the instruction sets is used here")]
mod pool;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dequantize_walk::walk(bytes, &pool::available_isas()));

//! Fuzz target that takes any bytes as a sound, or as another program's speech model.
#![no_main]

#[path = "../../tests/common/speech_walk.rs"]
mod speech_walk;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The input need not be anything; the walk must only keep every promise.
    speech_walk::walk(bytes);
});

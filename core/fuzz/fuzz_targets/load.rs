//! A file, or changes to a good one: loaded as a whole, and fed tokens on the scalar and on the
//! best instruction set of this machine.
#![no_main]

#[path = "../../tests/common/load_input.rs"]
mod load_input;
#[path = "../../tests/common/load_walk.rs"]
mod load_walk;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let isas = brooklet_core::detected_isas!();
    let isas = [isas[0], isas[isas.len() - 1]];
    // The file may load or not: only a broken promise is a failure.
    let _ = load_walk::walk(&load_input::file_of(input), &isas);
});

//! A file, or changes to a good one: loaded as a whole, and fed tokens on the plainest and the best instruction set of this machine.
#![no_main]

#[path = "../../tests/common/load_input.rs"]
mod load_input;
#[path = "../../tests/common/load_walk.rs"]
mod load_walk;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let isas = brooklet_core::detected_isas!();
    let isas = [isas[0], isas[isas.len() - 1]];
    // Whether it loads does not matter here, only that no promise is broken on the way.
    let _ = load_walk::walk(&load_input::file_of(input), &isas);
});

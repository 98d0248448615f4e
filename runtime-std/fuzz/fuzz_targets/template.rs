//! Fuzz target that takes any text as a chat template. The template engine is the host program's;
//! its other modules are not needed here.
#![no_main]

#[path = "../../src/chat/bounded.rs"]
mod bounded;
#[path = "../../src/chat/functions.rs"]
mod functions;
#[path = "../../src/chat/template.rs"]
#[expect(unused, reason = "the program uses more of it")]
mod template;
#[path = "../../tests/common/template_walk.rs"]
mod template_walk;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The input need not be a template; the walk must only keep every promise.
    template_walk::walk(bytes);
});

//! Any text as a chat template. The engine is the host program's; the rest of that is not needed here.
#![no_main]

#[path = "../../src/chat/bounded.rs"]
mod bounded;
#[path = "../../src/chat/template.rs"]
#[expect(unused, reason = "the program uses more of it")]
mod template;
#[path = "../../tests/common/template_walk.rs"]
mod template_walk;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Whether it is a template does not matter here, only that no promise is broken on the way.
    template_walk::walk(bytes);
});

//! Models that are a part of the program: it has something to say without a network, a store, or a
//! file.

/// The model of `brooklet run` where none is named.
pub const DEFAULT_MODEL: &str = "small";

/// What it is given where there is no text: what stands before a story.
pub const OPENING: &str = "\n\n";

/// As aligned as a mapped file's tensors are.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static SMALL: &Aligned<[u8]> = &Aligned(*include_bytes!("../models/stories/small-q8_0.gguf"));
static TINY: &Aligned<[u8]> = &Aligned(*include_bytes!("../models/stories/tiny-q8_0.gguf"));

/// The bytes of the embedded file of that name in `models/stories`.
pub fn file(name: &str) -> Option<&'static [u8]> {
    match name {
        "small-q8_0.gguf" => Some(&SMALL.0),
        "tiny-q8_0.gguf" => Some(&TINY.0),
        _ => None,
    }
}

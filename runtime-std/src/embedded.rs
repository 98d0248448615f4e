//! Models that are embedded in the program, which therefore runs without a network, a store or a
//! file.

/// The model of `brooklet run` if none is named.
pub const DEFAULT_MODEL: &str = "small";

/// Its prompt if no text is given: the text that stands before a story.
pub const OPENING: &str = "\n\n";

/// Bytes with the alignment of a mapped file's tensors.
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

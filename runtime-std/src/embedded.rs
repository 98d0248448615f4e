//! Models that are a part of the program: it has something to say without a network, a store, or a
//! file.

/// The model that speaks where none is named.
pub const OWN_MODEL: &str = "small";

/// Its prompt where there is no other: the text between two stories.
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

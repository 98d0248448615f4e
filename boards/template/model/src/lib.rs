//! The model, in a crate of its own: the compiler reads it again when this crate changes, not
//! whenever the firmware does.
#![no_std]

use brooklet_core::cache::ElementType;
use brooklet_core::embed_model;
use brooklet_core::plan::Options;
use brooklet_core::tokenizer::Vocab;

const fn options(vocab: &Vocab<'_>) -> Options {
    let mut options = Options::sink(1, 127);
    options.cache_type = ElementType::Q8_0;
    options.tokenizer_bytes = vocab.window_bytes(64);
    options
}

embed_model!(
    /// The weights, the vocabulary, the plan, and the arena that it takes.
    pub static MODEL = "../../../../models/stories/tiny-q8_0.gguf",
    options,
    budget: 112 << 10,
);

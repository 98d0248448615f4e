//! From one model file to another: smaller weights, smaller caches.
//!
//! In this order, each importing only what stands before it: [`gguf_writer`], [`slim`],
//! [`quantize`].

pub mod gguf_writer;
pub mod quantize;
pub mod slim;

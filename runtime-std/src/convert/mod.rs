//! From one model file to another: smaller weights, smaller caches.
//!
//! In this order, each importing only what stands before it: [`gguf_writer`], [`slim`],
//! [`quantize`], [`speech`].

pub mod gguf_writer;
pub mod quantize;
pub mod slim;
pub mod speech;

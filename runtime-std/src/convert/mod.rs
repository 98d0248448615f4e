//! From one model file to another: smaller weights, smaller caches.
//!
//! In this order, each importing only what stands before it: [`gguf_writer`], [`new_file`],
//! [`slim`], [`quantize`].

pub mod gguf_writer;
pub mod new_file;
pub mod quantize;
pub mod slim;

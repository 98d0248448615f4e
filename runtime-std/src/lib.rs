//! The runtime of brooklet for machines with an operating system: files, memory, threads, and the `brooklet` command.
//!
//! The engine itself is [`core`], which knows none of these. This crate brings it bytes and threads, and takes text out:
//!
//! ```no_run
//! use brooklet::core::sampler::{Sampler, SamplerOptions};
//! use brooklet::engine::{Engine, Resources, Weights};
//! use brooklet::generate::{Request, generate};
//! use brooklet::mmap::{Access, ModelFile};
//! use brooklet::planning::Settings;
//!
//! let file = ModelFile::open("model.gguf", Access::Map)?;
//! let weights = Weights::read(&file)?;
//! let mut resources = Resources::new(&weights, &Settings { budget: Some(64 << 20), ..Settings::default() })?;
//! let mut engine = Engine::new(&weights, &mut resources)?;
//! let prompt = engine.encode(b"The sea was")?;
//! let mut sampler = Sampler::new(SamplerOptions { temperature: 0.8, ..SamplerOptions::default() });
//! let mut print = |text: &str| Ok(print!("{text}"));
//! // For ever: `limit` is not set, and the model may not end the text.
//! let request = Request { past_end: true, ..Request::default() };
//! generate(&mut engine, &prompt, &request, &mut sampler, &mut print, &|| false)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Modules
//!
//! - [`mmap`], [`pool`]: what the system gives: mapped files, the arena's pages, threads, the instruction set. The only unsafe code.
//! - [`planning`]: defaults, and from a budget to a plan.
//! - [`engine`], [`generate`], [`text`]: from a file to an engine to text.
//! - [`chat`]: a conversation whose messages are evicted as a whole.
//! - [`manifest`], [`hub`], [`store`], [`pull`]: models by name.
//! - [`quantize`], [`gguf_writer`], [`new_file`]: smaller copies of models, files that are whole or not there.
//! - [`score`]: how well a token was predicted.
//! - [`memory`], [`size`]: numbers of bytes, as the system and as people say them.
//! - [`cli`]: the command, one file a subcommand.
#![warn(missing_docs)]

pub use brooklet_core as core;

pub mod chat;
pub mod cli;
pub mod embedded;
pub mod engine;
mod error;
pub mod generate;
pub mod gguf_writer;
pub mod hub;
pub mod manifest;
pub mod memory;
pub mod mmap;
pub mod new_file;
pub mod planning;
pub mod pool;
pub mod pull;
pub mod quantize;
pub mod score;
pub mod size;
pub mod slim;
pub mod store;
pub mod text;

pub use error::Error;

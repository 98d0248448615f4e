//! The runtime of brooklet for machines with an operating system: files, memory, threads, and the `brooklet` command.
//!
//! The engine itself is [`core`], which knows none of these. This crate brings it bytes and threads, and takes text out:
//!
//! ```no_run
//! use brooklet::core::sampler::{Sampler, SamplerOptions};
//! use brooklet::engine::{Engine, Resources, Weights};
//! use brooklet::generate::{Request, generate};
//! use brooklet::system::mmap::{Access, ModelFile};
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
//! # Modules, lowest first
//!
//! Each imports only what stands before it.
//!
//! - [`size`], [`system`]: numbers of bytes as people say them; what the system gives: mapped files, memory, threads, the
//!   instruction set. The only unsafe code.
//! - [`error`]: the library's error; conversations, conversions and downloads have their own.
//! - [`planning`]: defaults, and from a budget to a plan.
//! - [`engine`]: from a file to an engine.
//! - [`text`], [`generate`], [`score`]: from an engine to text, and how well a token was predicted.
//! - [`chat`]: a conversation whose messages are evicted as a whole.
//! - [`convert`]: smaller copies of models.
//! - [`embedded`], [`models`]: models that are a part of the program, models by name.
//! - [`cli`]: the command, one file a subcommand.
#![warn(missing_docs)]

pub use brooklet_core as core;

#[cfg(feature = "chat")]
pub mod chat;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "convert")]
pub mod convert;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod engine;
pub mod error;
pub mod generate;
#[cfg(feature = "pull")]
pub mod models;
pub mod planning;
pub mod score;
pub mod size;
pub mod system;
pub mod text;

pub use error::Error;

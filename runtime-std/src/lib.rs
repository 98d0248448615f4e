//! The runtime of brooklet for machines with an operating system: files, memory, threads, and the
//! `brooklet` command.
//!
//! The engine itself is [`core`], which knows none of these. This crate brings it bytes and
//! threads, and takes text out. A [`Model`] is a file, mapped once; each [`Session`] of it has an
//! arena of its own, whose size is planned before it starts:
//!
//! ```
//! use brooklet::{Cancel, Error, Model, Session, Settings};
//! use std::thread;
//!
//! struct Talk {
//!     session: Session,
//!     cancel: Cancel,
//! }
//!
//! fn main() -> Result<(), Error> {
//!     # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/stories/tiny-q8_0.gguf");
//!     let model = Model::open(path)?;
//!     let settings = Settings::new().budget(4 << 20);
//!     let talk = |session| Talk { session, cancel: Cancel::new() };
//!     let mut sea = talk(model.session(&settings)?);
//!     let mut hills = talk(model.session(&settings)?);
//!     let cancel = hills.cancel.clone();
//!     // For ever, in 4 MiB, until the other one has said what it has to say.
//!     let endless = thread::spawn(move || {
//!         hills.session.text("The hills").endless().cancelled_by(&hills.cancel).count()
//!     });
//!     let text = sea.session.text("The sea was").limit(50).temperature(0.8);
//!     for piece in text.cancelled_by(&sea.cancel) {
//!         print!("{}", piece?);
//!     }
//!     cancel.cancel();
//!     println!(" ... and {} pieces of hills", endless.join().expect("no panic"));
//!     Ok(())
//! }
//! ```
//!
//! # Features
//!
//! Without features the library maps files, has threads, and runs models: two dozen small crates.
//! `audio` adds sound, `chat` conversations, `convert` copies of models, `pull` models by name,
//! `embedded` the program's own, `serde` reports that can be serialized; `cli`, the default, is the
//! command, with all of them.
//!
//! # Modules, lowest first
//!
//! Each imports only what stands before it.
//!
//! - [`size`], [`notice`], [`system`]: numbers of bytes as people say them; what was cut or
//!   ignored, said once; what the system gives: mapped and new files, memory, threads, the
//!   instruction set. The only unsafe code.
//! - [`stated`]: what a file states in keys of this program's own.
//! - [`error`]: the library's error; conversations, conversions and downloads have their own.
//! - [`audio`]: sound from files and pipes, as samples for a model.
//! - [`planning`]: defaults, and from a budget to a plan.
//! - [`model`], [`engine`]: a file that is opened and shared, a stream of its tokens in borrowed
//!   memory.
//! - [`tuning`]: the number of threads with which a model decodes fastest.
//! - [`text`], [`logits`], [`generate`], [`score`]: from an engine to text, and how well a token
//!   was predicted.
//! - [`captions`]: from an engine of a speech model and a sound to captions.
//! - [`session`]: an engine with memory of its own, and the text that it writes.
//! - [`chat`]: a conversation whose old exchanges are evicted as a whole, and the current one not.
//! - [`convert`]: smaller copies of models.
//! - [`embedded`], [`models`]: models that are a part of the program, models by name.
//! - [`cli`]: the command, one file a subcommand.
#![warn(missing_docs)]

pub use brooklet_core as core;

#[cfg(feature = "audio")]
pub mod audio;
pub mod captions;
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
pub mod logits;
pub mod model;
#[cfg(feature = "pull")]
pub mod models;
pub mod notice;
pub mod planning;
pub mod score;
pub mod session;
pub mod size;
pub mod stated;
pub mod system;
pub mod text;
pub mod tuning;

pub use error::Error;
pub use generate::Cancel;
pub use model::{Model, ModelOptions};
pub use notice::Notice;
pub use planning::Settings;
pub use session::{Session, Text};

//! The core of brooklet: streams a transformer for ever in a number of bytes that is fixed before
//! it starts.
//!
//! # Principles
//!
//! 1. **Bytes in, tokens out.** No operating system, no allocator, no clock, no files: the caller
//!    brings the model's bytes, one buffer and (if it has them) threads.
//! 2. **One arena.** Everything that is not a weight lives in one caller-owned buffer, laid out by
//!    [`plan`], a `const fn`: on a board a model that does not fit is a compile error, on a host a
//!    budget becomes the largest window that fits it.
//! 3. **Weights are borrowed**, in the file's own block format, never copied.
//! 4. **Untrusted bytes are checked once**, at the border; nothing behind it can panic or read out
//!    of bounds because of them.
//! 5. **The same bits everywhere.** A result depends on neither the number of threads nor (but for
//!    slim attention) the size of a prefill chunk, and the integer kernels agree bit for bit across
//!    instruction sets.
//!
//! The [glossary] explains the terms.
//!
//! [glossary]: https://github.com/brooklet/brooklet/blob/main/core/docs/glossary.md
//!
//! # A whole program
//!
//! As firmware does it: the compiler reads the model, plans, and would refuse an arena of more than
//! 256 KiB.
//!
//! ```
//! # #![allow(long_running_const_eval)]
//! use brooklet_core::arena::Aligned;
//! use brooklet_core::{gguf::Gguf, kernels::Isa, model::*, plan::*};
//! use brooklet_core::{sampler::argmax, stream::Stream, threads::SingleThread};
//!
//! const FILE: &[u8] = include_bytes!("../tests/data/random.gguf");
//! macro_rules! must { ($e:expr) => { match $e { Ok(value) => value, Err(_) => panic!() } } }
//! const GGUF: Gguf<'static> = must!(Gguf::parse(FILE));
//! const CONFIG: Config = must!(Config::from_gguf(&GGUF));
//! static LAYERS: [Layer<'static>; CONFIG.layers] = must!(layers(&GGUF, &CONFIG));
//! const PLAN: Plan = must!(Plan::within(&CONFIG, &Options::sink(4, 60), 256 << 10));
//!
//! let mut arena = Box::new(Aligned([0; PLAN.bytes()])); // firmware has a static
//! let model = Model::new(&GGUF, &LAYERS)?;
//! let mut stream = Stream::new(model, &PLAN, &mut arena.0, Isa::of_target(), &SingleThread)?;
//! let mut token = argmax(stream.feed(&[1, 2, 3])?);
//! for _ in 0..100 {
//!     token = argmax(stream.feed(&[token])?); // for ever, in the same bytes
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! - `libm` (default) or `micromath`: which library takes roots, sines and the sampler's
//!   exponentials ([`nn::math`]).
//! - `cache-f32`, `cache-f16` (default): element types of the cache beside q8_0; without them an
//!   image is smaller.
//! - `families`, `super-blocks` (default): the families beside llama, and the formats Q2_K to Q6_K
//!   and IQ4_NL; the same.
//! - `dsp`, `helium`: the target is a 32-bit Arm core that has these extensions, which stable Rust
//!   does not tell a crate; the kernels then use them ([`kernels::Isa::of_target`]). Give the
//!   compiler the processor as well (`-C target-cpu=cortex-m33`); for a processor without the
//!   instructions the assembler refuses to build. They mean nothing for other architectures.
//! - `defmt`, `log`: formats of errors and options for firmware; what the engine says while it
//!   starts, for hosts.
//!
//! # Modules, lowest first
//!
//! Each line imports only from the lines before it, and within a line from what stands to the left;
//! `cargo xtask layers` checks it.
//!
//! - [`const_fn`], `features`, `log`: helpers for `const` code, cargo features as constants, log
//!   messages.
//! - [`threads`], [`arena`]: how workers are asked for; one buffer, carved into parts and shared.
//! - [`nn`], [`quant`]: rotary phases and the one door to transcendental functions; one file per
//!   block format, with its scalar reference.
//! - [`speech`]: log-mel features of sound.
//! - [`tensor`], [`gguf`], [`sampler`]: borrowed, shape-checked matrices; a checked zero-copy view
//!   of a model file; from logits to a token.
//! - [`kernels`], [`tokenizer`]: products, attention and norms on every instruction set; text to
//!   token ids and back.
//! - `workers`, [`cache`]: work divided among threads; which tokens are kept, and what of them.
//! - [`attention`]: one layer's attention for some tokens, over any cache layout.
//! - [`model`]: facts, families and borrowed weights of a model.
//! - [`plan`]: what every byte of the arena is for.
//! - `forward`: the forward pass.
//! - [`stream`]: the engine: tokens in, logits out.
//! - [`generate`], [`transcribe`]: from a prompt to text, piece by piece; from sound to the tokens
//!   of a transcript.
//! - [`firmware`]: a model as a `static`, for boards.
#![no_std]
#![warn(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod arena;
pub mod attention;
pub mod cache;
pub mod const_fn;
mod features;
pub mod firmware;
mod forward;
pub mod generate;
pub mod gguf;
pub mod kernels;
mod log;
pub mod model;
pub mod nn;
pub mod plan;
pub mod quant;
pub mod sampler;
pub mod speech;
pub mod stream;
pub mod tensor;
pub mod threads;
pub mod tokenizer;
pub mod transcribe;
mod workers;

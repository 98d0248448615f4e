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
//! Text in, text out, as firmware does it: the compiler reads the model, plans, and would refuse an
//! arena of more than 256 KiB. `boards/template` has this for a board.
//!
//! ```
//! use brooklet_core::generate::{NoStops, Request, Session, Step};
//! use brooklet_core::sampler::SamplerOptions;
//! use brooklet_core::tokenizer::{EncodeOptions, Tokenizer, Vocab};
//! use brooklet_core::{embed_model, kernels::Isa, plan::Options};
//! use brooklet_core::{stream::Stream, threads::SingleThread};
//!
//! const fn options(vocab: &Vocab<'_>) -> Options {
//!     let mut options = Options::sink(4, 60);
//!     options.sampling = true;
//!     options.tokenizer_bytes = vocab.window_bytes(64);
//!     options
//! }
//!
//! embed_model!(static MODEL = "../tests/data/random.gguf", options, budget: 256 << 10);
//!
//! let arena = MODEL.arena.claim().expect("nobody else asks");
//! let (engine, window) = MODEL.plan.split(arena).expect("it has the planned size");
//! let stream = Stream::new(MODEL.model, &MODEL.plan, engine, Isa::of_target(), &SingleThread)?;
//! let mut session: Session<NoStops> = Session::new(stream, Tokenizer::over(MODEL.vocab, window)?);
//!
//! let mut prompt: heapless::Vec<u32, 32> = heapless::Vec::new();
//! session.tokenizer().encode(b"The sea was", EncodeOptions::default(), &mut |token| {
//!     prompt.push(token).expect("a short prompt");
//! });
//! let sampling = SamplerOptions { temperature: 0.8, seed: 1, ..SamplerOptions::default() };
//! session.begin(sampling, Request { limit: Some(100), ..Request::default() });
//! let mut left = &prompt[..];
//! while !left.is_empty() {
//!     let fed = session.prefill(left)?;
//!     left = &left[fed..];
//! }
//! // For ever without a limit, in the same bytes.
//! while let Step::Token(_) = session.next(&mut |text| print!("{text}"))? {}
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Without the macro the parts are [`gguf::Gguf::parse`], [`model::Config::from_gguf`],
//! [`model::layers`], [`plan::Plan::within`] and [`model::Model::new`], all of them `const`.
//!
//! # On a board
//!
//! - **Stack**: with `tiny` in the image, a Cortex-M4F takes some 7.5 KB. An overflow should fault:
//!   put the stack below everything else, as `boards/cortex-m` does (`flip-link` does it, too).
//! - **Development builds**: dependencies at opt-level 0 are many times slower. In the firmware's
//!   `Cargo.toml`: `[profile.dev.package."*"]`, and under it `opt-level = 3`.
//! - **Flash on a bus of its own** (QSPI): each token reads all weights once, in order, so the bus
//!   is the limit and a cache helps little: 300 KB at 20 MB/s take 15 ms a token. Map it with
//!   prefetch on; a model apart from the image is found by [`firmware::Flashed::find`].
//! - **Arenas in external RAM** (PSRAM, SDRAM): `arena:` of [`embed_model!`] puts the arena into a
//!   section of the linker's script. Each token reads the whole cache once, row by row; what else
//!   is in the arena is small and busy. Leave the stack in internal RAM.
//! - **Two cores**: a [`threads::Threads`] of two workers gives half of the jobs to the second
//!   core, which has a stack of its own, and waits until it has done them. The plan is made for it:
//!   [`plan::Options::workers`] is 2.
//! - **No compare-and-swap** (Cortex-M0 and M0+, RISC-V without the extension A, such as RP2040 and
//!   ESP32-C3): the feature `critical-section`, and a crate that provides the section (`cortex-m`'s
//!   feature `critical-section-single-core`, or the HAL). Or `portable-atomic` among the firmware's
//!   dependencies, with `unsafe-assume-single-core`. Without either the build stops and says so.
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
//! - `critical-section`: for processors without compare-and-swap; see "On a board".
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

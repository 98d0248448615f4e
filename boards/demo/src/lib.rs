//! What every board runs, and the host beside it as the reference: one prompt, one policy, 32 greedy tokens.
//!
//! A board hands in what its compiler made of the model file; the host makes the same at run time. Both get a [`Transcript`],
//! and the two must be equal.
#![no_std]

use core::fmt;

use brooklet_core::kernels::Isa;
use brooklet_core::model::Model;
use brooklet_core::plan::{Options, Plan};
use brooklet_core::sampler::argmax;
use brooklet_core::stream::{Stream, StreamError};
use brooklet_core::threads::SingleThread;
use brooklet_core::tokenizer::{EncodeOptions, Tokenizer, TokenizerError, Utf8Stream, Vocab};
use heapless::{String, Vec};

/// What the model continues.
pub const PROMPT: &str = "The sea was 7 °C.";

/// Tokens generated.
pub const TOKENS: usize = 32;

/// Most tokens of the prompt.
const MAX_PROMPT: usize = 24;

/// Longest word of the prompt that the tokenizer must see whole, in bytes.
const LONGEST_WORD: usize = 64;

/// Sinks and window: together less than the tokens that are fed, so that the ring turns and tokens are evicted.
const SINKS: usize = 4;
const WINDOW: usize = 20;

/// Prompt tokens computed at once: the prompt takes several chunks.
const CHUNK: usize = 4;

/// What the arena is planned for. Nothing here is a size of the model.
pub const fn options(vocab: &Vocab<'_>) -> Options {
    let mut options = Options::sink(SINKS, WINDOW);
    options.chunk = CHUNK;
    options.tokenizer_bytes = vocab.index_bytes(LONGEST_WORD);
    options
}

/// What was read and said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// Token ids of the prompt.
    pub prompt: Vec<u32, MAX_PROMPT>,
    /// Token ids generated.
    pub ids: Vec<u32, TOKENS>,
    /// Their text.
    pub text: String<512>,
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "prompt {PROMPT:?} is {:?}", self.prompt)?;
        writeln!(f, "ids {:?}", self.ids)?;
        write!(f, "text {:?}", self.text)
    }
}

/// Why a run failed.
#[derive(Clone, Copy, Debug)]
pub enum DemoError {
    /// The arena is shorter than planned, or the prompt or the text longer than its buffer.
    TooLong,
    /// The tokenizer.
    Tokenizer(TokenizerError),
    /// The engine.
    Stream(StreamError),
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DemoError::TooLong => write!(
                f,
                "the plan is longer than the arena, or a text longer than its buffer"
            ),
            DemoError::Tokenizer(error) => error.fmt(f),
            DemoError::Stream(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DemoError {}

impl From<TokenizerError> for DemoError {
    fn from(error: TokenizerError) -> Self {
        DemoError::Tokenizer(error)
    }
}

impl From<StreamError> for DemoError {
    fn from(error: StreamError) -> Self {
        DemoError::Stream(error)
    }
}

/// Continues the prompt greedily.
///
/// # Errors
/// If the arena is not the plan's, or the tokenizer or the engine refuse.
pub fn run(
    model: Model<'_>,
    vocab: &Vocab<'_>,
    plan: &Plan,
    arena: &mut [u8],
    isa: Isa,
) -> Result<Transcript, DemoError> {
    let (engine, index) = plan.split(arena).ok_or(DemoError::TooLong)?;
    let mut tokenizer = Tokenizer::new(vocab, index)?;
    let mut stream = Stream::new(model, plan, engine, isa, &SingleThread)?;
    let mut transcript = Transcript {
        prompt: encode(&mut tokenizer)?,
        ..Transcript::default()
    };
    let mut next = argmax(stream.feed(&transcript.prompt)?);
    while transcript.ids.push(next).is_ok() && !transcript.ids.is_full() {
        next = argmax(stream.feed(&[next])?);
    }
    transcript.text = decode(&tokenizer, &transcript.ids)?;
    Ok(transcript)
}

/// The ids of the prompt.
fn encode(tokenizer: &mut Tokenizer<'_>) -> Result<Vec<u32, MAX_PROMPT>, DemoError> {
    let mut ids = Vec::new();
    let mut all = true;
    tokenizer.encode(PROMPT.as_bytes(), EncodeOptions::default(), &mut |id| {
        all &= ids.push(id).is_ok()
    });
    if all { Ok(ids) } else { Err(DemoError::TooLong) }
}

/// The text of `ids`.
fn decode(tokenizer: &Tokenizer<'_>, ids: &[u32]) -> Result<String<512>, DemoError> {
    let mut text = String::new();
    let mut all = true;
    let mut emit = |part: &str| all &= text.push_str(part).is_ok();
    let mut utf8 = Utf8Stream::new();
    for id in ids {
        utf8.push(tokenizer.piece(*id, false), &mut emit);
    }
    utf8.finish(&mut emit);
    if all { Ok(text) } else { Err(DemoError::TooLong) }
}

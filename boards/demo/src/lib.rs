//! What every board runs, and the host beside it as the reference: one prompt, one policy, 32 greedy tokens.
//!
//! A board hands in what its compiler made of the model file; the host makes the same at run time. Both get a [`Transcript`],
//! and the two must be equal.
#![no_std]

use core::fmt;

use brooklet_core::kernels::Isa;
use brooklet_core::model::Model;
use brooklet_core::plan::{Options, Plan};
use brooklet_core::stream::{Stream, StreamError};
use brooklet_core::threads::SingleThread;
use heapless::Vec;

/// What the model continues: "▁The▁sea▁was" after the beginning of sequence.
const PROMPT: [u32; 4] = [1, 292, 291, 293];

/// Tokens generated.
pub const TOKENS: usize = 32;

/// Sinks and window: together less than what is fed, so that the ring turns and tokens are evicted.
const SINKS: usize = 4;
const WINDOW: usize = 20;

/// What the arena is planned for: nothing here names a size of the model.
pub const fn options() -> Options {
    let mut options = Options::sink(SINKS, WINDOW);
    options.chunk = 4;
    options
}

/// Why a run failed.
#[derive(Clone, Copy, Debug)]
pub enum DemoError {
    /// The arena is shorter than planned.
    Arena,
    /// The engine.
    Stream(StreamError),
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DemoError::Arena => write!(f, "the arena is shorter than planned"),
            DemoError::Stream(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DemoError {}

impl From<StreamError> for DemoError {
    fn from(error: StreamError) -> Self {
        DemoError::Stream(error)
    }
}

/// What was read and said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    /// Token ids generated.
    pub ids: Vec<u32, TOKENS>,
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ids {:?}", self.ids)
    }
}

/// Continues the prompt greedily.
///
/// # Errors
/// If the arena is not the plan's, or the tokenizer or the engine refuse.
pub fn run(model: Model<'_>, plan: &Plan, arena: &mut [u8], isa: Isa) -> Result<Transcript, DemoError> {
    let (engine, _) = plan.split(arena).ok_or(DemoError::Arena)?;
    let mut stream = Stream::new(model, plan, engine, isa, &SingleThread)?;
    let mut transcript = Transcript { ids: Vec::new() };
    let mut next = argmax(stream.feed(&PROMPT)?);
    while transcript.ids.push(next).is_ok() && !transcript.ids.is_full() {
        next = argmax(stream.feed(&[next])?);
    }
    Ok(transcript)
}

/// The index of the largest logit, the first if several are equal.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best as u32
}

//! The story loop, the same on every board and on the host, which is the reference: it tells a
//! story for ever and begins a new one with each typed line.
//!
//! A board hands in the model that its compiler read, and the few things that only it can do
//! ([`Board`]). The same prompt gives the same tokens on every board and on a host: each story
//! starts with an empty cache and the same random sequence.
#![no_std]

#[cfg(test)]
extern crate std;

mod line;

use core::convert::Infallible;
use core::fmt;
use core::mem::MaybeUninit;

use brooklet_core::cache::{ElementType, LayoutChoice};
use brooklet_core::generate::{AtEnd, NoStops, Request, Session, Step};
use brooklet_core::kernels::Isa;
use brooklet_core::model::Model;
use brooklet_core::plan::{Options, Plan};
use brooklet_core::sampler::SamplerOptions;
use brooklet_core::stream::{Stream, StreamError};
use brooklet_core::threads::SingleThread;
use brooklet_core::tokenizer::{EncodeOptions, IndexedVocab, Tokenizer, TokenizerError, Vocab};
use heapless::Vec;

pub use line::{LINE, Line, Typed};

/// Longest word that the tokenizer must see whole, in bytes.
const LONGEST_WORD: usize = 64;

/// Most tokens of a prompt: one for each byte of a line, and the special tokens around it.
const PROMPT: usize = LINE + 4;

/// Options of the plan and of the sampler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    /// First tokens kept for ever.
    pub sinks: usize,
    /// Tokens kept beside them.
    pub window: usize,
    /// Tokens of a prompt computed at once.
    pub chunk: usize,
    /// Element type of the cache.
    pub cache_type: ElementType,
    /// Layout of the cache.
    pub layout: LayoutChoice,
    /// Temperature of the sampler; 0 is greedy.
    pub temperature: f32,
    /// Start of every story's random sequence.
    pub seed: u64,
}

impl Setup {
    /// Options for the plan of the arena: the engine, and memory for a tokenizer whose index lies
    /// elsewhere.
    pub const fn options(&self, vocab: &Vocab<'_>) -> Options {
        let mut options = Options::sink(self.sinks, self.window);
        options.chunk = self.chunk;
        options.cache_type = self.cache_type;
        options.layout = self.layout;
        options.sampling = self.temperature > 0.0;
        options.tokenizer_bytes = vocab.window_bytes(LONGEST_WORD);
        options
    }

    fn sampling(&self) -> SamplerOptions {
        SamplerOptions {
            temperature: self.temperature,
            seed: self.seed,
            ..SamplerOptions::default()
        }
    }
}

/// An event while a story is told, for the log and the watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A line was typed and has so many tokens: a new story begins.
    Prompt {
        /// Tokens.
        tokens: usize,
    },
    /// A line longer than [`LINE`] bytes was thrown away.
    TooLong,
    /// Some tokens of a prompt were computed.
    Prefilled {
        /// Number of tokens.
        tokens: usize,
        /// Time that they took, in the board's ticks.
        ticks: u32,
    },
    /// A token was said.
    Said {
        /// The token.
        id: u32,
        /// Total time of the token, in the board's ticks.
        ticks: u32,
    },
}

/// Operations that each board provides.
pub trait Board {
    /// Puts some text out.
    fn say(&mut self, text: &str);
    /// The next byte that was typed, if there is one.
    fn heard(&mut self) -> Option<u8>;
    /// A clock that counts up and wraps at 2^32.
    fn ticks(&mut self) -> u32;
    /// Something happened: at least once for each token, so that a watchdog can be fed here.
    fn event(&mut self, event: Event);
}

/// Reason that a story cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum StoryError {
    /// The arena is shorter than planned.
    Arena,
    /// A prompt has no tokens, or too many.
    Prompt,
    /// The tokenizer.
    Tokenizer(TokenizerError),
    /// The engine.
    Stream(StreamError),
}

impl fmt::Display for StoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoryError::Arena => write!(f, "the arena is shorter than planned"),
            StoryError::Prompt => write!(f, "the prompt has no tokens, or more than {PROMPT}"),
            StoryError::Tokenizer(error) => error.fmt(f),
            StoryError::Stream(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for StoryError {}

impl From<TokenizerError> for StoryError {
    fn from(error: TokenizerError) -> Self {
        StoryError::Tokenizer(error)
    }
}

impl From<StreamError> for StoryError {
    fn from(error: StreamError) -> Self {
        StoryError::Stream(error)
    }
}

/// A story that is being told.
pub struct Story<'a> {
    setup: Setup,
    session: Session<'a, NoStops>,
    line: Line,
}

impl<'a> Story<'a> {
    /// An engine at rest; `plan` was made of `setup`'s options.
    ///
    /// # Errors
    /// If the arena is not the plan's.
    pub fn new(
        setup: Setup,
        model: Model<'a>,
        vocab: IndexedVocab<'a>,
        plan: &Plan,
        arena: &'a mut [u8],
        isa: Isa,
    ) -> Result<Self, StoryError> {
        let (stream, tokenizer) = engine(model, vocab, plan, arena, isa)?;
        Ok(Story::over(setup, stream, tokenizer))
    }

    /// As [`Story::new`], written where it will stay: a board's stack need not hold the story or
    /// the `Result` around it.
    ///
    /// # Errors
    /// As [`Story::new`].
    #[inline(always)]
    pub fn place<'s>(
        slot: &'s mut MaybeUninit<Self>,
        setup: Setup,
        model: Model<'a>,
        vocab: IndexedVocab<'a>,
        plan: &Plan,
        arena: &'a mut [u8],
        isa: Isa,
    ) -> Result<&'s mut Self, StoryError> {
        let (stream, tokenizer) = engine(model, vocab, plan, arena, isa)?;
        Ok(slot.write(Story::over(setup, stream, tokenizer)))
    }

    #[inline(always)]
    fn over(setup: Setup, stream: Stream<'a>, tokenizer: Tokenizer<'a>) -> Self {
        Story {
            setup,
            session: Session::new(stream, tokenizer),
            line: Line::new(),
        }
    }

    /// Begins a story with `prompt`, which is said, too.
    ///
    /// # Errors
    /// If the prompt has no tokens or too many, or the engine refuses.
    pub fn begin(&mut self, prompt: &[u8], board: &mut impl Board) -> Result<(), StoryError> {
        let mut ids: Vec<u32, PROMPT> = Vec::new();
        let mut fits = true;
        let options = EncodeOptions::default();
        self.session
            .tokenizer()
            .encode(prompt, options, &mut |id| fits &= ids.push(id).is_ok());
        if !fits || ids.is_empty() {
            return Err(StoryError::Prompt);
        }
        self.session.reset();
        // For ever: one story follows another.
        let request = Request {
            at_end: AtEnd::GoOn,
            ..Request::default()
        };
        self.session.begin(self.setup.sampling(), request);
        board.event(Event::Prompt { tokens: ids.len() });
        prompt
            .utf8_chunks()
            .for_each(|chunk| board.say(chunk.valid()));
        let mut left = &ids[..];
        while !left.is_empty() {
            let start = board.ticks();
            let tokens = self.session.prefill(left)?;
            let ticks = board.ticks().wrapping_sub(start);
            board.event(Event::Prefilled { tokens, ticks });
            left = &left[tokens..];
        }
        Ok(())
    }

    /// Says a token, and then listens to what was typed. The story must have begun.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn step(&mut self, board: &mut impl Board) -> Result<(), StoryError> {
        let start = board.ticks();
        let step = self.session.next(&mut |text| board.say(text))?;
        let ticks = board.ticks().wrapping_sub(start);
        if let Step::Token(id) = step {
            board.event(Event::Said { id, ticks });
        }
        self.listen(board)
    }

    /// Says stories for ever.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn run(&mut self, opening: &str, board: &mut impl Board) -> Result<Infallible, StoryError> {
        self.begin(opening.as_bytes(), board)?;
        loop {
            self.step(board)?;
        }
    }

    fn listen(&mut self, board: &mut impl Board) -> Result<(), StoryError> {
        while let Some(byte) = board.heard() {
            match self.line.put(byte) {
                Typed::Nothing => {}
                Typed::TooLong => board.event(Event::TooLong),
                Typed::Line(line) => {
                    board.say("\n\n");
                    return self.begin(&line, board);
                }
            }
        }
        Ok(())
    }
}

/// The stream and the tokenizer in an arena.
#[inline(always)]
fn engine<'a>(
    model: Model<'a>,
    vocab: IndexedVocab<'a>,
    plan: &Plan,
    arena: &'a mut [u8],
    isa: Isa,
) -> Result<(Stream<'a>, Tokenizer<'a>), StoryError> {
    let (engine, window) = plan.split(arena).ok_or(StoryError::Arena)?;
    let tokenizer = Tokenizer::over(vocab, window)?;
    Ok((
        Stream::new(model, plan, engine, isa, &SingleThread)?,
        tokenizer,
    ))
}

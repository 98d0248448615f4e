//! Text after a prompt, until something ends it: core's [`Generation`] with a clock and an output. Allocates nothing once the first
//! token is out.

use std::io;
use std::time::{Duration, Instant};

use brooklet_core::generate::{AtEnd, Generation, Parts, Step};
pub use brooklet_core::generate::{Feed, Finish, Next};
use brooklet_core::sampler::Sampler;
use brooklet_core::tokenizer::Tokenizer;

use crate::Error;
use crate::engine::Engine;
use crate::text::TextSink;

/// Bytes of text of one token that are expected at most. A longer one costs an allocation.
const LONGEST_PIECE: usize = 1024;

/// When to end.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Most tokens; none for ever.
    pub limit: Option<u64>,
    /// Never sample tokens that end a text, instead of ending at one.
    pub past_end: bool,
    /// Texts to end before.
    pub stops: Vec<String>,
}

/// What a generation was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Time that they took.
    pub prompt_time: Duration,
    /// Tokens sampled, the one that ended the text not counted.
    pub tokens: u64,
    /// Time that they took, sampling and output included.
    pub time: Duration,
    /// Why it has ended.
    pub finish: Finish,
    /// The last token sampled, unless it ended the text: it was not fed, because nothing followed.
    pub pending: Option<u32>,
}

/// Continues `prompt`, writing the text to `sink` token by token. `interrupted` is asked between tokens.
///
/// # Errors
/// If the file has no tokenizer, a token of the prompt is none or does not fit a dense cache, or the sink fails ([`Error::Sink`]).
pub fn generate(
    engine: &mut Engine<'_>,
    prompt: &[u32],
    request: &Request,
    sampler: &mut Sampler,
    sink: &mut dyn TextSink,
    interrupted: &dyn Fn() -> bool,
) -> Result<Report, Error> {
    let (stream, tokenizer) = engine.parts()?;
    generate_with(stream, tokenizer, prompt, request, sampler, sink, interrupted)
}

/// As [`generate`], feeding `feed`.
///
/// # Errors
/// As [`generate`].
pub fn generate_with(
    feed: &mut dyn Feed,
    tokenizer: &Tokenizer<'_>,
    prompt: &[u32],
    request: &Request,
    sampler: &mut Sampler,
    sink: &mut dyn TextSink,
    interrupted: &dyn Fn() -> bool,
) -> Result<Report, Error> {
    let start = Instant::now();
    let at_end = if request.past_end {
        AtEnd::Avoid
    } else {
        AtEnd::Finish
    };
    let mut generation = Generation::new(request.limit, at_end);
    let mut writer = Writer::new(request, sink);
    let mut fed = 0;
    while !interrupted() {
        fed += generation.prefill(feed, sampler, &prompt[fed..])?;
        if fed == prompt.len() {
            break;
        }
    }
    let prompt_time = start.elapsed();
    let mut parts = Parts {
        feed,
        tokenizer,
        sampler,
        stops: &request.stops,
    };
    let finish = loop {
        let is_cancelled = fed < prompt.len() || (generation.finish().is_none() && interrupted());
        if is_cancelled {
            generation.flush(&request.stops, &mut |text| writer.piece.push_str(text));
            break Finish::Interrupted;
        }
        match generation.next(&mut parts, &mut |text| writer.piece.push_str(text))? {
            Step::Token(_) => writer.pass_on()?,
            Step::Finished(finish) => break finish,
        }
    };
    writer.pass_on()?;
    Ok(Report {
        prompt_tokens: fed,
        prompt_time,
        tokens: generation.tokens(),
        time: start.elapsed() - prompt_time,
        finish,
        pending: generation.pending(),
    })
}

/// The text of a token on its way to the sink, in one piece.
struct Writer<'s> {
    piece: String,
    sink: &'s mut dyn TextSink,
}

impl<'s> Writer<'s> {
    fn new(request: &Request, sink: &'s mut dyn TextSink) -> Self {
        // What is held back of a stop text may come with the next token's.
        let longest_stop = request.stops.iter().map(String::len).max().unwrap_or(0);
        Writer {
            piece: String::with_capacity(longest_stop + LONGEST_PIECE),
            sink,
        }
    }

    fn pass_on(&mut self) -> Result<(), Error> {
        let passed: io::Result<()> = self.sink.text(&self.piece).and_then(|()| self.sink.token());
        self.piece.clear();
        passed.map_err(Error::Sink)
    }
}

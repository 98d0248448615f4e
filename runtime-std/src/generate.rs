//! Text after text: feeds a prompt, then samples and feeds, until something ends it. Allocates nothing once the first token is out.

use std::io;
use std::time::{Duration, Instant};

use brooklet_core::sampler::Sampler;
use brooklet_core::stream::{Stream, StreamError};
use brooklet_core::tokenizer::{Tokenizer, Utf8Stream};

use crate::Error;
use crate::engine::Engine;
use crate::text::{StopFilter, TextSink};

/// Bytes of text of one token that are expected at most. A longer one costs an allocation.
const LONGEST_PIECE: usize = 1024;

/// Logit of tokens that must not be sampled. Finite, so that no arithmetic on it makes NaN.
const NEVER: f32 = -1e30;

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

/// Why a generation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Finish {
    /// There are as many tokens as asked for.
    Length,
    /// The model has ended the text.
    End,
    /// A stop text came.
    Stop,
    /// The dense cache is full.
    Full,
    /// The caller wished so.
    Interrupted,
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
    /// The last token sampled, where nothing followed it that it would have been fed for: the end is a limit or a stop text.
    pub pending: Option<u32>,
}

/// What tokens are fed to: a stream, or something that keeps account of one.
pub trait Feed {
    /// Tokens that are computed at once.
    fn chunk(&self) -> usize;

    /// Feeds tokens, and computes the logits that follow the last of them.
    ///
    /// # Errors
    /// The stream's.
    fn feed(&mut self, tokens: &[u32]) -> Result<(), StreamError>;

    /// Feeds tokens without computing logits.
    ///
    /// # Errors
    /// The stream's.
    fn absorb(&mut self, tokens: &[u32]) -> Result<(), StreamError>;

    /// The last logits, and scratch for a sampler, as [`Stream::logits_and_candidates`].
    fn logits_and_candidates(&mut self) -> (&mut [f32], &mut [u32]);
}

impl Feed for Stream<'_> {
    fn chunk(&self) -> usize {
        self.plan().options().chunk
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<(), StreamError> {
        Stream::feed(self, tokens).map(|_| ())
    }

    fn absorb(&mut self, tokens: &[u32]) -> Result<(), StreamError> {
        Stream::absorb(self, tokens)
    }

    fn logits_and_candidates(&mut self) -> (&mut [f32], &mut [u32]) {
        Stream::logits_and_candidates(self)
    }
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
    let mut writer = Writer::new(request, sink);
    let banned: Vec<u32> = match request.past_end {
        true => (0..tokenizer.vocab().len() as u32)
            .filter(|id| tokenizer.is_end_of_generation(*id))
            .collect(),
        false => Vec::new(),
    };
    prompt.iter().for_each(|token| sampler.accept(*token));
    let fed = feed_prompt(feed, prompt, interrupted)?;
    let prompt_time = start.elapsed();
    let mut report = Report {
        prompt_tokens: fed,
        prompt_time,
        tokens: 0,
        time: Duration::ZERO,
        finish: Finish::Interrupted,
        pending: None,
    };
    if fed == prompt.len() {
        let mut next = Next {
            feed,
            tokenizer,
            sampler,
            banned: &banned,
        };
        report.finish = next.run(request.limit, &mut report, &mut writer, interrupted)?;
    }
    writer
        .finish(report.finish == Finish::Stop)
        .map_err(Error::Sink)?;
    report.time = start.elapsed() - prompt_time;
    Ok(report)
}

/// Feeds the prompt in chunks, so that an interrupt need not wait for all of it; returns how many tokens were fed.
fn feed_prompt(feed: &mut dyn Feed, prompt: &[u32], interrupted: &dyn Fn() -> bool) -> Result<usize, Error> {
    let chunk = feed.chunk();
    let mut fed = 0;
    while fed < prompt.len() && !interrupted() {
        let end = prompt.len().min(fed + chunk);
        if end < prompt.len() {
            feed.absorb(&prompt[fed..end])?;
        } else {
            feed.feed(&prompt[fed..end])?;
        }
        fed = end;
    }
    if prompt.is_empty() {
        return Err(StreamError::NoTokens.into());
    }
    Ok(fed)
}

/// What makes tokens.
struct Next<'g, 'a> {
    feed: &'g mut dyn Feed,
    tokenizer: &'g Tokenizer<'a>,
    sampler: &'g mut Sampler,
    banned: &'g [u32],
}

impl Next<'_, '_> {
    fn run(
        &mut self,
        limit: Option<u64>,
        report: &mut Report,
        writer: &mut Writer<'_>,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Finish, Error> {
        loop {
            if limit.is_some_and(|limit| report.tokens >= limit) {
                return Ok(Finish::Length);
            }
            if interrupted() {
                return Ok(Finish::Interrupted);
            }
            let (logits, candidates) = self.feed.logits_and_candidates();
            for id in self.banned {
                logits[*id as usize] = NEVER;
            }
            let token = self.sampler.sample(logits, candidates);
            if self.banned.is_empty() && self.tokenizer.is_end_of_generation(token) {
                return Ok(Finish::End);
            }
            report.tokens += 1;
            report.pending = Some(token);
            if writer
                .token(self.tokenizer.piece(token, false))
                .map_err(Error::Sink)?
            {
                return Ok(Finish::Stop);
            }
            if limit.is_some_and(|limit| report.tokens >= limit) {
                return Ok(Finish::Length);
            }
            match self.feed.feed(&[token]) {
                Ok(()) => report.pending = None,
                Err(StreamError::Full { .. }) => return Ok(Finish::Full),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// From the bytes of tokens to whole characters that belong to no stop text.
struct Writer<'s> {
    utf8: Utf8Stream,
    piece: String,
    stops: StopFilter,
    sink: &'s mut dyn TextSink,
}

impl<'s> Writer<'s> {
    fn new(request: &Request, sink: &'s mut dyn TextSink) -> Self {
        Writer {
            utf8: Utf8Stream::new(),
            piece: String::with_capacity(LONGEST_PIECE),
            stops: StopFilter::new(request.stops.iter().cloned(), LONGEST_PIECE),
            sink,
        }
    }

    /// Takes the bytes of a token; whether a stop text is complete.
    fn token(&mut self, bytes: impl Iterator<Item = u8>) -> io::Result<bool> {
        self.piece.clear();
        self.utf8.push(bytes, &mut |text| self.piece.push_str(text));
        let stopped = self.stops.push(&self.piece, self.sink)?;
        self.sink.token()?;
        Ok(stopped)
    }

    /// Passes on what was held back, unless a stop text has ended it all.
    fn finish(&mut self, stopped: bool) -> io::Result<()> {
        if !stopped {
            self.piece.clear();
            self.utf8.finish(&mut |text| self.piece.push_str(text));
            self.stops.push(&self.piece, self.sink)?;
            self.stops.finish(self.sink)?;
        }
        self.sink.token()
    }
}

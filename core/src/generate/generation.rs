//! The loop: a prompt in, then one token and its text at a time.

use super::{Feed, Next, StopFilter};
use crate::sampler::Sampler;
use crate::stream::StreamError;
use crate::tokenizer::{Tokenizer, Utf8Stream};

/// Logit of tokens that must not be sampled. Finite, so that no arithmetic on it makes NaN.
const NEVER: f32 = -1e30;

/// What tokens that end a text are taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum AtEnd {
    /// The end.
    #[default]
    Finish,
    /// Tokens that are never sampled.
    Avoid,
    /// Tokens like any other: a text follows a text.
    GoOn,
}

/// Why a generation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
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

impl Finish {
    /// The name, in small letters.
    pub const fn name(self) -> &'static str {
        match self {
            Finish::Length => "length",
            Finish::End => "end",
            Finish::Stop => "stop",
            Finish::Full => "full",
            Finish::Interrupted => "interrupted",
        }
    }
}

/// What a step of a generation led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Step {
    /// A token was chosen.
    Token(u32),
    /// There are no more tokens.
    Finished(Finish),
}

/// What a generation works with, lent for one step.
pub struct Parts<'p, 'a, F: ?Sized, S> {
    /// What tokens are fed to.
    pub feed: &'p mut F,
    /// The model's tokenizer.
    pub tokenizer: &'p Tokenizer<'a>,
    /// What chooses tokens.
    pub sampler: &'p mut Sampler,
    /// Texts to end before; the same in every step.
    pub stops: &'p [S],
}

/// A text that is being generated.
///
/// ```text
/// prefill chunk, prefill chunk, ... | sample | feed, sample | feed, sample | ...
///                                     next()   next()         next()
/// ```
///
/// A token is fed by the step after the one that chose it: its text is out before its successor is computed, and the
/// last token costs no pass.
#[derive(Clone, Copy, Debug)]
pub struct Generation {
    limit: Option<u64>,
    at_end: AtEnd,
    tokens: u64,
    /// The last token chosen, if it was not fed yet.
    pending: Option<u32>,
    finish: Option<Finish>,
    utf8: Utf8Stream,
    stop: StopFilter,
}

impl Generation {
    /// A generation of at most `limit` tokens (for ever, without a limit), before its prompt.
    pub const fn new(limit: Option<u64>, at_end: AtEnd) -> Self {
        Generation {
            limit,
            at_end,
            tokens: 0,
            pending: None,
            finish: None,
            utf8: Utf8Stream::new(),
            stop: StopFilter::new(),
        }
    }

    /// Another generation after this one, of the same stream: the last token chosen is fed before its prompt.
    pub const fn followed_by(&self, limit: Option<u64>, at_end: AtEnd) -> Self {
        Generation {
            pending: self.pending,
            ..Generation::new(limit, at_end)
        }
    }

    /// Feeds the first chunk of what is left of a prompt, and returns how many tokens that were. Logits are computed with
    /// the last chunk alone. The sampler is told of the tokens.
    ///
    /// # Errors
    /// [`StreamError::NoTokens`] if nothing is left; the feed's errors.
    pub fn prefill<F: Feed + ?Sized>(
        &mut self,
        feed: &mut F,
        sampler: &mut Sampler,
        prompt: &[u32],
    ) -> Result<usize, StreamError> {
        if let Some(token) = self.pending {
            feed.absorb(&[token])?;
            self.pending = None;
        }
        let (chunk, rest) = prompt.split_at(feed.chunk().min(prompt.len()));
        if rest.is_empty() {
            feed.feed(chunk)?;
        } else {
            feed.absorb(chunk)?;
        }
        chunk.iter().for_each(|token| sampler.accept(*token));
        Ok(chunk.len())
    }

    /// Feeds the token chosen before, if there is one, and chooses the next; `ends` are the tokens that end a text
    /// ([`Vocab::ends`](crate::tokenizer::Vocab::ends)). The prompt must have been fed.
    ///
    /// # Errors
    /// The feed's, but for [`StreamError::Full`], which is [`Finish::Full`].
    pub fn next_token<F: Feed + ?Sized>(
        &mut self,
        feed: &mut F,
        sampler: &mut Sampler,
        ends: &[u32],
    ) -> Result<Step, StreamError> {
        if let Some(finish) = self.finish() {
            return Ok(Step::Finished(finish));
        }
        let fed = match self.pending {
            Some(token) => feed.feed(&[token]),
            None => Ok(feed.last()),
        };
        let Next { logits, candidates } = match fed {
            Err(StreamError::Full { .. }) => return Ok(self.finished(Finish::Full)),
            next => next?,
        };
        self.pending = None;
        if self.at_end == AtEnd::Avoid {
            for id in ends {
                if let Some(logit) = logits.get_mut(*id as usize) {
                    *logit = NEVER;
                }
            }
        }
        let token = sampler.sample(logits, candidates);
        if self.at_end == AtEnd::Finish && ends.contains(&token) {
            return Ok(self.finished(Finish::End));
        }
        self.tokens += 1;
        self.pending = Some(token);
        Ok(Step::Token(token))
    }

    /// Chooses the next token as [`Generation::next_token`] does, and calls `emit` with the text that is certain now. The
    /// last step, which finishes, passes on what was held back.
    ///
    /// # Errors
    /// As [`Generation::next_token`].
    pub fn next<F: Feed + ?Sized, S: AsRef<str>>(
        &mut self,
        parts: &mut Parts<'_, '_, F, S>,
        emit: &mut dyn FnMut(&str),
    ) -> Result<Step, StreamError> {
        let Parts {
            feed,
            tokenizer,
            sampler,
            stops,
        } = parts;
        let step = self.next_token(&mut **feed, sampler, tokenizer.vocab().ends())?;
        match step {
            Step::Token(token) => {
                let stop = &mut self.stop;
                self.utf8.push(tokenizer.piece(token, false), &mut |text| {
                    stop.push(stops, text, emit)
                });
                if stop.end_piece(stops, emit) {
                    self.finish = Some(Finish::Stop);
                }
            }
            Step::Finished(_) => self.flush(stops, emit),
        }
        Ok(step)
    }

    /// Ends the text where a caller stops asking: passes on what was held back, with U+FFFD for the start of a character.
    pub fn flush<S: AsRef<str>>(&mut self, stops: &[S], emit: &mut dyn FnMut(&str)) {
        let stop = &mut self.stop;
        if self.finish != Some(Finish::Stop) {
            self.utf8.finish(&mut |text| stop.push(stops, text, emit));
            stop.end_piece(stops, emit);
            stop.finish(stops, emit);
        }
    }

    /// Why the next step will choose no token, as far as that is known.
    pub fn finish(&self) -> Option<Finish> {
        let is_long = self.limit.is_some_and(|limit| self.tokens >= limit);
        self.finish.or(is_long.then_some(Finish::Length))
    }

    /// Tokens chosen, the one that ended the text not counted.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The last token chosen, if it was not fed: nothing followed that it would have been fed for.
    pub fn pending(&self) -> Option<u32> {
        self.pending
    }

    fn finished(&mut self, finish: Finish) -> Step {
        self.finish = Some(finish);
        Step::Finished(finish)
    }
}

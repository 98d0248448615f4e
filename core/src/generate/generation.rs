//! The generation loop: takes a prompt, then returns one token and its text at a time.

use super::{Feed, Next, StopFilter};
use crate::sampler::{BANNED, Sampler};
use crate::stream::StreamError;
use crate::tokenizer::{Tokenizer, Utf8Stream};

/// Treatment of tokens that end a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum AtEnd {
    /// They end the generation.
    #[default]
    Finish,
    /// They are never sampled.
    Avoid,
    /// They are tokens like any other: one text follows another.
    GoOn,
}

/// Reason why a generation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Finish {
    /// The limit of tokens is reached.
    Length,
    /// The model has ended the text.
    End,
    /// A stop text is complete.
    Stop,
    /// The dense cache is full.
    Full,
    /// The caller has asked for it.
    Interrupted,
}

impl Finish {
    /// Name in small letters.
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

/// Result of a step of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Step {
    /// A token was chosen.
    Token(u32),
    /// There are no more tokens.
    Finished(Finish),
}

/// Parts that a generation works with, lent for one step.
pub struct Parts<'p, 'a, F: ?Sized, S> {
    /// Receiver of tokens.
    pub feed: &'p mut F,
    /// The model's tokenizer.
    pub tokenizer: &'p Tokenizer<'a>,
    /// Sampler that chooses tokens.
    pub sampler: &'p mut Sampler,
    /// Texts before which the text ends; the same in every step.
    pub stops: &'p [S],
}

/// A text that is being generated.
///
/// ```text
/// prefill chunk, prefill chunk, ... | sample | feed, sample | feed, sample | ...
///                                     next()   next()         next()
/// ```
///
/// A token is fed by the step after the one that chose it. So its text is out before the next token
/// is computed, and the last token costs no pass.
#[derive(Clone, Copy, Debug)]
pub struct Generation {
    limit: Option<u64>,
    at_end: AtEnd,
    tokens: u64,
    /// The last chosen token, if it was not fed yet.
    pending: Option<u32>,
    finish: Option<Finish>,
    utf8: Utf8Stream,
    stop: StopFilter,
}

impl Generation {
    /// Creates a generation of at most `limit` tokens (without end if there is no limit), before
    /// its prompt.
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

    /// Creates a generation that follows this one on the same stream: the last chosen token is fed
    /// before its prompt.
    pub const fn followed_by(&self, limit: Option<u64>, at_end: AtEnd) -> Self {
        Generation {
            pending: self.pending,
            ..Generation::new(limit, at_end)
        }
    }

    /// Feeds the first chunk of the rest of a prompt, and returns the number of its tokens. Logits
    /// are computed with the last chunk alone. The sampler records the tokens.
    ///
    /// # Errors
    /// [`StreamError::NoTokens`] if the prompt is empty; the feed's errors.
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

    /// Feeds the last chosen token, if there is one, and chooses the next; `ends` are the tokens
    /// that end a text ([`Vocab::ends`](crate::tokenizer::Vocab::ends)). The prompt must have been
    /// fed.
    ///
    /// # Errors
    /// The feed's, except [`StreamError::Full`], which is [`Finish::Full`];
    /// [`StreamError::NotForSampling`] if the plan has no scratch for the sampler.
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
        let (needed, given) = (sampler.candidates_for(logits.len()), candidates.len());
        if needed > given {
            return Err(StreamError::NotForSampling { needed, given });
        }
        if self.at_end == AtEnd::Avoid {
            for id in ends {
                if let Some(logit) = logits.get_mut(*id as usize) {
                    *logit = BANNED;
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

    /// Chooses the next token as [`Generation::next_token`] does, and calls `emit` with the text
    /// that is now certain. The step that finishes also emits the text that was held back.
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

    /// Ends the text when a caller stops early: emits the text that was held back, with U+FFFD for
    /// the start of a character.
    pub fn flush<S: AsRef<str>>(&mut self, stops: &[S], emit: &mut dyn FnMut(&str)) {
        let stop = &mut self.stop;
        if self.finish != Some(Finish::Stop) {
            self.utf8.finish(&mut |text| stop.push(stops, text, emit));
            stop.end_piece(stops, emit);
            stop.finish(stops, emit);
        }
    }

    /// Reason why the next step will choose no token, if it is known already.
    pub fn finish(&self) -> Option<Finish> {
        let is_long = self.limit.is_some_and(|limit| self.tokens >= limit);
        self.finish.or(is_long.then_some(Finish::Length))
    }

    /// Number of chosen tokens, without the one that ended the text.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The last chosen token, if it was not fed, because no later step needed it.
    pub fn pending(&self) -> Option<u32> {
        self.pending
    }

    fn finished(&mut self, finish: Finish) -> Step {
        self.finish = Some(finish);
        Step::Finished(finish)
    }
}

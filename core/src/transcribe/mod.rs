//! From sound to the tokens of a transcript: Whisper's decoding (Radford et al., arXiv
//! 2212.04356), greedy or drawn at a temperature, and Moonshine's (Jeffries et al., arXiv
//! 2410.15608), which writes text only.
//!
//! A [`Transcriber`] hears a window of sound, of at most as many seconds as the encoder takes, and
//! then writes its tokens one by one, text and times. For a longer sound the caller moves the
//! window: [`Transcriber::done`] says how far.

mod rules;
mod tokens;

pub use tokens::{SpeechTokens, TimeTokens};

use crate::nn::math;
use crate::sampler::argmax;
use crate::speech::SAMPLE_RATE;
use crate::stream::{Stream, StreamError};
use rules::Rules;

/// Most tokens in two seconds of sound, of models without times: more are words that nobody said.
/// The number is that of Moonshine's published programs.
const TOKENS_IN_TWO_SECONDS: usize = 13;

/// Tokens whose entropy tells a loop.
const RECENT: usize = 32;

/// Wishes for a transcript.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'r> {
    /// Token of the language that is spoken, one of [`SpeechTokens::languages`]; for models that
    /// know several it must be given, and [`Transcriber::detect_language`] finds it.
    pub language: Option<u32>,
    /// True for a translation to English, by models that have [`SpeechTokens::translate`].
    pub translate: bool,
    /// True if times are written beside the text, by models that can.
    pub times: bool,
    /// Tokens of the text before, which tell the model names and style, for models that have
    /// [`SpeechTokens::previous`]. Of more than [`Transcriber::most_before`] the last are taken.
    pub before: &'r [u32],
    /// 0 for the most probable tokens; above that they are drawn, for a second try where the most
    /// probable ones are no good text.
    pub temperature: f32,
    /// Seed of the draws.
    pub seed: u64,
}

/// A piece of a transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// A token of text.
    Text(u32),
    /// A time, in steps of [`SpeechTokens::STEP_MS`] from the beginning of the window: a text
    /// begins or ends.
    Time(u32),
    /// The end.
    End,
}

/// A speech model that hears and writes.
pub struct Transcriber<'s, 'a> {
    stream: &'s mut Stream<'a>,
    tokens: SpeechTokens<'s>,
    rules: Rules,
    /// True if the last logits are weights already.
    weighed: bool,
    /// Number of tokens written, the end included.
    written: usize,
    /// Largest number of tokens before the end.
    most: usize,
    is_cut: bool,
    /// Sum of the logarithms of their probabilities.
    log_probability: f32,
    no_speech: f32,
    /// The newest tokens of text, in a ring.
    recent: [u32; RECENT],
    /// Number of tokens of text that were written.
    texts: usize,
}

impl<'s, 'a> Transcriber<'s, 'a> {
    /// Creates a transcriber of a stream of a speech model, and the tokens of its file.
    pub fn new(stream: &'s mut Stream<'a>, tokens: SpeechTokens<'s>) -> Self {
        let most = half(stream);
        Transcriber {
            stream,
            tokens,
            rules: Rules::new(false, 0.0, 0),
            weighed: false,
            written: 0,
            most,
            is_cut: false,
            log_probability: 0.0,
            no_speech: 0.0,
            recent: [0; RECENT],
            texts: 0,
        }
    }

    /// The model's tokens that are not text.
    pub fn tokens(&self) -> &SpeechTokens<'s> {
        &self.tokens
    }

    /// Hears a window of sound, and forgets what was heard and written before.
    ///
    /// # Errors
    /// As [`Stream::hear`].
    pub fn hear(&mut self, samples: &[f32]) -> Result<(), StreamError> {
        self.stream.reset();
        self.most = match self.tokens.times {
            Some(_) => half(self.stream),
            None => samples
                .len()
                .saturating_mul(TOKENS_IN_TWO_SECONDS)
                .div_ceil(2 * SAMPLE_RATE),
        };
        self.stream.hear(samples)
    }

    /// Finds the language that is spoken in the window: the most probable one after
    /// [`SpeechTokens::start`]. `None` for models of one language.
    ///
    /// # Errors
    /// As [`Stream::feed`].
    pub fn detect_language(&mut self) -> Result<Option<u32>, StreamError> {
        let languages = self.tokens.languages();
        if languages.is_empty() {
            return Ok(None);
        }
        self.stream.reset();
        let logits = self.stream.feed(&[self.tokens.start])?;
        let logits = &logits[languages.start as usize..languages.end as usize];
        let language = languages.start + argmax(logits);
        self.stream.reset();
        Ok(Some(language))
    }

    /// Begins a transcript of the window.
    ///
    /// # Errors
    /// As [`Stream::feed`].
    pub fn begin(&mut self, request: &Request<'_>) -> Result<(), StreamError> {
        self.stream.reset();
        let times = self.tokens.times;
        let has_times = request.times && times.is_some();
        self.rules = Rules::new(has_times, request.temperature, request.seed);
        self.texts = 0;
        (self.written, self.log_probability, self.is_cut) = (0, 0.0, false);
        let before = request.before.len().saturating_sub(self.most_before());
        let before = &request.before[before..];
        if let Some(previous) = self.tokens.previous.filter(|_| !before.is_empty()) {
            self.stream.absorb(&[previous])?;
            self.stream.absorb(before)?;
        }
        self.stream.feed(&[self.tokens.start])?;
        let (weights, inverse) = self.stream.softmax();
        self.no_speech = times.map_or(0.0, |times| weights[times.no_speech as usize] * inverse);
        let task = if request.translate {
            self.tokens.translate
        } else {
            self.tokens.transcribe
        };
        let no_times = times.filter(|_| !request.times).map(|times| times.none);
        let language = request.language.filter(|_| self.tokens.is_multilingual());
        self.weighed = true;
        for token in [language, task, no_times].into_iter().flatten() {
            self.stream.feed(&[token])?;
            self.weighed = false;
        }
        Ok(())
    }

    /// Writes the next piece. The end comes also after half as many tokens as there are positions,
    /// as in the program of Whisper's paper; in models without times after 6.5 tokens for each
    /// second of the window, which nobody says in it. After [`Written::End`], begin again.
    ///
    /// # Errors
    /// As [`Stream::feed`].
    pub fn write_next(&mut self) -> Result<Written, StreamError> {
        let weights = if self.weighed {
            self.stream.logits_and_candidates().0
        } else {
            self.stream.softmax().0
        };
        self.rules.mask(&self.tokens, weights);
        let (token, probability) = self.rules.choose(&self.tokens, weights);
        self.weighed = true;
        self.written += 1;
        self.log_probability += math::log10(probability) * core::f32::consts::LN_10;
        let room = self.stream.plan().capacity() as u64;
        let is_full = self.written > self.most || self.stream.position() >= room;
        if token == self.tokens.end || is_full {
            self.is_cut = token != self.tokens.end;
            return Ok(Written::End);
        }
        self.rules.note(&self.tokens, token);
        self.stream.feed(&[token])?;
        self.weighed = false;
        Ok(match self.tokens.time(token) {
            Some(step) => Written::Time(step),
            None => {
                self.recent[self.texts % RECENT] = token;
                self.texts += 1;
                Written::Text(token)
            }
        })
    }

    /// Time up to which the window is written down, in steps of [`SpeechTokens::STEP_MS`]; `None`
    /// if that is all of it.
    pub fn done(&self) -> Option<u32> {
        self.rules.done()
    }

    /// True if the last transcript ended before the model ended it.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Probability that nobody speaks in the window, by the model; 0 by models that do not say it.
    pub fn no_speech(&self) -> f32 {
        self.no_speech
    }

    /// Mean of the natural logarithms of the written tokens' probabilities; 0 before the first.
    pub fn mean_log_probability(&self) -> f32 {
        self.log_probability / self.written.max(1) as f32
    }

    /// Entropy of the last 32 tokens of text, in nats: of 32 that are all different it is 3.47, and
    /// little where the same words come again and again. `None` before there are 32. The measure is
    /// whisper.cpp's, which takes less than 2.4 as a loop.
    pub fn entropy(&self) -> Option<f32> {
        if self.texts < RECENT {
            return None;
        }
        let share = |token: &u32| {
            let equal = self.recent.iter().filter(|other| *other == token);
            equal.count() as f32 / RECENT as f32
        };
        // Each of `n` equal tokens adds its part of their `n` in 32.
        let of_each = |token| -math::log10(share(token)) / RECENT as f32;
        let sum: f32 = self.recent.iter().map(of_each).sum();
        Some(sum * core::f32::consts::LN_10)
    }

    /// Largest number of tokens of the text before a transcript: half of the positions in the
    /// cache, less the one that begins it, as for the paper's program.
    pub fn most_before(&self) -> usize {
        half(self.stream).saturating_sub(1)
    }
}

/// Half of the positions in the cache: as many tokens are written at most.
fn half(stream: &Stream<'_>) -> usize {
    stream.plan().capacity() / 2
}

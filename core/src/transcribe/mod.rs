//! From sound to the tokens of a transcript: Whisper's decoding (Radford et al., arXiv 2212.04356),
//! greedy.
//!
//! A [`Transcriber`] hears a window of sound, of at most as many seconds as the encoder takes, and
//! then writes its tokens one by one, text and times. For a longer sound the caller moves the
//! window: [`Transcriber::done`] says how far.

mod rules;
mod tokens;

pub use tokens::SpeechTokens;

use crate::nn::math;
use crate::sampler::argmax;
use crate::stream::{Stream, StreamError};
use rules::Rules;

/// Wishes for a transcript.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'r> {
    /// Token of the language that is spoken, for models that know several. Without it,
    /// [`Transcriber::detect_language`] finds it.
    pub language: Option<u32>,
    /// True for a translation to English, by models that know several languages.
    pub translate: bool,
    /// True if times are written beside the text.
    pub times: bool,
    /// Tokens of the text before, which tell the model names and style. Of a text that is too long
    /// the last ones are taken.
    pub before: &'r [u32],
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
    /// Number of tokens written, and the sum of the logarithms of their probabilities.
    written: (u32, f32),
    no_speech: f32,
}

impl<'s, 'a> Transcriber<'s, 'a> {
    /// Creates a transcriber of a stream of a speech model, and the tokens of its file.
    pub fn new(stream: &'s mut Stream<'a>, tokens: SpeechTokens<'s>) -> Self {
        Transcriber {
            stream,
            tokens,
            rules: Rules::new(false),
            weighed: false,
            written: (0, 0.0),
            no_speech: 0.0,
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
        self.stream.hear(samples)
    }

    /// Finds the language that is spoken in the window: the most probable one after
    /// [`SpeechTokens::start`]. `None` for models of one language.
    ///
    /// # Errors
    /// As [`Stream::feed`].
    pub fn detect_language(&mut self) -> Result<Option<u32>, StreamError> {
        let Some(after) = self.tokens.translate.min(self.tokens.transcribe) else {
            return Ok(None);
        };
        let first = self.tokens.start + 1;
        self.stream.reset();
        let logits = self.stream.feed(&[self.tokens.start])?;
        let languages = &logits[first as usize..(after as usize).max(first as usize)];
        let language = (!languages.is_empty()).then(|| first + argmax(languages) as u32);
        self.stream.reset();
        Ok(language)
    }

    /// Begins a transcript of the window.
    ///
    /// # Errors
    /// As [`Stream::feed`].
    pub fn begin(&mut self, request: &Request<'_>) -> Result<(), StreamError> {
        self.stream.reset();
        self.rules = Rules::new(request.times);
        self.written = (0, 0.0);
        if let Some(previous) = self.tokens.previous.filter(|_| !request.before.is_empty()) {
            let most = self.most_written() - 1;
            let before = &request.before[request.before.len().saturating_sub(most)..];
            self.stream.absorb(&[previous])?;
            self.stream.absorb(before)?;
        }
        self.stream.feed(&[self.tokens.start])?;
        let no_speech = self.tokens.no_speech as usize;
        let (weights, inverse) = self.stream.softmax();
        self.no_speech = weights[no_speech] * inverse;
        let task = if request.translate {
            self.tokens.translate
        } else {
            self.tokens.transcribe
        };
        let no_times = (!request.times).then_some(self.tokens.no_timestamps);
        let language = request.language.filter(|_| self.tokens.is_multilingual());
        self.weighed = true;
        for token in [language, task, no_times].into_iter().flatten() {
            self.stream.feed(&[token])?;
            self.weighed = false;
        }
        Ok(())
    }

    /// Writes the next piece. After [`Written::End`], begin again.
    ///
    /// # Errors
    /// As [`Stream::feed`].
    pub fn next(&mut self) -> Result<Written, StreamError> {
        let weights = if self.weighed {
            self.stream.logits_and_candidates().0
        } else {
            self.stream.softmax().0
        };
        self.rules.mask(&self.tokens, weights);
        let token = self.rules.choose(&self.tokens, weights);
        let probability = weights[token as usize] / weights.iter().sum::<f32>();
        self.weighed = true;
        self.written.0 += 1;
        self.written.1 += math::log10(probability) * core::f32::consts::LN_10;
        if token == self.tokens.end || self.written.0 as usize > self.most_written() {
            return Ok(Written::End);
        }
        self.rules.note(&self.tokens, token);
        self.stream.feed(&[token])?;
        self.weighed = false;
        Ok(match token.checked_sub(self.tokens.first_time()) {
            Some(step) => Written::Time(step),
            None => Written::Text(token),
        })
    }

    /// Time up to which the window is written down, in steps of [`SpeechTokens::STEP_MS`]; `None`
    /// if that is all of it.
    pub fn done(&self) -> Option<u32> {
        self.rules.done()
    }

    /// Probability that nobody speaks in the window, by the model.
    pub fn no_speech(&self) -> f32 {
        self.no_speech
    }

    /// Mean of the natural logarithms of the written tokens' probabilities; 0 before the first.
    pub fn mean_log_probability(&self) -> f32 {
        self.written.1 / (self.written.0.max(1)) as f32
    }

    /// Largest number of tokens of a transcript, and of the text before it: half of the positions.
    fn most_written(&self) -> usize {
        self.stream.plan().config().context / 2
    }
}

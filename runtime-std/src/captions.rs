//! From a sound of any length to captions: a speech model's window of sound is moved over it.
//!
//! Memory does not grow with the sound: one window of samples is kept, and a window's captions are
//! handed over before the next one is heard.
//!
//! A model that writes times says itself how far it has written its window down. For others the
//! sound is cut at pauses, and what is said between two is one caption.

mod pauses;

use std::ops::Range;
use std::time::{Duration, Instant};

use brooklet_core::speech::SAMPLE_RATE;
use brooklet_core::transcribe::{Request, SpeechTokens, Transcriber, Written};

use crate::engine::Engine;
use crate::generate::Cancel;
use crate::{Error, Model};

/// Probability that nobody speaks from which a window is taken as silence, if the model is also
/// unsure of its words (Radford et al., arXiv 2212.04356, section 4.5).
const SILENCE: f32 = 0.6;

/// Mean logarithm of a token's probability under which the model is unsure of its words (same
/// section).
const UNSURE: f32 = -1.0;

/// Entropy of 32 tokens under which the text is a loop (whisper.cpp's `entropy_thold`).
const LOOP: f32 = 2.4;

/// Temperatures of the tries at a window (same section); the second try comes where the first is a
/// loop or unsure.
const TEMPERATURES: [f32; 6] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0];

/// Temperature above which a text is no good beginning for the next window (the paper's program).
const MISLEADING: f32 = 0.5;

/// Seconds of the longest part of a sound that a model without times hears at once.
const LONGEST: usize = 15;

/// Seconds of the shortest part, but the last.
const LEAST: usize = 5;

/// Wishes for captions.
#[derive(Clone, Debug, Default)]
pub struct CaptionOptions {
    /// Language that is spoken, as its code (`en`); found by the model in the first window if it is
    /// not given.
    pub language: Option<String>,
    /// True for a translation to English instead of what is said.
    pub translate: bool,
    /// Text that the model takes as said before each window: names, and a style. Half of the
    /// model's positions hold it, or it is refused.
    pub prompt: String,
    /// True if the model also sees what it wrote of the windows before, as far as its positions
    /// hold that.
    pub carry: bool,
    /// True if a window whose text is a loop, or of which the model is unsure, is not written
    /// again with draws at rising temperatures. Models without times never are.
    pub once: bool,
}

/// One caption.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Caption {
    /// Its beginning, in seconds of the sound.
    pub start: f64,
    /// Its end, in seconds of the sound.
    pub end: f64,
    /// Its text, without blanks around it.
    pub text: String,
}

/// Time and tokens that the captions of a sound have taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Time of the front end and the encoder.
    pub hearing: Duration,
    /// Number of parts of the sound that were encoded.
    pub parts: usize,
    /// Time of the decoder: prompts and tokens.
    pub writing: Duration,
    /// Tokens that were written, of all tries, their ends included.
    pub tokens: usize,
}

/// A speech model at work on one sound.
pub struct Captions<'e, 'a> {
    engine: &'e mut Engine<'a>,
    tokens: SpeechTokens<'e>,
    options: CaptionOptions,
    language: Option<u32>,
    /// Tokens of the prompt, and after them those of the windows before.
    before: Vec<u32>,
    /// Number of the prompt's.
    prompt: usize,
    /// Samples of the window that are there.
    window: Vec<f32>,
    /// Samples of the sound before the window.
    passed: u64,
    capacity: usize,
    is_over: bool,
    /// Samples of windows that were taken as silence.
    silent: u64,
    /// Captions that were cut.
    cut: usize,
    /// Windows that were written more than once.
    again: usize,
    effort: Effort,
}

impl<'e, 'a> Captions<'e, 'a> {
    /// Captions of one sound by `engine`, an engine of `model`.
    ///
    /// # Errors
    /// [`Error::NoSpeech`] if it is no speech model; if its file lacks a token or its tokenizer; if
    /// it does not know the language.
    pub fn new(
        engine: &'e mut Engine<'a>,
        model: &'e Model,
        options: CaptionOptions,
    ) -> Result<Captions<'e, 'a>, Error> {
        let Some(encoder) = model.config().encoder.get() else {
            return Err(Error::NoSpeech);
        };
        let tokens = SpeechTokens::from_gguf(model.gguf(), model.config().vocab);
        let tokens = tokens.map_err(|error| Error::Model {
            path: model.file().path().to_path_buf(),
            error,
        })?;
        let tokenizer = engine.tokenizer()?;
        let language = match &options.language {
            Some(code) if tokens.is_multilingual() => {
                let token = tokenizer.special(format!("<|{code}|>").as_bytes());
                let token = token.filter(|token| tokens.languages().contains(token));
                Some(token.ok_or_else(|| Error::Language(code.clone()))?)
            }
            // Models of one language are of English.
            Some(code) if code != "en" => return Err(Error::Language(code.clone())),
            _ => None,
        };
        if options.translate && tokens.translate.is_none() {
            return Err(Error::NoTranslation);
        }
        if tokens.previous.is_none() && (options.carry || !options.prompt.is_empty()) {
            return Err(Error::NoPrompt);
        }
        let mut before = Vec::new();
        if !options.prompt.is_empty() {
            // As after a text: with a blank.
            let prompt = format!(" {}", options.prompt.trim());
            let encoding = brooklet_core::tokenizer::EncodeOptions {
                bos: brooklet_core::tokenizer::Mark::Never,
                ..Default::default()
            };
            tokenizer.encode(prompt.as_bytes(), encoding, &mut |token| before.push(token));
            let most = Transcriber::new(engine.stream(), tokens).most_before();
            if before.len() > most {
                let tokens = before.len();
                return Err(Error::PromptTooLong { tokens, most });
            }
        }
        let capacity = match tokens.times {
            Some(_) => encoder.most_samples(),
            None => encoder.most_samples().min(LONGEST * SAMPLE_RATE),
        };
        Ok(Captions {
            engine,
            tokens,
            options,
            language,
            prompt: before.len(),
            before,
            window: Vec::with_capacity(capacity),
            passed: 0,
            capacity,
            is_over: false,
            silent: 0,
            cut: 0,
            again: 0,
            effort: Effort::default(),
        })
    }

    /// Seconds of the sound that are written down.
    pub fn seconds(&self) -> f64 {
        seconds(self.passed)
    }

    /// Seconds of the sound that were taken as silence: nothing was loud, or the model was unsure
    /// that anybody speaks, and unsure of its words.
    pub fn silence(&self) -> f64 {
        seconds(self.silent)
    }

    /// Number of captions that end where the model wrote more than there can be words, or than it
    /// has positions for.
    pub fn cut(&self) -> usize {
        self.cut
    }

    /// Number of windows whose first text was a loop, or too unsure, so that it was written again.
    pub fn again(&self) -> usize {
        self.again
    }

    /// Time and tokens so far.
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// Hears the next window, and hands over its captions, which may be none; returns false at the
    /// end of the sound, or if `cancel` is set. `read` fills a buffer with the next samples of one
    /// channel of [`SAMPLE_RATE`], as many as it can, and returns their number: 0 at the end.
    ///
    /// # Errors
    /// Those of `read`; as [`Transcriber::hear`] and [`Transcriber::write_next`].
    pub fn hear_next<E: From<Error>>(
        &mut self,
        cancel: &Cancel,
        read: &mut dyn FnMut(&mut [f32]) -> Result<usize, E>,
        write: &mut dyn FnMut(Caption) -> Result<(), E>,
    ) -> Result<bool, E> {
        if cancel.is_cancelled() {
            return Ok(false);
        }
        let mut has = self.window.len();
        self.window.resize(self.capacity, 0.0);
        let mut failed = None;
        while has < self.capacity && !self.is_over && failed.is_none() {
            match read(&mut self.window[has..]) {
                Ok(more) => {
                    self.is_over = more == 0;
                    has += more;
                }
                Err(error) => failed = Some(error),
            }
        }
        self.window.truncate(has);
        if let Some(error) = failed {
            return Err(error);
        }
        if has == 0 {
            return Ok(false);
        }
        let (captions, done) = match self.tokens.times {
            Some(_) => self.hear(cancel)?,
            None => self.hear_to_a_pause(cancel)?,
        };
        for caption in captions {
            write(caption)?;
        }
        self.window.drain(..done);
        self.passed += done as u64;
        Ok(true)
    }

    /// The captions of the window, and the samples that they cover.
    fn hear(&mut self, cancel: &Cancel) -> Result<(Vec<Caption>, usize), Error> {
        let has = self.window.len();
        let (stream, tokenizer) = self.engine.parts()?;
        let mut transcriber = Transcriber::new(stream, self.tokens);
        let started = Instant::now();
        transcriber.hear(&self.window)?;
        let heard = Instant::now();
        self.effort.hearing += heard - started;
        self.effort.parts += 1;
        if self.language.is_none() {
            self.language = transcriber.detect_language()?;
        }
        let tries = if self.options.once {
            &TEMPERATURES[..1]
        } else {
            &TEMPERATURES
        };
        let mut written = Vec::new();
        let (mut is_silence, mut is_misleading) = (false, false);
        for (number, temperature) in tries.iter().enumerate() {
            self.again += usize::from(number == 1);
            transcriber.begin(&Request {
                language: self.language,
                translate: self.options.translate,
                times: true,
                before: &self.before,
                temperature: *temperature,
                seed: self.passed + number as u64,
            })?;
            written.clear();
            let is_last = number + 1 == tries.len();
            let is_loop = loop {
                if cancel.is_cancelled() {
                    return Ok((Vec::new(), 0));
                }
                self.effort.tokens += 1;
                match transcriber.write_next()? {
                    Written::End => break false,
                    piece => written.push(piece),
                }
                // The last try goes on: what is said after a repetition is not lost.
                let entropy = transcriber.entropy().filter(|_| !is_last);
                if entropy.is_some_and(|entropy| entropy < LOOP) {
                    break true;
                }
            };
            let is_unsure = transcriber.mean_log_probability() < UNSURE;
            is_silence = is_unsure && transcriber.no_speech() > SILENCE;
            is_misleading = *temperature > MISLEADING;
            if is_last || is_silence || !(is_loop || is_unsure) {
                break;
            }
        }
        self.effort.writing += heard.elapsed();
        if is_silence {
            self.silent += has as u64;
            return Ok((Vec::new(), has));
        }
        let step = SAMPLE_RATE * SpeechTokens::STEP_MS as usize / 1000;
        let done = transcriber
            .done()
            .map_or(has, |steps| (steps as usize).saturating_mul(step));
        let most = transcriber.most_before();
        // A window from which nothing was taken would be heard again for ever.
        let done = if done == 0 { has } else { done.min(has) };
        let offset = seconds(self.passed);
        let all = offset + seconds(has as u64);
        let mut captions = Vec::new();
        let (mut start, mut bytes) = (offset, Vec::new());
        // Tokens of captions that have ended.
        let (mut said, mut complete) = (Vec::new(), 0);
        for piece in written {
            match piece {
                Written::Text(token) => {
                    said.push(token);
                    bytes.extend(tokenizer.piece(token, false));
                }
                Written::Time(time) => {
                    let after = f64::from(time) * f64::from(SpeechTokens::STEP_MS) / 1000.0;
                    said.extend(self.tokens.times.map(|times| times.first + time));
                    // The model may name a time after the sound's end.
                    captions.extend(caption(start..(offset + after).min(all), &bytes));
                    bytes.clear();
                    complete = said.len();
                    start = (offset + after).min(all);
                }
                Written::End => {}
            }
        }
        if done == has {
            captions.extend(caption(start..all, &bytes));
            complete = said.len();
            self.cut += usize::from(transcriber.is_cut());
        }
        if self.options.carry {
            self.before.extend(&said[..complete]);
            if is_misleading {
                self.before.truncate(self.prompt);
            }
            let more = self.before.len().saturating_sub(most.max(self.prompt));
            self.before.drain(self.prompt..self.prompt + more);
        }
        Ok((captions, done))
    }

    /// The caption of the window up to its best pause, and the samples up to there.
    fn hear_to_a_pause(&mut self, cancel: &Cancel) -> Result<(Vec<Caption>, usize), Error> {
        let done = if self.window.len() < self.capacity {
            self.window.len()
        } else {
            pauses::quietest(&self.window, LEAST * SAMPLE_RATE)
        };
        let Some(part) = pauses::loud(&self.window[..done]) else {
            self.silent += done as u64;
            return Ok((Vec::new(), done));
        };
        // Samples go from -1 to 1. A sound that does not is taken as one on another scale.
        let sound = &mut self.window[part.clone()];
        let peak = sound.iter().fold(1.0f32, |most, x| most.max(x.abs()));
        if peak > 1.0 {
            sound.iter_mut().for_each(|x| *x /= peak);
        }
        let (stream, tokenizer) = self.engine.parts()?;
        let mut transcriber = Transcriber::new(stream, self.tokens);
        let started = Instant::now();
        transcriber.hear(&self.window[part.clone()])?;
        let heard = Instant::now();
        self.effort.hearing += heard - started;
        self.effort.parts += 1;
        transcriber.begin(&Request::default())?;
        let mut bytes = Vec::new();
        loop {
            if cancel.is_cancelled() {
                return Ok((Vec::new(), 0));
            }
            self.effort.tokens += 1;
            match transcriber.write_next()? {
                Written::Text(token) => bytes.extend(tokenizer.piece(token, false)),
                Written::Time(_) => {}
                Written::End => break,
            }
        }
        self.effort.writing += heard.elapsed();
        self.cut += usize::from(transcriber.is_cut());
        let at = |sample: usize| seconds(self.passed + sample as u64);
        let caption = caption(at(part.start)..at(part.end), &bytes);
        Ok((caption.into_iter().collect(), done))
    }

    /// Code of the language that is spoken, once it is known; `None` for models of one language.
    ///
    /// # Errors
    /// As [`Engine::decode`].
    pub fn language(&self) -> Result<Option<String>, Error> {
        let name = self
            .language
            .map(|token| self.engine.decode(&[token], true));
        Ok(name.transpose()?.map(|name| {
            let code = name.trim_start_matches("<|").trim_end_matches("|>");
            code.to_owned()
        }))
    }
}

/// The caption of the text that was written from one time to another, if there is any.
fn caption(range: Range<f64>, bytes: &[u8]) -> Option<Caption> {
    // One line: subtitles end at an empty one.
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<&str> = text.split_whitespace().collect();
    let Range { start, end } = range;
    (!words.is_empty()).then(|| Caption {
        start,
        end,
        text: words.join(" "),
    })
}

/// Seconds of a number of samples.
fn seconds(samples: u64) -> f64 {
    samples as f64 / SAMPLE_RATE as f64
}

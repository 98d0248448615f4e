//! Tokens of a speech model that are not text, and its list of tokens never to write.

use core::ops::Range;

use crate::const_fn::tri;
use crate::gguf::{Array, Gguf};
use crate::model::{Family, ModelError};

/// Tokens of a speech model, from the metadata of its file (transcribe.cpp's keys).
#[derive(Clone, Copy)]
pub struct SpeechTokens<'a> {
    /// Begins every transcript.
    pub start: u32,
    /// Ends every transcript. In models that write times, all smaller tokens are text.
    pub end: u32,
    /// Begins the text before the transcript, if the model was trained with such texts.
    pub previous: Option<u32>,
    /// Asks for a transcript in the language that is spoken; models of one language have none.
    pub transcribe: Option<u32>,
    /// Asks for a translation to English, by models that can translate.
    pub translate: Option<u32>,
    /// Tokens of models that write times.
    pub times: Option<TimeTokens>,
    /// Tokens that are never written.
    suppressed: Option<Array<'a>>,
    /// Tokens that are not written first.
    suppressed_first: Option<Array<'a>>,
}

/// Tokens of a model that writes times, and that says whether anybody speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeTokens {
    /// Says that nobody speaks.
    pub no_speech: u32,
    /// Asks for a transcript without times.
    pub none: u32,
    /// The time 0; each further token is [`SpeechTokens::STEP_MS`] later.
    pub first: u32,
}

impl TimeTokens {
    /// The three tokens, which follow each other; `none` is at least 1.
    const fn around(none: u32) -> TimeTokens {
        TimeTokens {
            no_speech: none - 1,
            none,
            first: none + 1,
        }
    }
}

impl<'a> SpeechTokens<'a> {
    /// Milliseconds between two tokens of times.
    pub const STEP_MS: u32 = 20;

    /// Reads the tokens from `file`, whose vocabulary has `vocab` tokens.
    ///
    /// # Errors
    /// The first token that is missing or not in the vocabulary.
    pub const fn from_gguf(file: &Gguf<'a>, vocab: usize) -> Result<SpeechTokens<'a>, ModelError> {
        if let Some(Family::Moonshine) = architecture(file) {
            let start = "stt.moonshine.decoder_start_token_id";
            let end = "stt.moonshine.eos_token_id";
            return Ok(SpeechTokens {
                start: tri!(required(file, start, vocab)),
                end: tri!(required(file, end, vocab)),
                previous: None,
                transcribe: None,
                translate: None,
                times: None,
                suppressed: None,
                suppressed_first: None,
            });
        }
        let start = match tri!(token(file, "stt.whisper.sot_token_id", vocab)) {
            Some(start) => start,
            None => tri!(required(file, "stt.whisper.decoder_start_token_id", vocab)),
        };
        let no_timestamps = tri!(required(file, "stt.whisper.no_timestamps_token_id", vocab));
        if no_timestamps == 0 || no_timestamps as usize + 1 >= vocab {
            return Err(ModelError::OutOfRange {
                key: "stt.whisper.no_timestamps_token_id",
                value: no_timestamps as u64,
            });
        }
        let end = tri!(required(file, "tokenizer.ggml.eos_token_id", vocab));
        if end >= no_timestamps {
            return Err(ModelError::OutOfRange {
                key: "tokenizer.ggml.eos_token_id",
                value: end as u64,
            });
        }
        let has_languages = tri!(capability(file, "stt.capability.lang_detect"));
        let translates = tri!(capability(file, "stt.capability.translate"));
        let transcribe = "stt.whisper.transcribe_token_id";
        let translate = "stt.whisper.translate_token_id";
        Ok(SpeechTokens {
            start,
            end,
            previous: tri!(token(file, "stt.whisper.prev_sot_token_id", vocab)),
            transcribe: if has_languages {
                Some(tri!(required(file, transcribe, vocab)))
            } else {
                None
            },
            translate: if has_languages && translates {
                Some(tri!(required(file, translate, vocab)))
            } else {
                None
            },
            times: Some(TimeTokens::around(no_timestamps)),
            suppressed: tri!(list(file, "stt.whisper.suppress_tokens")),
            suppressed_first: tri!(list(file, "stt.whisper.begin_suppress_tokens")),
        })
    }

    /// Tokens of a model of one language, for tests.
    #[cfg(test)]
    pub(super) const fn of_numbers(start: u32, end: u32, no_timestamps: u32) -> Self {
        SpeechTokens {
            start,
            end,
            previous: None,
            transcribe: None,
            translate: None,
            times: Some(TimeTokens::around(no_timestamps)),
            suppressed: None,
            suppressed_first: None,
        }
    }

    /// Returns true if the model knows several languages.
    pub const fn is_multilingual(&self) -> bool {
        self.transcribe.is_some()
    }

    /// Tokens of the languages that the model knows: those after [`SpeechTokens::start`] and before
    /// the first task. Empty for models of one language.
    pub fn languages(&self) -> Range<u32> {
        let first = self.start + 1;
        let tasks = [self.transcribe, self.translate].into_iter().flatten();
        first..tasks.min().unwrap_or(first).max(first)
    }

    /// Number of the tokens that are no times, of `vocab`.
    pub(super) fn texts(&self, vocab: usize) -> usize {
        self.times.map_or(vocab, |times| times.first as usize)
    }

    /// Steps of the time that `token` is, if it is one.
    pub(super) fn time(&self, token: u32) -> Option<u32> {
        token.checked_sub(self.times?.first)
    }

    /// Calls `visit` with each token that must not be written now.
    pub(super) fn suppressed(&self, is_first: bool, visit: &mut dyn FnMut(usize)) {
        let first = self.suppressed_first.filter(|_| is_first);
        for list in [self.suppressed, first].into_iter().flatten() {
            let mut elements = list.elements();
            while let Some(value) = elements.next_value() {
                // Lists may end with -1, which is no token.
                if let Some(token) = value.as_u64() {
                    visit(usize::try_from(token).unwrap_or(usize::MAX));
                }
            }
        }
    }
}

/// The family that the file names.
const fn architecture(file: &Gguf<'_>) -> Option<Family> {
    match file.get("general.architecture") {
        Some(value) => match value.as_str() {
            Some(name) => Family::named(name),
            None => None,
        },
        None => None,
    }
}

/// Reads a token that may be absent.
const fn token(
    file: &Gguf<'_>,
    key: &'static str,
    vocab: usize,
) -> Result<Option<u32>, ModelError> {
    match file.get(key) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(token) if token < vocab as u64 => Ok(Some(token as u32)),
            Some(value) => Err(ModelError::OutOfRange { key, value }),
            None => Err(ModelError::MissingMetadata(key)),
        },
    }
}

/// Reads a token.
const fn required(file: &Gguf<'_>, key: &'static str, vocab: usize) -> Result<u32, ModelError> {
    match tri!(token(file, key, vocab)) {
        Some(token) => Ok(token),
        None => Err(ModelError::MissingMetadata(key)),
    }
}

/// Reads what the model can do; absent, it cannot.
const fn capability(file: &Gguf<'_>, key: &'static str) -> Result<bool, ModelError> {
    match file.get(key) {
        None => Ok(false),
        Some(value) => match value.as_bool() {
            Some(value) => Ok(value),
            None => Err(ModelError::MissingMetadata(key)),
        },
    }
}

/// Reads a list of tokens that may be absent.
const fn list<'a>(file: &Gguf<'a>, key: &'static str) -> Result<Option<Array<'a>>, ModelError> {
    match file.get(key) {
        None => Ok(None),
        Some(value) => match value.as_array() {
            Some(list) => Ok(Some(list)),
            None => Err(ModelError::MissingMetadata(key)),
        },
    }
}

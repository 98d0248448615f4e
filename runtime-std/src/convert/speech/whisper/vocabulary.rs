//! Whisper's tokens, in the spelling of GPT-2 (a byte is a printable character), and what follows
//! from them: merges, tokens that are never written, the prompt's.

use std::collections::HashMap;

use brooklet_core::gguf::Value;

use super::super::ConvertError;

/// Tokens of the prompt: the key that names each, and its text.
const PROMPT: [(&str, &str); 6] = [
    ("decoder_start", "<|startoftranscript|>"),
    ("sot", "<|startoftranscript|>"),
    ("no_timestamps", "<|notimestamps|>"),
    ("prev_sot", "<|startofprev|>"),
    ("transcribe", "<|transcribe|>"),
    ("translate", "<|translate|>"),
];

/// The token that ends a text, and the first that is no text.
const END: &str = "<|endoftext|>";

/// Codes of the languages, in the order of their tokens; the last came with the third large model.
const LANGUAGES: &str = "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no \
    th ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo \
    so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue";

/// Symbols that are no speech: brackets, marks of speakers and of music, as OpenAI's
/// `whisper/tokenizer.py` lists them. A symbol counts, with or without a space before it, if it is
/// one token; of a sign of music the first token counts, which many signs share.
const SYMBOLS: &str = "\" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 << >> <<< >>> -- --- -( -[ (' (\" \
    (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪";
const MUSIC: &str = "♩ ♪ ♫ ♬ ♭ ♮ ♯";

/// A dash or an apostrophe that begins a word; inside a word they are speech.
const BEFORE_WORDS: [&str; 2] = [" -", " '"];

/// Words of tokens that no text has.
const CONTROL: &str =
    "startoftranscript translate transcribe startoflm startofprev nocaptions nospeech";

/// Bytes of the longest token, spelled, several times those of a real one.
const LONGEST: usize = 1 << 10;

/// Steps of a time token, to 30 s.
const TIMES: usize = 1500;

/// Tokens by number, and the lists that a file has of them.
pub(in super::super) struct Vocabulary {
    pub(in super::super) tokens: Vec<Vec<u8>>,
    pub(super) merges: Vec<Vec<u8>>,
    /// Tokens that are never written.
    pub(in super::super) suppressed: Vec<i32>,
    /// Tokens that no text begins with.
    pub(in super::super) suppressed_first: Vec<i32>,
    numbers: HashMap<Vec<u8>, usize>,
}

impl Vocabulary {
    /// The vocabulary of `tokens`, spelled.
    ///
    /// # Errors
    /// [`ConvertError::Missing`] without the tokens of a Whisper.
    pub(in super::super) fn new(tokens: Vec<Vec<u8>>) -> Result<Vocabulary, ConvertError> {
        let numbers = tokens.iter().cloned().enumerate();
        let mut vocabulary = Vocabulary {
            numbers: numbers.map(|(number, token)| (token, number)).collect(),
            tokens,
            merges: Vec::new(),
            suppressed: Vec::new(),
            suppressed_first: Vec::new(),
        };
        let end = vocabulary.end()?;
        if let Some(token) = vocabulary.tokens.iter().find(|token| token.len() > LONGEST) {
            return Err(ConvertError::Family {
                family: "Whisper",
                why: format!("a token has {} bytes", token.len()),
            });
        }
        vocabulary.merges = vocabulary.find_merges(end as usize);
        vocabulary.suppressed = vocabulary.no_speech();
        let space = vocabulary
            .number(&spelled(b" "))
            .map(|number| number as i32);
        vocabulary.suppressed_first = space.into_iter().chain([end as i32]).collect();
        Ok(vocabulary)
    }

    fn number(&self, token: &[u8]) -> Option<usize> {
        self.numbers.get(token).copied()
    }

    fn required(&self, token: &str) -> Result<u32, ConvertError> {
        let number = self.number(token.as_bytes());
        let number = number.and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| ConvertError::Missing(format!("token {token}")))
    }

    /// The token that ends a text.
    ///
    /// # Errors
    /// [`ConvertError::Missing`].
    pub(super) fn end(&self) -> Result<u32, ConvertError> {
        self.required(END)
    }

    /// The keys of the prompt's tokens.
    ///
    /// # Errors
    /// [`ConvertError::Missing`].
    pub(super) fn prompt(&self) -> Result<Vec<(String, Value<'static>)>, ConvertError> {
        let key = |(key, token): &(&str, &str)| {
            let value = Value::U32(self.required(token)?);
            Ok((format!("stt.whisper.{key}_token_id"), value))
        };
        PROMPT.iter().map(key).collect()
    }

    /// Codes of the languages, whose tokens stand between the start of a transcript and the first
    /// task.
    pub(super) fn languages(&self) -> Vec<Vec<u8>> {
        let [start, task] = ["<|startoftranscript|>", "<|translate|>"]
            .map(|token| self.number(token.as_bytes()).unwrap_or(0));
        let codes = self.tokens.get(start + 1..task).unwrap_or_default();
        let code = |token: &Vec<u8>| {
            let inner = token.strip_prefix(b"<|")?.strip_suffix(b"|>")?;
            Some(inner.to_vec())
        };
        codes.iter().filter_map(code).collect()
    }

    /// The number in `tokenizer.ggml.token_type` of every token: 1 for text, 3 for control.
    ///
    /// # Errors
    /// [`ConvertError::Missing`].
    pub(super) fn types(&self) -> Result<Vec<i32>, ConvertError> {
        let end = self.end()? as usize;
        let kind = |number| if number < end { 1 } else { 3 };
        Ok((0..self.tokens.len()).map(kind).collect())
    }

    /// The two halves of every token below `end` that is not one byte, as byte-pair encoding joins
    /// them: what joins is a token of a lower number than the result, and the lowest number first.
    fn find_merges(&self, end: usize) -> Vec<Vec<u8>> {
        let mut merges = Vec::new();
        for (number, token) in self.tokens[..end].iter().enumerate() {
            let Ok(text) = std::str::from_utf8(token) else {
                continue;
            };
            // Ends of the parts.
            let mut ends: Vec<usize> = text.char_indices().map(|(at, _)| at).skip(1).collect();
            ends.push(text.len());
            let part = |ends: &[usize], i: usize, count: usize| {
                let start = if i == 0 { 0 } else { ends[i - 1] };
                token[start..ends[i + count - 1]].to_vec()
            };
            while ends.len() > 2 {
                let pairs = (0..ends.len() - 1).filter_map(|i| {
                    let joined = self.number(&part(&ends, i, 2))?;
                    (joined < number).then_some((joined, i))
                });
                let Some((_, first)) = pairs.min() else {
                    break;
                };
                ends.remove(first);
            }
            if ends.len() == 2 {
                merges.push([part(&ends, 0, 1), part(&ends, 1, 1)].join(&b' '));
            }
        }
        merges
    }

    /// Tokens that are no speech, in order.
    fn no_speech(&self) -> Vec<i32> {
        let mut found: Vec<usize> = Vec::new();
        found.extend(
            BEFORE_WORDS
                .iter()
                .filter_map(|text| self.number(&spelled(text.as_bytes()))),
        );
        let music = MUSIC.split_whitespace();
        for (symbol, is_music) in SYMBOLS
            .split_whitespace()
            .map(|symbol| (symbol, false))
            .chain(music.map(|symbol| (symbol, true)))
        {
            for text in [symbol.to_owned(), format!(" {symbol}")] {
                let word = spelled(text.as_bytes());
                let starts = (1..=word.len())
                    .rev()
                    .filter_map(|end| self.number(&word[..end]));
                let whole = self.number(&word);
                found.extend(if is_music { { starts }.next() } else { whole });
            }
        }
        let control = CONTROL.split_whitespace();
        found.extend(control.filter_map(|word| self.number(format!("<|{word}|>").as_bytes())));
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|number| number as i32).collect()
    }
}

/// Bytes in GPT-2's spelling: the inverse of `bytes_to_unicode` of OpenAI's `gpt-2` repository is
/// in `core`'s tokenizer.
pub(in super::super) fn spelled(bytes: &[u8]) -> Vec<u8> {
    let character = |byte: &u8| match u32::from(*byte) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => code,
        code @ 0..=0x20 => 0x100 + code,
        code @ 0x7F..=0xA0 => 0x121 + code - 0x7F,
        _ => 0x143,
    };
    let characters = bytes
        .iter()
        .filter_map(|byte| char::from_u32(character(byte)));
    characters.collect::<String>().into_bytes()
}

/// The `count` tokens of a model whose file has the bytes of those that are text, and of others
/// only some: OpenAI's names stand for the rest.
///
/// # Errors
/// [`ConvertError::Size`] if no Whisper has `count` tokens.
pub(in super::super) fn from_bytes(
    texts: &[&[u8]],
    count: usize,
) -> Result<Vec<Vec<u8>>, ConvertError> {
    let codes: Vec<&str> = LANGUAGES.split_whitespace().collect();
    let control = [
        "translate",
        "transcribe",
        "startoflm",
        "startofprev",
        "nocaptions",
        "notimestamps",
    ];
    let mut names = vec![END.to_owned(), "<|startoftranscript|>".into()];
    // Models of one language have 50,256 texts and 99 languages, the others one text more and
    // perhaps a language more.
    let (end, languages) = match count {
        51_864 => (50_256, 99),
        51_865 => (50_257, 99),
        51_866 => (50_257, 100),
        _ => {
            return Err(ConvertError::Size {
                what: "the vocabulary".into(),
                found: count,
                expected: 51_865,
            });
        }
    };
    names.extend(codes[..languages].iter().map(|code| format!("<|{code}|>")));
    names.extend(control.iter().map(|word| format!("<|{word}|>")));
    names.extend((0..=TIMES).map(|step| format!("<|{}.{:02}|>", step / 50, step % 50 * 2)));
    if texts.len() < end {
        return Err(ConvertError::Size {
            what: "the list of tokens that are text".into(),
            found: texts.len(),
            expected: end,
        });
    }
    let mut tokens: Vec<Vec<u8>> = texts[..end].iter().map(|text| spelled(text)).collect();
    tokens.extend(names.into_iter().map(String::into_bytes));
    Ok(tokens)
}

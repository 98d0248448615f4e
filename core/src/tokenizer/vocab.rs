//! Checked metadata of a GGUF file's tokenizer; nothing is built yet.
//!
//! Keys and types: the *GGUF* specification, section "Tokenizer" (`docs/gguf.md` of ggml).
//! Defaults, and conclusions from a token's name when the file says nothing: llama.cpp's
//! `llama-vocab.cpp`.

use super::error::{Field, Name, TokenizerError};
use super::index::Spelling;
use super::merge::Window;
use super::split::PreTokenizer;
use crate::arena::Carver;
use crate::const_fn::{same, tri};
use crate::gguf::{Array, Gguf, Value};

/// The two algorithms, with the data that only one of them has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Model<'a> {
    /// Byte-level BPE.
    Bpe {
        pre: PreTokenizer,
        merges: Array<'a>,
    },
    /// SentencePiece.
    Spm {
        scores: Scores<'a>,
        space_prefix: bool,
    },
}

/// Scores of SentencePiece's tokens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scores<'a> {
    /// All are 0.
    None,
    /// One for each token.
    Listed(Array<'a>),
    /// The smaller a token's number, the higher its score.
    ByNumber,
}

/// Purpose of a token: the numbers of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// A model's vocabulary: borrowed, validated metadata of a GGUF file.
///
/// It knows how much memory a [`super::Tokenizer`] needs, so that a plan can be made from it, also
/// in `const`.
#[derive(Clone, Copy, Debug)]
pub struct Vocab<'a> {
    pub(super) model: Model<'a>,
    pub(super) tokens: Array<'a>,
    types: Option<Array<'a>>,
    /// Control, unknown and user-defined tokens.
    specials: usize,
    index_bytes: usize,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
    /// True if the file's name says that it is a Phi-3, whose special tokens take the blanks after
    /// them.
    pub(super) is_phi3: bool,
    /// Tokens that end generation; `ends[..ends_len]` are set.
    ends: [u32; MAX_ENDS],
    ends_len: usize,
}

/// Names of tokens that end an answer, whatever type the file gives them: the names that llama.cpp
/// knows.
const END_NAMES: [&[u8]; 31] = [
    b"<|eot_id|>",
    b"<|im_end|>",
    b"<|end|>",
    b"<|return|>",
    b"<|call|>",
    b"<|flush|>",
    b"<|calls|>",
    b"<end_of_turn>",
    b"<|endoftext|>",
    b"</s>",
    b"<|eom_id|>",
    b"<EOT>",
    b"_<EOT>",
    b"[EOT]",
    b"[EOS]",
    b"<|end_of_text|>",
    b"<end_of_utterance>",
    b"<eos>",
    b"<turn|>",
    "<\u{FF5C}end\u{2581}of\u{2581}sentence\u{FF5C}>".as_bytes(),
    // Separators of documents in code models: the text after them is no longer the answer.
    b"<|fim_pad|>",
    b"<fim-pad>",
    b"<fim_pad>",
    b"<PAD>",
    b"[PAD]",
    b"<|fim_repo|>",
    b"<|repo_name|>",
    b"<fim-repo>",
    b"<REPO>",
    b"<reponame>",
    b"<|file_sep|>",
];

/// Keys of the ids of more tokens that end an answer: of turns and messages, and the separators of
/// documents in code models.
const END_KEYS: [&str; 5] = [
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];

/// Room for each name, for the end-of-sequence token, and for each key.
const MAX_ENDS: usize = END_NAMES.len() + 1 + END_KEYS.len();

/// Number of slots of the index's table for `len` strings.
pub(super) const fn table_len(len: usize) -> usize {
    len.saturating_add(len / 2).saturating_add(1)
}

impl<'a> Vocab<'a> {
    /// Reads and checks the tokenizer of `file`.
    ///
    /// Ids out of range are ignored, as if the file did not have them; invalid merges and tokens
    /// are left out of the index later (see [`super::Tokenizer::new`]).
    ///
    /// # Errors
    /// If an entry is missing, of the wrong type, too short, or unknown to this crate.
    pub const fn from_gguf(file: &Gguf<'a>) -> Result<Self, TokenizerError> {
        let tokens = match tri!(array(file, Field::Tokens, 8)) {
            Some(tokens) => tokens,
            None => return Err(TokenizerError::Missing(Field::Tokens)),
        };
        if tokens.is_empty() {
            return Err(TokenizerError::BadSize(Field::Tokens));
        }
        let types = tri!(per_token(file, Field::TokenTypes, 5, tokens.len()));
        let model = tri!(read_model(file, tokens.len()));
        let (bos, eos, unknown, add_bos) = match model {
            Model::Bpe { pre, .. } => (None, None, None, pre.ignores_merges()),
            Model::Spm { .. } => (Some(1), Some(2), Some(0), true),
        };
        let mut vocab = Vocab {
            model,
            tokens,
            types,
            specials: 0,
            index_bytes: 0,
            bos: token_id(file, "tokenizer.ggml.bos_token_id", bos, tokens.len()),
            eos: token_id(file, "tokenizer.ggml.eos_token_id", eos, tokens.len()),
            unknown: token_id(
                file,
                "tokenizer.ggml.unknown_token_id",
                unknown,
                tokens.len(),
            ),
            add_bos: tri!(flag(file, Field::AddBos, add_bos)),
            add_eos: tri!(flag(file, Field::AddEos, false)),
            is_phi3: is_named_phi3(file),
            ends: [0; MAX_ENDS],
            ends_len: 0,
        };
        vocab.add_end(vocab.eos);
        let mut entries = file.metadata();
        while let Some((key, value)) = entries.next_entry() {
            if is_end_key(key)
                && let Some(id) = value.as_u64()
                && id < tokens.len() as u64
            {
                vocab.add_end(Some(id as u32));
            }
        }
        vocab.walk();
        vocab.index_bytes = tri!(vocab.measure());
        Ok(vocab)
    }

    /// Counts the special tokens and collects those whose names mean that they end generation.
    const fn walk(&mut self) {
        let mut elements = self.tokens.elements();
        let mut id = 0;
        while let Some(value) = elements.next_value() {
            if let Some(text) = value.as_bytes() {
                if ends_by_name(text) {
                    self.add_end(Some(id));
                }
                if matches!(
                    self.kind(id, text),
                    Kind::Control | Kind::Unknown | Kind::UserDefined
                ) {
                    self.specials += 1;
                }
            }
            id += 1;
        }
    }

    const fn add_end(&mut self, id: Option<u32>) {
        if let Some(id) = id
            && !self.is_end_of_generation(id)
            && self.ends_len < MAX_ENDS
        {
            self.ends[self.ends_len] = id;
            self.ends_len += 1;
        }
    }

    /// Lengths of the index's parts, each of `u32`: offsets of tokens, the tables of tokens and of
    /// merges, special tokens.
    pub(super) const fn parts(&self) -> [usize; 4] {
        let merges = match self.merges() {
            Some(merges) => merges.len(),
            None => 0,
        };
        let tokens = self.tokens.len();
        [tokens, table_len(tokens), table_len(merges), self.specials]
    }

    /// Merges of byte-level BPE.
    pub(super) const fn merges(&self) -> Option<Array<'a>> {
        match self.model {
            Model::Bpe { merges, .. } => Some(merges),
            Model::Spm { .. } => None,
        }
    }

    /// Spelling of tokens and merges in the file.
    pub(super) const fn spelling(&self) -> Spelling {
        match self.model {
            Model::Bpe { .. } => Spelling::Mapped,
            Model::Spm { .. } => Spelling::Plain,
        }
    }

    const fn measure(&self) -> Result<usize, TokenizerError> {
        let parts = self.parts();
        let mut bytes = 0usize;
        let mut i = 0;
        while i < parts.len() {
            let Some(part) = Carver::part_bytes::<u32>(parts[i]) else {
                return Err(TokenizerError::BadSize(Field::Tokens));
            };
            bytes = match bytes.checked_add(part) {
                Some(bytes) => bytes,
                None => return Err(TokenizerError::BadSize(Field::Tokens)),
            };
            i += 1;
        }
        Ok(bytes)
    }

    /// Number of tokens.
    pub const fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Returns true if there is no token, which never happens: a vocabulary has at least one.
    pub const fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Number of bytes of memory for a [`super::Tokenizer`] that builds its own index, and whose
    /// window holds pieces of up to `piece` bytes whole (rounded up to a power of two, at least
    /// 64): the index, and 17 bytes for each byte of the window.
    pub const fn index_bytes(&self, piece: usize) -> usize {
        self.index_bytes
            .saturating_add(Window::bytes(Window::capacity(piece)))
    }

    /// Number of bytes of memory for a [`super::Tokenizer`] over an
    /// [`IndexedVocab`](super::IndexedVocab): only the window of [`Vocab::index_bytes`].
    pub const fn window_bytes(&self, piece: usize) -> usize {
        Window::bytes(Window::capacity(piece))
    }

    /// Number of bytes of the index alone.
    pub(super) const fn tables_bytes(&self) -> usize {
        self.index_bytes
    }

    /// Returns true if generation ends with this token: end of sequence, of a turn or of a message,
    /// by the file's metadata or by one of the usual names (`<|im_end|>`, `<|endoftext|>`,
    /// `<|eot_id|>`, `<end_of_turn>`, `</s>`, ...).
    pub const fn is_end_of_generation(&self, id: u32) -> bool {
        let mut i = 0;
        while i < self.ends_len {
            if self.ends[i] == id {
                return true;
            }
            i += 1;
        }
        false
    }

    /// Tokens for which [`Vocab::is_end_of_generation`] is true.
    pub const fn ends(&self) -> &[u32] {
        self.ends.split_at(self.ends_len).0
    }

    /// Purpose of token `id`, spelled `text`.
    pub(super) const fn kind(&self, id: u32, text: &[u8]) -> Kind {
        if ends_by_name(text) {
            return Kind::Control;
        }
        let number = match self.types {
            None => return Kind::Normal,
            Some(types) => match types.get(id as usize) {
                Some(Value::I32(number)) => number,
                _ => 0,
            },
        };
        match number {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            6 => Kind::Byte,
            _ => Kind::Unused,
        }
    }

    /// Score of a token; the better of two merges has the higher score. 0 if the file has no
    /// scores.
    pub(super) fn score(&self, id: u32) -> f32 {
        let Model::Spm { scores, .. } = self.model else {
            return 0.0;
        };
        match scores {
            Scores::None => 0.0,
            Scores::Listed(scores) => scores
                .get(id as usize)
                .and_then(|score| score.as_f32())
                .unwrap_or(0.0),
            Scores::ByNumber => -(id as f32),
        }
    }
}

const fn read_model<'a>(file: &Gguf<'a>, tokens: usize) -> Result<Model<'a>, TokenizerError> {
    match tri!(string(file, Field::Model)) {
        None => Err(TokenizerError::Missing(Field::Model)),
        Some(b"gpt2") => {
            let name = match tri!(string(file, Field::Pre)) {
                Some(name) => name,
                None => return Err(TokenizerError::Missing(Field::Pre)),
            };
            let Some(pre) = PreTokenizer::named(name) else {
                return Err(TokenizerError::UnknownPreTokenizer(Name::new(name)));
            };
            match tri!(array(file, Field::Merges, 8)) {
                Some(merges) => Ok(Model::Bpe { pre, merges }),
                None => Err(TokenizerError::Missing(Field::Merges)),
            }
        }
        Some(b"llama") => Ok(Model::Spm {
            scores: match tri!(per_token(file, Field::Scores, 6, tokens)) {
                Some(scores) => Scores::Listed(scores),
                None => Scores::None,
            },
            space_prefix: tri!(flag(file, Field::AddSpacePrefix, true)),
        }),
        // SentencePiece's BPE in files of speech models. Its merges are in the order of its pieces.
        Some(b"bpe") if falls_back_to_bytes(file) => Ok(Model::Spm {
            scores: Scores::ByNumber,
            space_prefix: tri!(flag(file, Field::AddSpacePrefix, true)),
        }),
        Some(name) => Err(TokenizerError::UnknownModel(Name::new(name))),
    }
}

/// Returns true if the file says that characters without a token become tokens of bytes, as only
/// SentencePiece's do.
const fn falls_back_to_bytes(file: &Gguf<'_>) -> bool {
    match file.get("tokenizer.ggml.byte_fallback") {
        Some(value) => matches!(value.as_bool(), Some(true)),
        None => false,
    }
}

const fn string<'a>(file: &Gguf<'a>, field: Field) -> Result<Option<&'a [u8]>, TokenizerError> {
    match file.get(field.key()) {
        None => Ok(None),
        Some(Value::Str(bytes)) => Ok(Some(bytes)),
        Some(_) => Err(TokenizerError::WrongType(field)),
    }
}

/// Returns the array of `field`, whose elements must have the specification's type number
/// `element`; it must have fewer than 2^32 - 1 of them.
const fn array<'a>(
    file: &Gguf<'a>,
    field: Field,
    element: u32,
) -> Result<Option<Array<'a>>, TokenizerError> {
    match file.get(field.key()) {
        None => Ok(None),
        Some(Value::Array(array)) if array.element_type() == element => {
            if array.len() as u64 >= u32::MAX as u64 {
                return Err(TokenizerError::BadSize(field));
            }
            Ok(Some(array))
        }
        Some(_) => Err(TokenizerError::WrongType(field)),
    }
}

/// Returns the array as [`array`] does, but checks that it has an element for each token.
const fn per_token<'a>(
    file: &Gguf<'a>,
    field: Field,
    element: u32,
    tokens: usize,
) -> Result<Option<Array<'a>>, TokenizerError> {
    let found = tri!(array(file, field, element));
    if let Some(array) = found
        && array.len() < tokens
    {
        let found = array.len();
        return Err(TokenizerError::TooFew {
            field,
            found,
            tokens,
        });
    }
    Ok(found)
}

/// Returns the token id under `key`, else `default`, if it is a token of the vocabulary.
const fn token_id(file: &Gguf<'_>, key: &str, default: Option<u32>, tokens: usize) -> Option<u32> {
    let default = match default {
        Some(id) if (id as usize) < tokens => default,
        _ => None,
    };
    match file.get(key) {
        None => default,
        Some(value) => match value.as_u64() {
            Some(id) if id < tokens as u64 => Some(id as u32),
            _ => default,
        },
    }
}

const fn flag(file: &Gguf<'_>, field: Field, default: bool) -> Result<bool, TokenizerError> {
    match file.get(field.key()) {
        None => Ok(default),
        Some(Value::Bool(value)) => Ok(value),
        Some(_) => Err(TokenizerError::WrongType(field)),
    }
}

/// Returns true if `general.name` contains `phi3` or `phi-3`, in any case.
const fn is_named_phi3(file: &Gguf<'_>) -> bool {
    let Some(Value::Str(name)) = file.get("general.name") else {
        return false;
    };
    let mut at = 0;
    while at + 4 <= name.len() {
        let dash = if name[at + 3] == b'-' { 1 } else { 0 };
        let word = [name[at], name[at + 1], name[at + 2]];
        if word.eq_ignore_ascii_case(b"phi")
            && at + 3 + dash < name.len()
            && name[at + 3 + dash] == b'3'
        {
            return true;
        }
        at += 1;
    }
    false
}

/// First bytes of [`END_NAMES`]. Few tokens begin so: the others need not be compared.
const END_NAMES_BEGIN: [u8; 3] = *b"<[_";

const _: () = {
    let mut i = 0;
    while i < END_NAMES.len() {
        assert!(begins_as_an_end(END_NAMES[i]));
        i += 1;
    }
};

const fn begins_as_an_end(text: &[u8]) -> bool {
    let [a, b, c] = END_NAMES_BEGIN;
    !text.is_empty() && (text[0] == a || text[0] == b || text[0] == c)
}

/// Returns true if the token whose id is under this key ends generation.
const fn is_end_key(key: &str) -> bool {
    let mut i = 0;
    while i < END_KEYS.len() {
        if same(key.as_bytes(), END_KEYS[i].as_bytes()) {
            return true;
        }
        i += 1;
    }
    false
}

/// Returns true if a token with this name ends generation.
const fn ends_by_name(text: &[u8]) -> bool {
    if !begins_as_an_end(text) {
        return false;
    }
    let mut i = 0;
    while i < END_NAMES.len() {
        if same(text, END_NAMES[i]) {
            return true;
        }
        i += 1;
    }
    false
}

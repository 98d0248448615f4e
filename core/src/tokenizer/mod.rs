//! Text to token ids and back, from the metadata of a GGUF file: byte-level BPE (`gpt2`) and
//! SentencePiece (`llama`).
//!
//! The ids are llama.cpp's. A [`Vocab`] is the checked metadata and knows how much memory is
//! needed. A [`Tokenizer`] is that memory, filled: an index over the strings in the file, which are
//! never copied, and a window of text in which symbols are merged. Metadata is untrusted: invalid
//! entries are refused or left out, and for every text the work per byte is bounded.
//!
//! # Where ids may differ from llama.cpp's
//!
//! - A piece (a word; a run of blanks; for SentencePiece a word with its spaces) longer than the
//!   window is merged window by window: the ids are the same unless a merge depends on text more
//!   than half a window ahead. A window of four times the longest token (1024 bytes for SmolLM2,
//!   whose longest are 80 blanks) gave the same ids on every text tried.
//! - Control tokens never come from merging. In llama.cpp a text may spell one by accident.
//! - A merge that makes no token falls back to the tokens of its bytes; llama.cpp drops those
//!   beyond ASCII.
//! - Bytes that spell a code point over 0x10FFFF become U+FFFD in BPE; llama.cpp throws an
//!   exception. (Other bytes that are not UTF-8 become U+FFFD in both, one by one; SentencePiece
//!   keeps them as byte tokens in both.)
//! - Special tokens longer than 256 bytes are not found.
//! - With the pre-tokenizers `gpt-4o` and `tekken` words are split by the case of all letters, and
//!   marks belong to words, as in the models' own tokenizers; llama.cpp knows ASCII's case only.
//!
//! As in llama.cpp, text is not normalised: Qwen's own tokenizers bring it into the form NFC first.
//!
//! ```
//! use brooklet_core::gguf::Gguf;
//! use brooklet_core::tokenizer::{Field, TokenizerError, Vocab};
//! // A file without metadata or tensors. `Vocab` is made in `const`, so a board's build can fail
//! // here.
//! const FILE: &[u8] = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
//! const VOCAB: Result<Vocab, TokenizerError> = match Gguf::parse(FILE) {
//!     Ok(file) => Vocab::from_gguf(&file),
//!     Err(_) => panic!("not a GGUF file"),
//! };
//! assert_eq!(VOCAB.err(), Some(TokenizerError::Missing(Field::Tokens)));
//! ```

mod bpe;
mod build;
mod bytes;
mod case_table;
mod decode;
mod error;
mod index;
mod indexed;
mod merge;
mod special;
mod split;
mod spm;
mod unicode;
mod unicode_table;
mod vocab;

pub use decode::{Piece, Utf8Stream};
pub use error::{Field, Name, TokenizerError};
pub use indexed::{IndexedVocab, Tables, TablesView};
pub use split::PreTokenizer;
pub use vocab::Vocab;

use core::ops::Range;

use bpe::{Bpe, characters};
use decode::Form;
use merge::{MIN_WINDOW, Window};
use special::Allowed;
use spm::{Escaped, Spm};
use vocab::{Kind, Model};

use crate::arena::Carver;

/// Setting for the token that marks one end of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Mark {
    /// The choice of the model's metadata.
    #[default]
    Model,
    /// Always, if the model has such a token.
    Always,
    /// Never.
    Never,
}

impl Mark {
    fn token(self, token: Option<u32>, default: bool) -> Option<u32> {
        token.filter(|_| self == Mark::Always || (self == Mark::Model && default))
    }
}

/// Options of encoding a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct EncodeOptions {
    /// Token of the start of a sequence, before the text.
    pub bos: Mark,
    /// Token of the end of a sequence, after the text.
    pub eos: Mark,
    /// True if control tokens written out in the text (`<|im_start|>`) become those tokens. Only
    /// for text that the program wrote itself: a user could forge turns with them. User-defined
    /// tokens are always found.
    pub special: bool,
    /// True if the text continues the one before it. SentencePiece then puts no blank before its
    /// first word.
    pub continued: bool,
}

/// Encoder and decoder, made from a [`Vocab`] and a piece of memory.
pub struct Tokenizer<'a> {
    indexed: IndexedVocab<'a>,
    window: Window<'a>,
}

impl<'a> Tokenizer<'a> {
    /// Builds the index of `vocab` in `memory`; the rest of the memory becomes the window.
    /// [`Vocab::index_bytes`] gives the needed size.
    ///
    /// Empty tokens are never found in a text. Of tokens with the same string, and of equal merges,
    /// the first counts. Merges that do not consist of two halves are left out.
    ///
    /// # Errors
    /// If the memory is too small or misaligned, or too many of the file's strings collide in the
    /// index.
    pub fn new(vocab: &Vocab<'a>, memory: &'a mut [u8]) -> Result<Self, TokenizerError> {
        let given = memory.len();
        let needed = vocab.index_bytes(MIN_WINDOW);
        let short = TokenizerError::OutOfMemory { needed, given };
        if given < needed {
            return Err(short);
        }
        let mut carver = Carver::new(memory).ok_or(TokenizerError::Misaligned)?;
        let words = carver.take(IndexedVocab::words(vocab)).ok_or(short)?;
        let indexed = IndexedVocab::build(vocab, words)?;
        let window = Window::take(&mut carver, given - vocab.tables_bytes()).ok_or(short)?;
        Ok(Tokenizer { indexed, window })
    }

    /// Creates a tokenizer over a finished index, in flash; `memory` becomes the window.
    /// [`Vocab::window_bytes`] gives the needed size.
    ///
    /// # Errors
    /// If the memory is too small or misaligned.
    pub fn over(indexed: IndexedVocab<'a>, memory: &'a mut [u8]) -> Result<Self, TokenizerError> {
        let given = memory.len();
        let needed = Window::bytes(MIN_WINDOW);
        let mut carver = Carver::new(memory).ok_or(TokenizerError::Misaligned)?;
        let window = Window::take(&mut carver, given)
            .ok_or(TokenizerError::OutOfMemory { needed, given })?;
        Ok(Tokenizer { indexed, window })
    }

    /// Calls `out` with each token of `text`, in order. The text may be any bytes, and as long as a
    /// whole book.
    pub fn encode(&mut self, text: &[u8], options: EncodeOptions, out: &mut dyn FnMut(u32)) {
        self.encode_quoting(text, options, &[], out);
    }

    /// Encodes as [`Tokenizer::encode`] does, but the bytes in the ranges `quoted` are a user's
    /// words within a text of the program: control tokens written there, even in part, remain text.
    /// So a chat template and the messages in it become the tokens of one text, and the user cannot
    /// forge a turn.
    pub fn encode_quoting(
        &mut self,
        text: &[u8],
        options: EncodeOptions,
        quoted: &[Range<usize>],
        out: &mut dyn FnMut(u32),
    ) {
        let allowed = Allowed {
            control: options.special,
            quoted,
        };
        if let Some(bos) = options
            .bos
            .token(self.indexed.vocab.bos, self.indexed.vocab.add_bos)
        {
            out(bos);
        }
        let mut at = 0;
        while at < text.len() {
            let special = self.indexed.specials.next(text, at, allowed);
            let end = special.map_or(text.len(), |special| special.start);
            // Every fragment except the first follows a special token, and the first counts as if
            // it did.
            self.fragment(&text[at..end], options.continued && at == 0, out);
            at = end;
            if let Some(special) = special {
                out(special.id);
                at += special.len;
                if self.indexed.specials.swallows_blanks(special.id) {
                    at += text[at..]
                        .iter()
                        .take_while(|&&byte| is_blank(byte))
                        .count();
                }
            }
        }
        if let Some(eos) = options
            .eos
            .token(self.indexed.vocab.eos, self.indexed.vocab.add_eos)
        {
            out(eos);
        }
    }

    /// Encodes text without special tokens.
    fn fragment(&mut self, mut text: &[u8], continued: bool, out: &mut dyn FnMut(u32)) {
        let (vocab, index) = (self.indexed.vocab, self.indexed.index);
        match vocab.model {
            Model::Bpe { pre, .. } => {
                let ignores_merges = pre.ignores_merges();
                let rules = Bpe {
                    index,
                    ignores_merges,
                };
                while !text.is_empty() {
                    let (piece, rest) = text.split_at(pre.piece(text));
                    self.window.encode(characters(piece), &rules, out);
                    text = rest;
                }
            }
            Model::Spm { space_prefix, .. } => {
                let rules = Spm { vocab, index };
                let mut escaped =
                    Escaped::new(text, space_prefix && !continued && !text.is_empty());
                while !escaped.is_empty() {
                    self.window
                        .encode(escaped.word(self.indexed.words_apart), &rules, out);
                }
            }
        }
    }

    /// Bytes of token `id`; empty if there is no such token. Control and unknown tokens have bytes
    /// (their names) only with `special`; unused ones never. With SentencePiece the first word of a
    /// text includes the space that encoding put before it.
    pub fn piece(&self, id: u32, special: bool) -> Piece<'a> {
        let text = self.indexed.index.text(id);
        let normal = match self.indexed.vocab.model {
            Model::Bpe { .. } => Form::Mapped,
            Model::Spm { .. } => Form::Escaped,
        };
        match self.indexed.vocab.kind(id, text) {
            Kind::Normal => Piece::new(normal, text),
            Kind::Byte => Piece::new(Form::Byte, text),
            Kind::UserDefined => Piece::new(Form::Plain, text),
            Kind::Control | Kind::Unknown if special => Piece::new(Form::Plain, text),
            Kind::Control | Kind::Unknown | Kind::Unused => Piece::new(Form::Plain, &[]),
        }
    }

    /// Returns the control, unknown or user-defined token with this name, such as `<|im_start|>`.
    pub fn special(&self, name: &[u8]) -> Option<u32> {
        self.indexed.specials.named(name)
    }

    /// Token of the start of a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.indexed.vocab.bos
    }

    /// Token of the end of a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.indexed.vocab.eos
    }

    /// Returns true if generation ends with this token; see [`Vocab::is_end_of_generation`].
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.indexed.vocab.is_end_of_generation(id)
    }

    /// Vocabulary that the tokenizer was made from.
    pub fn vocab(&self) -> &Vocab<'a> {
        &self.indexed.vocab
    }
}

/// Returns true for the characters of C's `isspace`.
const fn is_blank(byte: u8) -> bool {
    byte == b' ' || (b'\t' <= byte && byte <= b'\r')
}

#[cfg(test)]
mod tests;

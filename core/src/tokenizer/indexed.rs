//! A vocabulary with its index: everything that a tokenizer needs except memory to work in.

use super::build::{self, Parts, Summary};
use super::error::TokenizerError;
use super::index::Index;
use super::special::Specials;
use super::vocab::Vocab;
use crate::const_fn::tri;

/// A [`Vocab`] and the tables that find its tokens and merges by their bytes.
///
/// On hosts [`Tokenizer::new`](super::Tokenizer::new) makes them. On a board the compiler makes
/// them ([`embed_model!`](crate::embed_model) does it), and they lie in flash:
///
/// ```
/// # #![allow(long_running_const_eval)]
/// use brooklet_core::gguf::Gguf;
/// use brooklet_core::tokenizer::{IndexedVocab, Tables, Vocab};
///
/// static FILE: &[u8] = include_bytes!("../../tests/data/random.gguf");
/// const VOCAB: Vocab<'static> = match Gguf::parse(FILE) {
///     Ok(file) => match Vocab::from_gguf(&file) {
///         Ok(vocab) => vocab,
///         Err(_) => panic!("no tokenizer"),
///     },
///     Err(_) => panic!("not a GGUF file"),
/// };
/// static TABLES: Tables<{ IndexedVocab::words(&VOCAB) }> = match Tables::build(&VOCAB) {
///     Ok(tables) => tables,
///     Err(_) => panic!("made to collide"),
/// };
/// const INDEXED: IndexedVocab<'static> = TABLES.over(VOCAB);
/// assert_eq!(INDEXED.vocab().len(), VOCAB.len());
/// ```
#[derive(Clone, Copy)]
pub struct IndexedVocab<'a> {
    pub(super) vocab: Vocab<'a>,
    pub(super) index: Index<'a>,
    pub(super) specials: Specials<'a>,
    /// SentencePiece only: words can be merged one by one.
    pub(super) words_apart: bool,
}

/// The tables of a vocabulary, by value, for a static: `N` is [`IndexedVocab::words`].
pub struct Tables<const N: usize> {
    words: [u32; N],
    summary: Summary,
}

impl<const N: usize> Tables<N> {
    /// Fills the tables.
    ///
    /// # Errors
    /// If too many of the file's strings collide in the tables.
    ///
    /// # Panics
    /// If `N` is less than [`IndexedVocab::words`].
    pub const fn build(vocab: &Vocab<'_>) -> Result<Self, TokenizerError> {
        let mut words = [0; N];
        let summary = tri!(build::fill(vocab, cut(vocab, &mut words)));
        Ok(Tables { words, summary })
    }

    /// Returns the vocabulary that the tables were filled for, with the tables. (Over another
    /// vocabulary, nothing is found.)
    pub const fn over<'a>(&'a self, vocab: Vocab<'a>) -> IndexedVocab<'a> {
        self.view().over(vocab)
    }

    /// Returns the tables without their size in the type.
    pub const fn view(&self) -> TablesView<'_> {
        TablesView {
            words: &self.words,
            summary: self.summary,
        }
    }
}

/// [`Tables`] of any size, borrowed.
#[derive(Clone, Copy)]
pub struct TablesView<'a> {
    words: &'a [u32],
    summary: Summary,
}

impl<'a> TablesView<'a> {
    /// As [`Tables::over`].
    pub const fn over(self, vocab: Vocab<'a>) -> IndexedVocab<'a> {
        IndexedVocab::over(vocab, self.words, self.summary)
    }
}

impl<'a> IndexedVocab<'a> {
    /// Number of 32-bit words that the tables of `vocab` take.
    pub const fn words(vocab: &Vocab<'_>) -> usize {
        vocab.tables_bytes() / 4
    }

    /// Fills the tables in `words`.
    ///
    /// # Errors
    /// If too many of the file's strings collide in the tables.
    ///
    /// # Panics
    /// If there are fewer words than [`IndexedVocab::words`].
    pub fn build(vocab: &Vocab<'a>, words: &'a mut [u32]) -> Result<Self, TokenizerError> {
        let summary = build::fill(vocab, cut(vocab, words))?;
        Ok(IndexedVocab::over(*vocab, words, summary))
    }

    const fn over(vocab: Vocab<'a>, words: &'a [u32], summary: Summary) -> Self {
        let lens = vocab.parts();
        let (offsets, rest) = words.split_at(padded(lens[0]));
        let (tokens, rest) = rest.split_at(padded(lens[1]));
        let (ranks, specials) = rest.split_at(padded(lens[2]));
        let (offsets, _) = offsets.split_at(lens[0]);
        let (tokens, _) = tokens.split_at(lens[1]);
        let (ranks, _) = ranks.split_at(lens[2]);
        let index = Index::over(&vocab, summary.extent, offsets, tokens, ranks);
        IndexedVocab {
            vocab,
            index,
            specials: Specials::over(vocab, index, summary.specials, specials),
            words_apart: summary.words_apart,
        }
    }

    /// Vocabulary without its index.
    pub const fn vocab(&self) -> &Vocab<'a> {
        &self.vocab
    }
}

/// Number of words of a part, with the padding to the next part, which starts on a cache line.
const fn padded(len: usize) -> usize {
    len.next_multiple_of(crate::arena::ALIGN / 4)
}

/// Cuts an index's memory into its parts.
const fn cut<'m>(vocab: &Vocab<'_>, words: &'m mut [u32]) -> Parts<'m> {
    let lens = vocab.parts();
    let (offsets, rest) = words.split_at_mut(padded(lens[0]));
    let (tokens, rest) = rest.split_at_mut(padded(lens[1]));
    let (ranks, specials) = rest.split_at_mut(padded(lens[2]));
    let (offsets, _) = offsets.split_at_mut(lens[0]);
    let (tokens, _) = tokens.split_at_mut(lens[1]);
    let (ranks, _) = ranks.split_at_mut(lens[2]);
    let (specials, _) = specials.split_at_mut(lens[3]);
    Parts {
        offsets,
        tokens,
        ranks,
        specials,
    }
}

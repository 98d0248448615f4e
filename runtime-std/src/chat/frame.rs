//! The tokens of a conversation: what the template writes around messages, and the messages in it.

use brooklet_core::tokenizer::{EncodeOptions, Mark, Tokenizer};

use super::ChatError;
use super::ledger::Sizes;
use super::template::{Framed, Template, TemplateError};

/// Words before which the opening's tokens must be the same: of each kind that tokenizers treat in
/// a way of its own. Words that begin with a blank are rare, and would often grow together with the
/// opening's last line break.
const PROBES: [&str; 5] = ["a", "1", "?", "\u{e9}", "\u{4f60}"];

/// Tokens that are the same in every exchange of a conversation.
#[derive(Default)]
pub(super) struct Frame {
    /// The system prompt.
    pub(super) prefix: Vec<u32>,
    /// The text before the words of the oldest message.
    pub(super) opening: Vec<u32>,
    /// The text after a question's words.
    pub(super) after: Vec<u32>,
    /// The text before an answer.
    pub(super) open: Vec<u32>,
    /// The text after an answer.
    pub(super) close: Vec<u32>,
}

impl Frame {
    /// The frame of conversations with this system prompt.
    pub(super) fn new(
        template: &Template,
        system: Option<&str>,
        tokenizer: &mut Tokenizer<'_>,
    ) -> Result<Frame, TemplateError> {
        let question = template.question(system, true, "")?;
        let mut opening = encode(tokenizer, &before_words(&question), Mark::Never);
        for words in PROBES {
            let question = template.question(system, true, words)?;
            let tokens = encode(tokenizer, &question, Mark::Never);
            opening.truncate(common(&opening, &tokens));
        }
        let mut plain = |text: &str| encode(tokenizer, &Framed::plain(text), Mark::Never);
        let mut after = Vec::new();
        for first in [true, false] {
            let question = template.question(system, first, "x")?;
            let tokens = plain(&question.text[question.words.end..]);
            if tokens.len() > after.len() {
                after = tokens;
            }
        }
        let (open, close) = (
            plain(&template.open(system)?),
            plain(&template.close(system)?),
        );
        Ok(Frame {
            prefix: encode(tokenizer, &template.prefix(system)?, Mark::Model),
            opening,
            after,
            open,
            close,
        })
    }

    /// Tokens that are never evicted.
    pub(super) fn pinned(&self) -> usize {
        self.prefix.len() + self.opening.len()
    }

    /// Their numbers.
    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            after: self.after.len(),
            open: self.open.len(),
            close: self.close.len(),
        }
    }

    /// Checks that a cache of `capacity` tokens has room for the system prompt and `least` tokens,
    /// and for an exchange.
    pub(super) fn check(&self, least: usize, capacity: usize) -> Result<(), ChatError> {
        let prefix = self.prefix.len();
        if prefix + least > capacity {
            return Err(ChatError::System {
                tokens: prefix,
                least,
                capacity,
            });
        }
        let tokens = self.pinned() + self.sizes().least_window();
        if tokens > capacity {
            return Err(ChatError::Frame { tokens, capacity });
        }
        Ok(())
    }

    /// The tokens of a question that is the oldest message, behind the opening.
    pub(super) fn first_question(
        &self,
        tokenizer: &mut Tokenizer<'_>,
        question: &Framed,
    ) -> Vec<u32> {
        let mut tokens = encode(tokenizer, question, Mark::Never);
        if tokens.starts_with(&self.opening) {
            return tokens.split_off(self.opening.len());
        }
        // Words that grow together with the opening: it stays as it is pinned, and they are
        // tokens of their own.
        let opening = encode(tokenizer, &before_words(question), Mark::Never);
        let words = Framed {
            text: question.text[question.words.start..].to_owned(),
            words: 0..question.words.len(),
        };
        let words = encode(tokenizer, &words, Mark::Never);
        let rest = &opening[self.opening.len().min(opening.len())..];
        [rest, &words].concat()
    }

    /// The tokens of a question that follows an exchange, and how many of them are its opening.
    pub(super) fn later_question(
        &self,
        tokenizer: &mut Tokenizer<'_>,
        question: &Framed,
    ) -> (Vec<u32>, usize) {
        let tokens = encode(tokenizer, question, Mark::Never);
        let opening = if !self.opening.is_empty() && tokens.starts_with(&self.opening) {
            self.opening.len()
        } else if self.pinned() == 0 {
            // Nothing is pinned that could stand in for it.
            0
        } else {
            let before = encode(tokenizer, &before_words(question), Mark::Never);
            common(&before, &tokens)
        };
        (tokens, opening)
    }
}

/// The part of a question before its words.
fn before_words(question: &Framed) -> Framed {
    Framed::plain(&question.text[..question.words.start])
}

/// Number of tokens with which both begin.
fn common(one: &[u32], other: &[u32]) -> usize {
    let pairs = one.iter().zip(other);
    pairs.take_while(|(one, other)| one == other).count()
}

/// The tokens of a framed text.
pub(super) fn encode(tokenizer: &mut Tokenizer<'_>, framed: &Framed, bos: Mark) -> Vec<u32> {
    let options = EncodeOptions {
        bos,
        eos: Mark::Never,
        special: true,
        continued: bos == Mark::Never,
    };
    let mut tokens = Vec::new();
    let words = std::slice::from_ref(&framed.words);
    let text = framed.text.as_bytes();
    tokenizer.encode_quoting(text, options, words, &mut |token| tokens.push(token));
    // Many templates write the start token that the tokenizer puts there too.
    if let (Mark::Model, [first, second, ..], Some(bos)) = (bos, &*tokens, tokenizer.bos())
        && *first == bos
        && *second == bos
    {
        tokens.remove(0);
    }
    tokens
}

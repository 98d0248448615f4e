//! A conversation for ever, in a fixed number of bytes.
//!
//! The system prompt is pinned: its tokens are the attention sinks (StreamingLLM, Xiao et al.,
//! arXiv 2309.17453, section 3.2). When the window is full, whole messages leave, the oldest first,
//! so that what the model sees is always a conversation that begins with a message; only a message
//! longer than the window itself leaves token by token.

mod bounded;
mod error;
mod memory;
mod template;

use brooklet_core::sampler::Sampler;
use brooklet_core::stream::{Stream, StreamError};
use brooklet_core::tokenizer::{EncodeOptions, Mark, Tokenizer};

use crate::engine::Engine;
use crate::generate::{Feed, Next, Report, Request, generate_with};
use crate::text::TextSink;
pub use error::ChatError;
use memory::Memory;
pub use memory::Role;
pub use template::{CHATML, Framed, Template, TemplateError};

/// Tokens that a system prompt must leave for the conversation: a question and the beginning of an
/// answer.
const LEAST_WINDOW: usize = 32;

/// A message as far as it is in the window.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LiveMessage {
    /// Its author.
    pub role: Role,
    /// Number of its exchange, counted from 1.
    pub turn: u64,
    /// True if none of its tokens has left.
    pub whole: bool,
    /// Tokens in the window.
    pub tokens: usize,
    /// Their text, frame and control tokens included.
    pub text: String,
}

/// A conversation at work.
pub struct Chat<'c, 'a> {
    memory: Memory<'c, 'a>,
    tokenizer: &'c mut Tokenizer<'a>,
    template: Template,
    system: Option<String>,
    turn: u64,
    is_first: bool,
}

impl<'c, 'a> Chat<'c, 'a> {
    /// Starts a conversation on an engine whose policy is `sink`.
    ///
    /// # Errors
    /// If the file has no tokenizer, or the system prompt does not fit.
    pub fn new(
        engine: &'c mut Engine<'a>,
        template: Template,
        system: Option<String>,
    ) -> Result<Chat<'c, 'a>, ChatError> {
        let (stream, tokenizer) = engine.parts()?;
        let mut chat = Chat {
            memory: Memory::new(stream),
            tokenizer,
            template,
            system: None,
            turn: 0,
            is_first: true,
        };
        chat.set_system(system)?;
        Ok(chat)
    }

    /// Forgets all messages and pins another system prompt.
    ///
    /// # Errors
    /// If it does not fit; then nothing was forgotten.
    pub fn set_system(&mut self, system: Option<String>) -> Result<(), ChatError> {
        let prefix = self.template.prefix(system.as_deref())?;
        let tokens = self.encode(&prefix, Mark::Model);
        let (len, capacity) = (tokens.len(), self.memory.capacity());
        if len + LEAST_WINDOW > capacity {
            return Err(ChatError::System {
                tokens: len,
                least: LEAST_WINDOW,
                capacity,
            });
        }
        self.memory.begin(&tokens)?;
        self.system = system;
        self.is_first = true;
        Ok(())
    }

    /// Forgets all messages. The system prompt stays where it is, and is not computed again.
    ///
    /// # Errors
    /// None with the policy `sink`.
    pub fn reset(&mut self) -> Result<(), ChatError> {
        self.memory.forget()?;
        self.is_first = true;
        Ok(())
    }

    /// The system prompt.
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Says `words` to the model and writes its answer to `sink`. Interrupted or ended at a limit,
    /// the answer counts as complete.
    ///
    /// # Errors
    /// If the sink fails.
    pub fn say(
        &mut self,
        words: &str,
        request: &Request,
        sampler: &mut Sampler,
        sink: &mut dyn TextSink,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Report, ChatError> {
        let system = self.system.as_deref();
        let question = self.template.question(system, self.is_first, words)?;
        let (open, close) = (self.template.open(system)?, self.template.close(system)?);
        let question_tokens = self.encode(&question, Mark::Never);
        let mut prompt = question_tokens.clone();
        prompt.extend(self.encode(&Framed::plain(&open), Mark::Never));
        self.turn += 1;
        self.is_first = false;
        self.memory.open(Role::User, self.turn, question_tokens.len())?;
        let mut talk = Talk {
            memory: &mut self.memory,
            turn: self.turn,
            left_of_question: question_tokens.len(),
            is_answer: false,
        };
        let report = generate_with(
            &mut talk,
            self.tokenizer,
            &prompt,
            request,
            sampler,
            sink,
            interrupted,
        )?;
        // The frame is always completed, even if the exchange ended in the middle of the question.
        let mut rest: Vec<u32> = report.pending.into_iter().collect();
        if report.prompt_tokens < question_tokens.len() {
            rest.extend(self.encode(&Framed::plain(&question.text[question.words.end..]), Mark::Never));
        }
        for part in rest.chunks(self.memory.chunk()) {
            self.memory.absorb(part)?;
        }
        let close = self.encode(&Framed::plain(&close), Mark::Never);
        if !close.is_empty() {
            self.memory.absorb(&close)?;
        }
        Ok(report)
    }

    /// Exchanges so far.
    pub fn turn(&self) -> u64 {
        self.turn
    }

    /// The stream, for inspection.
    pub fn stream(&self) -> &Stream<'a> {
        self.memory.stream()
    }

    /// The text of the tokens that are never evicted.
    pub fn pinned(&self) -> String {
        self.text_of(self.memory.pinned())
    }

    /// The messages in the window, the oldest first, read from the tokens in the cache's slots.
    pub fn live(&self) -> Vec<LiveMessage> {
        let message = |(span, whole, tokens): (memory::Span, bool, Vec<u32>)| LiveMessage {
            role: span.role,
            turn: span.turn,
            whole,
            tokens: tokens.len(),
            text: self.text_of(&tokens),
        };
        self.memory.live().map(message).collect()
    }

    fn text_of(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|id| self.tokenizer.piece(*id, true))
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn encode(&mut self, framed: &Framed, bos: Mark) -> Vec<u32> {
        let options = EncodeOptions {
            bos,
            eos: Mark::Never,
            special: true,
            continued: bos == Mark::Never,
        };
        let mut tokens = Vec::new();
        let words = std::slice::from_ref(&framed.words);
        let text = framed.text.as_bytes();
        self.tokenizer
            .encode_quoting(text, options, words, &mut |token| tokens.push(token));
        // Many templates write the start token that the tokenizer puts there too.
        if let (Mark::Model, [first, second, ..], Some(bos)) = (bos, &*tokens, self.tokenizer.bos())
            && *first == bos
            && *second == bos
        {
            tokens.remove(0);
        }
        tokens
    }
}

/// The memory during an exchange: the tokens after the question's are the answer's.
struct Talk<'t, 's, 'a> {
    memory: &'t mut Memory<'s, 'a>,
    turn: u64,
    left_of_question: usize,
    is_answer: bool,
}

impl Talk<'_, '_, '_> {
    /// Feeds the part of `tokens` that belongs to the question, unless that is all of them, and
    /// returns the rest, which belongs to one message.
    fn enter<'t>(&mut self, tokens: &'t [u32]) -> Result<&'t [u32], StreamError> {
        let left = self.left_of_question;
        if tokens.len() <= left {
            self.left_of_question -= tokens.len();
            return Ok(tokens);
        }
        self.left_of_question = 0;
        if left > 0 {
            self.memory.absorb(&tokens[..left])?;
        }
        if !self.is_answer {
            self.is_answer = true;
            self.memory
                .open(Role::Assistant, self.turn, tokens.len() - left)?;
        }
        Ok(&tokens[left..])
    }
}

impl Feed for Talk<'_, '_, '_> {
    fn chunk(&self) -> usize {
        self.memory.chunk()
    }

    fn absorb(&mut self, tokens: &[u32]) -> Result<(), StreamError> {
        let tokens = self.enter(tokens)?;
        self.memory.absorb(tokens)
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<Next<'_>, StreamError> {
        let tokens = self.enter(tokens)?;
        self.memory.feed(tokens)
    }

    fn last(&mut self) -> Next<'_> {
        self.memory.last()
    }
}

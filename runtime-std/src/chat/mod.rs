//! A conversation for ever, in a fixed number of bytes.
//!
//! The system prompt is pinned: its tokens are the attention sinks (StreamingLLM, Xiao et al.,
//! arXiv 2309.17453, section 3.2). When the window is full, whole messages leave, the oldest first,
//! so that what the model sees is always a conversation that begins with a message; only a message
//! longer than the window itself leaves token by token.

mod bounded;
pub mod builtin;
mod error;
mod functions;
mod memory;
mod template;

use brooklet_core::sampler::Sampler;
use brooklet_core::stream::StreamError;
use brooklet_core::tokenizer::{EncodeOptions, Mark, Tokenizer};

use crate::generate::{Feed, Next, Report, Request, Writing};
use crate::session::Session;
use crate::text::TextSink;
pub use error::ChatError;
pub use memory::Role;
use memory::{Memory, Notes};
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
    /// Its exchange, counted from 1.
    pub turn: u64,
    /// True if all of its tokens are still in the window.
    pub whole: bool,
    /// Tokens in the window.
    pub tokens: usize,
    /// Their text, frame and control tokens included.
    pub text: String,
}

/// A conversation: a session and what was said in it. It can be stored, and sent to other threads.
pub struct Chat {
    session: Session,
    notes: Notes,
    template: Template,
    system: Option<String>,
    turn: u64,
    is_first: bool,
}

impl Chat {
    /// Starts a conversation in a session whose policy is `sink`, from its start.
    ///
    /// # Errors
    /// If the file has no tokenizer, or the system prompt does not fit.
    pub fn new(
        session: Session,
        template: Template,
        system: Option<String>,
    ) -> Result<Chat, ChatError> {
        let mut chat = Chat {
            notes: Notes::new(session.ring().capacity()),
            session,
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
        let notes = &mut self.notes;
        self.session.with(|engine| {
            let (stream, tokenizer) = engine.parts()?;
            let tokens = encode(tokenizer, &prefix, Mark::Model);
            let (len, capacity) = (tokens.len(), notes.capacity());
            if len + LEAST_WINDOW > capacity {
                return Err(ChatError::System {
                    tokens: len,
                    least: LEAST_WINDOW,
                    capacity,
                });
            }
            Ok(Memory { stream, notes }.begin(&tokens)?)
        })?;
        self.system = system;
        self.is_first = true;
        Ok(())
    }

    /// Forgets all messages. The system prompt stays where it is, and is not computed again.
    ///
    /// # Errors
    /// None with the policy `sink`.
    pub fn reset(&mut self) -> Result<(), ChatError> {
        let notes = &mut self.notes;
        self.session.with(|engine| {
            let stream = engine.stream();
            Memory { stream, notes }.forget()
        })?;
        self.is_first = true;
        Ok(())
    }

    /// The system prompt.
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Says `words` to the model and writes its answer to `sink`. Cancelled or ended at a limit,
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
    ) -> Result<Report, ChatError> {
        let system = self.system.as_deref();
        let question = self.template.question(system, self.is_first, words)?;
        let (open, close) = (self.template.open(system)?, self.template.close(system)?);
        self.turn += 1;
        self.is_first = false;
        let (turn, notes) = (self.turn, &mut self.notes);
        self.session.with(|engine| {
            let (stream, tokenizer) = engine.parts()?;
            let mut memory = Memory { stream, notes };
            let question_tokens = encode(tokenizer, &question, Mark::Never);
            let mut prompt = question_tokens.clone();
            prompt.extend(encode(tokenizer, &Framed::plain(&open), Mark::Never));
            memory.open(Role::User, turn, question_tokens.len())?;
            let mut talk = Talk {
                memory: &mut memory,
                turn,
                left_of_question: question_tokens.len(),
                is_answer: false,
            };
            let writing = Writing {
                feed: &mut talk,
                tokenizer,
                sampler,
                request,
            };
            let report = writing.run(&prompt, sink)?;
            // The frame is completed whatever ended the answer, be it in the middle of the
            // question.
            let mut rest: Vec<u32> = report.pending.into_iter().collect();
            if report.prompt_tokens < question_tokens.len() {
                let after = Framed::plain(&question.text[question.words.end..]);
                rest.extend(encode(tokenizer, &after, Mark::Never));
            }
            for part in rest.chunks(memory.chunk()) {
                memory.absorb(part)?;
            }
            let close = encode(tokenizer, &Framed::plain(&close), Mark::Never);
            if !close.is_empty() {
                memory.absorb(&close)?;
            }
            Ok(report)
        })
    }

    /// Exchanges so far.
    pub fn turn(&self) -> u64 {
        self.turn
    }

    /// The session, to be asked what it holds.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The text of the tokens that are never evicted.
    pub fn pinned(&self) -> String {
        self.text_of(self.notes.pinned(self.session.ring()))
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
        self.notes.live(self.session.ring()).map(message).collect()
    }

    /// Control tokens included. A chat has a tokenizer, or it would not have started.
    fn text_of(&self, tokens: &[u32]) -> String {
        self.session.decode(tokens, true).unwrap_or_default()
    }
}

/// The tokens of a framed text.
fn encode(tokenizer: &mut Tokenizer<'_>, framed: &Framed, bos: Mark) -> Vec<u32> {
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

/// The memory during an exchange: the tokens after the question's are the answer's.
struct Talk<'t, 's, 'a> {
    memory: &'t mut Memory<'s, 'a>,
    turn: u64,
    left_of_question: usize,
    is_answer: bool,
}

impl Talk<'_, '_, '_> {
    /// Feeds what of `tokens` belongs to the question, if that is not all, and returns the rest,
    /// which belongs to one message.
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

//! A conversation for ever, in a fixed number of bytes.
//!
//! The system prompt is pinned, with what the template writes before a message: their tokens are
//! the attention sinks (StreamingLLM, Xiao et al., arXiv 2309.17453, section 3.2). When the window
//! is full, whole exchanges leave, the oldest first, so that what the model sees is always a
//! conversation that begins with a message. The message being answered never leaves whole: where
//! nothing older is left it leaves token by token, behind its own opening, until its end is left;
//! then the answer ends. `ledger.rs` has the rule, and [`Cut`] tells what it did.

mod bounded;
pub mod builtin;
mod error;
mod frame;
mod functions;
mod ledger;
mod memory;
mod template;

use brooklet_core::sampler::Sampler;
use brooklet_core::stream::StreamError;
use brooklet_core::tokenizer::{Mark, Tokenizer};

use crate::generate::{Feed, Next, Report, Request, Writing};
use crate::session::Session;
use crate::text::TextSink;
pub use error::ChatError;
use frame::{Frame, encode};
use ledger::Left;
use memory::{Live, Memory, Notes, Question};
pub use template::{CHATML, Framed, Template, TemplateError};

/// Tokens that a system prompt must leave for the conversation: a question and the beginning of an
/// answer.
const LEAST_WINDOW: usize = 32;

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Assistant,
}

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

/// Losses of an exchange to a window that is too small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Cut {
    /// Tokens of the message, its frame included.
    pub message: usize,
    /// Its first tokens that were left out, because the window is smaller.
    pub left_out: usize,
    /// Its next tokens, which left the window while it was answered.
    pub left: usize,
    /// Older messages that left the window.
    pub forgotten: usize,
}

/// The result of an exchange.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Said {
    /// The answer's numbers. It [ends at a full window](crate::generate::Finish::Full) before the
    /// last words of the message would leave it.
    pub report: Report,
    /// The losses.
    pub cut: Cut,
}

/// A conversation: a session and what was said in it. It can be stored, and sent to other threads.
pub struct Chat {
    session: Session,
    notes: Notes,
    template: Template,
    frame: Frame,
    system: Option<String>,
    turn: u64,
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
            frame: Frame::default(),
            system: None,
            turn: 0,
        };
        chat.set_system(system)?;
        Ok(chat)
    }

    /// Forgets all messages and pins another system prompt.
    ///
    /// # Errors
    /// If it does not fit; then nothing was forgotten.
    pub fn set_system(&mut self, system: Option<String>) -> Result<(), ChatError> {
        let (notes, template) = (&mut self.notes, &self.template);
        self.frame = self.session.with(|engine| {
            let (stream, tokenizer) = engine.parts()?;
            let frame = Frame::new(template, system.as_deref(), tokenizer)?;
            frame.check(LEAST_WINDOW, notes.capacity())?;
            Memory::new(stream, notes).begin(&frame.prefix, &frame.opening)?;
            Ok::<Frame, ChatError>(frame)
        })?;
        self.system = system;
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
            Memory::new(stream, notes).forget()
        })?;
        Ok(())
    }

    /// Forgets the last exchange, and computes the messages before it again, as far as they were in
    /// the window; false if there is none.
    ///
    /// # Errors
    /// The engine's.
    pub fn undo(&mut self) -> Result<bool, ChatError> {
        let mut live: Vec<Live> = self.notes.live(self.session.ring()).collect();
        let Some(last) = live.last().map(|live| live.span.turn) else {
            return Ok(false);
        };
        live.retain(|live| live.span.turn != last);
        let notes = &mut self.notes;
        self.session.with(|engine| {
            let stream = engine.stream();
            Memory::new(stream, notes).rebuild(&live)
        })?;
        Ok(true)
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
    ) -> Result<Said, ChatError> {
        self.exchange(words, |tokenizer, prompt, mut talk| {
            let writing = Writing {
                feed: &mut talk,
                tokenizer,
                sampler,
                request,
            };
            let report = writing.run(prompt, sink)?;
            Ok((report.prompt_tokens, report.pending, report))
        })
        .map(|(report, cut)| Said { report, cut })
    }

    /// Takes in an exchange of long ago as if it were said now. An answer longer than the window
    /// ends where that is full.
    ///
    /// # Errors
    /// The engine's.
    pub fn recall(&mut self, words: &str, answer: &str) -> Result<Cut, ChatError> {
        self.exchange(words, |tokenizer, prompt, mut talk| {
            let framed = Framed {
                words: 0..answer.len(),
                text: answer.to_owned(),
            };
            let answer = encode(tokenizer, &framed, Mark::Never);
            for part in prompt.chunks(talk.chunk()) {
                talk.absorb(part)?;
            }
            for token in answer {
                match talk.absorb(&[token]) {
                    Err(StreamError::Full { .. }) => break,
                    absorbed => absorbed?,
                }
            }
            Ok((prompt.len(), None, ()))
        })
        .map(|((), cut)| cut)
    }

    /// Feeds a question and what `answer` makes of it: how many tokens of the prompt were fed, and
    /// a last token that was not. The frame is completed whatever ended the answer, be it in the
    /// middle of the question.
    fn exchange<R>(
        &mut self,
        words: &str,
        answer: impl FnOnce(
            &mut Tokenizer<'_>,
            &[u32],
            Talk<'_, '_, '_>,
        ) -> Result<(usize, Option<u32>, R), ChatError>,
    ) -> Result<(R, Cut), ChatError> {
        let system = self.system.as_deref();
        let first = self.template.question(system, true, words)?;
        let later = self.template.question(system, false, words)?;
        self.turn += 1;
        let (turn, notes, frame) = (self.turn, &mut self.notes, &self.frame);
        notes.left = Left::default();
        self.session.with(|engine| {
            let (stream, tokenizer) = engine.parts()?;
            let (window, sizes) = (notes.window(), frame.sizes());
            let mut memory = Memory::new(stream, notes);
            let (mut tokens, mut opening) = frame.later_question(tokenizer, &later);
            let mut length = tokens.len();
            let mut left_out = 0;
            if memory.make_room(tokens.len() + sizes.open + 1)? {
                tokens = frame.first_question(tokenizer, &first);
                length = frame.opening.len() + tokens.len();
                opening = 0;
                left_out = tokens.len().saturating_sub(sizes.longest_question(window));
                tokens.drain(..left_out);
            }
            memory.open_question(&Question {
                turn,
                opening,
                kept: sizes.kept(window),
                is_cut: left_out > 0,
            });
            let question = tokens.len();
            let mut prompt = tokens;
            prompt.extend(&frame.open);
            let mut is_answer = false;
            let talk = Talk {
                memory: &mut memory,
                left_of_question: question,
                is_answer: &mut is_answer,
                reserved: sizes.close + 1,
            };
            let (fed, pending, result) = answer(tokenizer, &prompt, talk)?;
            memory.reserved = 0;
            if fed < question {
                memory.absorb_all(&frame.after)?;
            }
            if !is_answer {
                memory.open_answer();
            }
            let mut rest = prompt[fed.max(question)..].to_vec();
            rest.extend(pending);
            rest.extend(&frame.close);
            memory.absorb_all(&rest)?;
            let left = memory.notes.left;
            let cut = Cut {
                message: length,
                left_out,
                left: left.of_question as usize,
                forgotten: left.messages,
            };
            Ok((result, cut))
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

    /// The text of the system prompt's tokens, which are never evicted.
    pub fn pinned(&self) -> String {
        self.text_of(self.notes.pinned(self.session.ring()))
    }

    /// The messages in the window, the oldest first, read from the tokens in the cache's slots.
    pub fn live(&self) -> Vec<LiveMessage> {
        let message = |live: Live| LiveMessage {
            role: live.span.role,
            turn: live.span.turn,
            whole: live.whole,
            tokens: live.tokens.len(),
            text: self.text_of(&live.tokens),
        };
        self.notes.live(self.session.ring()).map(message).collect()
    }

    /// Control tokens included. A chat has a tokenizer, or it would not have started.
    fn text_of(&self, tokens: &[u32]) -> String {
        self.session.decode(tokens, true).unwrap_or_default()
    }
}

/// The memory during an exchange: the tokens after the question's are the answer's.
struct Talk<'t, 's, 'a> {
    memory: &'t mut Memory<'s, 'a>,
    left_of_question: usize,
    is_answer: &'t mut bool,
    /// Tokens that must still fit behind the answer.
    reserved: usize,
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
        if !*self.is_answer {
            *self.is_answer = true;
            self.memory.reserved = self.reserved;
            self.memory.open_answer();
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

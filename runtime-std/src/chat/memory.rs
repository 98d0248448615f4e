//! The memory of a chat: a stream, and the message that each of its tokens belongs to.

use brooklet_core::cache::Ring;
use brooklet_core::stream::{Stream, StreamError};

use super::Role;
use super::ledger::{Ledger, Left, NoRoom, Span};
use crate::generate::{Feed, Next};

/// A message that is live, as tokens.
pub(super) struct Live {
    pub(super) span: Span,
    /// True if all of its tokens are.
    pub(super) whole: bool,
    /// Those that are.
    pub(super) tokens: Vec<u32>,
}

/// Account of the tokens in a stream's slots.
pub(super) struct Notes {
    /// By slot.
    tokens: Vec<u32>,
    pub(super) ledger: Ledger,
    /// Pinned tokens before the opening of a message.
    prefix: usize,
    /// Pinned tokens of the opening.
    opening: usize,
    /// Tokens that have left during the current exchange.
    pub(super) left: Left,
}

impl Notes {
    /// Notes of a stream that keeps at most `capacity` tokens.
    pub(super) fn new(capacity: usize) -> Self {
        Notes {
            tokens: vec![0; capacity],
            ledger: Ledger::new(capacity),
            prefix: 0,
            opening: 0,
            left: Left::default(),
        }
    }

    /// Slots of the cache.
    pub(super) fn capacity(&self) -> usize {
        self.tokens.len()
    }

    /// Slots for messages.
    pub(super) fn window(&self) -> usize {
        self.ledger.window() as usize
    }

    /// Pinned tokens before the opening of a message; without any, those of the planned sinks.
    pub(super) fn pinned(&self, ring: &Ring) -> &[u32] {
        match self.prefix + self.opening {
            0 => &self.tokens[..ring.sinks().min(ring.live())],
            _ => &self.tokens[..self.prefix],
        }
    }

    /// Pinned tokens of the opening.
    pub(super) fn opening(&self) -> &[u32] {
        &self.tokens[self.prefix..][..self.opening]
    }

    /// Messages that are live, the oldest first.
    pub(super) fn live<'n>(&'n self, ring: &'n Ring) -> impl Iterator<Item = Live> + 'n {
        self.ledger.spans().enumerate().map(move |(index, span)| {
            // The oldest message has its opening among the pinned tokens.
            let opening = if index == 0 { self.opening() } else { &[] };
            let window = (span.start.max(ring.window_start())..span.end())
                .map(|at| self.tokens[ring.slot(at)]);
            Live {
                span: *span,
                whole: self.ledger.is_whole(span),
                tokens: opening.iter().copied().chain(window).collect(),
            }
        })
    }

    fn note_left(&mut self, left: Left) {
        self.left.tokens += left.tokens;
        self.left.messages += left.messages;
        self.left.of_question += left.of_question;
    }
}

/// A question that is to be opened.
pub(super) struct Question {
    pub(super) turn: u64,
    /// Number of its tokens that are its opening.
    pub(super) opening: usize,
    /// Last tokens that stay in the window.
    pub(super) kept: usize,
    /// True if its first tokens were left out.
    pub(super) is_cut: bool,
}

/// A stream whose tokens are noted.
pub(super) struct Memory<'s, 'a> {
    pub(super) stream: &'s mut Stream<'a>,
    pub(super) notes: &'s mut Notes,
    /// Tokens that must still fit behind what is fed.
    pub(super) reserved: usize,
}

impl<'s, 'a> Memory<'s, 'a> {
    pub(super) fn new(stream: &'s mut Stream<'a>, notes: &'s mut Notes) -> Memory<'s, 'a> {
        Memory {
            stream,
            notes,
            reserved: 0,
        }
    }
}

impl Memory<'_, '_> {
    /// Forgets everything, and starts with `prefix` and the opening of a message, which are never
    /// evicted and leave a slot at least.
    pub(super) fn begin(&mut self, prefix: &[u32], opening: &[u32]) -> Result<(), StreamError> {
        self.stream.reset();
        self.notes.ledger.begin(0, 0);
        (self.notes.prefix, self.notes.opening) = (prefix.len(), opening.len());
        for tokens in [prefix, opening]
            .into_iter()
            .filter(|part| !part.is_empty())
        {
            self.note(tokens);
            self.stream.absorb(tokens)?;
        }
        self.stream.pin()?;
        let fed = prefix.len() + opening.len();
        let sinks = self.stream.ring().sinks();
        self.notes.ledger.begin(sinks, fed);
        Ok(())
    }

    /// Forgets all messages, and keeps what is pinned.
    pub(super) fn forget(&mut self) -> Result<(), StreamError> {
        self.notes.ledger.forget();
        self.stream.evict(usize::MAX).map(|_| ())
    }

    /// Begins anew with these messages, which were live, and the same pinned tokens. All are
    /// computed again.
    pub(super) fn rebuild(&mut self, messages: &[Live]) -> Result<(), StreamError> {
        let prefix = self.notes.tokens[..self.notes.prefix].to_vec();
        let opening = self.notes.opening().to_vec();
        self.begin(&prefix, &opening)?;
        for (
            index,
            Live {
                span,
                whole,
                tokens,
            },
        ) in messages.iter().enumerate()
        {
            // The oldest message has its opening among the pinned tokens.
            let tokens = &tokens[if index == 0 { opening.len() } else { 0 }..];
            match span.role {
                Role::User => self.open_question(&Question {
                    turn: span.turn,
                    opening: span.opening as usize,
                    kept: 0,
                    is_cut: !whole,
                }),
                Role::Assistant => self.open_answer(),
            }
            self.absorb_all(tokens)?;
        }
        Ok(())
    }

    /// Feeds tokens chunk by chunk, be they none.
    pub(super) fn absorb_all(&mut self, tokens: &[u32]) -> Result<(), StreamError> {
        let mut parts = tokens.chunks(self.chunk());
        parts.try_for_each(|part| self.absorb(part))
    }

    /// Lets old exchanges leave until `tokens` fit; true if none is left.
    pub(super) fn make_room(&mut self, tokens: usize) -> Result<bool, StreamError> {
        let left = self.notes.ledger.make_room_for_question(tokens as u64);
        self.evict(left)?;
        Ok(self.notes.ledger.is_empty())
    }

    /// From now on what is fed belongs to this question, for which there is room.
    pub(super) fn open_question(&mut self, question: &Question) {
        self.notes.ledger.open_question(
            question.turn,
            question.opening as u64,
            question.kept as u64,
            question.is_cut,
        );
    }

    /// From now on what is fed belongs to the answer.
    pub(super) fn open_answer(&mut self) {
        self.notes.ledger.open_answer();
    }

    fn evict(&mut self, left: Left) -> Result<(), StreamError> {
        self.notes.note_left(left);
        if left.tokens > 0 {
            self.stream.evict(left.tokens as usize)?;
        }
        debug_assert_eq!(self.stream.ring().window_start(), self.notes.ledger.start());
        Ok(())
    }

    /// Notes the tokens that are about to be fed.
    fn note(&mut self, tokens: &[u32]) {
        let position = self.stream.position();
        for (i, token) in tokens.iter().enumerate() {
            let slot = self.stream.ring().slot(position + i as u64);
            self.notes.tokens[slot] = *token;
        }
    }

    /// Makes room for tokens of the open message and notes them.
    fn take_in(&mut self, tokens: &[u32]) -> Result<(), StreamError> {
        let reserved = self.reserved as u64;
        match self.notes.ledger.take_in(tokens.len() as u64, reserved) {
            Ok(left) => self.evict(left)?,
            Err((left, NoRoom)) => {
                self.evict(left)?;
                return Err(StreamError::Full {
                    capacity: self.notes.capacity(),
                });
            }
        }
        self.note(tokens);
        Ok(())
    }
}

impl Feed for Memory<'_, '_> {
    fn chunk(&self) -> usize {
        self.stream.chunk()
    }

    fn absorb(&mut self, tokens: &[u32]) -> Result<(), StreamError> {
        self.take_in(tokens)?;
        self.stream.absorb(tokens)
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<Next<'_>, StreamError> {
        self.take_in(tokens)?;
        Feed::feed(self.stream, tokens)
    }

    fn last(&mut self) -> Next<'_> {
        self.stream.last()
    }
}

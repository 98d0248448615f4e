//! The memory of a chat: a stream whose oldest messages are evicted as a whole.

use std::collections::VecDeque;

use brooklet_core::cache::Ring;
use brooklet_core::stream::{Stream, StreamError};

use crate::generate::{Feed, Next};

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

/// A message that is at least partly in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) role: Role,
    pub(super) turn: u64,
    /// Absolute position of its first token.
    pub(super) start: u64,
    pub(super) len: u64,
}

impl Span {
    fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// The tokens in a stream's slots, and which message each belongs to.
pub(super) struct Notes {
    /// By slot.
    tokens: Vec<u32>,
    spans: VecDeque<Span>,
}

impl Notes {
    /// Notes of a stream that keeps at most `capacity` tokens.
    pub(super) fn new(capacity: usize) -> Self {
        Notes {
            tokens: vec![0; capacity],
            // A message has a token at least, and one more is opened before an old one goes.
            spans: VecDeque::with_capacity(capacity + 1),
        }
    }

    /// Slots of the cache.
    pub(super) fn capacity(&self) -> usize {
        self.tokens.len()
    }

    /// Tokens of the sinks.
    pub(super) fn pinned(&self, ring: &Ring) -> &[u32] {
        &self.tokens[..ring.sinks().min(ring.live())]
    }

    /// Messages that are live, the oldest first: each with whether all of it is, and the tokens
    /// that are.
    pub(super) fn live<'n>(
        &'n self,
        ring: &'n Ring,
    ) -> impl Iterator<Item = (Span, bool, Vec<u32>)> + 'n {
        self.spans.iter().map(move |span| {
            let from = span.start.max(ring.window_start());
            let tokens = (from..span.end())
                .map(|at| self.tokens[ring.slot(at)])
                .collect();
            // Sinks that lie in a message stay where they are.
            let first_evictable = span.start.max(ring.sinks() as u64);
            (*span, ring.window_start() <= first_evictable, tokens)
        })
    }
}

/// A stream whose tokens are noted.
pub(super) struct Memory<'s, 'a> {
    pub(super) stream: &'s mut Stream<'a>,
    pub(super) notes: &'s mut Notes,
}

impl Memory<'_, '_> {
    /// Forgets everything and starts with `prefix`, which is never evicted, and leaves a slot at
    /// least.
    pub(super) fn begin(&mut self, prefix: &[u32]) -> Result<(), StreamError> {
        self.stream.reset();
        self.notes.spans.clear();
        if !prefix.is_empty() {
            self.note(prefix);
            self.stream.absorb(prefix)?;
        }
        self.stream.pin()
    }

    /// Forgets all messages, and keeps the prefix.
    pub(super) fn forget(&mut self) -> Result<(), StreamError> {
        self.notes.spans.clear();
        self.stream.evict(usize::MAX).map(|_| ())
    }

    /// From now on what is fed belongs to a new message, for which `expected` tokens of room are
    /// made.
    pub(super) fn open(
        &mut self,
        role: Role,
        turn: u64,
        expected: usize,
    ) -> Result<(), StreamError> {
        self.notes.spans.push_back(Span {
            role,
            turn,
            start: self.stream.position(),
            len: 0,
        });
        self.make_room(expected)
    }

    /// Evicts whole messages, the oldest first, until `tokens` fit or only the one being written is
    /// left. An answer whose question went goes with it, unless it is the one being written.
    fn make_room(&mut self, tokens: usize) -> Result<(), StreamError> {
        let ring = self.stream.ring();
        let tokens = tokens.min(ring.capacity() - ring.sinks());
        while self.stream.live() + tokens > self.stream.ring().capacity()
            && self.notes.spans.len() > 1
        {
            let Some(turn) = self.evict_oldest()? else {
                break;
            };
            let is_orphan = |span: &Span| span.turn == turn && span.role == Role::Assistant;
            if self.notes.spans.len() > 1 && self.notes.spans.front().is_some_and(is_orphan) {
                self.evict_oldest()?;
            }
        }
        Ok(())
    }

    /// Evicts the oldest message; returns its turn.
    fn evict_oldest(&mut self) -> Result<Option<u64>, StreamError> {
        let Some(oldest) = self.notes.spans.pop_front() else {
            return Ok(None);
        };
        let left = oldest
            .end()
            .saturating_sub(self.stream.ring().window_start());
        self.stream.evict(left as usize)?;
        Ok(Some(oldest.turn))
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
        self.make_room(tokens.len())?;
        self.note(tokens);
        if let Some(span) = self.notes.spans.back_mut() {
            span.len += tokens.len() as u64;
        }
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

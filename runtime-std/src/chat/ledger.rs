//! The books of a chat's window: which tokens are in it, and which leave when room is needed.
//!
//! ```text
//! pinned            window
//! prefix | opening | question | answer | opening question | answer | opening question | answer ...
//!                    ^ start                                         (current)         ^ end
//! ```
//!
//! Pinned are the system prompt and what the template writes before a message: the *opening*. So
//! the oldest message in the window always has its opening, and the opening of a message leaves
//! with the exchange before it. Room is made in this order:
//!
//! 1. Whole exchanges before the current one leave, the oldest first.
//! 2. The question of the current exchange leaves token by token, behind its own opening, until its
//!    end is left ([`Ledger::open_question`]).
//! 3. There is no more room: the answer ends.
//!
//! Nothing here touches a model, so a test can lead many thousand conversations through it.

use std::collections::VecDeque;

use super::Role;

/// Least tokens of a question's words, at its end, for which there is room in any window.
const LEAST_WORDS: usize = 8;

/// Tokens that the template writes in every exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// After a question's words.
    pub(super) after: usize,
    /// Before an answer.
    pub(super) open: usize,
    /// After an answer.
    pub(super) close: usize,
}

impl Sizes {
    /// An answer of one token, and one more that was chosen and not yet fed.
    fn answer(self) -> usize {
        self.open + 2 + self.close
    }

    /// Slots of the smallest window.
    pub(super) fn least_window(self) -> usize {
        LEAST_WORDS + self.after + self.answer()
    }

    /// Most tokens of a question in a window of `window` slots: the beginning of an answer fits
    /// behind it.
    pub(super) fn longest_question(self, window: usize) -> usize {
        window.saturating_sub(self.answer())
    }

    /// Last tokens of a question that stay in a window while it is answered: a quarter of the
    /// window, but some words at least.
    pub(super) fn kept(self, window: usize) -> usize {
        let least = self.after + LEAST_WORDS;
        (window / 4).max(least).min(self.longest_question(window))
    }
}

/// A message that is at least partly in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) role: Role,
    pub(super) turn: u64,
    /// Absolute position of its first token; in the oldest message, of the first behind its
    /// opening.
    pub(super) start: u64,
    pub(super) len: u64,
    /// Tokens of its opening in the window.
    pub(super) opening: u64,
    /// True if its first tokens were never fed.
    is_cut: bool,
}

impl Span {
    pub(super) fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// No room is left for the current exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// Tokens that have left the window to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Tokens, all from the window's start.
    pub(super) tokens: u64,
    /// Messages before the current exchange.
    pub(super) messages: usize,
    /// Tokens of the current question.
    pub(super) of_question: u64,
}

/// The books of a window of `capacity` tokens, the pinned ones included.
#[derive(Debug)]
pub(super) struct Ledger {
    capacity: u64,
    pinned: u64,
    spans: VecDeque<Span>,
    /// Absolute position of the oldest token of the window.
    start: u64,
    /// Absolute position of the next token.
    end: u64,
    turn: u64,
    /// Last tokens of the current question that stay.
    kept: u64,
}

impl Ledger {
    /// Books of an empty window.
    pub(super) fn new(capacity: usize) -> Ledger {
        Ledger {
            capacity: capacity as u64,
            pinned: 0,
            // A message has a token at least, and one more is opened before an old one goes.
            spans: VecDeque::with_capacity(capacity + 1),
            start: 0,
            end: 0,
            turn: 0,
            kept: 0,
        }
    }

    /// Begins anew with `sinks` slots of pinned tokens, of which `fed` were fed.
    pub(super) fn begin(&mut self, sinks: usize, fed: usize) {
        self.spans.clear();
        self.pinned = sinks as u64;
        self.end = fed as u64;
        self.start = self.pinned.max(self.end);
    }

    /// Forgets all messages.
    pub(super) fn forget(&mut self) {
        self.spans.clear();
        self.start = self.end.max(self.pinned);
    }

    /// Messages of which a token is in the window, the oldest first.
    pub(super) fn spans(&self) -> impl Iterator<Item = &Span> {
        self.spans.iter()
    }

    /// Absolute position of the oldest token of the window.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// True if no message is in the window.
    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// True if all tokens of a message are live.
    pub(super) fn is_whole(&self, span: &Span) -> bool {
        // Sinks that lie in a message stay where they are.
        !span.is_cut && self.start <= span.start.max(self.pinned)
    }

    /// Slots for messages.
    pub(super) fn window(&self) -> u64 {
        self.capacity - self.pinned
    }

    fn room(&self) -> u64 {
        self.window() - self.end.saturating_sub(self.start)
    }

    /// Lets exchanges leave, the oldest first, until `tokens` fit or none is left: before a
    /// question is opened.
    pub(super) fn make_room_for_question(&mut self, tokens: u64) -> Left {
        let mut left = Left::default();
        while self.room() < tokens && self.forget_oldest(None, &mut left) {}
        left
    }

    /// Opens the question of the exchange `turn`. Its last `kept` tokens stay in the window as long
    /// as the exchange is the current one. `opening` of its tokens are the opening, which an empty
    /// window has already; `is_cut` tells that its first tokens are not fed.
    pub(super) fn open_question(&mut self, turn: u64, opening: u64, kept: u64, is_cut: bool) {
        debug_assert!(opening == 0 || !self.is_empty());
        (self.turn, self.kept) = (turn, kept);
        self.spans.push_back(Span {
            role: Role::User,
            turn,
            start: self.end,
            len: 0,
            opening,
            is_cut,
        });
    }

    /// Opens the answer of the current exchange.
    pub(super) fn open_answer(&mut self) {
        self.spans.push_back(Span {
            role: Role::Assistant,
            turn: self.turn,
            start: self.end,
            len: 0,
            opening: 0,
            is_cut: false,
        });
    }

    /// Takes `tokens` tokens of the open message in, and leaves room for `reserved` more.
    ///
    /// # Errors
    /// [`NoRoom`]; then nothing was taken in, but what could leave has left.
    pub(super) fn take_in(&mut self, tokens: u64, reserved: u64) -> Result<Left, (Left, NoRoom)> {
        let mut left = Left::default();
        let needed = tokens + reserved;
        while self.room() < needed && self.forget_oldest(Some(self.turn), &mut left) {}
        let missing = needed.saturating_sub(self.room());
        let shortened = self.shorten(missing);
        left.tokens += shortened;
        left.of_question += shortened;
        if shortened < missing {
            return Err((left, NoRoom));
        }
        self.end += tokens;
        if let Some(span) = self.spans.back_mut() {
            span.len += tokens;
        }
        Ok(left)
    }

    /// Lets the oldest exchange leave, with the opening of the next message; false if there is none
    /// before the exchange `current`.
    fn forget_oldest(&mut self, current: Option<u64>, left: &mut Left) -> bool {
        let oldest = self.spans.front().map(|span| span.turn);
        let Some(turn) = oldest.filter(|turn| current != Some(*turn)) else {
            return false;
        };
        while self.spans.front().is_some_and(|span| span.turn == turn) {
            self.spans.pop_front();
            left.messages += 1;
        }
        let start = match self.spans.front_mut() {
            Some(next) => {
                // Room for a question is made before it is opened, so its opening is all there.
                debug_assert!(next.len >= next.opening);
                next.start += next.opening;
                next.len -= next.opening;
                next.opening = 0;
                next.start
            }
            None => self.end,
        };
        left.tokens += start.saturating_sub(self.start);
        self.start = self.start.max(start);
        true
    }

    /// Lets up to `tokens` tokens of the current question leave, but none of its end; returns how
    /// many.
    fn shorten(&mut self, tokens: u64) -> u64 {
        let Some(question) = self.spans.front() else {
            return 0;
        };
        if question.role != Role::User || question.turn != self.turn {
            return 0;
        }
        let can_leave = question.end().saturating_sub(self.start + self.kept);
        let leaving = tokens.min(can_leave);
        self.start += leaving;
        leaving
    }
}

#[cfg(test)]
mod tests;

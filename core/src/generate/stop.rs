//! Stop texts: where a text ends before them, and what is held back while one may be coming.

/// Looks for stop texts in a text that comes in pieces, and holds back what may be the beginning of one.
///
/// What is held back is always the beginning of a stop text, so that it need not be copied: two numbers say which text
/// and how many of its bytes. Every call is given the same stop texts; empty ones are ignored.
///
/// A piece (the text of a token) is looked at as a whole: of the stop texts that are complete at its end, the one that
/// begins first counts, not the one that was complete first.
#[derive(Clone, Copy, Debug, Default)]
pub struct StopFilter {
    /// Index of the stop text that begins with what is held back.
    stop: usize,
    /// Bytes held back.
    held: usize,
    /// Bytes held back before a stop text that is complete: one that began earlier may still be completed.
    found: Option<usize>,
    is_stopped: bool,
}

impl StopFilter {
    /// A filter that holds nothing back.
    pub const fn new() -> Self {
        StopFilter {
            stop: 0,
            held: 0,
            found: None,
            is_stopped: false,
        }
    }

    /// Takes some text of a piece, and calls `emit` with what cannot belong to a stop text.
    pub fn push<S: AsRef<str>>(&mut self, stops: &[S], text: &str, emit: &mut dyn FnMut(&str)) {
        if stops.is_empty() {
            return emit(text);
        }
        let mut bytes = [0; 4];
        for character in text.chars() {
            if !self.is_stopped {
                self.put(stops, character.encode_utf8(&mut bytes), emit);
            }
        }
    }

    /// Ends a piece; returns `true` once a stop text is complete. Then what precedes it has been passed on, and the rest
    /// is dropped, as is all that comes later.
    pub fn end_piece<S: AsRef<str>>(&mut self, stops: &[S], emit: &mut dyn FnMut(&str)) -> bool {
        if let Some(before) = self.found {
            self.stop_at(stops, before, "", emit);
        }
        self.is_stopped
    }

    /// Ends the text: passes on what was held back, because no stop text came of it.
    pub fn finish<S: AsRef<str>>(&mut self, stops: &[S], emit: &mut dyn FnMut(&str)) {
        if self.held > 0 {
            emit(self.held(stops));
            self.held = 0;
        }
    }

    /// Takes the next character.
    fn put<S: AsRef<str>>(&mut self, stops: &[S], character: &str, emit: &mut dyn FnMut(&str)) {
        let held = self.held(stops);
        let tail = Tail { held, character };
        let all = held.len() + character.len();
        let complete = stops
            .iter()
            .map(AsRef::as_ref)
            .filter(|stop| !stop.is_empty() && tail.ends_with(stop.as_bytes()))
            .map(|stop| all - stop.len());
        self.found = complete.chain(self.found).min();
        let (stop, kept) = tail.longest_beginning(stops);
        let free = all - kept;
        match self.found {
            Some(before) if before <= free => self.stop_at(stops, before, character, emit),
            _ => {
                tail.emit(free, emit);
                self.found = self.found.map(|before| before - free);
                (self.stop, self.held) = (stop, kept);
            }
        }
    }

    /// Passes on `before` bytes of what is held back and the character after it, and drops the rest.
    fn stop_at<S: AsRef<str>>(
        &mut self,
        stops: &[S],
        before: usize,
        character: &str,
        emit: &mut dyn FnMut(&str),
    ) {
        let held = self.held(stops);
        Tail { held, character }.emit(before, emit);
        *self = StopFilter {
            is_stopped: true,
            ..StopFilter::new()
        };
    }

    /// The text that is held back.
    fn held<'s, S: AsRef<str>>(&self, stops: &'s [S]) -> &'s str {
        let stop = stops.get(self.stop).map_or("", AsRef::as_ref);
        stop.get(..self.held).unwrap_or("")
    }
}

/// What is held back, and a character after it.
#[derive(Clone, Copy)]
struct Tail<'t> {
    held: &'t str,
    character: &'t str,
}

impl Tail<'_> {
    fn ends_with(self, end: &[u8]) -> bool {
        let (held, character) = (self.held.as_bytes(), self.character.as_bytes());
        let (before, last) = end.split_at(end.len().saturating_sub(character.len()));
        character.ends_with(last) && held.ends_with(before)
    }

    /// The longest end that a stop text begins with, but is not all of: the index of that text, and bytes.
    fn longest_beginning<S: AsRef<str>>(self, stops: &[S]) -> (usize, usize) {
        let all = self.held.len() + self.character.len();
        let mut best = (0, 0);
        for (index, stop) in stops.iter().enumerate() {
            let stop = stop.as_ref().as_bytes();
            let longest = all.min(stop.len().saturating_sub(1));
            let mut longer = (best.1 + 1..=longest).rev();
            if let Some(len) = longer.find(|len| self.ends_with(&stop[..*len])) {
                best = (index, len);
            }
        }
        best
    }

    /// Passes on the first `len` bytes: no more than is held back, or all of it and the character.
    ///
    /// A stop text begins at the first byte of a character, so that what precedes it is whole characters.
    fn emit(self, len: usize, emit: &mut dyn FnMut(&str)) {
        let held = self.held.get(..len).unwrap_or(self.held);
        if !held.is_empty() {
            emit(held);
        }
        if len > self.held.len() {
            emit(self.character);
        }
    }
}

//! Stop texts: end of a text before one of them, and holding back of text that may be the beginning
//! of one.

/// Searches for stop texts in a text that comes in pieces, and holds back text that may be the
/// beginning of one.
///
/// Text held back is always the beginning of a stop text, so it need not be copied: two numbers
/// name the stop text and the number of its bytes. Every call gets the same stop texts; empty ones
/// are ignored.
///
/// A piece (the text of a token) is treated as a whole: of the stop texts that are complete at its
/// end, the one that begins first counts, not the one that was complete first.
#[derive(Clone, Copy, Debug, Default)]
pub struct StopFilter {
    /// Index of the stop text that begins with the held text.
    stop: usize,
    /// Number of bytes held back.
    held: usize,
    /// Number of bytes held back before a complete stop text: one that began earlier may still be
    /// completed.
    found: Option<usize>,
    is_stopped: bool,
}

impl StopFilter {
    /// Creates a filter that holds nothing back.
    pub const fn new() -> Self {
        StopFilter {
            stop: 0,
            held: 0,
            found: None,
            is_stopped: false,
        }
    }

    /// Takes some text of a piece, and calls `emit` with the text that cannot belong to a stop
    /// text.
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

    /// Ends a piece; returns true once a stop text is complete. Then the text before it has been
    /// emitted, and the rest is dropped, like all later text.
    pub fn end_piece<S: AsRef<str>>(&mut self, stops: &[S], emit: &mut dyn FnMut(&str)) -> bool {
        if let Some(before) = self.found {
            self.stop_at(stops, before, "", emit);
        }
        self.is_stopped
    }

    /// Ends the text: emits the text that was held back, because no stop text was completed.
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

    /// Emits the first `before` bytes of the held text and of the character after it, and drops the
    /// rest.
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

    /// Text that is held back.
    fn held<'s, S: AsRef<str>>(&self, stops: &'s [S]) -> &'s str {
        let stop = stops.get(self.stop).map_or("", AsRef::as_ref);
        stop.get(..self.held).unwrap_or("")
    }
}

/// The held text, and a character after it.
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

    /// Returns the longest suffix that is a proper prefix of a stop text, as the index of that stop
    /// text and the number of bytes.
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

    /// Emits the first `len` bytes: at most the held text, or all of it and the character.
    ///
    /// A stop text begins at the first byte of a character, so the text before it is whole
    /// characters.
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

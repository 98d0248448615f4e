//! The receiver of generated text.

use std::io;

/// A receiver of text, in whole characters.
pub trait TextSink {
    /// Takes the next piece.
    ///
    /// # Errors
    /// Those of whatever is behind it.
    fn text(&mut self, text: &str) -> io::Result<()>;

    /// The text of one token is complete: time to show it.
    ///
    /// # Errors
    /// Those of whatever is behind it.
    fn token(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: FnMut(&str) -> io::Result<()>> TextSink for F {
    fn text(&mut self, text: &str) -> io::Result<()> {
        self(text)
    }
}

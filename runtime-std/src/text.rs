//! The receiver of generated text.

use std::io;

/// A receiver of text, in whole characters.
pub trait TextSink {
    /// Takes the next piece.
    ///
    /// # Errors
    /// Those of the destination.
    fn text(&mut self, text: &str) -> io::Result<()>;

    /// Notes that the text of one token is complete and can be shown.
    ///
    /// # Errors
    /// Those of the destination.
    fn token(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: FnMut(&str) -> io::Result<()>> TextSink for F {
    fn text(&mut self, text: &str) -> io::Result<()> {
        self(text)
    }
}

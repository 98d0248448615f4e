//! Where generated text goes.

use std::io;

/// Where whole characters of text go.
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

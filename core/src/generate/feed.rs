//! The receiver of tokens.

use crate::stream::{Stream, StreamError};

/// Logits from which the next token is chosen.
pub struct Next<'f> {
    /// The logits after the last token that was fed: one for each token of the vocabulary. A
    /// sampler may change them.
    pub logits: &'f mut [f32],
    /// Scratch for a sampler: as many entries as logits, or none if the plan has no sampling.
    pub candidates: &'f mut [u32],
}

/// A stream, or a wrapper that keeps account of one: of the message that a token belongs to, for
/// example.
pub trait Feed {
    /// Number of tokens that are computed at once.
    fn chunk(&self) -> usize;

    /// Feeds tokens without computing logits.
    ///
    /// # Errors
    /// The stream's.
    fn absorb(&mut self, tokens: &[u32]) -> Result<(), StreamError>;

    /// Feeds tokens, and computes the logits after the last of them.
    ///
    /// # Errors
    /// The stream's.
    fn feed(&mut self, tokens: &[u32]) -> Result<Next<'_>, StreamError>;

    /// Returns the same as the last [`Feed::feed`], with the changes that were made to it.
    fn last(&mut self) -> Next<'_>;
}

impl Feed for Stream<'_> {
    fn chunk(&self) -> usize {
        self.plan().options().chunk
    }

    fn absorb(&mut self, tokens: &[u32]) -> Result<(), StreamError> {
        Stream::absorb(self, tokens)
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<Next<'_>, StreamError> {
        Stream::feed(self, tokens)?;
        Ok(self.last())
    }

    fn last(&mut self) -> Next<'_> {
        let (logits, candidates) = self.logits_and_candidates();
        Next { logits, candidates }
    }
}

//! What tokens are fed to.

use crate::stream::{Stream, StreamError};

/// What the next token is chosen from.
pub struct Next<'f> {
    /// The logits that follow the last token fed: one for each token of the vocabulary. A sampler may change them.
    pub logits: &'f mut [f32],
    /// Scratch for a sampler: as many entries, or none if the plan has no sampling.
    pub candidates: &'f mut [u32],
}

/// A stream, or something that keeps account of one: which message a token belongs to, say.
pub trait Feed {
    /// Tokens that are computed at once.
    fn chunk(&self) -> usize;

    /// Feeds tokens without computing logits.
    ///
    /// # Errors
    /// The stream's.
    fn absorb(&mut self, tokens: &[u32]) -> Result<(), StreamError>;

    /// Feeds tokens, and computes the logits that follow the last of them.
    ///
    /// # Errors
    /// The stream's.
    fn feed(&mut self, tokens: &[u32]) -> Result<Next<'_>, StreamError>;

    /// What the last [`Feed::feed`] returned, with the changes that were made to it.
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

//! Errors of conversations.

use brooklet_core::stream::StreamError;

use super::template::TemplateError;
use crate::Error;

/// The reason why a conversation cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The engine fails.
    #[error(transparent)]
    Model(#[from] Error),
    /// The model's chat template cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The system prompt leaves too little of the cache.
    #[error(
        "the system prompt takes {tokens} tokens, which leaves fewer than {least} of the cache's {capacity} for a conversation"
    )]
    System {
        /// Tokens of the system prompt.
        tokens: usize,
        /// Tokens that it must leave.
        least: usize,
        /// Tokens that the cache holds.
        capacity: usize,
    },
    /// The template's text around messages leaves too little of the cache for words.
    #[error(
        "a message and its answer need {tokens} tokens with what the chat template writes around them: the cache holds {capacity}"
    )]
    Frame {
        /// Tokens of the system prompt, of the template's text, and a few words.
        tokens: usize,
        /// Tokens that the cache holds.
        capacity: usize,
    },
}

impl From<StreamError> for ChatError {
    fn from(error: StreamError) -> Self {
        ChatError::Model(error.into())
    }
}

//! The library's error, each variant one sentence.

use std::io;
use std::path::PathBuf;

use brooklet_core::model::ModelError;
use brooklet_core::plan::PlanError;
use brooklet_core::stream::StreamError;
use brooklet_core::tokenizer::TokenizerError;

use crate::notice::Percent;
use crate::system::isa::IsaError;

/// The reason why a model cannot be opened, planned for or run.
///
/// Conversations, conversions and downloads have errors of their own, of which this one may be a
/// part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be opened or read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// A file is not a model that can run here.
    #[error("{}: {error}", .path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// The first thing that is wrong with it.
        error: ModelError,
    },
    /// The file's tokenizer is missing or unknown.
    #[error("{}: {error}", .path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The fault.
        error: TokenizerError,
    },
    /// The engine refuses tokens.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The requested plan does not fit.
    #[error("{error}{hint}")]
    Plan {
        /// By how much.
        error: PlanError,
        /// A plan that would fit, with the punctuation before it; may be empty.
        hint: String,
    },
    /// A slim file's values are wrong with this cache.
    #[error(
        "with a cache in {cache_type} a layer of this slim file errs by {percent} %, and {accepted} % was accepted when it was made: \
         it is for a cache in {best}, which errs by {of_best} %"
    )]
    SlimCache {
        /// Element type of the cache.
        cache_type: &'static str,
        /// The largest error of a layer's attention output, in percent.
        percent: Percent,
        /// The error that was accepted, in percent.
        accepted: Percent,
        /// The smallest element type with which the file errs less.
        best: &'static str,
        /// Its error, in percent.
        of_best: Percent,
    },
    /// The requested instruction set is not available.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// The system gives no memory or no threads.
    #[error("the system refuses {what}: {error}")]
    System {
        /// The request.
        what: String,
        /// Its reason.
        error: io::Error,
    },
    /// The model hears no sound.
    #[error("this model writes text and hears nothing: captions need a speech model")]
    NoSpeech,
    /// The speech model does not know a language.
    #[error("the model does not know the language \"{0}\": a code is wanted, such as en")]
    Language(String),
    /// The speech model cannot translate.
    #[error("the model cannot translate: it writes what is said")]
    NoTranslation,
    /// The model takes no text that was said before.
    #[error(
        "the model takes no prompt: it writes what it hears, and knows nothing that was said before"
    )]
    NoPrompt,
    /// The text that was said before has too many tokens.
    #[error("the prompt has {tokens} tokens, but the model takes {most} at most")]
    PromptTooLong {
        /// Its tokens.
        tokens: usize,
        /// Largest number of tokens.
        most: usize,
    },
    /// The receiver of the text has failed.
    #[error("the text cannot be passed on: {0}")]
    Sink(io::Error),
}

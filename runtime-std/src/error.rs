//! Everything that can go wrong, each in one sentence.

use std::io;
use std::path::PathBuf;

use brooklet_core::model::ModelError;
use brooklet_core::plan::PlanError;
use brooklet_core::stream::StreamError;
use brooklet_core::tokenizer::TokenizerError;

use crate::convert::quantize::QuantizeError;
use crate::models::hub::HubNameError;
use crate::models::pull::PullError;
use crate::system::pool::IsaError;

/// What this crate's functions fail with.
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
    /// A file cannot be created or written.
    #[error("cannot write {}: {error}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// A file is no model that this program runs.
    #[error("{}: {error}", .path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: ModelError,
    },
    /// The file has no tokenizer that this program knows.
    #[error("{}: {error}", .path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: TokenizerError,
    },
    /// A file cannot be quantised.
    #[error("{}: {error}", .path.display())]
    Quantize {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: QuantizeError,
    },
    /// The engine refuses tokens.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// What was asked for does not fit.
    #[error("{error}{hint}")]
    Plan {
        /// By how much.
        error: PlanError,
        /// What would fit, with the punctuation before it; may be empty.
        hint: String,
    },
    /// The model cannot be chatted with.
    #[error(transparent)]
    Template(#[from] crate::chat::TemplateError),
    /// A model cannot be fetched.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The name of a file on the hub is none.
    #[error(transparent)]
    HubName(#[from] HubNameError),
    /// The instruction set that was asked for is not there.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// The system gives no memory or no threads.
    #[error("the system refuses {what}: {error}")]
    System {
        /// What was asked of it.
        what: String,
        /// Its reason.
        error: io::Error,
    },
    /// The command was asked for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The input cannot be used.
    #[error("{0}")]
    Input(String),
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

impl Error {
    /// The exit code of the command: 2 for a wrong command line, 0 where the reader of the output has just gone, 1 for all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            error if error.is_closed_pipe() => 0,
            _ => 1,
        }
    }

    /// Whether the reader of standard output has gone, which is no error: it has read what it wanted.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Error::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

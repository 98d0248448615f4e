//! Failures of commands: one sentence on standard error, and an exit code.

use std::io;
use std::path::PathBuf;

use brooklet_core::plan::PlanError;
use brooklet_core::stream::StreamError;

use crate::Error;
use crate::audio::AudioError;
use crate::chat::{ChatError, TemplateError};
use crate::convert::quantize::QuantizeError;
use crate::convert::slim::SlimError;
use crate::convert::speech::ConvertError;
use crate::models::hub::HubNameError;
use crate::models::pull::PullError;
use crate::models::store::StoreError;
use crate::system::isa::IsaError;

/// The reason why a command has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The input cannot be used.
    #[error("{0}")]
    Input(String),
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// A file cannot be read.
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
    /// A file to write is there already.
    #[error("{} exists: --force replaces it", .0.display())]
    Exists(PathBuf),
    /// A sound cannot be read.
    #[error("{}: {error}", .path.display())]
    Sound {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: AudioError,
    },
    /// The system refuses a request.
    #[error("the system refuses {what}: {error}")]
    System {
        /// The request.
        what: String,
        /// Its reason.
        error: io::Error,
    },
    /// A signal has ended the command.
    #[error("ended by signal {0}")]
    Interrupted(i32),
    /// The model cannot be opened or run.
    #[error("{0}{hint}", hint = hint(.0))]
    Model(Error),
    /// The model cannot be chatted with.
    #[error(transparent)]
    Chat(ChatError),
    /// The model cannot be converted.
    #[error(transparent)]
    Slim(SlimError),
    /// The file cannot be quantised.
    #[error("{}: {error}", .path.display())]
    Quantize {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: QuantizeError,
    },
    /// The files of another program cannot be converted.
    #[error("{}: {error}", .path.display())]
    Convert {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        error: ConvertError,
    },
    /// The store cannot be changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The model cannot be fetched.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The name of a file on the hub is malformed.
    #[error(transparent)]
    HubName(#[from] HubNameError),
}

impl Failure {
    /// The exit code of the command: 2 for a wrong command line, 0 where the reader of the output
    /// has just gone, 128 and its number for a signal, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            // Numbers of signals are small.
            Failure::Interrupted(signal) => 128u8.saturating_add(*signal as u8),
            failure if failure.is_closed_pipe() => 0,
            _ => 1,
        }
    }

    /// True if the reader of standard output has gone, which is no failure: it has read what it
    /// wanted.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// End of the sentence: advice that names this command.
fn hint(error: &Error) -> &'static str {
    match error {
        Error::Plan {
            error: PlanError::NotMadeFor { .. },
            ..
        } => ": `brooklet slim` makes a copy that is, where the model's attention allows it",
        Error::Stream(StreamError::NotFinite { .. }) => {
            " (`brooklet pull` looks a pulled file over, and mends it)"
        }
        _ => "",
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            // The command has no other sink.
            Error::Sink(error) => Failure::Output(error),
            error => Failure::Model(error),
        }
    }
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        Failure::Model(error.into())
    }
}

impl From<IsaError> for Failure {
    fn from(error: IsaError) -> Self {
        Failure::Model(error.into())
    }
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        Failure::Chat(error.into())
    }
}

impl From<ChatError> for Failure {
    fn from(error: ChatError) -> Self {
        match error {
            ChatError::Model(error) => error.into(),
            error => Failure::Chat(error),
        }
    }
}

impl From<SlimError> for Failure {
    fn from(error: SlimError) -> Self {
        match error {
            SlimError::Model(error) => error.into(),
            SlimError::ValuesDropped => Failure::Input(
                "the file lacks attn_v.weight, which `brooklet slim --drop-v` left out: convert the original"
                    .into(),
            ),
            error => Failure::Slim(error),
        }
    }
}

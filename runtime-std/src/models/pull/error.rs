//! Errors of pulls: one sentence each, with a remedy where there is one.

use std::io;
use std::path::PathBuf;

use crate::size::Size;

/// The reason why a model could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// A program that does the download is missing.
    #[error("{program} was not found, and {why}")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// Its purpose.
        why: &'static str,
    },
    /// The package index or the hub does not answer.
    #[error(
        "{place} cannot be reached: check the network connection, then run the same command again to continue"
    )]
    Unreachable {
        /// The place that does not answer.
        place: String,
    },
    /// The program that downloads has failed for another reason.
    #[error("{program} could not fetch {what}: {reason}")]
    Download {
        /// The program.
        program: &'static str,
        /// The file that it should fetch.
        what: String,
        /// The reason that it gave.
        reason: String,
    },
    /// A downloaded package is damaged or lacks the member.
    #[error("{what} does not match the manifest: {reason}")]
    Package {
        /// The package or its member.
        what: String,
        /// The fault.
        reason: String,
    },
    /// The connection broke, and trying again brought nothing more.
    #[error(
        "the connection ended before the whole of {what} had arrived: run the same command again to continue"
    )]
    Interrupted {
        /// The file that was being fetched.
        what: String,
    },
    /// The connection broke, and the server only sends whole files.
    #[error(
        "the connection ended before the whole of {what} had arrived, and the server cannot resume: try again"
    )]
    NoRanges {
        /// The file that was being fetched.
        what: String,
    },
    /// The hub has no such file.
    #[error("the hub has no {what} (404): check the repository, the revision and the file")]
    NotThere {
        /// The file.
        what: String,
    },
    /// The hub refuses anonymous requests for the file.
    #[error(
        "the hub refuses anonymous access to {what} ({status}): it is private, needs a login, or does not exist"
    )]
    Forbidden {
        /// The file.
        what: String,
        /// The status of HTTP.
        status: u16,
    },
    /// There is no room for the file.
    #[error("the disk that holds {} is full: {}the unfinished file is kept, so make room and run the same command again", .folder.display(), missing_bytes(.missing))]
    DiskFull {
        /// The store's folder.
        folder: PathBuf,
        /// Bytes that it lacks, where that is known.
        missing: Option<u64>,
    },
    /// The model is not in the store, and the store cannot take it.
    #[error("{model} is not in {}{there}, and it cannot be pulled into it ({error}): pull it as a user who may write there, or set BROOKLET_MODELS to another folder", .folder.display())]
    NoStore {
        /// The model's name.
        model: String,
        /// The store's folder.
        folder: PathBuf,
        /// Words on a file of another size in its place; else empty.
        there: String,
        /// The system's reason.
        error: io::Error,
    },
    /// The bytes that arrived are not those of the manifest.
    #[error(
        "the file that arrived is not the one that the manifest names ({what} is {found}, not {expected}); it was deleted"
    )]
    Wrong {
        /// `sha256` or `size`.
        what: &'static str,
        /// The value in the manifest or of the hub.
        expected: String,
        /// The value of the file that arrived.
        found: String,
    },
    /// The file system refuses an operation for another reason.
    #[error("cannot {action} {}: {error}", .path.display())]
    Io {
        /// The action that failed.
        action: &'static str,
        /// Its file or folder.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
}

fn missing_bytes(missing: &Option<u64>) -> String {
    let size = |bytes: u64| format!("it lacks {}; ", Size(bytes as usize));
    missing.map_or_else(String::new, size)
}

//! The identity of a file, whatever the path that leads to it.

use std::fs::File;
use std::io;
use std::path::Path;

/// A file by its device and inode: links of any kind have the identity of their file.
#[cfg(unix)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

#[cfg(unix)]
impl Identity {
    /// Of what `path` leads to.
    ///
    /// # Errors
    /// The system's.
    pub fn of(path: &Path) -> io::Result<Identity> {
        std::fs::metadata(path).map(|there| Identity::new(&there))
    }

    /// Of an open file.
    ///
    /// # Errors
    /// The system's.
    pub fn of_file(file: &File) -> io::Result<Identity> {
        file.metadata().map(|there| Identity::new(&there))
    }

    /// Of standard input.
    ///
    /// # Errors
    /// The system's.
    pub fn of_stdin() -> io::Result<Identity> {
        use std::os::fd::AsFd;
        let file = io::stdin().as_fd().try_clone_to_owned()?;
        Identity::of_file(&File::from(file))
    }

    fn new(there: &std::fs::Metadata) -> Identity {
        use std::os::unix::fs::MetadataExt;
        Identity {
            device: there.dev(),
            inode: there.ino(),
        }
    }
}

/// A file by its whole path: other systems tell no more without unsafe code.
#[cfg(not(unix))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity(std::path::PathBuf);

#[cfg(not(unix))]
impl Identity {
    /// Of what `path` leads to.
    ///
    /// # Errors
    /// The system's.
    pub fn of(path: &Path) -> io::Result<Identity> {
        std::fs::canonicalize(path).map(Identity)
    }

    /// Of an open file.
    ///
    /// # Errors
    /// Always: its path is not known.
    pub fn of_file(_: &File) -> io::Result<Identity> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Of standard input.
    ///
    /// # Errors
    /// Always: its path is not known.
    pub fn of_stdin() -> io::Result<Identity> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

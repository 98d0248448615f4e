//! Files that a command writes beside its standard output.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::failure::Failure;

/// A file that is written piece by piece.
pub struct Output {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Output {
    /// Creates the file, or empties it.
    pub fn create(path: &Path) -> Result<Output, Failure> {
        let file = File::create(path).map_err(|error| Failure::Write {
            path: path.to_path_buf(),
            error,
        })?;
        Ok(Output {
            path: path.to_path_buf(),
            file: BufWriter::with_capacity(1 << 16, file),
        })
    }

    /// Writes the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| Failure::Write {
            path: self.path.clone(),
            error,
        })
    }

    /// Writes the buffered bytes to the file.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.file.flush().map_err(|error| Failure::Write {
            path: self.path.clone(),
            error,
        })
    }
}

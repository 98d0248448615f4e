//! Files that a command writes beside its standard output: all of them by the one rule that
//! `docs/files.md` states.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::system::identity::Identity;
use crate::system::mmap::ModelFile;
use crate::system::new_file::{self, NewFile};

/// The files of a command: what it writes must not be what it reads, nor another of its outputs.
pub struct Files {
    inputs: Vec<Identity>,
    outputs: Vec<PathBuf>,
    replace: bool,
}

impl Files {
    /// Knows standard input; outputs may replace what is there if `force` is set.
    pub fn new(force: bool) -> Files {
        Files {
            inputs: Identity::of_stdin().into_iter().collect(),
            outputs: Vec::new(),
            replace: force,
        }
    }

    /// Notes a file that the command reads. One that is not there is no input yet: reading it will
    /// say so.
    pub fn reads(mut self, path: &Path) -> Files {
        self.inputs.extend(Identity::of(path));
        self
    }

    /// Notes the model.
    pub fn reads_model(mut self, model: &ModelFile) -> Files {
        self.inputs.extend(model.identity().cloned());
        self
    }

    /// As [`Files::reads`], if there is such a file.
    pub fn may_read(self, path: Option<&PathBuf>) -> Files {
        match path {
            Some(path) => self.reads(path),
            None => self,
        }
    }

    /// As [`Files::create`], if there is such a file.
    pub fn may_create(&mut self, path: Option<&PathBuf>) -> Result<Option<Output>, Failure> {
        path.map(|path| self.create(path)).transpose()
    }

    /// Starts a file; nothing is at its place before [`Output::finish`].
    pub fn create(&mut self, path: &Path) -> Result<Output, Failure> {
        let failed = |error| Failure::Write {
            path: path.to_path_buf(),
            error,
        };
        let place = new_file::resolved(path).map_err(failed)?;
        if Identity::of(&place).is_ok_and(|there| self.inputs.contains(&there)) {
            return Err(Failure::Input(format!(
                "{} is the input: give the new file another name",
                path.display()
            )));
        }
        if self.outputs.contains(&place) {
            return Err(Failure::Input(format!(
                "{} is written twice: give each new file a name of its own",
                path.display()
            )));
        }
        let file = NewFile::create(&place, self.replace).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists if !self.replace => Failure::Exists(path.to_path_buf()),
            _ => failed(error),
        })?;
        self.outputs.push(place);
        Ok(Output {
            path: path.to_path_buf(),
            file: BufWriter::with_capacity(1 << 16, file),
        })
    }
}

/// A file that is written piece by piece, and appears when it is whole.
pub struct Output {
    path: PathBuf,
    file: BufWriter<NewFile>,
}

impl Output {
    /// The failure of a write to this file.
    pub fn failed(&self) -> impl Fn(io::Error) -> Failure + use<> {
        let path = self.path.clone();
        move |error| Failure::Write {
            path: path.clone(),
            error,
        }
    }

    /// Adds bytes to the file.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(self.failed())
    }

    /// Puts the whole file in its place.
    pub fn finish(self) -> Result<(), Failure> {
        let failed = self.failed();
        let file = self.file.into_inner().map_err(|error| error.into_error());
        file.and_then(NewFile::finish).map_err(failed)
    }

    /// Puts the file in its place now, to be read while it grows.
    pub fn grow(self) -> Result<Record, Failure> {
        let failed = self.failed();
        let file = self.file.into_inner().map_err(|error| error.into_error());
        let file = file.and_then(NewFile::grow_in_place).map_err(failed)?;
        Ok(Record {
            path: self.path,
            file,
        })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file that is read while it grows.
pub struct Record {
    path: PathBuf,
    file: File,
}

impl Record {
    /// The path by which the file was created.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds bytes, which are in the file when this returns.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| Failure::Write {
            path: self.path.clone(),
            error,
        })
    }
}

//! A file that appears under its name only when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::system::at_end::Duty;

/// A file being written beside the place where it will lie.
///
/// [`NewFile::finish`] brings its bytes to the disk and renames it; dropped before that, it is
/// removed. So whoever looks at the place sees what was there before or the whole new file,
/// whatever ends the writing: an error, a full disk, a signal. (A killed process leaves the
/// unfinished file, `.NAME.partial` with a number.)
#[derive(Debug)]
pub struct NewFile {
    file: File,
    unfinished: PathBuf,
    place: PathBuf,
    replace: bool,
    /// Removes the unfinished file where a signal ends the process.
    _duty: Duty,
}

/// Most unfinished files of killed processes that are skipped before giving up.
const MOST_UNFINISHED: u32 = 100;

impl NewFile {
    /// Starts a file that is to lie at `place`, replacing the regular file there only if `replace`
    /// is set.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if something lies there that may not be replaced, else the
    /// system's.
    pub fn create(place: &Path, replace: bool) -> io::Result<NewFile> {
        check_place(place, replace)?;
        let name = place.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut number = 0;
        loop {
            let mut unfinished = std::ffi::OsString::from(".");
            unfinished.push(name);
            unfinished.push(format!(".{}.partial", number + std::process::id()));
            let unfinished = place.with_file_name(unfinished);
            match OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&unfinished)
            {
                Ok(file) => {
                    let of_signal = unfinished.clone();
                    return Ok(NewFile {
                        _duty: Duty::new(move || {
                            let _ = fs::remove_file(of_signal);
                        }),
                        file,
                        unfinished,
                        place: place.to_path_buf(),
                        replace,
                    });
                }
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists && number < MOST_UNFINISHED =>
                {
                    number += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts the file in its place, its bytes safe on the disk.
    ///
    /// # Errors
    /// The system's, or [`io::ErrorKind::AlreadyExists`] if the place was taken in the meantime;
    /// the file is removed then.
    pub fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        check_place(&self.place, self.replace)?;
        fs::rename(&self.unfinished, &self.place)?;
        // Makes the rename durable, where the system can synchronise folders.
        if let Some(folder) = self.place.parent()
            && let Ok(folder) = File::open(folder)
        {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

/// Checks that a file may be put at `place`. A device or a folder there is never replaced.
fn check_place(place: &Path, replace: bool) -> io::Result<()> {
    match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(there) if replace && (there.is_file() || there.is_symlink()) => Ok(()),
        Ok(_) if replace => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it is not a regular file",
        )),
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    /// Removes the unfinished file; after a finish there is nothing under that name.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.unfinished);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_name_appears_with_the_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("model");
        let mut file = NewFile::create(&place, false).unwrap();
        file.write_all(b"weights").unwrap();
        assert!(!place.exists());
        file.finish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"weights");
        assert_eq!(names(folder.path()), ["model"]);
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("model");
        let mut file = NewFile::create(&place, false).unwrap();
        file.write_all(b"wei").unwrap();
        drop(file);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_file_is_replaced_only_on_request_and_a_folder_never() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("model");
        let early = NewFile::create(&place, false).unwrap();
        fs::write(&place, b"old").unwrap();
        let refused = |result: io::Result<NewFile>| result.unwrap_err().kind();
        assert_eq!(
            refused(NewFile::create(&place, false)),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(
            early.finish().unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&place).unwrap(), b"old");
        NewFile::create(&place, true).unwrap().finish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"");
        assert_eq!(
            refused(NewFile::create(folder.path(), true)),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(names(folder.path()), ["model"]);
    }

    #[test]
    fn two_at_once_do_not_disturb_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("model");
        let mut files = [1, 2].map(|_| NewFile::create(&place, true).unwrap());
        for (file, text) in files.iter_mut().zip([b"first ", b"second"]) {
            file.write_all(text).unwrap();
        }
        for (file, text) in files.into_iter().zip([b"first ", b"second"]) {
            file.finish().unwrap();
            assert_eq!(fs::read(&place).unwrap(), text);
        }
        assert_eq!(names(folder.path()), ["model"]);
    }
}

//! A file that appears under its name only when it is whole.
//!
//! Whoever looks at the place sees what was there before or the whole new file, whatever ends the
//! writing: an error, a full disk, a signal, the loss of power. On Linux the unfinished file has no
//! name, so that nothing is left of it even if the process is killed. Where a file system has no
//! such files, the unfinished one lies beside its place as `.NAME.NUMBER.partial`; it is removed
//! where the writing fails, and what a killed process leaves is removed by the next file for that
//! place.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::at_end::Duty;
use super::identity::Identity;

/// A file being written for a place where it is to lie. Dropped before [`NewFile::finish`], it
/// leaves nothing.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    /// Its name so far; none as long as it has no name.
    unfinished: Option<Unfinished>,
    place: PathBuf,
    replace: bool,
}

/// The name of an unfinished file. A signal that ends the process removes it.
#[derive(Debug)]
struct Unfinished {
    path: PathBuf,
    _duty: Duty,
}

impl Unfinished {
    /// Makes the name by `make`, which returns what it made of it.
    fn make<T>(
        path: PathBuf,
        make: impl FnOnce(&Path) -> io::Result<T>,
    ) -> io::Result<(T, Unfinished)> {
        let (made, duty) = Duty::made(|| {
            let made = make(&path)?;
            let of_signal = path.clone();
            io::Result::Ok((made, move || _ = fs::remove_file(of_signal)))
        })?;
        let unfinished = Unfinished { path, _duty: duty };
        Ok((made, unfinished))
    }
}

/// Most names for an unfinished file that are tried.
const MOST_NAMES: u32 = 100;

/// Most bytes that an unfinished file's name has of the finished one's: the rest of the 255 that
/// file systems allow is for its number.
const MOST_OF_NAME: usize = 200;

impl NewFile {
    /// Starts a file that is to lie at `place`, or where the link there leads, replacing a regular
    /// file there only if `replace` is set. Nothing but a regular file is ever replaced.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if a file lies there that may not be replaced; those of
    /// [`resolved`]; else the system's.
    pub fn create(place: &Path, replace: bool) -> io::Result<NewFile> {
        let place = resolved(place)?;
        check_place(&place, replace)?;
        remove_stale(&place);
        let (file, unfinished) = match nameless::create(folder_of(&place)) {
            Some(file) => (file, None),
            None => {
                let (file, unfinished) = create_named(&place)?;
                (file, Some(unfinished))
            }
        };
        Ok(NewFile {
            file,
            unfinished,
            place,
            replace,
        })
    }

    /// The path at which the file will lie.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Puts the file in its place, its bytes safe on the disk.
    ///
    /// # Errors
    /// The system's, or [`io::ErrorKind::AlreadyExists`] if the place was taken in the meantime;
    /// nothing is left of the file then.
    pub fn finish(mut self) -> io::Result<()> {
        self.put()
    }

    /// Puts the file in its place as it is, and returns it for what will be added: for records that
    /// are read while they grow.
    ///
    /// # Errors
    /// As [`NewFile::finish`].
    pub fn grow_in_place(mut self) -> io::Result<File> {
        self.put()?;
        self.file.try_clone()
    }

    fn put(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        if self.replace {
            take_over(&self.file, &self.place);
            let unfinished = match &self.unfinished {
                Some(unfinished) => unfinished.path.clone(),
                None => self.name()?,
            };
            check_place(&self.place, true)?;
            fs::rename(unfinished, &self.place)?;
        } else if let Some(Unfinished {
            path: unfinished, ..
        }) = &self.unfinished
        {
            // A link does not replace what came there in the meantime, as a rename would. Not every
            // file system has links.
            match fs::hard_link(unfinished, &self.place) {
                Ok(()) => fs::remove_file(unfinished)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
                Err(_) => {
                    check_place(&self.place, false)?;
                    fs::rename(unfinished, &self.place)?;
                }
            }
        } else {
            nameless::link(&self.file, &self.place)?;
        }
        self.unfinished = None;
        sync_folder(folder_of(&self.place));
        Ok(())
    }

    /// Gives a file without a name that of an unfinished one.
    fn name(&mut self) -> io::Result<PathBuf> {
        let mut error = io::Error::from(io::ErrorKind::AlreadyExists);
        for number in 0..MOST_NAMES {
            let path = unfinished_path(&self.place, number);
            match Unfinished::make(path.clone(), |path| nameless::link(&self.file, path)) {
                Ok(((), unfinished)) => {
                    self.unfinished = Some(unfinished);
                    return Ok(path);
                }
                Err(refused) if refused.kind() == io::ErrorKind::AlreadyExists => error = refused,
                Err(refused) => return Err(refused),
            }
        }
        Err(error)
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
    fn drop(&mut self) {
        if let Some(unfinished) = &self.unfinished {
            let _ = fs::remove_file(&unfinished.path);
        }
    }
}

/// The place that `path` leads to through links; nothing need lie there, but its folder is there.
///
/// # Errors
/// If it is a folder, a device, a pipe or a socket, or the system refuses a look.
pub fn resolved(path: &Path) -> io::Result<PathBuf> {
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") || path.file_name().is_none() {
        return Err(is_a(io::ErrorKind::IsADirectory, "the name of a folder"));
    }
    match fs::metadata(path) {
        Ok(there) if there.is_file() => {
            // A descriptor leads to a file that may have lost its name.
            let place = fs::canonicalize(path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => is_a(error.kind(), "a file without a name"),
                _ => error,
            })?;
            if Identity::of(&place).ok() == Identity::of(path).ok() {
                Ok(place)
            } else {
                Err(is_a(io::ErrorKind::InvalidInput, "a file without a name"))
            }
        }
        Ok(there) => Err(not_regular(&there.file_type())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => end_of_links(path),
        Err(error) => Err(error),
    }
}

/// The end of a chain of links at which nothing lies.
fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let mut place = path.to_path_buf();
    while fs::symlink_metadata(&place).is_ok_and(|there| there.is_symlink()) {
        place = folder_of(&place).join(fs::read_link(&place)?);
    }
    let folder = folder_of(&place);
    match (fs::canonicalize(folder), place.file_name()) {
        (Ok(folder), Some(name)) => Ok(folder.join(name)),
        (Err(error), Some(_)) if error.kind() == io::ErrorKind::NotFound => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no folder {}", folder.display()),
        )),
        (Err(error), _) => Err(error),
        (_, None) => Err(is_a(io::ErrorKind::IsADirectory, "the name of a folder")),
    }
}

/// The folder of a place.
fn folder_of(place: &Path) -> &Path {
    match place.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn is_a(kind: io::ErrorKind, what: &str) -> io::Error {
    io::Error::new(
        kind,
        format!("it is {what}, not a file that can be replaced"),
    )
}

fn not_regular(there: &fs::FileType) -> io::Error {
    if there.is_dir() {
        return is_a(io::ErrorKind::IsADirectory, "a folder");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if there.is_fifo() {
            return is_a(io::ErrorKind::InvalidInput, "a pipe");
        }
        if there.is_socket() {
            return is_a(io::ErrorKind::InvalidInput, "a socket");
        }
    }
    is_a(io::ErrorKind::InvalidInput, "a device")
}

/// Checks that a file may be put at a resolved `place`.
fn check_place(place: &Path, replace: bool) -> io::Result<()> {
    match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(there) if !there.is_file() => Err(not_regular(&there.file_type())),
        Ok(_) if replace => Ok(()),
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

/// Gives a file the rights and, where the system allows it, the owner of the one that it replaces.
fn take_over(file: &File, place: &Path) {
    let Ok(there) = fs::symlink_metadata(place) else {
        return;
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let _ = fchown(file, Some(there.uid()), Some(there.gid()));
    }
    let _ = file.set_permissions(there.permissions());
}

/// Makes a rename durable, where the system can synchronise folders.
pub fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

/// The beginning of the names of a place's unfinished files.
fn unfinished_start(place: &Path) -> String {
    let mut name = place
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    name.truncate(name.floor_char_boundary(MOST_OF_NAME));
    format!(".{name}.")
}

const UNFINISHED_END: &str = ".partial";

fn unfinished_path(place: &Path, number: u32) -> PathBuf {
    let number = u64::from(std::process::id()) + u64::from(number);
    let name = format!("{}{number}{UNFINISHED_END}", unfinished_start(place));
    place.with_file_name(name)
}

/// Starts an unfinished file that has a name. It stays locked while it is written, by which others
/// know it from what a killed process has left.
fn create_named(place: &Path) -> io::Result<(File, Unfinished)> {
    for number in 0..MOST_NAMES {
        let path = unfinished_path(place, number);
        let create = |path: &Path| OpenOptions::new().write(true).create_new(true).open(path);
        match Unfinished::make(path, create) {
            // Another process may have taken it for a killed one's before it was locked.
            Ok((file, unfinished)) if is_locked(&file) && is_at(&file, &unfinished.path) => {
                return Ok((file, unfinished));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Locks a file, where the system can; false if somebody else has.
fn is_locked(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// True if this very file lies at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    match (Identity::of_file(file), Identity::of(path)) {
        (Ok(here), Ok(there)) => here == there,
        // Where nothing can be known, nothing is taken away from under an open file either.
        (Err(error), Ok(_)) => error.kind() == io::ErrorKind::Unsupported,
        (_, Err(_)) => false,
    }
}

/// Removes a place's unfinished files of processes that are no more.
fn remove_stale(place: &Path) {
    let start = unfinished_start(place);
    for entry in fs::read_dir(folder_of(place))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name: OsString = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(&start)?.strip_suffix(UNFINISHED_END))
            .and_then(|number| number.parse::<u32>().ok());
        let path = entry.path();
        // Without a lock it may be that of a living process that cannot lock.
        if let Some(number) = number
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && !Path::new("/proc").join(number.to_string()).exists()
            && let Ok(file) = OpenOptions::new().write(true).open(&path)
            && file.try_lock().is_ok()
            && is_at(&file, &path)
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Files without a name.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod nameless {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::{AtFlags, CWD, linkat};

    /// A file without a name in this folder, if it can be given one later: not every file system
    /// has them, and not every system lets a program link them.
    pub(super) fn create(folder: &Path) -> Option<File> {
        let trial = folder.join(format!(".brooklet-{}{UNFINISHED_END}", std::process::id()));
        link(&open(folder).ok()?, &trial).ok()?;
        fs::remove_file(&trial).ok()?;
        open(folder).ok()
    }

    fn open(folder: &Path) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_TMPFILE)
            .open(folder)
    }

    /// Gives the file a name, at which nothing lies.
    pub(super) fn link(file: &File, path: &Path) -> io::Result<()> {
        let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
        linkat(CWD, descriptor, CWD, path, AtFlags::SYMLINK_FOLLOW)?;
        Ok(())
    }
}

/// The same for systems without such files.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod nameless {
    use super::*;

    pub(super) fn create(_: &Path) -> Option<File> {
        None
    }

    pub(super) fn link(_: &File, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests;

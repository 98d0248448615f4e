//! Messages of earlier sessions, which the arrow keys bring back.
//!
//! They lie in a file of the person's own (mode 600): one a line, in which `\n` is a line break and
//! `\\` a backslash.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::super::failure::Failure;
use crate::system::at_end::Duty;

/// Messages that are kept.
pub const KEPT: usize = 1000;

/// Most bytes of the file that are read: of its end.
const MOST: u64 = 4 << 20;

/// The file of earlier messages.
pub struct History {
    path: PathBuf,
    file: File,
}

impl History {
    /// The file's path, in the folder for a person's state; `None` if there is none.
    pub fn place() -> Option<PathBuf> {
        let folder = |name: &str| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path)
        };
        let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
        Some(state?.join("brooklet").join("chat-history"))
    }

    /// Opens the file, and returns it with its messages, the oldest first.
    pub fn open(path: &Path) -> Result<(History, Vec<String>), Failure> {
        let wrong = |error| Failure::Write {
            path: path.to_path_buf(),
            error,
        };
        if let Some(folder) = path.parent() {
            make_folder(folder).map_err(wrong)?;
        }
        let mut file = open(path).map_err(wrong)?;
        let (text, is_long) = read_end(&mut file).map_err(wrong)?;
        let mut messages: Vec<String> = text.lines().map(read).collect();
        let count = messages.len();
        messages.drain(..count.saturating_sub(KEPT));
        if is_long || count > 2 * KEPT {
            file = shorten(path, &messages).map_err(wrong)?;
        }
        let path = path.to_path_buf();
        Ok((History { path, file }, messages))
    }

    /// Adds a message.
    pub fn add(&mut self, message: &str) -> Result<(), Failure> {
        // In one piece, so that two chats at once do not mix their lines.
        let line = line(message);
        self.file
            .write_all(line.as_bytes())
            .map_err(|error| Failure::Write {
                path: self.path.clone(),
                error,
            })
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Opens the file for reading and appending, for its owner alone.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // A device or a pipe there would be waited for.
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::other("it is not a regular file"));
    }
    let file = options.open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let of = file.metadata()?.permissions();
        if of.mode() & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(file)
}

/// The end of the file, and whether that is not all of it.
fn read_end(file: &mut File) -> io::Result<(String, bool)> {
    let long = file.metadata()?.len().saturating_sub(MOST);
    io::Seek::seek(file, io::SeekFrom::Start(long))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let whole = match text.split_once('\n') {
        // It begins within a line.
        Some((_, rest)) if long > 0 => rest,
        _ => &text,
    };
    Ok((whole.to_owned(), long > 0))
}

/// Replaces the file by one with these messages.
fn shorten(path: &Path, messages: &[String]) -> io::Result<File> {
    let new = path.with_extension(format!("{}.partial", std::process::id()));
    // Of a process that was killed.
    let _ = fs::remove_file(&new);
    let (mut file, _duty) = Duty::made(|| {
        let (file, of_signal) = (open(&new)?, new.clone());
        io::Result::Ok((file, move || _ = fs::remove_file(of_signal)))
    })?;
    let text: String = messages.iter().map(|message| line(message)).collect();
    let moved = file
        .write_all(text.as_bytes())
        .and_then(|()| fs::rename(&new, path));
    if moved.is_err() {
        let _ = fs::remove_file(&new);
    }
    moved.map(|()| file)
}

fn line(message: &str) -> String {
    message.replace('\\', "\\\\").replace('\n', "\\n") + "\n"
}

fn read(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some('n')) => text.push('\n'),
            ('\\', Some('\\')) => text.push('\\'),
            _ => {
                text.push(c);
                continue;
            }
        }
        chars.next();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_in_the_next_session() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/brooklet/chat-history");
        let all = ["hello", "two\nlines", "C:\\new \\", ""];
        let (mut history, before) = History::open(&path).unwrap();
        assert!(before.is_empty());
        for message in all {
            history.add(message).unwrap();
        }
        assert_eq!(History::open(&path).unwrap().1, all);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&path), 0o600);
            assert_eq!(mode(path.parent().unwrap()), 0o700);
            // One that others could read.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            History::open(&path).unwrap();
            assert_eq!(mode(&path), 0o600);
        }
    }

    #[test]
    fn the_file_stays_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat-history");
        let lines: String = (0..=2 * KEPT).map(|i| format!("{i}\n")).collect();
        fs::write(&path, lines).unwrap();
        let (mut history, messages) = History::open(&path).unwrap();
        assert_eq!((messages.len(), &*messages[0]), (KEPT, "1001"));
        history.add("new").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), KEPT + 1);
        assert!(text.starts_with("1001\n") && text.ends_with("2000\nnew\n"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(History::open(folder.path()).is_err());
    }
}

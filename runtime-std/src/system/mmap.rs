//! Bytes from the operating system: model files, mapped or read, and the arena.
//!
//! # A file that shrinks while it is mapped
//!
//! Reading a mapped page behind a truncated file's end (or one that its disk cannot bring) raises
//! SIGBUS. Nothing that a program can do beforehand prevents it: checking the size leaves time for
//! it to change, leases and locks bind only those who ask, a private mapping is cut short like a
//! shared one, and pages brought in early may be dropped. So there are three answers: who replaces
//! a model renames a new file over it, as this program does; [`Access::Read`] has no file under it
//! once it is open; and a program may ask, once, for [`exit_where_files_shrink`], which the
//! `brooklet` command does. A library that installed a signal handler on its own would be a poor
//! guest: without that call the signal does to the program what it always does.
#![allow(
    unsafe_code,
    reason = "a mapped file's bytes can only be promised, see `ModelFile::map`; a signal handler, see `shrinking`"
)]

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap, MmapMut, MmapOptions};

use super::arriving;
use super::identity::Identity;

/// The way in which a model file's bytes are brought in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Mapped: the pages stay the file's own, are shared among processes, and can be dropped and
    /// read again at any time. Where the file system cannot map, the file is read, see
    /// [`ModelFile::refusal`].
    #[default]
    Map,
    /// Read into anonymous memory: for file systems that cannot map, or files that may change while
    /// they are used.
    Read,
}

enum Bytes {
    Mapped {
        /// Stands before the map and is dropped before it, so that a watched range is always
        /// mapped.
        _watched: shrinking::Watched,
        map: Mmap,
    },
    Read(Vec<u8>),
    Embedded(&'static [u8]),
}

/// The bytes of a model file.
pub struct ModelFile {
    path: PathBuf,
    bytes: Bytes,
    refusal: Option<io::Error>,
    identity: Option<Identity>,
}

impl ModelFile {
    /// Opens the file at `path`.
    ///
    /// A mapped file must not be cut short by others while it is used: reading behind its new end
    /// ends the process, see the [module](self). [`Access::Read`] is free of that.
    ///
    /// What is no regular file is read: of a pipe or a device no more than the model has.
    ///
    /// # Errors
    /// Those of the operating system; a directory or an empty file is one too.
    pub fn open(path: impl AsRef<Path>, access: Access) -> io::Result<ModelFile> {
        let path = path.as_ref().to_path_buf();
        let mut file = File::open(&path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                "it is a directory",
            ));
        }
        let identity = Identity::of_file(&file).or_else(|_| Identity::of(&path));
        let mut refusal = None;
        // Files of the kernel have no length.
        let bytes = if !metadata.is_file() || metadata.len() == 0 {
            Bytes::Read(arriving::read(&mut file)?)
        } else if access == Access::Map {
            match Self::map(&file) {
                Ok(map) => Bytes::Mapped {
                    _watched: shrinking::Watched::new(&map),
                    map,
                },
                Err(error) => {
                    refusal = Some(error);
                    read(&mut file, metadata.len())?
                }
            }
        } else {
            read(&mut file, metadata.len())?
        };
        Ok(ModelFile {
            path,
            bytes,
            refusal,
            identity: identity.ok(),
        })
    }

    fn map(file: &File) -> io::Result<Mmap> {
        // SAFETY: the map is read-only and private to this value. What remains is the promise that
        // nobody changes the file while it is mapped, which no program can keep for others; `open`
        // says so to its callers, and offers `Access::Read`. Code that reads these bytes checks
        // them once and must tolerate any value after that: core's readers of weights do, since
        // every bit pattern is a valid block, and its indices into the file are bounds-checked
        // slices.
        //
        // A private map is the only one that some file systems have, many of them over a network.
        // Its pages are the file's own all the same, since nobody writes to them.
        let map = unsafe { MmapOptions::new().map_copy_read_only(file)? };
        // Every token reads every weight. The advice only starts that early, so its failure is no
        // error.
        let _ = map.advise(Advice::WillNeed);
        Ok(map)
    }

    /// A file that is embedded in the program; `name` is for messages.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> ModelFile {
        ModelFile {
            path: name.into(),
            bytes: Bytes::Embedded(bytes),
            refusal: None,
            identity: None,
        }
    }

    /// The path by which the file was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity of the file; an embedded one has none.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The system's reason, if the file was to be mapped but had to be read into memory.
    pub fn refusal(&self) -> Option<&io::Error> {
        self.refusal.as_ref()
    }

    /// True if the bytes are a mapped file's own: the model's, or the program's for a part of it.
    pub fn is_mapped(&self) -> bool {
        !matches!(self.bytes, Bytes::Read(_))
    }
}

/// Reads the whole of a file.
fn read(file: &mut File, len: u64) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(len).unwrap_or(usize::MAX))?;
    file.take(len).read_to_end(&mut bytes)?;
    Ok(Bytes::Read(bytes))
}

impl Deref for ModelFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped { map, .. } => map,
            Bytes::Read(bytes) => bytes,
            Bytes::Embedded(bytes) => bytes,
        }
    }
}

/// From now on this process ends with `sentence` on standard error and the status 1, instead of by
/// SIGBUS, where a mapped [`ModelFile`] has been cut short or cannot be read any more. Any other
/// SIGBUS is passed on to whoever handled it before. For programs, not for libraries; calls after
/// the first do nothing. On systems without that signal this does nothing.
///
/// # Errors
/// If the system refuses the handler.
pub fn exit_where_files_shrink(sentence: &'static str) -> io::Result<()> {
    shrinking::install(sentence)
}

/// The handler of SIGBUS, and the mappings that it answers for.
#[cfg(unix)]
mod shrinking {
    use std::io;
    use std::ptr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// True once a thread ends the process: other threads that read the same mapping wait for that,
    /// so that the sentence is written once.
    static ENDING: AtomicBool = AtomicBool::new(false);

    /// Mappings that can be watched at a time. A signal handler cannot take a lock, so that the
    /// table cannot grow.
    const MOST: usize = 16;

    /// First addresses and lengths; a length of 0 is no mapping.
    static MAPPINGS: [(AtomicUsize, AtomicUsize); MOST] =
        [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; MOST];

    /// The handler that stood before, and the sentence of this one.
    static BEFORE: OnceLock<(libc::sigaction, &'static str)> = OnceLock::new();

    /// A mapping's entry in the table, if there was room.
    pub(super) struct Watched(Option<usize>);

    impl Watched {
        pub(super) fn new(bytes: &[u8]) -> Watched {
            let start = bytes.as_ptr().addr();
            let free = |(at, _): &(AtomicUsize, AtomicUsize)| {
                at.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            };
            let entry = MAPPINGS.iter().position(free);
            if let Some(entry) = entry {
                MAPPINGS[entry].1.store(bytes.len(), Ordering::Release);
            }
            Watched(entry)
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            if let Some(entry) = self.0 {
                // The order matters: the length is 0 before the entry becomes free.
                MAPPINGS[entry].1.store(0, Ordering::Release);
                MAPPINGS[entry].0.store(0, Ordering::Release);
            }
        }
    }

    /// True if `address` lies in a model's mapping.
    fn is_watched(address: usize) -> bool {
        MAPPINGS.iter().any(|(start, len)| {
            let len = len.load(Ordering::Acquire);
            address.wrapping_sub(start.load(Ordering::Acquire)) < len
        })
    }

    pub(super) fn install(sentence: &'static str) -> io::Result<()> {
        if BEFORE.get().is_some() {
            return Ok(());
        }
        // SAFETY: `sigaction` is plain numbers, for which zero is valid: no handler, no flags, an
        // empty mask. The calls read and write only the two structures, which outlive them.
        let before = unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) != 0 {
                return Err(io::Error::last_os_error());
            }
            before
        };
        if BEFORE.set((before, sentence)).is_err() {
            return Ok(());
        }
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
        // SAFETY: as above. The handler has the signature that SA_SIGINFO asks for, and does only
        // what a handler may, see there. SA_ONSTACK: a thread that has run out of stack can still
        // run the handler that was there before.
        let done = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut())
        };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Ends the process if a model's mapping is concerned; else puts back what was there before and
    /// returns, whereupon the instruction is tried again and the signal goes to that.
    extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the system hands a SA_SIGINFO handler a valid `info`, whose address is set for
        // this signal. `write`, `_exit`, `pause` and `sigaction` are async-signal-safe
        // (POSIX.1-2017, section 2.4.3); nothing here allocates, locks or unwinds, and `BEFORE` was
        // set before the handler was installed, so that reading it is an atomic load.
        unsafe {
            let Some((before, sentence)) = BEFORE.get() else {
                return;
            };
            if is_watched((*info).si_addr().addr()) {
                while ENDING.swap(true, Ordering::Relaxed) {
                    libc::pause();
                }
                let _ = libc::write(
                    libc::STDERR_FILENO,
                    sentence.as_ptr().cast(),
                    sentence.len(),
                );
                libc::_exit(1);
            }
            libc::sigaction(libc::SIGBUS, before, ptr::null_mut());
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn mappings_are_watched_while_they_are_there() {
            let bytes = [0u8; 100];
            let start = bytes.as_ptr().addr();
            let inside = || {
                (start..start + 100)
                    .filter(|address| is_watched(*address))
                    .count()
            };
            let first = Watched::new(&bytes[..60]);
            assert_eq!(inside(), 60);
            let second = Watched::new(&bytes[60..]);
            assert_eq!(inside(), 100);
            drop(first);
            assert_eq!(inside(), 40);
            drop(second);
            assert_eq!(inside(), 0);
            // A full table is not an error.
            let all: Vec<Watched> = (0..=MOST).map(|_| Watched::new(&bytes)).collect();
            assert!(all.iter().any(|watched| watched.0.is_none()));
        }
    }
}

/// The same for systems where a mapped file cannot be cut short, or no signal tells of it.
#[cfg(not(unix))]
mod shrinking {
    pub(super) struct Watched;

    impl Watched {
        pub(super) fn new(_: &[u8]) -> Watched {
            Watched
        }
    }

    pub(super) fn install(_: &'static str) -> std::io::Result<()> {
        Ok(())
    }
}

/// The one buffer that core works in: anonymous zeroed pages, of which the system hands out those
/// that are touched.
pub struct ArenaMemory {
    map: MmapMut,
    len: usize,
}

impl ArenaMemory {
    /// `len` bytes, aligned to a page.
    ///
    /// # Errors
    /// If the system lacks that much address space.
    pub fn new(len: usize) -> io::Result<ArenaMemory> {
        // An empty map is refused by the system.
        let map = MmapMut::map_anon(len.max(1))?;
        Ok(ArenaMemory { map, len })
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.map[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn mapped_and_read_files_have_the_same_bytes() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"weights").unwrap();
        let mapped = ModelFile::open(file.path(), Access::Map).unwrap();
        let read = ModelFile::open(file.path(), Access::Read).unwrap();
        assert_eq!((&mapped[..], mapped.is_mapped()), (&b"weights"[..], true));
        assert_eq!((&read[..], read.is_mapped()), (&b"weights"[..], false));
        assert_eq!(mapped.path(), file.path());
    }

    #[test]
    fn an_empty_file_is_empty_and_a_directory_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(
            ModelFile::open(file.path(), Access::Map)
                .unwrap()
                .is_empty()
        );
        let folder = tempfile::tempdir().unwrap();
        for access in [Access::Map, Access::Read] {
            assert_eq!(
                ModelFile::open(folder.path(), access).err().unwrap().kind(),
                io::ErrorKind::IsADirectory
            );
        }
    }

    #[test]
    fn the_arena_is_zeroed_and_aligned() {
        for len in [0, 1, 4096, 1 << 20] {
            let mut arena = ArenaMemory::new(len).unwrap();
            assert_eq!(arena.bytes().len(), len);
            assert!(arena.bytes().iter().all(|&byte| byte == 0));
            assert!(
                arena
                    .bytes()
                    .as_ptr()
                    .addr()
                    .is_multiple_of(brooklet_core::arena::ALIGN)
            );
        }
    }
}

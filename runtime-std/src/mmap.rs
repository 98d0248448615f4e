//! Bytes from the operating system: model files, mapped or read, and the arena.
#![allow(
    unsafe_code,
    reason = "a mapped file's bytes can only be promised, see `ModelFile::map`"
)]

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap, MmapMut, MmapOptions};

/// How a model file's bytes are brought in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Mapped: the pages stay the file's own, are shared among processes, and can be dropped and read again at any time.
    #[default]
    Map,
    /// Read into anonymous memory: for file systems that cannot map, or files that may change while they are used.
    Read,
}

enum Bytes {
    Mapped(Mmap),
    Read(Vec<u8>),
    Embedded(&'static [u8]),
}

/// The bytes of a model file.
pub struct ModelFile {
    path: PathBuf,
    bytes: Bytes,
}

impl ModelFile {
    /// Opens the file at `path`.
    ///
    /// A mapped file must not be cut short by others while it is used: reading behind its new end would end the process.
    /// [`Access::Read`] is free of that.
    ///
    /// # Errors
    /// Those of the operating system; a directory or an empty file is one too.
    pub fn open(path: impl AsRef<Path>, access: Access) -> io::Result<ModelFile> {
        let path = path.as_ref().to_path_buf();
        let mut file = File::open(&path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        }
        let bytes = match access {
            Access::Map if metadata.is_file() && metadata.len() > 0 => Bytes::Mapped(Self::map(&file)?),
            _ => {
                let mut bytes = Vec::new();
                bytes.try_reserve_exact(usize::try_from(metadata.len()).unwrap_or(usize::MAX))?;
                file.read_to_end(&mut bytes)?;
                Bytes::Read(bytes)
            }
        };
        Ok(ModelFile { path, bytes })
    }

    fn map(file: &File) -> io::Result<Mmap> {
        // SAFETY: the map is read-only and private to this value. What remains is the promise that nobody changes the file while it
        // is mapped, which no program can keep for others; `open` says so to its callers, and offers `Access::Read`. Code that reads
        // these bytes checks them once and must tolerate any value after that: core's readers of weights do, since every bit
        // pattern is a valid block, and its indices into the file are bounds-checked slices.
        let map = unsafe { MmapOptions::new().map(file)? };
        // Every token reads every weight. The advice only starts that early, so its failure is no error.
        let _ = map.advise(Advice::WillNeed);
        Ok(map)
    }

    /// A file that is a part of the program, `name`d for messages.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> ModelFile {
        ModelFile {
            path: name.into(),
            bytes: Bytes::Embedded(bytes),
        }
    }

    /// Where the file was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the bytes are a mapped file's own: the model's, or the program's for a part of it.
    pub fn is_mapped(&self) -> bool {
        !matches!(self.bytes, Bytes::Read(_))
    }
}

impl Deref for ModelFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Read(bytes) => bytes,
            Bytes::Embedded(bytes) => bytes,
        }
    }
}

/// The one buffer that core works in: anonymous zeroed pages, of which the system hands out those that are touched.
pub struct ArenaMemory {
    map: MmapMut,
    len: usize,
}

impl ArenaMemory {
    /// `len` bytes, aligned to a page.
    ///
    /// # Errors
    /// If the system has not that much address space.
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
        assert!(ModelFile::open(file.path(), Access::Map).unwrap().is_empty());
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

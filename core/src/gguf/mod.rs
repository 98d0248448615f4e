//! A checked, zero-copy view of a GGUF file (versions 2 and 3, little-endian), usable in `const`
//! and at run time.
//!
//! Format: the *GGUF* specification of the ggml project (`docs/gguf.md`). The bytes are untrusted:
//! [`Gguf::parse`] checks every count, length and offset for overflow and bounds before it is used,
//! once. All later look-ups then walk over checked bytes and cannot fail. Nothing here panics,
//! whatever the bytes are, and nothing is copied.
//!
//! Time is linear in the file, for files as they are: parsing reads the metadata at most twice and
//! the tensor table four times, and again for every few hundred entries more than real files have.
//! Every look-up reads one of them at most once; that of a key steps over the longest lists of
//! strings (a vocabulary, its merges), whose ends were noted when the file was parsed. Each count
//! is compared with the number of remaining bytes before a loop runs that many times. A caller that
//! repeats look-ups by a number from the file (the layers, for example) must bound that number
//! itself.
//!
//! A file that has a key or a tensor name twice is refused, and so is one whose tensors share a
//! part of their data. Two tensors may have all of it in common.
//!
//! In a `const` context the same code makes a truncated model a compile error:
//!
//! ```
//! use brooklet_core::gguf::{Gguf, GgufError};
//! const NOT_A_MODEL: Result<Gguf<'static>, GgufError> = Gguf::parse(b"GGUF\x03\0\0\0");
//! assert_eq!(NOT_A_MODEL.err(), Some(GgufError::Truncated { offset: 8 }));
//! ```

mod error;
mod lists;
mod name;
mod reader;
mod tensors;
mod unique;
mod value;

use core::fmt;

pub use error::GgufError;
pub use name::Name;
pub use tensors::{TensorInfo, Tensors};
pub use value::{Array, Elements, Value};

use crate::const_fn::{Message, same, same_parts, tri};
use lists::Lists;
use reader::Reader;
use unique::{NAMES, Names};
use value::{read_known_list, read_type, read_value};

/// Largest depth of nested metadata arrays.
pub const MAX_ARRAY_DEPTH: usize = 4;

/// Largest number of tensors in a file: tens of times that of any real one. Every look-up by name
/// reads the whole table.
pub const MAX_TENSORS: usize = 1 << 15;

/// Largest number of metadata entries in a file: a hundred times that of real ones.
pub const MAX_ENTRIES: usize = 1 << 12;

/// Alignment of tensor data in a file without `general.alignment`.
const DEFAULT_ALIGNMENT: u64 = 32;

/// Largest accepted `general.alignment`: far above any real one, and small enough that rounding a
/// position in a file up to it cannot overflow.
const MAX_ALIGNMENT: u64 = 65536;

// A position is at most `isize::MAX`, so `position + MAX_ALIGNMENT` fits a `usize` of 32 bits; one
// of 16 bits would overflow.
const _: () = assert!(
    usize::BITS >= 32,
    "GGUF files need an address space of at least 32 bits"
);

/// A whole, checked GGUF file.
#[derive(Clone, Copy)]
pub struct Gguf<'a> {
    bytes: &'a [u8],
    version: u32,
    metadata_count: usize,
    metadata_start: usize,
    tensor_count: usize,
    tensors_start: usize,
    data_start: usize,
    alignment: usize,
    lists: Lists,
}

impl<'a> Gguf<'a> {
    /// Checks the header, all metadata and the tensor table of `bytes`, the complete file.
    ///
    /// # Errors
    /// The first fault, with its offset or tensor index. A tensor of a format that this crate
    /// cannot compute with is no error: its place is checked as far as its size is known, and its
    /// [`TensorInfo::format`] is `None`.
    pub const fn parse(bytes: &'a [u8]) -> Result<Self, GgufError> {
        Gguf::read::<true>(bytes)
    }

    /// As [`Gguf::parse`], of a file that was parsed before: a board does not look again for what
    /// is there twice, which takes kilobytes of its stack.
    pub(crate) const fn parse_again(bytes: &'a [u8]) -> Result<Self, GgufError> {
        Gguf::read::<false>(bytes)
    }

    const fn read<const UNIQUE: bool>(bytes: &'a [u8]) -> Result<Self, GgufError> {
        let mut r = Reader::at(bytes, 0);
        match r.take(4) {
            Ok([b'G', b'G', b'U', b'F']) => {}
            _ => return Err(GgufError::NotGguf),
        }
        let version = tri!(r.u32());
        if version != 2 && version != 3 {
            return Err(GgufError::UnsupportedVersion(version));
        }
        let tensor_count = tri!(r.count(tensors::MIN_ENTRY_BYTES));
        if tensor_count > MAX_TENSORS {
            return Err(GgufError::TooManyTensors(tensor_count));
        }
        let metadata_count = tri!(r.count(MIN_METADATA_BYTES));
        if metadata_count > MAX_ENTRIES {
            return Err(GgufError::TooManyEntries(metadata_count));
        }
        let mut file = Gguf {
            bytes,
            version,
            metadata_count,
            metadata_start: r.pos,
            tensor_count,
            tensors_start: 0,
            data_start: 0,
            alignment: 0,
            lists: Lists::new(),
        };
        if UNIQUE {
            tri!(read_unique_entries(&mut r, metadata_count, &mut file.lists));
        } else {
            let mut i = 0;
            while i < metadata_count {
                tri!(read_new_entry(&mut r, &mut file.lists));
                i += 1;
            }
        }
        file.tensors_start = r.pos;
        file.alignment = tri!(file.read_alignment());
        file.data_start = tri!(tensors::check::<UNIQUE>(
            &mut r,
            tensor_count,
            file.alignment
        ));
        Ok(file)
    }

    const fn read_alignment(&self) -> Result<usize, GgufError> {
        let alignment = match self.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(value) => match value.as_u64() {
                Some(alignment) => alignment,
                None => return Err(GgufError::AlignmentNotInteger),
            },
        };
        if !alignment.is_power_of_two() || alignment < 8 || alignment > MAX_ALIGNMENT {
            return Err(GgufError::BadAlignment(alignment));
        }
        Ok(alignment as usize)
    }

    /// Version of the format: 2 or 3.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Bytes of the complete file.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Number of metadata entries.
    pub const fn metadata_count(&self) -> usize {
        self.metadata_count
    }

    /// Number of tensors.
    pub const fn tensor_count(&self) -> usize {
        self.tensor_count
    }

    /// Alignment of tensor data in bytes.
    pub const fn alignment(&self) -> usize {
        self.alignment
    }

    /// Start of the tensor data, in bytes from the start of the file; in a file without tensor data
    /// this may lie past the end.
    pub const fn data_start(&self) -> usize {
        self.data_start
    }

    /// Returns a cursor over the metadata, in the file's order.
    pub const fn metadata(&self) -> Metadata<'a> {
        Metadata {
            reader: Reader::at(self.bytes, self.metadata_start),
            left: self.metadata_count,
            lists: self.lists,
        }
    }

    /// Returns the metadata value under `key`.
    pub const fn get(&self, key: &str) -> Option<Value<'a>> {
        let mut entries = self.metadata();
        while let Some((name, value)) = entries.next_entry() {
            if same(name.as_bytes(), key.as_bytes()) {
                return Some(value);
            }
        }
        None
    }

    /// Returns the metadata value whose key is `prefix`, a dot and `suffix`: GGUF names model facts
    /// by architecture (`llama.block_count`).
    pub const fn get_scoped(&self, prefix: &str, suffix: &str) -> Option<Value<'a>> {
        let mut entries = self.metadata();
        while let Some((name, value)) = entries.next_entry() {
            if same_parts(name.as_bytes(), &[prefix, ".", suffix]) {
                return Some(value);
            }
        }
        None
    }

    /// Returns a cursor over the tensor table, in the file's order.
    pub const fn tensors(&self) -> Tensors<'a> {
        Tensors::new(
            self.bytes,
            self.tensors_start,
            self.tensor_count,
            self.data_start,
        )
    }

    /// Returns the tensor with this name.
    pub const fn tensor(&self, name: &str) -> Option<TensorInfo<'a>> {
        self.tensors().find(&[name])
    }

    /// Returns the tensor `blk.{layer}.{suffix}`, GGUF's name for a tensor of one layer, without
    /// building the name.
    pub const fn layer_tensor(&self, layer: usize, suffix: &str) -> Option<TensorInfo<'a>> {
        self.stack_tensor("blk.", layer, suffix)
    }

    /// Returns the tensor `{stack}{layer}.{suffix}`, for files with more than one stack of layers
    /// (`enc.blocks.`), without building the name.
    pub const fn stack_tensor(
        &self,
        stack: &str,
        layer: usize,
        suffix: &str,
    ) -> Option<TensorInfo<'a>> {
        let number: Message<20> = Message::new().number(layer);
        self.tensors().find(&[stack, number.as_str(), ".", suffix])
    }
}

impl fmt::Debug for Gguf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("version", &self.version)
            .field("bytes", &self.bytes.len())
            .field("metadata", &self.metadata_count)
            .field("tensors", &self.tensor_count)
            .finish()
    }
}

/// Cursor over metadata entries.
#[derive(Clone, Copy)]
pub struct Metadata<'a> {
    reader: Reader<'a>,
    left: usize,
    lists: Lists,
}

impl<'a> Metadata<'a> {
    /// Returns the next entry; the same as [`Iterator::next`], for `const` code.
    pub const fn next_entry(&mut self) -> Option<(&'a str, Value<'a>)> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        match read_entry(&mut self.reader, &self.lists) {
            Ok(entry) => Some(entry),
            // Unreachable after the checks of `Gguf::parse`; ending early is the safe answer in any
            // case.
            Err(_) => None,
        }
    }
}

impl<'a> Iterator for Metadata<'a> {
    type Item = (&'a str, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry()
    }
}

/// Smallest number of bytes of a metadata entry: an empty key, a type and a value of one byte.
const MIN_METADATA_BYTES: usize = 8 + 4 + 1;

/// Reads and checks all metadata entries, whose keys must differ, and notes the lists.
const fn read_unique_entries(
    r: &mut Reader<'_>,
    count: usize,
    lists: &mut Lists,
) -> Result<(), GgufError> {
    let (mut first, mut next_block) = (0, *r);
    loop {
        let mut names = Names::new(r.bytes);
        *r = next_block;
        let mut i = first;
        while i < count {
            if i == first + NAMES {
                next_block = *r;
            }
            let offset = r.pos;
            let name = tri!(read_new_entry(r, lists));
            if names.meet(name, offset).is_some() {
                return Err(GgufError::DuplicateKey { offset });
            }
            i += 1;
        }
        first += NAMES;
        if first >= count {
            return Ok(());
        }
    }
}

/// Reads and checks one metadata entry, notes it if it is a list, and returns its key.
const fn read_new_entry<'a>(r: &mut Reader<'a>, lists: &mut Lists) -> Result<&'a str, GgufError> {
    let (name, value) = tri!(read_entry(r, lists));
    if let Value::Array(array) = value
        && array.is_list()
    {
        lists.note(array.start(), r.pos);
    }
    Ok(name)
}

/// Reads and checks one metadata entry; steps over a list whose end is known.
const fn read_entry<'a>(
    r: &mut Reader<'a>,
    lists: &Lists,
) -> Result<(&'a str, Value<'a>), GgufError> {
    let name = tri!(r.name());
    let value_type = tri!(read_type(r));
    let value = match lists.end(r.pos, value_type) {
        Some(end) => tri!(read_known_list(r, end)),
        None => tri!(read_value(r, value_type, MAX_ARRAY_DEPTH)),
    };
    Ok((name, value))
}

#[cfg(test)]
mod tests;

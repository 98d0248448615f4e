//! The tensor table.

use core::fmt;

use super::reader::Reader;
use super::{GgufError, unique};
use crate::const_fn::{len_of_parts, same_parts, tri};
use crate::quant::{Format, GgmlType};

/// One entry of the tensor table, with its data.
#[derive(Clone, Copy)]
pub struct TensorInfo<'a> {
    name: &'a str,
    dims: [usize; 4],
    rank: usize,
    ggml_type: u32,
    data: &'a [u8],
}

impl<'a> TensorInfo<'a> {
    /// Name of the tensor.
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// Number of dimensions: 1 to 4.
    pub const fn rank(&self) -> usize {
        self.rank
    }

    /// Dimensions in GGUF's order, fastest first: `[columns, rows, ...]`; those past
    /// [`TensorInfo::rank`] are 1.
    pub const fn dims(&self) -> [usize; 4] {
        self.dims
    }

    /// Number of elements in a row (the fastest dimension).
    pub const fn cols(&self) -> usize {
        self.dims[0]
    }

    /// Product of the other dimensions. Neither this nor `cols() * rows()` overflows: both were
    /// checked with the file.
    pub const fn rows(&self) -> usize {
        self.dims[1] * self.dims[2] * self.dims[3]
    }

    /// ggml's number for the element format.
    pub const fn ggml_type(&self) -> u32 {
        self.ggml_type
    }

    /// Element format, if this crate can compute with it.
    pub const fn format(&self) -> Option<Format> {
        Format::from_ggml_type(self.ggml_type)
    }

    /// Bytes of the tensor; empty if [`TensorInfo::format`] is `None`.
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }
}

/// Names the tensor without its data, which may be gigabytes long.
impl fmt::Debug for TensorInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorInfo")
            .field("name", &self.name)
            .field("dims", &self.dims)
            .field("ggml_type", &self.ggml_type)
            .field("bytes", &self.data.len())
            .finish()
    }
}

/// Cursor over the tensor table.
#[derive(Clone, Copy)]
pub struct Tensors<'a> {
    reader: Reader<'a>,
    left: usize,
    data_start: usize,
}

impl<'a> Tensors<'a> {
    pub(super) const fn new(
        bytes: &'a [u8],
        start: usize,
        count: usize,
        data_start: usize,
    ) -> Self {
        Tensors {
            reader: Reader::at(bytes, start),
            left: count,
            data_start,
        }
    }

    /// Returns the first of the remaining tensors whose name is the concatenation of `parts`. Only
    /// that one is decoded: the others are stepped over by the lengths in them, which
    /// `Gguf::parse` has checked.
    pub(super) const fn find(mut self, parts: &[&str]) -> Option<TensorInfo<'a>> {
        let wanted = len_of_parts(parts);
        while self.left > 0 {
            let mut r = self.reader;
            // On an error, which cannot happen, ending early is the safe answer.
            let Ok(len) = r.u64() else {
                return None;
            };
            let len = len as usize;
            if len == wanted {
                let mut name = r;
                if let Ok(name) = name.take(len)
                    && same_parts(name, parts)
                {
                    return self.next_tensor();
                }
            }
            let mut r = Reader::at(r.bytes, r.pos.saturating_add(len));
            let Ok(rank) = r.u32() else {
                return None;
            };
            // Dimensions, format and offset.
            let rest = (rank as usize).saturating_mul(8).saturating_add(4 + 8);
            self.reader = Reader::at(r.bytes, r.pos.saturating_add(rest));
            self.left -= 1;
        }
        None
    }

    /// Returns the next tensor; the same as [`Iterator::next`], for `const` code.
    pub const fn next_tensor(&mut self) -> Option<TensorInfo<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        // No error below can happen after the checks of `Gguf::parse`; ending early is the safe
        // answer in any case.
        let Ok(entry) = Entry::read(&mut self.reader, 0) else {
            return None;
        };
        let data = match entry.byte_len(0) {
            Ok(Some(len)) if Format::from_ggml_type(entry.ggml_type).is_some() => {
                let Some(start) = self.data_start.checked_add(entry.offset) else {
                    return None;
                };
                let Ok(data) = Reader::at(self.reader.bytes, start).take(len) else {
                    return None;
                };
                data
            }
            Ok(_) => &[],
            Err(_) => return None,
        };
        Some(TensorInfo {
            name: entry.name,
            dims: entry.dims,
            rank: entry.rank,
            ggml_type: entry.ggml_type,
            data,
        })
    }
}

impl<'a> Iterator for Tensors<'a> {
    type Item = TensorInfo<'a>;

    fn next(&mut self) -> Option<TensorInfo<'a>> {
        self.next_tensor()
    }
}

/// Smallest number of bytes of an entry: an empty name, a number of dimensions, one dimension, a
/// type and an offset.
pub(super) const MIN_ENTRY_BYTES: usize = 8 + 4 + 8 + 4 + 8;

/// Fields of an entry as they are in the file.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    dims: [usize; 4],
    rank: usize,
    ggml_type: u32,
    pub(super) offset: usize,
}

impl<'a> Entry<'a> {
    pub(super) const fn read(r: &mut Reader<'a>, tensor: usize) -> Result<Self, GgufError> {
        let name = tri!(r.name());
        let rank = tri!(r.u32()) as usize;
        if rank == 0 || rank > 4 {
            return Err(GgufError::BadDimensions { tensor });
        }
        let mut dims = [1usize; 4];
        let mut i = 0;
        while i < rank {
            let dim = tri!(r.u64());
            if dim == 0 {
                return Err(GgufError::BadDimensions { tensor });
            }
            if dim > usize::MAX as u64 {
                return Err(GgufError::BadTensorSize { tensor });
            }
            dims[i] = dim as usize;
            i += 1;
        }
        let ggml_type = tri!(r.u32());
        let offset = tri!(r.u64());
        if offset > usize::MAX as u64 {
            return Err(GgufError::TensorOutOfFile {
                tensor,
                missing: usize::MAX,
            });
        }
        Ok(Entry {
            name,
            dims,
            rank,
            ggml_type,
            offset: offset as usize,
        })
    }

    /// Number of bytes of the data, or `None` for a format that ggml does not define, either. Also
    /// checks that the number of elements fits a `usize`.
    pub(super) const fn byte_len(&self, tensor: usize) -> Result<Option<usize>, GgufError> {
        let error = Err(GgufError::BadTensorSize { tensor });
        let mut elements = 1usize;
        let mut i = 0;
        while i < 4 {
            elements = match elements.checked_mul(self.dims[i]) {
                Some(elements) => elements,
                None => return error,
            };
            i += 1;
        }
        let Some(GgmlType { block, bytes, .. }) = GgmlType::of(self.ggml_type) else {
            return Ok(None);
        };
        if !self.dims[0].is_multiple_of(block) {
            return error;
        }
        let Some(row) = (self.dims[0] / block).checked_mul(bytes) else {
            return error;
        };
        match row.checked_mul(elements / self.dims[0]) {
            Some(len) => Ok(Some(len)),
            None => error,
        }
    }
}

/// Checks the table at `r` and every tensor's place in the file; returns the start of the tensor
/// data.
pub(super) const fn check<const UNIQUE: bool>(
    r: &mut Reader<'_>,
    count: usize,
    alignment: usize,
) -> Result<usize, GgufError> {
    let table = *r;
    let mut i = 0;
    while i < count {
        tri!(Entry::read(r, i));
        i += 1;
    }
    // Cannot overflow: see `MAX_ALIGNMENT`. A file without tensors may end before the padding.
    let data_start = r.pos.next_multiple_of(alignment);
    let mut again = table;
    i = 0;
    while i < count {
        let entry = tri!(Entry::read(&mut again, i));
        if entry.offset % alignment != 0 {
            return Err(GgufError::MisalignedTensor { tensor: i });
        }
        let len = match tri!(entry.byte_len(i)) {
            Some(len) => len,
            None => 0,
        };
        // A saturated sum is past the end of any file.
        let end = data_start.saturating_add(entry.offset).saturating_add(len);
        if end > r.bytes.len() {
            return Err(GgufError::TensorOutOfFile {
                tensor: i,
                missing: end - r.bytes.len(),
            });
        }
        i += 1;
    }
    if UNIQUE {
        tri!(unique::names_of_tensors(table, count));
        tri!(unique::data_of_tensors(table, count));
    }
    Ok(data_start)
}

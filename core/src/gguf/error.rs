//! Errors of parsing a GGUF file.

use core::fmt;

/// Reason why bytes are not a GGUF file that this crate can use.
///
/// Offsets are in bytes from the start of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum GgufError {
    /// The first four bytes are not `GGUF`.
    NotGguf,
    /// The version is neither 2 nor 3 (a big-endian file appears here as a huge number).
    UnsupportedVersion(u32),
    /// The file ends inside a field that starts at this offset.
    Truncated {
        /// Offset of the field.
        offset: usize,
    },
    /// A count or a length at this offset cannot fit in the file, or overflows.
    CountTooLarge {
        /// Offset of the count.
        offset: usize,
    },
    /// The file has this many tensors, more than [`super::MAX_TENSORS`].
    TooManyTensors(usize),
    /// The file has this many metadata entries, more than [`super::MAX_ENTRIES`].
    TooManyEntries(usize),
    /// The key at this offset is there a second time.
    DuplicateKey {
        /// Offset of the key.
        offset: usize,
    },
    /// Two tensors have one name.
    DuplicateTensor {
        /// Index of the second in the tensor table.
        tensor: usize,
        /// Index of the first.
        first: usize,
    },
    /// Two tensors share a part of their data.
    OverlappingTensors {
        /// Index of one in the tensor table.
        tensor: usize,
        /// Index of the other.
        other: usize,
    },
    /// A metadata value at this offset has a type number that the format does not define.
    UnknownValueType {
        /// Offset of the type number.
        offset: usize,
        /// The number found.
        value_type: u32,
    },
    /// Arrays of arrays are nested deeper than [`super::MAX_ARRAY_DEPTH`] at this offset.
    NestedTooDeep {
        /// Offset of the array.
        offset: usize,
    },
    /// A key or a tensor name at this offset is not UTF-8.
    NameNotUtf8 {
        /// Offset of the name's first byte.
        offset: usize,
    },
    /// `general.alignment` is not a power of two of at least 8 (and at most 65536).
    BadAlignment(u64),
    /// `general.alignment` is not an unsigned integer.
    AlignmentNotInteger,
    /// The tensor with this index has no dimensions or more than four, or a dimension of zero.
    BadDimensions {
        /// Index in the tensor table.
        tensor: usize,
    },
    /// The number of elements or bytes of the tensor with this index overflows, or its rows do not
    /// hold whole blocks.
    BadTensorSize {
        /// Index in the tensor table.
        tensor: usize,
    },
    /// The data of the tensor with this index does not start on an alignment boundary.
    MisalignedTensor {
        /// Index in the tensor table.
        tensor: usize,
    },
    /// The data of the tensor with this index ends past the end of the file.
    TensorOutOfFile {
        /// Index in the tensor table.
        tensor: usize,
        /// Number of bytes missing at the end of the file; smaller than the real number if the end
        /// of the data saturates at `usize::MAX`.
        missing: usize,
    },
}

impl fmt::Display for GgufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotGguf => write!(f, "not a GGUF file: it does not start with the bytes GGUF"),
            Self::UnsupportedVersion(v) => {
                write!(
                    f,
                    "GGUF version {v} is not supported: only little-endian versions 2 and 3 are supported"
                )
            }
            Self::Truncated { offset } => {
                write!(
                    f,
                    "the file is truncated: it ends inside a field that starts at byte {offset}"
                )
            }
            Self::CountTooLarge { offset } => {
                write!(
                    f,
                    "the count at byte {offset} is larger than the file can hold"
                )
            }
            Self::TooManyTensors(tensors) => {
                write!(
                    f,
                    "the file has {tensors} tensors; the largest number is {}",
                    super::MAX_TENSORS
                )
            }
            Self::TooManyEntries(entries) => {
                write!(
                    f,
                    "the file has {entries} metadata entries; the largest number is {}",
                    super::MAX_ENTRIES
                )
            }
            Self::DuplicateKey { offset } => {
                write!(f, "the metadata key at byte {offset} is there twice")
            }
            Self::DuplicateTensor { tensor, first } => {
                write!(
                    f,
                    "tensor number {tensor} has the name of tensor number {first}"
                )
            }
            Self::OverlappingTensors { tensor, other } => {
                write!(
                    f,
                    "the data of tensor number {tensor} overlaps that of tensor number {other}: one is shorter than its shape"
                )
            }
            Self::UnknownValueType { offset, value_type } => {
                write!(
                    f,
                    "the metadata value type {value_type} at byte {offset} is not defined by GGUF"
                )
            }
            Self::NestedTooDeep { offset } => {
                write!(
                    f,
                    "the metadata array at byte {offset} is nested deeper than {} levels",
                    super::MAX_ARRAY_DEPTH
                )
            }
            Self::NameNotUtf8 { offset } => write!(f, "the name at byte {offset} is not UTF-8"),
            Self::BadAlignment(a) => {
                write!(
                    f,
                    "general.alignment is {a}: it must be a power of two from 8 to 65536"
                )
            }
            Self::AlignmentNotInteger => write!(f, "general.alignment must be an unsigned integer"),
            Self::BadDimensions { tensor } => {
                write!(
                    f,
                    "tensor number {tensor} must have 1 to 4 dimensions, none of them zero"
                )
            }
            Self::BadTensorSize { tensor } => {
                write!(
                    f,
                    "tensor number {tensor} is too large to address, or its rows are not whole blocks"
                )
            }
            Self::MisalignedTensor { tensor } => {
                write!(
                    f,
                    "the data of tensor number {tensor} does not start on a multiple of general.alignment"
                )
            }
            Self::TensorOutOfFile { tensor, missing } => {
                write!(
                    f,
                    "the file is truncated: tensor number {tensor} needs {missing} more bytes"
                )
            }
        }
    }
}

impl core::error::Error for GgufError {}

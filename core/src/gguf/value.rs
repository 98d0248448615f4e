//! Metadata values and arrays, borrowed from the file.

use core::fmt;

use super::reader::Reader;
use super::{GgufError, MAX_ARRAY_DEPTH};
use crate::const_fn::tri;

/// One metadata value. Strings are bytes: the specification asks for UTF-8, but tokens of real
/// files are not always UTF-8. A boolean is any byte, and true if it is not 0; nothing depends on
/// which nonzero byte it is.
#[derive(Clone, Copy, Debug)]
#[allow(
    missing_docs,
    reason = "the variants are the specification's own type names"
)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// Returns the value as an unsigned integer, from any integer type, if that loses nothing.
    pub const fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(v) => Some(v as u64),
            Value::U16(v) => Some(v as u64),
            Value::U32(v) => Some(v as u64),
            Value::U64(v) => Some(v),
            Value::I8(v) if v >= 0 => Some(v as u64),
            Value::I16(v) if v >= 0 => Some(v as u64),
            Value::I32(v) if v >= 0 => Some(v as u64),
            Value::I64(v) if v >= 0 => Some(v as u64),
            _ => None,
        }
    }

    /// Returns the value as a float, from `F32` or `F64`.
    pub const fn as_f32(&self) -> Option<f32> {
        match *self {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        }
    }

    /// Returns the value as a boolean.
    pub const fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// Returns the bytes of a string.
    pub const fn as_bytes(&self) -> Option<&'a [u8]> {
        match *self {
            Value::Str(v) => Some(v),
            _ => None,
        }
    }

    /// Returns a string that is UTF-8.
    pub const fn as_str(&self) -> Option<&'a str> {
        match *self {
            Value::Str(v) => match core::str::from_utf8(v) {
                Ok(s) => Some(s),
                Err(_) => None,
            },
            _ => None,
        }
    }

    /// Returns an array.
    pub const fn as_array(&self) -> Option<Array<'a>> {
        match *self {
            Value::Array(a) => Some(a),
            _ => None,
        }
    }
}

/// A metadata array whose elements are decoded one at a time, in order.
///
/// Every element was checked when the file was parsed.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    file: &'a [u8],
    start: usize,
    element: u32,
    len: usize,
}

impl<'a> Array<'a> {
    /// Number of elements.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns true if the array has no element.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns true if the elements have no fixed size: strings, or arrays.
    pub(super) const fn is_list(&self) -> bool {
        self.element == STRING || self.element == ARRAY
    }

    /// Type number of the elements by the specification (8 is a string, 9 an array, ...).
    pub const fn element_type(&self) -> u32 {
        self.element
    }

    /// Returns a cursor over the elements; usable in `const`.
    pub const fn elements(&self) -> Elements<'a> {
        Elements {
            reader: Reader::at(self.file, self.start),
            element: self.element,
            left: self.len,
        }
    }

    /// Returns element `index` of an array of numbers or booleans, without walking; `None` past the
    /// end, or if the elements have no fixed size (strings, arrays).
    pub const fn get(&self, index: usize) -> Option<Value<'a>> {
        if index >= self.len || self.is_list() {
            return None;
        }
        // No overflow: parsing found the whole array inside the file.
        let mut reader = Reader::at(self.file, self.start + index * min_bytes(self.element));
        match read_value(&mut reader, self.element, 0) {
            Ok(value) => Some(value),
            Err(_) => None,
        }
    }

    /// Start of the first element, in bytes from the start of the file: for an index that must find
    /// an element again without walking (see [`Array::string_at`]).
    pub const fn start(&self) -> usize {
        self.start
    }

    /// Returns the string whose length field lies `offset` bytes after [`Array::start`], if the
    /// file has a whole one there.
    pub const fn string_at(&self, offset: usize) -> Option<&'a [u8]> {
        let mut reader = match self.start.checked_add(offset) {
            Some(pos) if pos <= self.file.len() => Reader::at(self.file, pos),
            _ => return None,
        };
        match reader.string() {
            Ok(bytes) => Some(bytes),
            Err(_) => None,
        }
    }
}

/// Names the array without its bytes, which may be megabytes long.
impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array")
            .field("element_type", &self.element)
            .field("len", &self.len)
            .finish()
    }
}

impl<'a> IntoIterator for Array<'a> {
    type Item = Value<'a>;
    type IntoIter = Elements<'a>;

    fn into_iter(self) -> Elements<'a> {
        self.elements()
    }
}

/// Cursor over the elements of an [`Array`].
#[derive(Clone, Copy)]
pub struct Elements<'a> {
    reader: Reader<'a>,
    element: u32,
    left: usize,
}

impl<'a> Elements<'a> {
    /// Returns the next element; the same as [`Iterator::next`], for `const` code.
    pub const fn next_value(&mut self) -> Option<Value<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        match read_value(&mut self.reader, self.element, MAX_ARRAY_DEPTH) {
            Ok(value) => Some(value),
            // Unreachable after the checks of `Gguf::parse`; ending early is the safe answer in any
            // case.
            Err(_) => None,
        }
    }

    /// Start of the next element, in bytes from the start of the file.
    pub const fn position(&self) -> usize {
        self.reader.pos
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.next_value()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

/// Type numbers of the values that have no fixed size.
const STRING: u32 = 8;
pub(super) const ARRAY: u32 = 9;

/// Number of bytes of an array before its first element: the type of the elements, and their
/// number.
pub(super) const ARRAY_HEADER: usize = 4 + 8;

/// Smallest number of bytes that an element of this type takes in the file: all of its bytes,
/// unless it is a string (8) or an array (9).
const fn min_bytes(value_type: u32) -> usize {
    match value_type {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        ARRAY => ARRAY_HEADER,
        _ => 8,
    }
}

/// Reads the type number of a value, which must be one of the specification's 0 to 12.
pub(super) const fn read_type(r: &mut Reader<'_>) -> Result<u32, GgufError> {
    let offset = r.pos;
    let value_type = tri!(r.u32());
    if value_type > 12 {
        return Err(GgufError::UnknownValueType { offset, value_type });
    }
    Ok(value_type)
}

/// Reads one value of type `value_type` (from [`read_type`]) and checks all of it, including every
/// element of an array. Arrays may be nested `depth` deep, which also bounds the recursion.
pub(super) const fn read_value<'a>(
    r: &mut Reader<'a>,
    value_type: u32,
    depth: usize,
) -> Result<Value<'a>, GgufError> {
    Ok(match value_type {
        0 => Value::U8(tri!(r.u8())),
        1 => Value::I8(tri!(r.u8()) as i8),
        2 => Value::U16(tri!(r.u16())),
        3 => Value::I16(tri!(r.u16()) as i16),
        4 => Value::U32(tri!(r.u32())),
        5 => Value::I32(tri!(r.u32()) as i32),
        6 => Value::F32(f32::from_bits(tri!(r.u32()))),
        7 => Value::Bool(tri!(r.u8()) != 0),
        STRING => Value::Str(tri!(r.string())),
        ARRAY => return read_array(r, depth),
        10 => Value::U64(tri!(r.u64())),
        11 => Value::I64(tri!(r.u64()) as i64),
        // 12: `read_type` accepts no larger number.
        _ => Value::F64(f64::from_bits(tri!(r.u64()))),
    })
}

const fn read_array<'a>(r: &mut Reader<'a>, depth: usize) -> Result<Value<'a>, GgufError> {
    let offset = r.pos;
    if depth == 0 {
        return Err(GgufError::NestedTooDeep { offset });
    }
    let array = tri!(read_array_header(r));
    if array.is_list() {
        let mut i = 0;
        while i < array.len {
            tri!(read_value(r, array.element, depth - 1));
            i += 1;
        }
    } else {
        // Cannot overflow: `count` found that many bytes in the file.
        tri!(r.take(array.len * min_bytes(array.element)));
    }
    Ok(Value::Array(array))
}

/// Reads an array that was checked before and ends at `end`, without reading its elements.
pub(super) const fn read_known_list<'a>(
    r: &mut Reader<'a>,
    end: usize,
) -> Result<Value<'a>, GgufError> {
    let array = tri!(read_array_header(r));
    *r = Reader::at(r.bytes, end);
    Ok(Value::Array(array))
}

const fn read_array_header<'a>(r: &mut Reader<'a>) -> Result<Array<'a>, GgufError> {
    let element = tri!(read_type(r));
    let len = tri!(r.count(min_bytes(element)));
    Ok(Array {
        file: r.bytes,
        start: r.pos,
        element,
        len,
    })
}

//! Writes GGUF files, version 3: first the header, then the tensors' bytes in order, as they come.
//!
//! Format: the *GGUF* specification of the ggml project (`docs/gguf.md`). The header borrows its
//! keys and values, so that copying a file costs no memory for them; nothing is sought, so that any
//! [`Write`] will do.

use std::io::{self, Write};

use brooklet_core::gguf::{Gguf, Value};
use brooklet_core::quant::Format;

/// Alignment of tensor data where no key says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;

/// The header of a file: metadata and the tensor table, in order.
#[derive(Clone, Debug, Default)]
pub struct Header<'a> {
    metadata: Vec<(&'a str, Entered<'a>)>,
    tensors: Vec<Entry<'a>>,
}

/// A value, of a file or of a program.
#[derive(Clone, Debug)]
enum Entered<'a> {
    Value(Value<'a>),
    Strings(&'a [Vec<u8>]),
    Integers(&'a [i32]),
}

#[derive(Clone, Debug)]
struct Entry<'a> {
    name: &'a str,
    dims: Vec<u64>,
    format: Format,
    bytes: u64,
}

impl<'a> Header<'a> {
    /// A header with the metadata of `file` and no tensors.
    pub fn with_metadata_of(file: &Gguf<'a>) -> Header<'a> {
        Header {
            metadata: file
                .metadata()
                .map(|(key, value)| (key, Entered::Value(value)))
                .collect(),
            tensors: Vec::new(),
        }
    }

    /// Sets `key` to `value`, at the end, and removes an earlier value.
    pub fn set(&mut self, key: &'a str, value: Value<'a>) {
        self.enter(key, Entered::Value(value));
    }

    /// As [`Header::set`], for an array of strings.
    pub fn set_strings(&mut self, key: &'a str, strings: &'a [Vec<u8>]) {
        self.enter(key, Entered::Strings(strings));
    }

    /// As [`Header::set`], for an array of integers.
    pub fn set_integers(&mut self, key: &'a str, integers: &'a [i32]) {
        self.enter(key, Entered::Integers(integers));
    }

    fn enter(&mut self, key: &'a str, value: Entered<'a>) {
        self.remove(key);
        self.metadata.push((key, value));
    }

    /// Removes the key.
    pub fn remove(&mut self, key: &str) {
        self.metadata.retain(|(name, _)| *name != key);
    }

    /// Adds a tensor with these dimensions, fastest first (`[columns, rows, ...]`).
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if there is none or more than four dimensions, if one of
    /// them is zero, if a row is not whole blocks of the format, or if the size overflows.
    pub fn tensor(&mut self, name: &'a str, dims: &[usize], format: Format) -> io::Result<()> {
        let bytes = tensor_bytes(dims, format).ok_or_else(|| {
            let text = format!(
                "the tensor {name:?} cannot be {dims:?} of {}",
                format.name()
            );
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        let dims = dims.iter().map(|&dim| dim as u64).collect();
        self.tensors.push(Entry {
            name,
            dims,
            format,
            bytes,
        });
        Ok(())
    }

    /// Writes the header to `out`; the tensors' bytes are to follow. `out` gets many small pieces:
    /// buffer it.
    ///
    /// # Errors
    /// Those of `out`; [`io::ErrorKind::InvalidInput`] if the metadata ask for an alignment that
    /// readers refuse.
    pub fn write<W: Write>(&self, out: W) -> io::Result<Body<W>> {
        let alignment = self.alignment()?;
        let mut out = Counted { out, position: 0 };
        out.write_all(b"GGUF\x03\0\0\0")?;
        put_u64(&mut out, self.tensors.len() as u64)?;
        put_u64(&mut out, self.metadata.len() as u64)?;
        for (key, value) in &self.metadata {
            put_string(&mut out, key.as_bytes())?;
            match value {
                Entered::Value(value) => {
                    put_u32(&mut out, value_type(value))?;
                    put_value(&mut out, value)?;
                }
                Entered::Strings(strings) => {
                    put_array(&mut out, 8, strings, |out, string| put_string(out, string))?;
                }
                Entered::Integers(integers) => put_array(&mut out, 5, integers, |out, integer| {
                    out.write_all(&integer.to_le_bytes())
                })?,
            }
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            put_string(&mut out, tensor.name.as_bytes())?;
            put_u32(&mut out, tensor.dims.len() as u32)?;
            tensor
                .dims
                .iter()
                .try_for_each(|&dim| put_u64(&mut out, dim))?;
            put_u32(&mut out, tensor.format.ggml_type())?;
            put_u64(&mut out, offset)?;
            offset = end_of(offset, tensor.bytes, alignment)?;
        }
        out.pad(alignment)?;
        let sizes: Vec<u64> = self.tensors.iter().map(|tensor| tensor.bytes).collect();
        Ok(Body {
            out,
            alignment,
            sizes: sizes.into_iter(),
            left: 0,
        })
    }

    /// The value of `general.alignment`.
    fn alignment(&self) -> io::Result<u64> {
        let said = self
            .metadata
            .iter()
            .find(|(key, _)| *key == "general.alignment");
        let alignment = said.map_or(Some(DEFAULT_ALIGNMENT), |(_, value)| match value {
            Entered::Value(value) => value.as_u64(),
            Entered::Strings(_) | Entered::Integers(_) => None,
        });
        alignment
            .filter(|alignment| alignment.is_power_of_two() && (8..=65536).contains(alignment))
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "general.alignment is not a power of two from 8 to 65536",
                )
            })
    }
}

/// Bytes of a tensor; `None` if there can be no such tensor.
fn tensor_bytes(dims: &[usize], format: Format) -> Option<u64> {
    let (&cols, others) = dims.split_first()?;
    if dims.len() > 4 || dims.contains(&0) {
        return None;
    }
    let row = format.row_bytes(cols)? as u64;
    others
        .iter()
        .try_fold(row, |bytes, &dim| bytes.checked_mul(dim as u64))
}

/// Offset of the tensor after the one at `offset`.
fn end_of(offset: u64, bytes: u64, alignment: u64) -> io::Result<u64> {
    offset
        .checked_add(bytes)
        .and_then(|end| end.checked_next_multiple_of(alignment))
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the tensors are larger than a file can be",
            )
        })
}

/// A file whose header is written and whose tensors' bytes are due.
#[derive(Debug)]
pub struct Body<W> {
    out: Counted<W>,
    alignment: u64,
    /// Bytes of the tensors that have not begun.
    sizes: std::vec::IntoIter<u64>,
    /// Bytes that the current tensor still needs.
    left: u64,
}

impl<W: Write> Body<W> {
    /// Writes the next bytes of the current tensor, and the padding after its last one.
    ///
    /// # Errors
    /// Those of the output; [`io::ErrorKind::InvalidInput`] if the tensor has not so many bytes
    /// left, or there is no tensor left.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.left == 0 {
            self.left = self.sizes.next().unwrap_or(0);
        }
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "more bytes than the header gives the tensor",
            )
        })?;
        self.out.write_all(bytes)?;
        if self.left == 0 {
            self.out.pad(self.alignment)?;
        }
        Ok(())
    }

    /// Ends the file; returns the output, flushed, and the file's length in bytes.
    ///
    /// # Errors
    /// Those of the output; [`io::ErrorKind::InvalidInput`] if a tensor has not got all of its
    /// bytes.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        if self.left > 0 || self.sizes.next().is_some() {
            let error = "fewer bytes than the header gives the tensors";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        self.out.flush()?;
        Ok((self.out.out, self.out.position))
    }
}

/// An output that counts its bytes.
#[derive(Debug)]
struct Counted<W> {
    out: W,
    position: u64,
}

impl<W: Write> Counted<W> {
    /// Writes zeros up to a multiple of `alignment`, which is at most 65536.
    fn pad(&mut self, alignment: u64) -> io::Result<()> {
        let zeros = self.position.next_multiple_of(alignment) - self.position;
        self.write_all(&[0; 65536][..zeros as usize])
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn put_u32(out: &mut impl Write, value: u32) -> io::Result<()> {
    out.write_all(&value.to_le_bytes())
}

fn put_u64(out: &mut impl Write, value: u64) -> io::Result<()> {
    out.write_all(&value.to_le_bytes())
}

fn put_string(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    put_u64(out, bytes.len() as u64)?;
    out.write_all(bytes)
}

/// Writes an array of elements of type `element`.
fn put_array<W: Write, T>(
    out: &mut W,
    element: u32,
    values: &[T],
    put: impl Fn(&mut W, &T) -> io::Result<()>,
) -> io::Result<()> {
    put_u32(out, ARRAY)?;
    put_u32(out, element)?;
    put_u64(out, values.len() as u64)?;
    values.iter().try_for_each(|value| put(out, value))
}

/// The specification's number of an array's type.
const ARRAY: u32 = 9;

/// The specification's number of a value's type.
fn value_type(value: &Value<'_>) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::Str(_) => 8,
        Value::Array(_) => ARRAY,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn put_value(out: &mut impl Write, value: &Value<'_>) -> io::Result<()> {
    match *value {
        Value::U8(v) => out.write_all(&[v]),
        Value::I8(v) => out.write_all(&v.to_le_bytes()),
        Value::U16(v) => out.write_all(&v.to_le_bytes()),
        Value::I16(v) => out.write_all(&v.to_le_bytes()),
        Value::U32(v) => put_u32(out, v),
        Value::I32(v) => out.write_all(&v.to_le_bytes()),
        Value::F32(v) => out.write_all(&v.to_le_bytes()),
        Value::Bool(v) => out.write_all(&[u8::from(v)]),
        Value::Str(v) => put_string(out, v),
        Value::U64(v) => put_u64(out, v),
        Value::I64(v) => out.write_all(&v.to_le_bytes()),
        Value::F64(v) => out.write_all(&v.to_le_bytes()),
        Value::Array(array) => {
            put_u32(out, array.element_type())?;
            put_u64(out, array.len() as u64)?;
            array
                .elements()
                .try_for_each(|element| put_value(out, &element))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of core's tests, with every type of metadata value, arrays of arrays included.
    const ALL_TYPES: &[u8] = include_bytes!("../../../core/tests/data/all-types-v3.gguf");

    fn copy(file: &Gguf<'_>) -> Vec<u8> {
        let mut header = Header::with_metadata_of(file);
        for tensor in file.tensors() {
            let format = tensor.format().unwrap();
            header
                .tensor(tensor.name(), &tensor.dims()[..tensor.rank()], format)
                .unwrap();
        }
        let mut body = header.write(Vec::new()).unwrap();
        for tensor in file.tensors() {
            // In pieces, as a caller with little memory has them.
            tensor
                .data()
                .chunks(7)
                .for_each(|piece| body.write(piece).unwrap());
        }
        let (bytes, len) = body.finish().unwrap();
        assert_eq!(len, bytes.len() as u64);
        bytes
    }

    fn keys_and_tensors(bytes: &[u8]) -> (String, Vec<(String, &[u8])>) {
        let file = Gguf::parse(bytes).unwrap();
        let metadata = file
            .metadata()
            .map(|(key, value)| format!("{key} {value:?} {:?}\n", elements(&value)));
        let tensors = file
            .tensors()
            .map(|tensor| (format!("{tensor:?}"), tensor.data()));
        (metadata.collect(), tensors.collect())
    }

    fn elements(value: &Value<'_>) -> Vec<String> {
        let array = value.as_array().into_iter().flatten();
        array
            .map(|element| format!("{element:?} {:?}", elements(&element)))
            .collect()
    }

    #[test]
    fn a_copy_says_what_the_original_says() {
        let models = [
            ALL_TYPES,
            include_bytes!("../../../core/tests/data/plain-v2.gguf"),
            include_bytes!("../../../core/tests/data/random-gqa-q5_1.gguf"),
        ];
        for original in models {
            let file = Gguf::parse(original).unwrap();
            if file.tensors().all(|tensor| tensor.format().is_some()) {
                let bytes = copy(&file);
                assert_eq!(keys_and_tensors(&bytes), keys_and_tensors(original));
                assert_eq!(Gguf::parse(&bytes).unwrap().version(), 3);
            }
        }
    }

    #[test]
    fn bytes_are_those_of_the_program_that_made_the_model() {
        let original = include_bytes!("../../../core/tests/data/random.gguf");
        assert!(copy(&Gguf::parse(original).unwrap()) == original);
    }

    #[test]
    fn a_key_that_is_set_again_moves_to_the_end() {
        let mut header = Header::default();
        header.set("a", Value::U32(1));
        header.set("b", Value::Bool(true));
        header.set("a", Value::Str(b"text"));
        let (bytes, _) = header.write(Vec::new()).unwrap().finish().unwrap();
        let file = Gguf::parse(&bytes).unwrap();
        assert_eq!(
            file.metadata().map(|(key, _)| key).collect::<Vec<_>>(),
            ["b", "a"]
        );
        assert_eq!(file.get("a").unwrap().as_str(), Some("text"));
    }

    #[test]
    fn data_is_aligned_as_the_metadata_say() {
        let mut header = Header::default();
        header.set("general.alignment", Value::U32(1024));
        for name in ["first", "second"] {
            header.tensor(name, &[3], Format::F32).unwrap();
        }
        let mut body = header.write(Vec::new()).unwrap();
        for _ in 0..2 {
            body.write(&[0xff; 12]).unwrap();
        }
        let (bytes, _) = body.finish().unwrap();
        assert_eq!(bytes.len(), 3 * 1024);
        let file = Gguf::parse(&bytes).unwrap();
        assert!(file.tensors().all(|tensor| tensor.data() == [0xff; 12]));
    }

    #[test]
    fn what_cannot_be_a_file_is_refused() {
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        let mut header = Header::default();
        let shapes: [&[usize]; 5] = [
            &[],
            &[31],
            &[32, 0],
            &[32, 1, 1, 1, 1],
            &[32, usize::MAX, usize::MAX],
        ];
        for dims in shapes {
            assert_eq!(
                kind(header.tensor("t", dims, Format::Q4_0)),
                io::ErrorKind::InvalidInput
            );
        }
        header.tensor("t", &[32, 2], Format::Q4_0).unwrap();
        let mut body = header.write(Vec::new()).unwrap();
        assert_eq!(kind(body.write(&[0; 37])), io::ErrorKind::InvalidInput);
        let mut body = header.write(Vec::new()).unwrap();
        body.write(&[0; 35]).unwrap();
        assert_eq!(kind(body.finish().map(|_| ())), io::ErrorKind::InvalidInput);
        header.set("general.alignment", Value::U32(12));
        assert_eq!(
            kind(header.write(Vec::new()).map(|_| ())),
            io::ErrorKind::InvalidInput
        );
    }
}

//! JSON on standard output: values, and strings that are written as they grow.

use std::io::{self, Write};

use serde::ser::{Serialize, SerializeSeq, Serializer};

use super::failure::Failure;
use super::terminal::Paper;
use crate::notice::{Notice, Notices};
use crate::text::TextSink;

/// Notices as a list of objects, each with its kind, its numbers and its sentence.
pub struct Said<'n>(pub &'n Notices);

/// A report with the notices beside its own members.
#[derive(serde::Serialize)]
pub struct Noted<'n, R> {
    /// The report, an object.
    #[serde(flatten)]
    pub report: R,
    /// The notices.
    pub notices: Said<'n>,
}

#[derive(serde::Serialize)]
struct OneSaid<'n> {
    #[serde(flatten)]
    notice: &'n Notice,
    message: String,
}

impl Serialize for Said<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.all().len()))?;
        for notice in self.0.all() {
            let message = notice.to_string();
            list.serialize_element(&OneSaid { notice, message })?;
        }
        list.end()
    }
}

/// Writes one JSON value and the end of the line.
pub fn write_json(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value).map_err(|error| Failure::Output(error.into()))?;
    writeln!(out).map_err(Failure::Output)
}

/// Output of a text as it grows: bare, or the first member of a JSON object in one line.
pub struct Page<'o> {
    out: &'o mut dyn Write,
    paper: Paper,
    is_json: bool,
}

impl<'o> Page<'o> {
    /// Starts the text, or the object.
    ///
    /// # Errors
    /// The writer's.
    pub fn begin(out: &'o mut dyn Write, is_json: bool) -> io::Result<Page<'o>> {
        if is_json {
            out.write_all(b"{\"text\":\"")?;
        }
        let paper = Paper::new();
        Ok(Page {
            out,
            paper,
            is_json,
        })
    }

    /// Ends the text, or the object: `members`, a struct, follow the text there.
    ///
    /// # Errors
    /// The writer's.
    pub fn end(mut self, members: &impl Serialize) -> io::Result<()> {
        if self.is_json {
            self.out.write_all(b"\",")?;
            serde_json::to_writer(WithoutFirst::new(&mut *self.out), members)?;
            self.out.write_all(b"\n")?;
        } else {
            self.paper.end(&mut self.out)?;
        }
        self.out.flush()
    }

    /// True if the text is written as it is: neither as JSON nor for a terminal.
    pub fn is_bare(&self) -> bool {
        !self.is_json && !self.paper.is_terminal()
    }
}

/// Writer that leaves out the first byte: the brace that opens an object, where its members go on
/// with another.
struct WithoutFirst<'o> {
    out: &'o mut dyn Write,
    is_first: bool,
}

impl<'o> WithoutFirst<'o> {
    fn new(out: &'o mut dyn Write) -> Self {
        WithoutFirst {
            out,
            is_first: true,
        }
    }
}

impl Write for WithoutFirst<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_first && !bytes.is_empty() {
            self.is_first = false;
            return Ok(1);
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl TextSink for Page<'_> {
    fn text(&mut self, text: &str) -> io::Result<()> {
        if self.is_json {
            write_json_text(self.out, text)
        } else {
            self.paper.write(text, self.out)
        }
    }

    fn token(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes `text` as the inside of a JSON string (RFC 8259, section 7).
///
/// # Errors
/// The writer's.
pub fn write_json_text(out: &mut dyn Write, text: &str) -> io::Result<()> {
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.write_all(&text.as_bytes()[plain..at])?;
        if short.is_empty() {
            write!(out, "\\u{byte:04x}")?;
        } else {
            out.write_all(short.as_bytes())?;
        }
        plain = at + 1;
    }
    out.write_all(&text.as_bytes()[plain..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_text_reads_back() {
        let text: String = (0..0x250)
            .filter_map(char::from_u32)
            .chain("😀\u{2028}".chars())
            .collect();
        let mut out = b"\"".to_vec();
        write_json_text(&mut out, &text).unwrap();
        out.push(b'"');
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}

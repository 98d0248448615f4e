//! JSON on standard output: values, and strings that are written as they grow.

use std::io::{self, Write};

use serde::ser::{Serialize, SerializeSeq, Serializer};

use super::failure::Failure;
use crate::notice::{Notice, Notices};

/// Notices as a list of objects, each with its kind, its numbers and its sentence.
pub struct Said<'n>(pub &'n Notices);

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

//! Text on its way out, also as JSON strings, without allocating.

use std::io::{self, Write};

/// Where whole characters of text go.
pub trait TextSink {
    /// Takes the next piece.
    ///
    /// # Errors
    /// Those of whatever is behind it.
    fn text(&mut self, text: &str) -> io::Result<()>;

    /// The text of one token is complete: time to show it.
    ///
    /// # Errors
    /// Those of whatever is behind it.
    fn token(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: FnMut(&str) -> io::Result<()>> TextSink for F {
    fn text(&mut self, text: &str) -> io::Result<()> {
        self(text)
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

//! A line that is being typed, byte by byte, with any bytes allowed.

use heapless::Vec;

/// Most bytes of a line.
pub const LINE: usize = 128;

/// Result of one typed byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// The line is not at its end, or was empty.
    Nothing,
    /// A line ended that was longer than [`LINE`]; it is gone.
    TooLong,
    /// A line ended.
    Line(Vec<u8, LINE>),
}

/// A line in the making.
#[derive(Clone, Debug, Default)]
pub struct Line {
    bytes: Vec<u8, LINE>,
    too_long: bool,
}

impl Line {
    /// Nothing typed yet.
    pub const fn new() -> Self {
        Line {
            bytes: Vec::new(),
            too_long: false,
        }
    }

    /// Takes the next byte. Carriage return and line feed end a line, backspace and delete take a
    /// byte back, other control characters are ignored; bytes over 127 are kept as they are, for
    /// text in UTF-8.
    pub fn put(&mut self, byte: u8) -> Typed {
        match byte {
            b'\r' | b'\n' => {
                let Line { bytes, too_long } = core::mem::take(self);
                if too_long {
                    Typed::TooLong
                } else if bytes.is_empty() {
                    Typed::Nothing
                } else {
                    Typed::Line(bytes)
                }
            }
            8 | 127 => {
                self.bytes.pop();
                Typed::Nothing
            }
            0..32 => Typed::Nothing,
            _ => {
                self.too_long |= self.bytes.push(byte).is_err();
                Typed::Nothing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(typed: &[u8]) -> std::vec::Vec<Typed> {
        let mut line = Line::new();
        typed
            .iter()
            .map(|byte| line.put(*byte))
            .filter(|typed| *typed != Typed::Nothing)
            .collect()
    }

    fn line(text: &[u8]) -> Typed {
        Typed::Line(Vec::from_slice(text).unwrap())
    }

    #[test]
    fn lines_end_with_either_character() {
        assert_eq!(
            lines(b"a cat\r\n\n\ra dog\nrest"),
            [line(b"a cat"), line(b"a dog")]
        );
    }

    #[test]
    fn mistakes_are_taken_back_and_noise_is_nothing() {
        assert_eq!(lines(b"\x08\x7Fcar\x08t\x00\x1B\n"), [line(b"cat")]);
        assert_eq!(lines("\u{e9}\n".as_bytes()), [line("\u{e9}".as_bytes())]);
    }

    #[test]
    fn a_line_too_long_is_thrown_away_and_the_next_one_counts() {
        let mut typed = std::vec![b'x'; LINE];
        typed.extend(b"\n");
        assert_eq!(lines(&typed), [line(&[b'x'; LINE])]);
        typed.insert(0, b'x');
        typed.extend(b"ok\n");
        assert_eq!(lines(&typed), [Typed::TooLong, line(b"ok")]);
    }
}

//! The manners of terminals: what they can show, text wrapped at words, nothing echoed into an
//! answer.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use unicode_width::UnicodeWidthChar;

/// Ends the mode in which a terminal marks what is pasted.
const PASTE_OFF: &[u8] = b"\x1b[?2004l";

/// Terminals that know no escapes, beside those that say nothing of themselves.
const DUMB: [&str; 3] = ["dumb", "cons25", "emacs"];

/// True if the terminal understands no escapes.
pub fn is_dumb() -> bool {
    let term = std::env::var("TERM").unwrap_or_default();
    cfg!(unix) && (term.is_empty() || DUMB.contains(&&*term))
}

/// True if colours may be written to a terminal.
pub fn has_colours() -> bool {
    !is_dumb() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Text that a terminal shows and does not obey: control characters but line breaks and tabs are
/// written out.
pub fn shown(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(obeyed) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if obeyed(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

/// One line that a terminal shows: as [`shown`], with line breaks and tabs written out too.
pub fn shown_line(text: &str) -> String {
    shown(text).replace('\n', "\\n").replace('\t', "\\t")
}

/// Columns of the terminal that standard output or standard error is; `None` if it is none, or does
/// not say.
fn columns(error: bool) -> Option<usize> {
    #[cfg(unix)]
    {
        let size = match error {
            false if io::stdout().is_terminal() => rustix::termios::tcgetwinsize(io::stdout()),
            true if io::stderr().is_terminal() => rustix::termios::tcgetwinsize(io::stderr()),
            _ => return None,
        };
        let columns = size.ok().map(|size| usize::from(size.ws_col));
        columns.filter(|columns| *columns > 0)
    }
    #[cfg(not(unix))]
    {
        let _ = error;
        None
    }
}

/// Writes notes of the program itself to standard error, which may be closed.
pub fn note(text: &str) {
    let mut wrapped = Vec::new();
    let mut wrap = Wrap::new();
    // A Vec takes every byte.
    let _ = wrap.push(text, columns(true), &mut wrapped);
    let _ = wrap.flush(columns(true), &mut wrapped);
    let _ = io::stderr().write_all(&wrapped);
}

/// Text on its way to standard output: to a terminal wrapped at words and without control
/// characters, elsewhere as it is.
pub struct Paper {
    is_terminal: bool,
    wrap: Wrap,
    ends_line: bool,
}

impl Paper {
    pub fn new() -> Paper {
        Paper {
            is_terminal: io::stdout().is_terminal(),
            wrap: Wrap::new(),
            ends_line: true,
        }
    }

    /// True if a person reads it.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Writes the next piece.
    pub fn write(&mut self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        if let Some(last) = text.chars().next_back() {
            self.ends_line = last == '\n';
        }
        if self.is_terminal {
            self.wrap.push(text, columns(false), out)
        } else {
            out.write_all(text.as_bytes())
        }
    }

    /// Writes what is held back of the last word, and on a terminal ends the line.
    pub fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.is_terminal {
            self.wrap.flush(columns(false), out)?;
            if !self.ends_line {
                out.write_all(b"\n")?;
            }
            self.wrap = Wrap::new();
        }
        self.ends_line = true;
        Ok(())
    }
}

/// Bytes of a word that are expected at most; a longer one costs an allocation.
const LONGEST_WORD: usize = 1024;

/// Wraps text at words as it comes. A word is held back until it is whole, so nothing that was
/// written has to be moved, and no escape is needed.
struct Wrap {
    column: usize,
    /// Blanks before the word.
    blanks: usize,
    word: String,
    width: usize,
}

impl Wrap {
    fn new() -> Wrap {
        Wrap {
            column: 0,
            blanks: 0,
            word: String::with_capacity(LONGEST_WORD),
            width: 0,
        }
    }

    /// Writes `text`; `None` columns wrap nothing.
    fn push(&mut self, text: &str, columns: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
        for c in text.chars() {
            match c {
                '\n' => {
                    self.flush(columns, out)?;
                    out.write_all(b"\n")?;
                    (self.column, self.blanks) = (0, 0);
                }
                ' ' => {
                    self.flush(columns, out)?;
                    self.blanks += 1;
                }
                '\t' => {
                    self.flush(columns, out)?;
                    self.blanks += 8 - (self.column + self.blanks) % 8;
                }
                c if c.is_control() => {
                    for c in c.escape_default() {
                        self.add(c, 1, columns, out)?;
                    }
                }
                c => {
                    let width = c.width().unwrap_or(0);
                    // A line may break before every wide character.
                    if width > 1 {
                        self.flush(columns, out)?;
                    }
                    self.add(c, width, columns, out)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a character to the word. One as wide as the terminal is written.
    fn add(
        &mut self,
        c: char,
        width: usize,
        columns: Option<usize>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let is_full = |columns| self.width + width > columns && self.width > 0;
        if columns.is_some_and(is_full) {
            self.flush(columns, out)?;
        }
        self.word.push(c);
        self.width += width;
        Ok(())
    }

    /// Writes the word, in the next line if it does not fit this one. Blanks at the break are left
    /// out.
    fn flush(&mut self, columns: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
        if self.word.is_empty() {
            return Ok(());
        }
        let end = self.column + self.blanks + self.width;
        if self.column > 0 && columns.is_some_and(|columns| end > columns) {
            out.write_all(b"\n")?;
            (self.column, self.blanks) = (0, 0);
        }
        for _ in 0..self.blanks {
            out.write_all(b" ")?;
        }
        out.write_all(self.word.as_bytes())?;
        self.column += self.blanks + self.width;
        (self.blanks, self.width) = (0, 0);
        self.word.clear();
        Ok(())
    }
}

/// Longest time from a key to its signal.
#[cfg(unix)]
const ARRIVAL: std::time::Duration = std::time::Duration::from_millis(5);

/// A terminal that echoes no keys and hands them over as they are typed, until this is dropped or a
/// signal ends the process. Ctrl-C is a key, too, unless it is [wanted](Quiet::obey_ctrl_c).
#[cfg(unix)]
pub struct Quiet {
    before: rustix::termios::Termios,
    quiet: rustix::termios::Termios,
    _duty: crate::system::at_end::Duty,
}

#[cfg(unix)]
impl Quiet {
    /// Makes the terminal of standard input quiet.
    pub fn begin() -> io::Result<Quiet> {
        use rustix::termios::{InputModes, LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        // Return stays Return, which the line editor tells from Ctrl-J.
        quiet.input_modes.remove(InputModes::ICRNL);
        quiet
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::IEXTEN | LocalModes::ISIG);
        let of_signal = before.clone();
        let duty = crate::system::at_end::Duty::new(move || {
            // Not by the standard library, whose output another thread may hold.
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &of_signal);
            let _ = rustix::io::write(rustix::stdio::stdout(), PASTE_OFF);
            let _ = rustix::io::write(rustix::stdio::stdout(), b"\n");
        });
        tcsetattr(io::stdin(), OptionalActions::Now, &quiet)?;
        Ok(Quiet {
            before,
            quiet,
            _duty: duty,
        })
    }

    /// Makes Ctrl-C and Ctrl-Z signals, or keys again.
    pub fn obey_ctrl_c(&mut self, obeys: bool) -> io::Result<()> {
        use rustix::termios::{LocalModes, OptionalActions, tcsetattr};
        self.quiet.local_modes.set(LocalModes::ISIG, obeys);
        tcsetattr(io::stdin(), OptionalActions::Now, &self.quiet)?;
        if !obeys {
            // One that was typed just before is on its way.
            std::thread::sleep(ARRIVAL);
        }
        Ok(())
    }
}

#[cfg(unix)]
impl Drop for Quiet {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wraps pieces of text as they come.
    fn wrapped(pieces: &[&str], columns: usize) -> String {
        let (mut wrap, mut out) = (Wrap::new(), Vec::new());
        for piece in pieces {
            wrap.push(piece, Some(columns), &mut out).unwrap();
        }
        wrap.flush(Some(columns), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_break_between_words_wherever_the_pieces_do() {
        let text = "The quick brown fox";
        let lines = "The quick\nbrown fox";
        assert_eq!(wrapped(&[text], 10), lines);
        let pieces: Vec<&str> = text.split_inclusive(|_| true).collect();
        assert_eq!(wrapped(&pieces, 10), lines);
        // Exactly as wide as the terminal, and words wider than it.
        assert_eq!(wrapped(&["The quick b"], 9), "The quick\nb");
        assert_eq!(wrapped(&["abcdefghij kl"], 4), "abcd\nefgh\nij\nkl");
        assert_eq!(wrapped(&["ab\n  cd e\n"], 4), "ab\n  cd\ne\n");
    }

    #[test]
    fn wide_characters_have_two_columns_and_need_no_blank() {
        assert_eq!(
            wrapped(&["\u{4f60}\u{597d}\u{4e16}\u{754c}"], 5),
            "\u{4f60}\u{597d}\n\u{4e16}\u{754c}"
        );
        assert_eq!(wrapped(&["e\u{301}e\u{301} x"], 2), "e\u{301}e\u{301}\nx");
    }

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(wrapped(&["a\x1b[31mb\r"], 40), "a\\u{1b}[31mb\\r");
        assert_eq!(
            shown("a\x1b]0;b\x07\n\tc\u{9b}"),
            "a\\u{1b}]0;b\\u{7}\n\tc\\u{9b}"
        );
        assert_eq!(shown_line("a\nb\x1b"), "a\\nb\\u{1b}");
        assert_eq!(shown("caf\u{e9} \u{1f600}"), "caf\u{e9} \u{1f600}");
    }
}

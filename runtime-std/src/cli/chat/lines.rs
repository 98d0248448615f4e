//! A person's input: lines with editing and history on a terminal, plain lines from a pipe.

use std::io::{self, BufRead, IsTerminal};

use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Cmd, Config, Editor, KeyEvent};

use super::super::failure::Failure;

/// Lines that the arrow keys bring back.
const HISTORY: usize = 1000;

/// Longest message from a pipe, in bytes.
const LONGEST: usize = 16 << 20;

/// One input.
pub enum Input {
    /// A message or a command; may have several lines.
    Text(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D, or the end of the pipe.
    End,
}

/// The source of lines.
pub enum Lines {
    Terminal {
        editor: Box<Editor<(), MemHistory>>,
        colour: bool,
    },
    Pipe(io::StdinLock<'static>),
}

impl Lines {
    /// Standard input as it is.
    pub fn new() -> Result<Lines, Failure> {
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            return Ok(Lines::Pipe(io::stdin().lock()));
        }
        let config = Config::builder()
            .max_history_size(HISTORY)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(failed)?
            .build();
        let history = MemHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history).map_err(failed)?;
        // A terminal sends Ctrl-J for a line break that is not Return.
        editor.bind_sequence(KeyEvent::ctrl('J'), Cmd::Newline);
        Ok(Lines::Terminal {
            editor: Box::new(editor),
            colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        })
    }

    /// True if a person sits there.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Lines::Terminal { .. })
    }

    /// Reads the next message. A line that ends in a backslash continues in the next line.
    pub fn next(&mut self) -> Result<Input, Failure> {
        let mut text = String::new();
        loop {
            let line = match self.line(text.is_empty())? {
                Input::Text(line) => line,
                Input::End if !text.is_empty() => return Ok(Input::Text(text)),
                other => return Ok(other),
            };
            match line.strip_suffix('\\') {
                Some(part) => {
                    text += part;
                    text.push('\n');
                }
                None => {
                    text += &line;
                    break;
                }
            }
        }
        if let Lines::Terminal { editor, .. } = self {
            editor.add_history_entry(text.as_str()).map_err(failed)?;
        }
        Ok(Input::Text(text))
    }

    fn line(&mut self, is_first: bool) -> Result<Input, Failure> {
        match self {
            Lines::Terminal { editor, colour } => {
                let plain = if is_first { "> " } else { ". " };
                let read = if *colour {
                    let painted = format!("\x1b[1;32m{plain}\x1b[0m");
                    editor.readline(&(plain, painted.as_str()))
                } else {
                    editor.readline(plain)
                };
                match read {
                    Ok(line) => Ok(Input::Text(line)),
                    Err(ReadlineError::Interrupted) => Ok(Input::Interrupted),
                    Err(ReadlineError::Eof) => Ok(Input::End),
                    Err(error) => Err(failed(error)),
                }
            }
            Lines::Pipe(pipe) => {
                let mut line = Vec::new();
                let mut limited = io::Read::take(pipe, LONGEST as u64);
                let read = limited.read_until(b'\n', &mut line).map_err(refused)?;
                if read == 0 {
                    return Ok(Input::End);
                }
                let line = String::from_utf8_lossy(&line);
                Ok(Input::Text(line.trim_end_matches(['\r', '\n']).to_owned()))
            }
        }
    }
}

fn refused(error: io::Error) -> Failure {
    Failure::System {
        what: "to read standard input".into(),
        error,
    }
}

fn failed(error: ReadlineError) -> Failure {
    refused(io::Error::other(error))
}

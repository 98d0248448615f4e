//! A person's input: lines with editing, history and completion on a terminal, plain lines from a
//! pipe or a terminal that knows no escapes.

use std::io::{self, BufRead, IsTerminal, Write};

use rustyline::completion::{Completer, FilenameCompleter};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{Cmd, Config, Context, Editor, Helper, KeyEvent};

use super::super::failure::Failure;
use super::super::terminal::{self, note};
use super::commands::NAMES;
use super::history::{self, History};

/// Longest line from a pipe, in bytes.
const LONGEST: usize = 16 << 20;

/// One input.
pub enum Input {
    /// A message or a command; may have several lines.
    Text(String),
    /// Ctrl-C as a key.
    Interrupted,
    /// Ctrl-D, or the end of the pipe.
    End,
}

/// The source of lines.
pub enum Lines {
    Terminal {
        editor: Box<Editor<Commands, MemHistory>>,
        history: Option<History>,
        #[cfg(unix)]
        quiet: terminal::Quiet,
    },
    Plain {
        input: io::StdinLock<'static>,
        /// True if a person is asked.
        is_terminal: bool,
    },
}

impl Lines {
    /// Standard input as it is; with the messages of earlier sessions if `remembers` is set.
    pub fn new(remembers: bool) -> Result<Lines, Failure> {
        let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        if !is_terminal || terminal::is_dumb() {
            return Ok(Lines::Plain {
                input: io::stdin().lock(),
                is_terminal,
            });
        }
        let config = Config::builder()
            .max_history_size(history::KEPT)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(failed)?
            .completion_type(rustyline::CompletionType::List)
            .build();
        let memory = MemHistory::with_config(&config);
        let mut editor = Editor::with_history(config, memory).map_err(failed)?;
        editor.set_helper(Some(Commands {
            files: FilenameCompleter::new(),
        }));
        // A terminal sends Ctrl-J for a line break that is not Return.
        editor.bind_sequence(KeyEvent::ctrl('J'), Cmd::Newline);
        let history = match remembers.then(History::place).flatten() {
            Some(place) => match History::open(&place) {
                Ok((history, messages)) => {
                    for message in messages {
                        editor.add_history_entry(message).map_err(failed)?;
                    }
                    Some(history)
                }
                Err(error) => {
                    let reason = terminal::shown_line(&error.to_string());
                    note(&format!("messages are not remembered: {reason}\n"));
                    None
                }
            },
            None => None,
        };
        Ok(Lines::Terminal {
            editor: Box::new(editor),
            history,
            #[cfg(unix)]
            quiet: terminal::Quiet::begin().map_err(refused)?,
        })
    }

    /// True if a person sits there.
    pub fn is_terminal(&self) -> bool {
        match self {
            Lines::Terminal { .. } => true,
            Lines::Plain { is_terminal, .. } => *is_terminal,
        }
    }

    /// Tells whether Ctrl-C is to end what the program does, or is a key like any other.
    pub fn obey_ctrl_c(&mut self, obeys: bool) -> Result<(), Failure> {
        match self {
            #[cfg(unix)]
            Lines::Terminal { quiet, .. } => quiet.obey_ctrl_c(obeys).map_err(refused),
            _ => {
                let _ = obeys;
                Ok(())
            }
        }
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
        if let Lines::Terminal {
            editor, history, ..
        } = self
            && !text.trim().is_empty()
        {
            let is_new = editor.add_history_entry(text.as_str()).map_err(failed)?;
            if let (true, Some(file)) = (is_new, &mut *history)
                && let Err(error) = file.add(&text)
            {
                let reason = terminal::shown_line(&error.to_string());
                note(&format!("messages are no longer remembered: {reason}\n"));
                *history = None;
            }
        }
        Ok(Input::Text(text))
    }

    fn line(&mut self, is_first: bool) -> Result<Input, Failure> {
        let plain = if is_first { "> " } else { ". " };
        match self {
            Lines::Terminal { editor, .. } => {
                let read = if terminal::has_colours() {
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
            Lines::Plain { input, is_terminal } => {
                if *is_terminal {
                    // The terminal may be gone; then there is no line either.
                    let _ = io::stderr().write_all(plain.as_bytes());
                }
                let mut line = Vec::new();
                let mut limited = io::Read::take(&mut *input, LONGEST as u64);
                let read = limited.read_until(b'\n', &mut line).map_err(refused)?;
                if read == 0 {
                    return Ok(Input::End);
                }
                if read == LONGEST && line.last() != Some(&b'\n') {
                    note(&format!(
                        "a line is longer than {} MiB: it is taken in parts\n",
                        LONGEST >> 20
                    ));
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

/// Completer of the names of commands, and of files where they take one.
pub struct Commands {
    files: FilenameCompleter,
}

impl Completer for Commands {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let begun = &line[..position];
        if ["/load ", "/save "]
            .iter()
            .any(|command| begun.starts_with(command))
        {
            let (start, files) = self.files.complete_path(line, position)?;
            let files = files.into_iter().map(|file| file.replacement);
            return Ok((start, files.collect()));
        }
        let fits = |name: &&&str| begun.starts_with('/') && name.starts_with(begun);
        let names = NAMES.iter().filter(fits);
        Ok((0, names.map(|name| (*name).to_owned()).collect()))
    }
}

impl Hinter for Commands {
    type Hint = String;
}
impl Highlighter for Commands {}
impl Validator for Commands {}
impl Helper for Commands {}

//! The conversation, for `/save` and `/load`: as much of it as fits a fixed number of bytes.
//!
//! A saved conversation is text: paragraphs that begin with `system: `, `user: ` or `assistant: `.
//! A line of a message that begins so itself gets a `>` before it, and one more if it has some.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::super::failure::Failure;
use super::super::output::Output;
use crate::chat::Role;

/// Bytes of text kept; older messages go first.
const MOST: usize = 1 << 20;

/// The last messages of a conversation, far more than the model sees.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    system: Option<String>,
    messages: VecDeque<(Role, String)>,
    bytes: usize,
    dropped: usize,
}

impl Transcript {
    pub fn add(&mut self, role: Role, text: &str) {
        self.bytes += text.len();
        self.messages.push_back((role, text.to_owned()));
        while self.bytes > MOST {
            let Some((_, oldest)) = self.messages.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
            self.dropped += 1;
        }
    }

    pub fn clear(&mut self) {
        *self = Transcript::default();
    }

    /// Takes the last exchange out, and returns its message.
    pub fn pop(&mut self) -> Option<String> {
        while let Some((role, text)) = self.messages.pop_back() {
            self.bytes -= text.len();
            if role == Role::User {
                return Some(text);
            }
        }
        None
    }

    /// The system prompt of a conversation that was loaded.
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Number of messages.
    pub fn messages(&self) -> usize {
        self.messages.len()
    }

    /// Messages of the person, each with the answer, which may be empty.
    pub fn exchanges(&self) -> impl Iterator<Item = (&str, &str)> {
        let next = |at: usize| match self.messages.get(at + 1) {
            Some((Role::Assistant, answer)) => &**answer,
            _ => "",
        };
        let numbered = self.messages.iter().enumerate();
        numbered
            .filter(|(_, (role, _))| *role == Role::User)
            .map(move |(at, (_, words))| (&**words, next(at)))
    }

    /// Writes it as text, and returns how many messages that are.
    pub fn save(&self, mut output: Output, system: Option<&str>) -> Result<usize, Failure> {
        let mut text = String::new();
        if let Some(system) = system {
            text += &format!("system: {}\n\n", quoted(system));
        }
        if self.dropped > 0 {
            text += &format!("({} older messages are not kept)\n\n", self.dropped);
        }
        for (role, message) in &self.messages {
            let name = match role {
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            text += &format!("{name}: {}\n\n", quoted(message.trim()));
        }
        output.add(text.as_bytes())?;
        output.finish()?;
        Ok(self.messages.len())
    }

    /// Reads a conversation that was saved.
    pub fn load(path: &Path) -> Result<Transcript, Failure> {
        let wrong = |error| Failure::Read {
            path: path.to_path_buf(),
            error,
        };
        let there = fs::metadata(path).map_err(wrong)?;
        if !there.is_file() {
            return Err(wrong(io::Error::other("it is not a regular file")));
        }
        let mut text = String::new();
        // The frames of very short messages take more bytes than their text.
        let most = 16 * MOST as u64;
        if there.len() > most {
            return Err(wrong(io::Error::other(format!(
                "it has {} bytes, a saved conversation at most {most}",
                there.len()
            ))));
        }
        let file = File::open(path).map_err(wrong)?;
        file.take(most).read_to_string(&mut text).map_err(wrong)?;
        let loaded = Transcript::parse(&text);
        loaded.ok_or_else(|| wrong(io::Error::other("it is not a saved conversation")))
    }

    fn parse(text: &str) -> Option<Transcript> {
        let mut paragraphs: Vec<(&str, String)> = Vec::new();
        for line in text.lines() {
            match (begun(line), paragraphs.last_mut()) {
                (Some((name, rest)), _) => paragraphs.push((name, rest.to_owned())),
                (None, Some((_, message))) => {
                    message.push('\n');
                    message.push_str(if is_quoted(line) { &line[1..] } else { line });
                }
                // Between the system prompt and the first message, and before either.
                (None, None) if line.is_empty() || line.ends_with("messages are not kept)") => {}
                (None, None) => return None,
            }
        }
        let mut transcript = Transcript::default();
        for (at, (name, message)) in paragraphs.iter().enumerate() {
            let message = message.trim_end_matches('\n');
            match role_of(name) {
                Some(role) => transcript.add(role, message),
                None if at == 0 => {
                    // The note of messages that were not kept follows it.
                    let kept = match message.rsplit_once("\n\n(") {
                        Some((before, note)) if note.ends_with(" older messages are not kept)") => {
                            before
                        }
                        _ => message,
                    };
                    transcript.system = Some(kept.to_owned());
                }
                None => return None,
            }
        }
        Some(transcript).filter(|_| !paragraphs.is_empty())
    }
}

const NAMES: [&str; 3] = ["system: ", "user: ", "assistant: "];

fn role_of(name: &str) -> Option<Role> {
    match name {
        "user" => Some(Role::User),
        "assistant" => Some(Role::Assistant),
        _ => None,
    }
}

/// The name of the author with whose message a line begins, and the rest.
fn begun(line: &str) -> Option<(&str, &str)> {
    let name = NAMES.iter().find(|name| line.starts_with(**name))?;
    Some((&line[..name.len() - 2], &line[name.len()..]))
}

fn is_quoted(line: &str) -> bool {
    line.starts_with('>') && begun(line.trim_start_matches('>')).is_some()
}

/// A message in which no line but the first is taken for another message.
fn quoted(message: &str) -> String {
    let mut lines = message.split('\n');
    let mut text = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        text.push('\n');
        if begun(line.trim_start_matches('>')).is_some() {
            text.push('>');
        }
        text.push_str(line);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::super::output::Files;
    use super::*;

    #[test]
    fn keeps_the_last_messages_within_its_bytes() {
        let mut transcript = Transcript::default();
        for i in 0..9 {
            transcript.add(Role::User, &format!("{i}{}", "x".repeat(MOST / 4)));
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("talk.txt");
        let output = Files::new(false).create(&file).unwrap();
        assert_eq!(transcript.save(output, Some("Be brief.")).unwrap(), 3);
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("system: Be brief.\n\n(6 older messages are not kept)\n\nuser: 6x")
        );
        let loaded = Transcript::load(&file).unwrap();
        assert_eq!(loaded.system(), Some("Be brief."));
        assert_eq!(loaded.messages, transcript.messages);
        let output = Files::new(true).create(&file).unwrap();
        assert_eq!(transcript.save(output, None).unwrap(), 3);
        assert!(fs::read_to_string(&file).unwrap().starts_with("(6 older"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_saved_is_loaded_whatever_it_says() {
        let mut transcript = Transcript::default();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("talk.txt");
        for (role, text) in [
            (Role::User, "hello\n\nuser: no\n>user: neither"),
            (Role::Assistant, "assistant: yes\n  indented\n\n\nend"),
            (Role::User, ""),
            (Role::Assistant, "> quoted"),
        ] {
            transcript.add(role, text);
        }
        let system = "Two\n\nparagraphs\nsystem: x";
        let output = Files::new(false).create(&file).unwrap();
        assert_eq!(transcript.save(output, Some(system)).unwrap(), 4);
        let loaded = Transcript::load(&file).unwrap();
        assert_eq!(loaded.system(), Some(system));
        assert_eq!(loaded.messages, transcript.messages);
        let exchanges: Vec<(&str, &str)> = loaded.exchanges().collect();
        assert_eq!(exchanges[1], ("", "> quoted"));
        assert_eq!(exchanges.len(), 2);
        fs::write(&file, "a letter\nuser: x").unwrap();
        assert!(Transcript::load(&file).is_err());
        assert!(Transcript::load(folder.path()).is_err());
    }

    #[test]
    fn the_last_exchange_can_be_taken_out() {
        let mut transcript = Transcript::default();
        assert_eq!(transcript.pop(), None);
        for text in ["one", "two"] {
            transcript.add(Role::User, text);
            transcript.add(Role::Assistant, "yes");
        }
        assert_eq!(transcript.pop().as_deref(), Some("two"));
        assert_eq!((transcript.messages(), transcript.bytes), (2, 6));
    }
}

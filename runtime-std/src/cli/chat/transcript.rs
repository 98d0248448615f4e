//! The conversation, for `/save`: as much of it as fits a fixed number of bytes.

use std::collections::VecDeque;

use super::super::failure::Failure;
use super::super::output::Output;
use crate::chat::Role;

/// Bytes of text kept; older messages go first.
const MOST: usize = 1 << 20;

/// The last messages of a conversation, far more than the model sees.
#[derive(Default)]
pub struct Transcript {
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

    /// Writes it as text, and returns how many messages that are.
    pub fn save(&self, mut output: Output, system: Option<&str>) -> Result<usize, Failure> {
        let mut text = String::new();
        if let Some(system) = system {
            text += &format!("system: {system}\n\n");
        }
        if self.dropped > 0 {
            text += &format!("({} older messages are not kept)\n\n", self.dropped);
        }
        for (role, message) in &self.messages {
            let name = match role {
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            text += &format!("{name}: {}\n\n", message.trim());
        }
        output.add(text.as_bytes())?;
        output.finish()?;
        Ok(self.messages.len())
    }
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
    }
}

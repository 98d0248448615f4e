//! The text that a command line gives: as a word, by -p, from a file, or on standard input.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use brooklet_core::tokenizer::Tokenizer;
use clap::Args;

use super::failure::Failure;
use super::input;
use crate::engine::encode_prompt;
use crate::notice::{Notice, Notices};

/// Options of every command whose text may name control tokens.
#[derive(Args)]
pub struct SpecialArguments {
    /// Read control tokens that are written out in the text, such as <|im_start|>, as those tokens
    #[arg(long)]
    pub special: bool,
}

/// The one source of a text, from the ways to give it.
pub enum Source<'a> {
    /// A word of the command line.
    Word(&'a str),
    /// A file; `-` is standard input.
    File(&'a Path),
    /// Standard input, since nothing else is given.
    Input,
}

impl<'a> Source<'a> {
    /// The source, of which there may be one.
    pub fn of(
        word: Option<&'a str>,
        option: Option<&'a str>,
        file: Option<&'a PathBuf>,
    ) -> Result<Source<'a>, Failure> {
        match (word, option, file) {
            (Some(word), None, None) | (None, Some(word), None) => Ok(Source::Word(word)),
            (None, None, Some(file)) => Ok(Source::File(file)),
            (None, None, None) => Ok(Source::Input),
            _ => Err(Failure::Usage(
                "the text is given more than once: as a word, with -p or with -f".into(),
            )),
        }
    }

    /// True if there is nothing to read but a terminal.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Source::Input) && io::stdin().is_terminal()
    }

    /// The text. From a file or standard input one line break at the end is left out, which editors
    /// and `echo` put there.
    pub fn read(&self, what: &str) -> Result<Vec<u8>, Failure> {
        let mut text = match self {
            Source::Word(word) => return Ok(word.as_bytes().to_vec()),
            Source::File(path) => input::text(Some(path), what)?,
            Source::Input => input::text(None, what)?,
        };
        let end = [&b"\r\n"[..], b"\n"]
            .into_iter()
            .find(|end| text.ends_with(end));
        text.truncate(text.len() - end.map_or(0, <[u8]>::len));
        Ok(text)
    }

    /// Notes what waits on standard input while the text comes from elsewhere.
    pub fn note_unread(&self, notices: &mut Notices) {
        let used = match self {
            Source::Word(_) => "the text is on the command line",
            Source::File(path) if *path != Path::new("-") => "the text is in a file",
            _ => return,
        };
        let bytes = waiting();
        if bytes > 0 {
            notices.add(Notice::InputIgnored { bytes, used });
        }
    }
}

/// Bytes that wait on standard input, as far as the system says; looks, and reads none.
#[cfg(unix)]
fn waiting() -> u64 {
    use rustix::fs::FileType;

    let input = io::stdin();
    if input.is_terminal() {
        return 0;
    }
    // Devices, such as /dev/null and /dev/zero, are nobody's text.
    let is_text = rustix::fs::fstat(&input).is_ok_and(|stat| {
        let kind = FileType::from_raw_mode(stat.st_mode);
        matches!(
            kind,
            FileType::RegularFile | FileType::Fifo | FileType::Socket
        )
    });
    if !is_text {
        return 0;
    }
    rustix::io::ioctl_fionread(&input).unwrap_or(0)
}

#[cfg(not(unix))]
fn waiting() -> u64 {
    0
}

/// The tokens of a prompt, with the token of a start where the model asks for one: alone, where the
/// text is empty, and once, where the text names it itself.
pub fn encode(
    tokenizer: &mut Tokenizer<'_>,
    text: &[u8],
    special: bool,
    notices: &mut Notices,
) -> Vec<u32> {
    let mut tokens = encode_prompt(tokenizer, text, special);
    if let (Some(bos), [first, second, ..]) = (tokenizer.bos(), &tokens[..])
        && special
        && [*first, *second] == [bos; 2]
        && text_names(tokenizer, text, bos)
    {
        tokens.remove(0);
        notices.add(Notice::StartWritten);
    }
    tokens
}

/// True if a text begins with the name of a token.
fn text_names(tokenizer: &Tokenizer<'_>, text: &[u8], token: u32) -> bool {
    let name: Vec<u8> = tokenizer.piece(token, true).collect();
    text.starts_with(&name)
}

//! `brooklet tokenize`: the ids of a text.

use std::io::{self, Write};
use std::path::PathBuf;

use brooklet_core::tokenizer::{EncodeOptions, Mark, Tokenizer};
use clap::Args;

use super::failure::Failure;
use super::input;
use super::model::ModelArguments;
use crate::model::with_tokenizer_of;

/// Arguments of `brooklet tokenize`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// The text; standard input if neither it nor a file is given
    text: Option<String>,
    /// A file with the text; - for standard input
    #[arg(short, long, conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Print the ids alone, separated by blanks, on one line
    #[arg(long)]
    ids: bool,
    /// Do not put the token of the start of a sequence first, even if the model asks for it
    #[arg(long)]
    no_bos: bool,
}

/// Prints the ids of a text: alone, or each with its text.
pub fn tokenize(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Failure> {
    let open = arguments.model.open()?;
    let text = input::text(
        arguments.text.as_deref(),
        arguments.file.as_ref(),
        "the text",
    )?;
    let options = EncodeOptions {
        bos: bos(arguments.no_bos),
        ..EncodeOptions::default()
    };
    let written = with_tokenizer_of(&open.file, |tokenizer| {
        let mut result = Ok(());
        let mut tokens = Vec::new();
        tokenizer.encode(&text, options, &mut |token| tokens.push(token));
        for (at, &token) in tokens.iter().enumerate() {
            let line = if arguments.ids {
                write_id(out, at, token)
            } else {
                write_line(out, tokenizer, token)
            };
            result = result.and(line);
        }
        if arguments.ids {
            result.and_then(|()| writeln!(out))
        } else {
            result
        }
    })?;
    written.map_err(Failure::Output)
}

/// The use of the start-of-sequence token.
pub fn bos(never: bool) -> Mark {
    if never { Mark::Never } else { Mark::Model }
}

fn write_id(out: &mut dyn Write, at: usize, token: u32) -> io::Result<()> {
    write!(out, "{}{token}", if at > 0 { " " } else { "" })
}

/// Writes an id and its text, quoted, with control characters escaped.
fn write_line(out: &mut dyn Write, tokenizer: &Tokenizer<'_>, token: u32) -> io::Result<()> {
    let bytes: Vec<u8> = tokenizer.piece(token, true).collect();
    writeln!(out, "{token:>7}  {:?}", String::from_utf8_lossy(&bytes))
}

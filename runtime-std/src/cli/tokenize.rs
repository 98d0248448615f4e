//! `brooklet tokenize` and `brooklet detokenize`: the ids of a text, and the text of ids.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use brooklet_core::tokenizer::{EncodeOptions, Mark, Tokenizer};
use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::input;
use super::json::write_json;
use super::model::ModelArguments;
use super::prompt::{Source, SpecialArguments};
use crate::notice::Notices;

/// Arguments of `brooklet tokenize`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// The text; standard input if it is not given here, with -p or with -f, less one line break at
    /// its end
    text: Option<String>,
    /// The text, instead of a word
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// A file with the text; - for standard input
    #[arg(short, long)]
    file: Option<PathBuf>,
    #[command(flatten)]
    special: SpecialArguments,
    /// Print the ids alone, separated by blanks, on one line
    #[arg(long, conflicts_with = "json")]
    ids: bool,
    /// Do not put the token of the start of a sequence first, even if the model asks for it
    #[arg(long)]
    no_bos: bool,
    /// Print one JSON array: an object with id and text for each token
    #[arg(long)]
    json: bool,
}

/// Arguments of `brooklet detokenize`.
#[derive(Args)]
pub struct DetokenizeArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Token ids; from standard input if neither they nor a file are given
    ids: Vec<u32>,
    /// A file with token ids, separated by blanks; - for standard input
    #[arg(short, long, conflicts_with = "ids")]
    file: Option<PathBuf>,
    /// Write control tokens as their names, such as <|im_start|>, instead of leaving them out
    #[arg(long)]
    special: bool,
}

/// A token of the report.
#[derive(Serialize)]
struct Token {
    id: u32,
    /// Its text; bytes that are no text are U+FFFD.
    text: String,
}

/// Prints the ids of a text: alone, or each with its text.
pub fn tokenize(
    arguments: &Arguments,
    mut notices: Notices,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let source = Source::of(
        arguments.text.as_deref(),
        arguments.prompt.as_deref(),
        arguments.file.as_ref(),
    )?;
    let open = arguments.model.open()?;
    let (model, _) = open.check(1)?;
    let text = source.read("the text")?;
    let options = EncodeOptions {
        bos: bos(arguments.no_bos),
        special: arguments.special.special,
        ..EncodeOptions::default()
    };
    let tokens = model.tokenize(&text, options)?;
    source.note_unread(&mut notices);
    if arguments.ids {
        return write_ids(out, &tokens).map_err(Failure::Output);
    }
    model.with_tokenizer(|tokenizer| {
        let tokens = tokens.iter().map(|&id| Token {
            id,
            text: String::from_utf8_lossy(&piece(tokenizer, id)).into_owned(),
        });
        if arguments.json {
            return write_json(out, &tokens.collect::<Vec<_>>());
        }
        tokens.into_iter().try_for_each(|Token { id, text }| {
            // Quoted, with control characters escaped.
            writeln!(out, "{id:>7}  {text:?}").map_err(Failure::Output)
        })
    })?
}

/// Prints the text of ids, and nothing else.
pub fn detokenize(arguments: &DetokenizeArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let open = arguments.model.open()?;
    let (model, _) = open.check(1)?;
    let vocab = model.config().vocab;
    let ids = match (&arguments.file, &arguments.ids[..]) {
        (Some(path), _) => input::ids(path, vocab)?,
        (None, []) => input::ids(Path::new("-"), vocab)?,
        (None, ids) => ids.to_vec(),
    };
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
        return Err(Failure::Input(format!(
            "{id} is not a token id from 0 to {}",
            vocab.saturating_sub(1)
        )));
    }
    let written = model.with_tokenizer(|tokenizer| {
        ids.iter().try_for_each(|&id| {
            let bytes: Vec<u8> = tokenizer.piece(id, arguments.special).collect();
            out.write_all(&bytes)
        })
    })?;
    written.map_err(Failure::Output)
}

/// The use of the start-of-sequence token.
pub fn bos(never: bool) -> Mark {
    if never { Mark::Never } else { Mark::Model }
}

fn write_ids(out: &mut dyn Write, ids: &[u32]) -> io::Result<()> {
    for (at, id) in ids.iter().enumerate() {
        write!(out, "{}{id}", if at > 0 { " " } else { "" })?;
    }
    writeln!(out)
}

/// The bytes of a token, names of control tokens included.
fn piece(tokenizer: &Tokenizer<'_>, id: u32) -> Vec<u8> {
    tokenizer.piece(id, true).collect()
}

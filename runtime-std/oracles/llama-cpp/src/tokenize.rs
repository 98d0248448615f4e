//! Text to ids and back.

use crate::Result;
use crate::args::Args;
use crate::peer::{Peer, read_ids};
use std::io::Write;

/// Prints the ids of each file on one line. Special tokens are plain text unless `--special`, and
/// no BOS or EOS is added unless `--bos` (which does what the file's metadata says).
pub fn encode(args: &Args) -> Result<()> {
    let peer = Peer::load_vocab(args)?;
    let vocab = peer.model.vocab();
    let mut out = std::io::stdout().lock();
    for path in args.rest(1, "FILE")? {
        let text = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        let ids = vocab.tokenize(&text, args.has("--bos"), args.has("--special"));
        let words: Vec<String> = ids.iter().map(|id| id.0.to_string()).collect();
        writeln!(out, "{}", words.join(" "))?;
    }
    Ok(())
}

/// Writes the text of the ids in a file; special tokens are shown with `--special`.
pub fn decode(args: &Args) -> Result<()> {
    let peer = Peer::load_vocab(args)?;
    let ids = read_ids(args.word(1, "IDS_FILE")?, peer.vocab())?;
    let text = peer.model.vocab().detokenize(&ids, false, args.has("--special"));
    Ok(std::io::stdout().lock().write_all(&text)?)
}

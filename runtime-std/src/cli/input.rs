//! Text and ids from files and standard input.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use super::failure::Failure;
use crate::size::Size;

/// Longest text, in bytes: some hundred books. Without it, a device would be read until the memory
/// is full.
const LONGEST: usize = 256 << 20;

/// The bytes of a text's file; `-` is standard input.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = if path == Path::new("-") {
        read_text(&mut io::stdin().lock())
    } else {
        File::open(path).and_then(|mut file| read_text(&mut file))
    };
    bytes.map_err(|error| Failure::Read {
        path: path.to_path_buf(),
        error,
    })
}

fn read_text(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LONGEST {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "it is longer than {} ({LONGEST} bytes), the most that a text may have",
                Size(LONGEST)
            ),
        ));
    }
    Ok(bytes)
}

/// The text of a file, or of standard input if none is given. `what` names it for the error.
pub fn text(file: Option<&Path>, what: &str) -> Result<Vec<u8>, Failure> {
    match file {
        Some(path) => read(path),
        None if io::stdin().is_terminal() => Err(Failure::Usage(format!(
            "give {what} as an argument, with -f FILE, or on standard input"
        ))),
        None => read(Path::new("-")),
    }
}

/// Token ids separated by blanks, each below `vocab`.
pub fn ids(path: &Path, vocab: usize) -> Result<Vec<u32>, Failure> {
    let bytes = read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    text.split_whitespace()
        .map(|word| {
            let id = word.parse().ok().filter(|&id: &u32| (id as usize) < vocab);
            id.ok_or_else(|| {
                let most = vocab.saturating_sub(1);
                Failure::Input(format!(
                    "{}: \"{word}\" is not a token id from 0 to {most}",
                    path.display()
                ))
            })
        })
        .collect()
}

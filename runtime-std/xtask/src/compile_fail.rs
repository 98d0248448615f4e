//! Programs that must not compile, and what the compiler must say about them.

use std::fs;

use brooklet_board_data::Board;

use crate::firmware::{Build, Firmware};
use crate::reference::{Reference, setup_of};
use crate::{Error, TINY, model_of, table};

const NAME: &str = "mps2-an386";

/// The exact budget compiles, one byte less is refused with the three numbers. Also refused are
/// keys and values instead of keys alone, a truncated file, and a model or a program larger than
/// flash.
pub fn check() -> Result<(), Error> {
    let mut board = Board::read(&table(), NAME)?;
    let model = model_of(&board);
    let needed = Reference::run(&model, setup_of(&board), &board.opening, 0)?
        .plan
        .bytes();
    board.budget = needed;
    Firmware::new(NAME, &board).image("firmware-exact")?;
    say!("the model in {needed} bytes: compiles");

    board.budget = needed - 1;
    let short = [
        format!("needs {needed} bytes"),
        format!("budget is {} bytes", needed - 1),
        "1 byte is missing".into(),
    ];
    show("one byte less", &board, &short)?;

    let slim = std::mem::replace(&mut board.model, TINY.into());
    board.budget = needed;
    let kv = Reference::run(&model_of(&board), setup_of(&board), &board.opening, 0)?
        .plan
        .bytes();
    show(
        "keys and values of as many tokens",
        &board,
        &[format!("needs {kv} bytes")],
    )?;
    board.model = slim;

    let folder = tempfile::tempdir()?;
    let cut = folder.path().join("cut.gguf");
    let whole = fs::read(&model)?;
    fs::write(&cut, &whole[..whole.len() - 1])?;
    board.model = cut.display().to_string();
    show(
        "a file one byte short",
        &board,
        &["not a whole GGUF file".into()],
    )?;

    board.model = model.display().to_string();
    board.flash_bytes = 256 << 10;
    let larger = [
        "does not fit mps2-an386".into(),
        format!("has {} bytes", whole.len()),
        format!("flash {}", board.flash_bytes),
    ];
    show("a model larger than flash", &board, &larger)?;

    board.flash_bytes = u32::try_from(whole.len())? + 4096;
    let over = [
        // The linker says it of each section.
        "section '.rodata' will not fit in region 'FLASH'".into(),
        "overflowed by".into(),
    ];
    show("a program that does not fit beside it", &board, &over)
}

/// The compiler must refuse the board's firmware, in one line with all of `words`.
fn show(what: &str, board: &Board, words: &[String]) -> Result<(), Error> {
    match Firmware::new(NAME, board).build()? {
        Build::Refused(message) => {
            say!("{what}: {}", line_with(&message, words)?);
            Ok(())
        }
        Build::Image(_) => Err(format!("{what} compiles but must not").into()),
    }
}

/// The one line of the compiler's `text` that has all of `words` in it and is not a line of a
/// source that it quotes, with a number and a bar before it.
fn line_with<'t>(text: &'t str, words: &[String]) -> Result<&'t str, Error> {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| words.iter().all(|word| line.contains(word.as_str())))
        .filter(|line| {
            let quoted = line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit());
            !quoted.starts_with('|')
        })
        .collect();
    match lines[..] {
        [line] => Ok(line.trim()),
        _ => Err(format!(
            "{} lines instead of one with {words:?} in the compiler's message:\n{text}",
            lines.len()
        )
        .into()),
    }
}

//! Faults that a board must survive, or refuse with a reason.

use std::fs;
use std::path::Path;
use std::time::Duration;

use brooklet_board_data::Board;

use crate::emulator::{Limit, Session};
use crate::firmware::Firmware;
use crate::reference::{Reference, setup_of};
use crate::{Error, board, model_of, table};

const NAME: &str = "mps2-an386";

/// Address of a model that is not a part of the image: past the firmware's part of the 4 MiB.
const MODEL_AT: u32 = 0x20_0000;

/// Ceiling of the stack with such a model, whose header is read at boot.
const APART_STACK: u32 = 0x2600;

/// Tokens that are compared.
const TOKENS: usize = 32;

/// All of them.
pub fn check() -> Result<(), Error> {
    let mut board = Board::read(&table(), NAME)?;
    board.temperature = 0.0;
    check_model_apart(&board)?;
    check_panic(&board)?;
    check_hang(&board)?;
    check_heap(&board)
}

/// A model at a fixed address runs if all its bits are those of the planned one; otherwise it is
/// refused.
fn check_model_apart(board: &Board) -> Result<(), Error> {
    let model = model_of(board);
    let expected = Reference::run(&model, setup_of(board), &board.opening, TOKENS)?;
    let mut board = board.clone();
    board.model_at = Some(MODEL_AT);
    // For the table of layers, which is in RAM; the stack is the board's own.
    board.ram_bytes = 0x4_0000;
    let image = Firmware::new(NAME, &board).image("firmware-apart")?;
    let limit = Limit::of(4 * TOKENS, expected.parameters);
    let mut session = Session::start(&image, &board, limit, &loaded(&model.canonicalize()?))?;
    board::compare(&mut session, &expected)?;
    // The log says the depth once more after 100 tokens, the boot included.
    session.wait_for("stack ")?;
    let used = session.stack()?;
    say!(
        "a model at {MODEL_AT:#x}, apart from the image: {TOKENS} tokens as on the host; {used} bytes of stack used of {APART_STACK}"
    );
    board::under("stack", used.into(), APART_STACK.into())?;

    let folder = tempfile::tempdir()?;
    let damaged = folder.path().join("damaged.gguf");
    let mut bytes = fs::read(&model)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes)?;
    for (what, more) in [
        ("one bit flipped", loaded(&damaged)),
        ("no model there", Vec::new()),
    ] {
        let mut session = Session::start(&image, &board, limit, &more)?;
        let entry = session.wait_for("NoModel")?;
        say!("{what}: {} {}", entry.level, entry.text);
        if entry.level != "ERROR" || session.text(0)? != b"" {
            return Err("the board must log an error and tell no story".into());
        }
    }
    Ok(())
}

/// QEMU's arguments that load a file into memory.
fn loaded(model: &Path) -> Vec<String> {
    vec![
        "-device".into(),
        format!(
            "loader,file={},addr={MODEL_AT:#x},force-raw=on",
            model.display()
        ),
    ]
}

/// A panic is logged with its place, and resets the board.
fn check_panic(board: &Board) -> Result<(), Error> {
    let mut session = example(NAME, board, "panic")?;
    let entry = session.wait_for("panic at ")?;
    expect_reset(&mut session)?;
    say!(
        "a panic: {} {}; then the board was reset",
        entry.level,
        entry.text
    );
    Ok(())
}

/// A program that no longer feeds the watchdog is reset.
fn check_hang(board: &Board) -> Result<(), Error> {
    let mut session = example(NAME, board, "hang")?;
    session.wait_for("hangs now")?;
    expect_reset(&mut session)?;
    say!("a program that hangs: the watchdog reset the board");
    Ok(())
}

/// The kernels' own suite, on the board's instructions: the same bits as the scalar reference.
pub fn check_kernels(name: &str, board: &Board) -> Result<(), Error> {
    let mut board = board.clone();
    // It keeps its matrices on the stack, and has no arena.
    board.stack_bytes = 0x8000;
    let mut session = example_with(name, &board, "kernels", "super-blocks")?;
    let entry = session.wait_for(" cases, ")?;
    if entry.text.ends_with(", 0 differ") && !entry.text.contains(": 0 cases") {
        say!("{name}: {} from the scalar kernels", entry.text);
        Ok(())
    } else {
        Err(format!("{name}: {}", entry.text).into())
    }
}

/// An application's heap beside the arena.
fn check_heap(board: &Board) -> Result<(), Error> {
    let mut session = example(NAME, board, "heap")?;
    let entry = session.wait_for("words")?;
    say!("an application with a heap: {}", entry.text);
    Ok(())
}

fn example(name: &str, board: &Board, example: &str) -> Result<Session, Error> {
    example_with(name, board, example, "")
}

fn example_with(
    name: &str,
    board: &Board,
    example: &str,
    features: &str,
) -> Result<Session, Error> {
    let firmware = Firmware {
        example: Some(example),
        features: Some(features),
        ..Firmware::new(name, board)
    };
    let limit = Limit {
        instructions: u64::MAX,
        time: Duration::from_secs(300),
    };
    Session::start(
        &firmware.image(&format!("firmware-{example}"))?,
        board,
        limit,
        &[],
    )
}

/// The emulator does not restart a board that is reset: its log ends.
fn expect_reset(session: &mut Session) -> Result<(), Error> {
    while session.next()?.is_some() {}
    Ok(())
}

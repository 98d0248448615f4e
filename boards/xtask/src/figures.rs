//! Instructions a parameter on every board: keys and values and slim attention, at position 32 and with a full cache.

use brooklet_boards::Board;

use crate::emulator::{Limit, Session};
use crate::firmware::Firmware;
use crate::reference::{Reference, setup_of};
use crate::{Error, TINY, TINY_K, board, model_of};

/// A window that keys and values have room for, too.
const WINDOW: usize = 92;

/// Prints a line for each board, layout and choice of kernels.
pub fn print(boards: Vec<(String, Board)>) -> Result<(), Error> {
    println!("| board | core | kernels | cache | window | position 32 | full | instructions a token, full |");
    println!("|---|---|---|---|---:|---:|---:|---:|");
    for (name, board) in boards {
        for (features, layout, window) in [
            (Some(""), TINY, WINDOW),
            (Some(""), TINY_K, WINDOW),
            (Some(""), TINY_K, board.window),
            (None, TINY, WINDOW),
            (None, TINY_K, WINDOW),
        ] {
            line(&name, &board, features, layout, window)?;
        }
    }
    Ok(())
}

fn line(name: &str, board: &Board, features: Option<&str>, model: &str, window: usize) -> Result<(), Error> {
    let mut board = board.clone();
    (board.model, board.window, board.temperature) = (model.into(), window, 0.0);
    // Keys and values may take more than the board's budget: what is measured is instructions.
    (board.ram_bytes, board.budget) = (0x4_0000, 0x3_0000);
    let tokens = board.sinks + board.window + 8;
    let expected = Reference::run(&model_of(&board), setup_of(&board), &board.opening, tokens)?;
    let firmware = Firmware {
        features,
        ..Firmware::new(name, &board)
    };
    let image = firmware.image("firmware-figures")?;
    let limit = Limit::of(tokens, expected.parameters);
    let mut session = Session::start(&image, &board, limit, &[])?;
    let said = board::compare(&mut session, &expected)?;
    let kernels = session
        .entries
        .iter()
        .find_map(|entry| entry.text.split_once(" kernels").map(|(name, _)| name.to_owned()))
        .ok_or("the log does not name the kernels")?;
    let (at_32, full) = (
        said[32 - expected.prompt.len()].instructions,
        said[tokens - 1].instructions,
    );
    let parameters = expected.parameters as f64;
    println!(
        "| {name} | {} | {kernels} | {} {} | {} + {window} | {:.2} | {:.2} | {full} |",
        board.core,
        if model == TINY { "kv" } else { "k" },
        board.cache.name(),
        board.sinks,
        at_32 as f64 / parameters,
        full as f64 / parameters
    );
    Ok(())
}

//! Instructions per parameter on every board: keys and values and slim attention, at position 32
//! and with a full cache.

use brooklet_board_data::Board;

use crate::emulator::{Limit, Session};
use crate::firmware::{Build, Firmware};
use crate::reference::{Reference, setup_of};
use crate::{Error, TINY, TINY_K, board, model_of};

/// The measured variants: the model, rustc's `opt-level`, and the kernels' features (`None`: the
/// scalar reference).
const VARIANTS: &[(&str, &str, Option<&str>)] = &[
    (TINY, "3", Some("")),
    (TINY, "s", Some("")),
    (TINY, "3", None),
    (TINY_K, "3", Some("")),
    (TINY_K, "s", Some("")),
];

/// Prints a line for each board and variant.
pub fn print(boards: Vec<(String, Board)>) -> Result<(), Error> {
    head();
    for (name, board) in boards {
        for (model, opt_level, features) in VARIANTS {
            line(&name, &board, *features, model, opt_level)?;
        }
    }
    Ok(())
}

/// Prints the same for one board with either mathematics.
pub fn mathematics(name: &str, board: &Board) -> Result<(), Error> {
    head();
    for features in ["", "micromath"] {
        line(name, board, Some(features), TINY, "3")?;
    }
    Ok(())
}

fn head() {
    say!(
        "| board | core | kernels | cache | opt-level | position 32 | full (256) | instructions a token, full |"
    );
    say!("|---|---|---|---|---|---:|---:|---:|");
}

/// The bytes that an image has more than flash, if that is what the linker complains of: the most
/// of all sections, each of which it names.
fn overflow(why: &str) -> Option<u64> {
    let sections = why.split("'FLASH': overflowed by ").skip(1);
    sections
        .filter_map(|rest| rest.split(' ').next()?.parse().ok())
        .max()
}

fn line(
    name: &str,
    board: &Board,
    features: Option<&str>,
    model: &str,
    opt_level: &str,
) -> Result<(), Error> {
    let mut board = board.clone();
    (board.model, board.opt_level, board.temperature) = (model.into(), opt_level.into(), 0.0);
    // Keys and values take more RAM than boards.toml gives them, and fast code more flash: only
    // instructions are measured here. The boards have enough of both.
    (board.ram_bytes, board.budget) = (0x6_0000, 0x5_0000);
    if board.flash_bytes < board.flash_there {
        board.flash_bytes = board.flash_there;
    }
    let tokens = board.sinks + board.window + 8;
    let expected = Reference::run(&model_of(&board), setup_of(&board), &board.opening, tokens)?;
    let firmware = Firmware {
        features,
        ..Firmware::new(name, &board)
    };
    let cache = if model == TINY { "kv" } else { "k" };
    let image = match firmware.build()? {
        Build::Image(image) => image,
        Build::Refused(why) => {
            let Some(bytes) = overflow(&why) else {
                return Err(format!("the firmware does not build:\n{why}").into());
            };
            say!(
                "| {name} | {} | | {cache} | {opt_level} | {bytes} bytes more than the {} of flash | | |",
                board.core,
                board.flash_bytes
            );
            return Ok(());
        }
    };
    let limit = Limit::of(tokens, expected.parameters);
    let mut session = Session::start(&image, &board, limit, &[])?;
    // The host's side has libm.
    let said = if features == Some("micromath") {
        (0..tokens)
            .map(|_| session.said())
            .collect::<Result<Vec<_>, _>>()?
    } else {
        board::compare(&mut session, &expected)?
    };
    let kernels = session
        .entries
        .iter()
        .find_map(|entry| {
            entry
                .text
                .split_once(" kernels")
                .map(|(name, _)| name.to_owned())
        })
        .ok_or("the log does not name the kernels")?;
    let (at_32, full) = (
        said[33 - expected.prompt.len()].instructions,
        said[tokens - 1].instructions,
    );
    let parameters = expected.parameters as f64;
    say!(
        "| {name} | {} | {kernels}{} | {cache} {} | {opt_level} | {:.2} | {:.2} | {full} |",
        board.core,
        features
            .filter(|features| !features.is_empty())
            .map_or(String::new(), |features| format!(", {features}")),
        board.cache.name(),
        at_32 as f64 / parameters,
        full as f64 / parameters
    );
    Ok(())
}

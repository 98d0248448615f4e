//! A long run on one board.

use brooklet_board_data::Board;

use crate::emulator::{Limit, Session};
use crate::firmware::Firmware;
use crate::reference::{Reference, setup_of};
use crate::{Error, model_of};

/// Tokens whose instructions are averaged at the run's start and at its end.
const PART: usize = 1000;

/// Says `tokens` tokens as `boards.toml` has it, sampled, and compares them with the host's.
pub fn run(name: &str, board: &Board, tokens: usize) -> Result<(), Error> {
    let full = board.sinks + board.window;
    if tokens < full + 2 * PART {
        return Err(format!(
            "a soak takes at least {} tokens: the cache and twice {PART}",
            full + 2 * PART
        )
        .into());
    }
    let expected = Reference::run(&model_of(board), setup_of(board), &board.opening, tokens)?;
    let image = Firmware::new(name, board).image(&format!("firmware-soak-{name}"))?;
    let limit = Limit::of(tokens, expected.parameters);
    let mut session = Session::start(&image, board, limit, &[])?;
    let mut instructions = Vec::with_capacity(tokens);
    for (i, id) in expected.ids.iter().enumerate() {
        let token = session.said()?;
        if token.id != *id {
            return Err(format!(
                "token {i} is {} on the board and {id} on the host",
                token.id
            )
            .into());
        }
        instructions.push(token.instructions as f64 / expected.parameters as f64);
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let most = instructions[full..].iter().copied().fold(0.0, f64::max);
    say!(
        "{name}: {tokens} tokens as on the host, {} evicted; instructions a parameter {:.3} in the first {PART} tokens of a full cache, {:.3} in the last \
         {PART}, {most:.3} at most; stack {} of {} bytes used",
        tokens + expected.prompt.len() - full,
        mean(&instructions[full..full + PART]),
        mean(&instructions[tokens - PART..]),
        session.stack()?,
        board.stack_bytes
    );
    Ok(())
}

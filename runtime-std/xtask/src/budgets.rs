//! Largest window within a budget of RAM, for each layout and element type.

use brooklet_board_data::Board;
use brooklet_core::cache::ElementType;
use brooklet_core::gguf::Gguf;
use brooklet_core::model::Config;
use brooklet_core::plan::{Part, Plan};
use brooklet_core::tokenizer::Vocab;

use crate::reference::setup_of;
use crate::{Error, TINY, TINY_K, model_of, table};

/// Bytes beside the arena that the firmware takes on the Cortex-M4F: its variables, and the flag
/// that the arena is claimed.
const VARIABLES: usize = 3584;

/// Prints the table.
pub fn print() -> Result<(), Error> {
    let board = Board::read(&table(), "mps2-an386")?;
    say!("| RAM | kv f16 | k f16 | kv q8_0 | k q8_0 |");
    say!("|---:|---:|---:|---:|---:|");
    for kib in [48, 64, 96, 128, 192, 256] {
        let mut cells = Vec::new();
        for cache in [ElementType::F16, ElementType::Q8_0] {
            for model in [TINY, TINY_K] {
                let arena = (kib << 10) - board.stack_bytes as usize - VARIABLES;
                cells.push(window(&board, model, cache, arena)?);
            }
        }
        say!("| {kib} KiB | {} |", cells.join(" | "));
    }
    say!();
    parts(&board)
}

/// Prints what every byte of the board's arena is for.
fn parts(board: &Board) -> Result<(), Error> {
    let bytes = std::fs::read(model_of(board))?;
    let file = Gguf::parse(&bytes)?;
    let options = setup_of(board).options(&Vocab::from_gguf(&file)?);
    let plan = Plan::new(&Config::from_gguf(&file)?, &options)?;
    for part in Part::ALL {
        if plan.part(part) > 0 {
            say!("{:>8}  {}", plan.part(part), part.name());
        }
    }
    say!("{:>8}  the arena", plan.bytes());
    Ok(())
}

/// The tokens that an arena of so many bytes keeps.
fn window(board: &Board, model: &str, cache: ElementType, arena: usize) -> Result<String, Error> {
    let mut board = board.clone();
    (board.model, board.cache) = (model.into(), cache);
    let bytes = std::fs::read(model_of(&board))?;
    let file = Gguf::parse(&bytes)?;
    let config = Config::from_gguf(&file)?;
    let options = setup_of(&board).options(&Vocab::from_gguf(&file)?);
    Ok(match Plan::largest(&config, &options, arena) {
        Ok(plan) => plan.capacity().to_string(),
        Err(_) => "none".into(),
    })
}

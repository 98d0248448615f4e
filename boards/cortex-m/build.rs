//! Makes the memory map and the firmware's constants of a board's entry in `boards.toml`.
//!
//! `BROOKLET_BOARD` names the board, `BROOKLET_BOARDS` the file if it is another.

use std::path::{Path, PathBuf};
use std::{env, fs};

use brooklet_board_data::{Board, Error};

fn main() -> Result<(), Error> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let table = env::var("BROOKLET_BOARDS").map_or(here.join("boards.toml"), PathBuf::from);
    let name = env::var("BROOKLET_BOARD")?;
    let board = Board::read(&table, &name)?;
    let model = fit(&here.join(&board.model), &board, &name)?;

    fs::write(out.join("memory.x"), board.memory_x())?;
    let place = match board.model_at {
        Some(address) => format!(
            "embed_model!(pub static MODEL = {model:?}, options, budget: BUDGET, at: unsafe {{ {address:#x} }});\n"
        ),
        None => format!("embed_model!(pub static MODEL = {model:?}, options, budget: BUDGET);\n"),
    };
    fs::write(out.join("board.rs"), board.constants())?;
    fs::write(out.join("model.rs"), place)?;

    println!("cargo::rustc-check-cfg=cfg(model_apart)");
    if board.model_at.is_some() {
        println!("cargo::rustc-cfg=model_apart");
    }
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rustc-link-arg=-Tlink.x");
    println!("cargo::rustc-link-arg=-Tdefmt.x");
    for variable in ["BROOKLET_BOARD", "BROOKLET_BOARDS"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    for file in [&table, &model] {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    Ok(())
}

/// The model's whole path, if the file is there and smaller than flash: the linker's own message
/// would not name it.
fn fit(model: &Path, board: &Board, name: &str) -> Result<PathBuf, Error> {
    let whole = model
        .canonicalize()
        .map_err(|e| format!("{}: {e}", model.display()))?;
    let (bytes, flash) = (fs::metadata(&whole)?.len(), u64::from(board.flash_bytes));
    if board.model_at.is_none() && bytes >= flash {
        return Err(format!(
            "{} does not fit {name}: it has {bytes} bytes, flash {flash}, and the program must fit beside it",
            whole.display()
        )
        .into());
    }
    Ok(whole)
}

//! Builds, boots and measures the boards' firmware and compares it with the host's results; checks
//! the order of modules in the crates.
//!
//! ```text
//! cargo xtask boards [NAME...]      all Cortex-M boards, or these: the host's 200 greedy tokens,
//!                                   prompts and noise on the UART, sizes and stack against their
//!                                   ceilings; then other models with the same source
//! cargo xtask kernels [NAME...]     every kernel on the boards' instructions against the scalar
//!                                   ones
//! cargo xtask faults                a damaged model, a panic, a program that hangs, an
//!                                   application's own heap
//! cargo xtask compile-fail          programs that must not compile or link, and their messages
//! cargo xtask template              the firmware to copy, by the words of boards/README.md: the
//!                                   host's tokens on a Cortex-M4F, and with a Cortex-M0's
//!                                   instructions
//! cargo xtask soak NAME TOKENS      a long run: the host's tokens, and as many instructions at its
//!                                   end as at its start
//! cargo xtask figures [NAME...]     instructions per parameter, for keys and values and for slim
//!                                   attention
//! cargo xtask mathematics NAME      the same with libm and with micromath
//! cargo xtask budgets               the largest window within budgets of RAM
//! cargo xtask model NAME FILE       a board with another model: as many tokens as `boards`
//!                                   compares, and their cost
//! cargo xtask perplexity TEXT N     of N tokens of a text, as the boards compute it; with the
//!                                   mathematics of micromath if the long form of `cargo xtask` has
//!                                   `--no-default-features --features micromath` before `--`
//! cargo xtask raspi3                the Raspberry Pi 3: the host's 200 greedy tokens, a prompt,
//!                                   noise; sizes; leaves kernel8.img
//! cargo xtask layers [--svg FILE]   the graph of modules of both crates; fails on an upward
//!                                   import. Draws the graph into FILE
//! ```

/// `println!` for a reader who may go away: a closed pipe ends the program quietly.
macro_rules! say {
    () => { say!("") };
    ($($words:tt)*) => { $crate::print_line(format_args!($($words)*)) };
}

mod board;
mod budgets;
mod compile_fail;
mod elf;
mod emulator;
mod faults;
mod figures;
mod firmware;
mod layers;
mod perplexity;
mod raspi3;
mod reference;
mod soak;
mod template;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, exit};

use brooklet_board_data::Board;

type Error = Box<dyn std::error::Error>;

const USAGE: &str = "usage: cargo xtask boards [NAME...] | kernels [NAME...] | faults | compile-fail | template | soak NAME TOKENS | figures [NAME...] | mathematics NAME | budgets | model NAME FILE | perplexity TEXT N | raspi3 | layers [--svg FILE]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<(), Error> {
    match words {
        ["boards", names @ ..] => {
            for (name, board) in chosen(names)? {
                board::check(&name, &board)?;
            }
            if names.is_empty() {
                board::check_other_models()?;
            }
            Ok(())
        }
        ["kernels", names @ ..] => chosen(names)?
            .iter()
            .try_for_each(|(name, board)| faults::check_kernels(name, board)),
        ["faults"] => faults::check(),
        ["compile-fail"] => compile_fail::check(),
        ["template"] => template::check(),
        ["soak", name, tokens] => {
            let tokens = tokens
                .parse()
                .map_err(|e| format!("{tokens} tokens: {e}"))?;
            soak::run(name, &Board::read(&table(), name)?, tokens)
        }
        ["figures", names @ ..] => figures::print(chosen(names)?),
        ["mathematics", name] => figures::mathematics(name, &Board::read(&table(), name)?),
        ["budgets"] => budgets::print(),
        ["model", name, file] => {
            board::check_model(name, &Board::read(&table(), name)?, Path::new(file))
        }
        ["perplexity", text, tokens] => {
            let tokens = tokens
                .parse()
                .map_err(|e| format!("{tokens} tokens: {e}"))?;
            perplexity::print(Path::new(text), tokens)
        }
        ["raspi3"] => raspi3::check(),
        ["layers"] => layers::check(&root(), None),
        ["layers", "--svg", file] => layers::check(&root(), Some(Path::new(file))),
        _ => Err(USAGE.into()),
    }
}

fn print_line(words: fmt::Arguments<'_>) {
    if let Err(error) = writeln!(io::stdout(), "{words}") {
        if error.kind() == io::ErrorKind::BrokenPipe {
            exit(0);
        }
        eprintln!("error: standard output: {error}");
        exit(1);
    }
}

/// These boards of `boards.toml`, or all.
fn chosen(names: &[&str]) -> Result<Vec<(String, Board)>, Error> {
    if names.is_empty() {
        return Ok(Board::read_all(&table())?.into_iter().collect());
    }
    names
        .iter()
        .map(|name| Ok((name.to_string(), Board::read(&table(), name)?)))
        .collect()
}

/// The source tree.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The folder `boards` of the source tree.
fn boards_folder() -> PathBuf {
    root().join("boards")
}

/// The table of Cortex-M boards.
fn table() -> PathBuf {
    boards_folder().join("cortex-m/boards.toml")
}

/// A board's model file.
fn model_of(board: &Board) -> PathBuf {
    boards_folder().join("cortex-m").join(&board.model)
}

/// The model trained for boards: with its values, and in the copy that caches keys alone.
const TINY: &str = "../../models/stories/tiny-q8_0.gguf";
const TINY_K: &str = "../../models/stories/tiny-k-q8_0.gguf";

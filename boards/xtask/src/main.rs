//! Builds, boots and measures the boards' firmware, and holds it to the host's results.
//!
//! ```text
//! cargo run -p xtask -- boards          every model: in f32 the host's ids equal an independent program's; the board's equal the
//!                                       host's; the arena has the planned size; what it takes
//! cargo run -p xtask -- compile-fail    a budget one byte short, and a broken file, do not compile
//! ```

mod compile_fail;
mod elf;
mod emulator;
mod firmware;
mod reference;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use elf::Sizes;
use firmware::{Firmware, boards_folder};
use reference::Reference;

type Error = Box<dyn std::error::Error>;

/// A model that a board runs.
struct BoardModel {
    name: &'static str,
    /// Path from the folder `boards`.
    path: &'static str,
    /// Bytes that the arena may take.
    budget: usize,
    /// Whether another program wrote down what it must say, to a file of the same name with the ending `ids`.
    has_ids: bool,
}

impl BoardModel {
    fn file(&self) -> PathBuf {
        boards_folder().join(self.path)
    }
}

/// Two random models, to which another program gave the ids (the second shows that another file needs no other source), and the one
/// that was trained for boards.
const MODELS: &[BoardModel] = &[
    BoardModel {
        name: "random",
        path: "cortex-m/model/random.gguf",
        budget: 64 << 10,
        has_ids: true,
    },
    BoardModel {
        name: "other",
        path: "cortex-m/model/other.gguf",
        budget: 64 << 10,
        has_ids: true,
    },
    BoardModel {
        name: "tiny-q8_0",
        path: "../models/tiny/tiny-q8_0.gguf",
        budget: 128 << 10,
        has_ids: false,
    },
];

/// How long an image may take to say its 32 tokens.
const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["boards"] => MODELS.iter().try_for_each(check_board),
        ["compile-fail"] => compile_fail::check(),
        _ => Err("usage: cargo run -p xtask -- boards | compile-fail".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the firmware with a model, boots it and compares everything it says with the host's run of the same file.
fn check_board(board_model: &BoardModel) -> Result<(), Error> {
    let (name, model) = (board_model.name, board_model.file());
    let expected = Reference::run(&model)?;
    if board_model.has_ids {
        Reference::run_in_f32(&model)?.check_ids(&model.with_extension("ids"))?;
    }
    let image = Firmware {
        model: &model,
        budget: Some(board_model.budget),
    }
    .image(&format!("firmware-{name}"))?;
    let sizes = Sizes::of(&image)?;
    if sizes.arena != expected.plan.bytes() as u64 {
        let planned = expected.plan.bytes();
        return Err(format!("the arena has {} bytes, the host plans {planned}", sizes.arena).into());
    }
    let started = Instant::now();
    let said = emulator::run(&image, emulator::MPS2_AN386, DEADLINE)?;
    let seconds = started.elapsed().as_secs_f32();
    let expected = format!("{}\n", expected.transcript);
    if said != expected {
        return Err(format!("board and host differ\nboard:\n{said}\nhost:\n{expected}").into());
    }
    println!(
        "{name}.gguf on mps2-an386 (Cortex-M4F), {seconds:.1} s emulated, equal to the host's run:\n{said}"
    );
    println!(
        "flash {} bytes (the model {}), RAM {} bytes (the arena {}) without the stack\n",
        sizes.flash,
        std::fs::metadata(&model)?.len(),
        sizes.ram,
        sizes.arena
    );
    Ok(())
}

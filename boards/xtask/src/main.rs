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

/// Models that are committed beside the firmware; the second shows that another file needs no other source.
const MODELS: &[&str] = &["random", "other"];

/// How long an image may take to say its 32 tokens.
const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["boards"] => MODELS.iter().try_for_each(|name| check_board(name)),
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

fn model_path(name: &str) -> PathBuf {
    boards_folder().join(format!("cortex-m/model/{name}.gguf"))
}

/// Builds the firmware with a model, boots it and compares everything it says with the host's run of the same file.
fn check_board(name: &str) -> Result<(), Error> {
    let model = model_path(name);
    let expected = Reference::run(&model)?;
    Reference::run_in_f32(&model)?.check_ids(&model.with_extension("ids"))?;
    let image = Firmware {
        model: &model,
        budget: None,
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

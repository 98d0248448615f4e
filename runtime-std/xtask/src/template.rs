//! The firmware to copy, `boards/template`: built and run by the words of its documentation.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use brooklet_core::cache::{ElementType, LayoutChoice};
use brooklet_firmware::Setup;

use crate::reference::Reference;
use crate::{Error, boards_folder};

/// Commands of `boards/README.md`, which are run in the template's folder: on a Cortex-M4F, and
/// with the instructions of a Cortex-M0, which has neither compare-and-swap nor floats.
const COMMANDS: [&str; 2] = [
    "../cross.sh thumbv7em-none-eabihf -- run --release",
    "../cross.sh thumbv6m-none-eabi -- run --release --no-default-features",
];

/// The plan and the prompt of the template.
const SETUP: Setup = Setup {
    sinks: 1,
    window: 127,
    chunk: 1,
    cache_type: ElementType::Q8_0,
    layout: LayoutChoice::Auto,
    temperature: 0.0,
    seed: 0,
};
const PROMPT: &str = "Once upon a time";
const TOKENS: usize = 64;

/// The documentation shows the template's own lines and commands, and each command says what the
/// host says.
pub fn check() -> Result<(), Error> {
    let boards = boards_folder().canonicalize()?;
    let folder = boards.join("template");
    let readme = fs::read_to_string(boards.join("README.md"))?;
    let model = fs::read_to_string(folder.join("model/src/lib.rs"))?;
    let (_, lines) = model
        .split_once("#![no_std]\n\n")
        .ok_or("the template's model is not no_std")?;
    if !readme.contains(lines) {
        return Err("boards/README.md does not show the lines of template/model/src/lib.rs".into());
    }
    let path = boards.join("../models/stories/tiny-q8_0.gguf");
    let expected = Reference::run(&path, SETUP, PROMPT, TOKENS)?.text;
    for command in COMMANDS {
        if !readme.contains(command) {
            return Err(format!("boards/README.md does not have the command {command}").into());
        }
        let said = run(&folder, command)?;
        if said.trim_end_matches('\n') != expected {
            return Err(format!("{command} says\n{said}\nand the host\n{expected}").into());
        }
        say!("{command}: {TOKENS} tokens as on the host");
    }
    check_warning(&folder)
}

/// A Cortex-M4F without the feature `dsp` is warned of, where the macro is.
fn check_warning(folder: &Path) -> Result<(), Error> {
    // With what the first of the commands has built.
    let command =
        "../cross.sh thumbv7em-none-eabihf -- check --release --no-default-features --locked";
    let output = shell(folder, command).output()?;
    let message = String::from_utf8_lossy(&output.stderr);
    let warned = message.contains("feature `dsp` is off") && message.contains("model/src/lib.rs");
    if !output.status.success() || !warned {
        return Err(format!("{command} does not warn of kernels without dsp:\n{message}").into());
    }
    say!("{command}: warns that dsp is off");
    Ok(())
}

/// Runs `command` with the locked dependencies, and returns what it says.
fn run(folder: &Path, command: &str) -> Result<String, Error> {
    let output = shell(folder, &format!("{command} --locked"))
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{command}: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn shell(folder: &Path, command: &str) -> Command {
    let mut bash = Command::new("bash");
    bash.args(["-c", command])
        .current_dir(folder)
        .stdin(Stdio::null());
    bash
}

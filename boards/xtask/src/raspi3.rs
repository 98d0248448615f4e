//! The Raspberry Pi 3 without an operating system: builds its firmware, boots it both ways that it can be, compares.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::elf::{self, Sizes};
use crate::firmware::{boards_folder, executable};
use crate::reference::Reference;
use crate::{Error, emulator};

const TARGET: &str = "aarch64-unknown-none";

/// Path of the model from the folder `boards`.
const MODEL: &str = "../models/tiny/tiny-q8_0.gguf";

/// Bytes that the arena may take.
const BUDGET: usize = 128 << 10;

/// How long an image may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// The firmware's transcript must be the host's, whether QEMU starts the ELF file (four cores, EL3) or `kernel8.img` (as the board's
/// own firmware does: one core, EL2). The image is left beside the ELF file.
pub fn check() -> Result<(), Error> {
    let model = boards_folder().join(MODEL);
    let expected = Reference::run(&model)?;
    let elf = build(&model)?;
    let sizes = Sizes::of(&elf)?;
    let planned = expected.plan.bytes();
    if sizes.arena != planned as u64 {
        return Err(format!("the arena has {} bytes, the host plans {planned}", sizes.arena).into());
    }
    let kernel = elf.with_file_name("kernel8.img");
    fs::write(&kernel, elf::flat(&elf)?)?;
    println!("host:\n{}", expected.transcript);
    for image in [&elf, &kernel] {
        compare(image, &expected.transcript.to_string())?;
    }
    println!(
        "{}: {} bytes (the model {}); RAM {} bytes (the arena {}) with the stack",
        kernel.display(),
        fs::metadata(&kernel)?.len(),
        fs::metadata(&model)?.len(),
        sizes.ram,
        sizes.arena
    );
    Ok(())
}

/// Boots `image`; all that it says must be `transcript` and one line about kernels, time and stack, which is printed.
fn compare(image: &Path, transcript: &str) -> Result<(), Error> {
    let started = Instant::now();
    let said = emulator::run(image, emulator::RASPI3B, DEADLINE)?.replace("\r\n", "\n");
    let seconds = started.elapsed().as_secs_f32();
    let figures = said
        .strip_prefix(transcript)
        .and_then(|rest| rest.strip_prefix('\n')?.strip_suffix('\n'))
        .filter(|line| line.starts_with("kernels neon,") && !line.contains('\n'))
        .ok_or_else(|| format!("board and host differ\nboard:\n{said}\nhost:\n{transcript}"))?;
    println!(
        "{} on raspi3b (Cortex-A53), {seconds:.1} s emulated, equal to the host's run; {figures}",
        image.file_name().unwrap_or_default().display()
    );
    Ok(())
}

/// The linked firmware.
fn build(model: &Path) -> Result<PathBuf, Error> {
    let output = Command::new("bash")
        .arg(boards_folder().join("cross.sh"))
        .args([TARGET, "--", "build", "--release", "--locked"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(boards_folder().join("raspi3"))
        .env("BROOKLET_MODEL", model.canonicalize()?)
        .env("BROOKLET_BUDGET", BUDGET.to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("the firmware of the Raspberry Pi 3 does not build".into());
    }
    executable(&String::from_utf8(output.stdout)?)
}

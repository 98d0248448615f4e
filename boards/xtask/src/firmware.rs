//! Builds the firmware with a given model and budget.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Error;

const TARGET: &str = "thumbv7em-none-eabihf";

/// What goes into an image.
pub struct Firmware<'a> {
    /// The GGUF file.
    pub model: &'a Path,
    /// Bytes that the arena may take; `None` leaves it to the board's `.cargo/config.toml`.
    pub budget: Option<usize>,
}

/// What the compiler made of it.
pub enum Build {
    /// The linked image.
    Image(PathBuf),
    /// It refused; what it said.
    Refused(String),
}

impl Firmware<'_> {
    /// Runs the compiler.
    ///
    /// # Errors
    /// If it could not be run or left no image; a program that does not compile is [`Build::Refused`].
    pub fn build(&self) -> Result<Build, Error> {
        let boards = boards_folder();
        let mut command = Command::new("bash");
        command
            .arg(boards.join("cross.sh"))
            .args([TARGET, "--", "build", "--release", "--locked"])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(boards.join("cortex-m"))
            .env("BROOKLET_MODEL", self.model.canonicalize()?)
            .stdin(Stdio::null());
        if let Some(budget) = self.budget {
            command.env("BROOKLET_BUDGET", budget.to_string());
        }
        let output = command.output()?;
        if !output.status.success() {
            return Ok(Build::Refused(
                String::from_utf8_lossy(&output.stderr).into_owned(),
            ));
        }
        Ok(Build::Image(executable(&String::from_utf8(output.stdout)?)?))
    }

    /// The linked image, copied under `name` so that the next build does not replace it.
    ///
    /// # Errors
    /// As [`Firmware::build`], and if the program does not compile.
    pub fn image(&self, name: &str) -> Result<PathBuf, Error> {
        match self.build()? {
            Build::Image(path) => {
                let kept = path.with_file_name(name);
                std::fs::copy(path, &kept)?;
                Ok(kept)
            }
            Build::Refused(message) => Err(format!("the firmware does not build:\n{message}").into()),
        }
    }
}

/// The path of the one executable among cargo's messages.
fn executable(messages: &str) -> Result<PathBuf, Error> {
    for line in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        if let Some(path) = message["executable"].as_str() {
            return Ok(path.into());
        }
    }
    Err("the compiler named no executable".into())
}

/// The folder `boards` of the source tree.
pub fn boards_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

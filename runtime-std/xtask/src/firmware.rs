//! Builds the firmware for a board.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use brooklet_board_data::Board;

use crate::{Error, boards_folder};

/// Inputs of an image.
pub struct Firmware<'a> {
    /// The board's name.
    pub name: &'a str,
    /// The board, perhaps with changes to its entry in `boards.toml`.
    pub board: &'a Board,
    /// The example to build instead of the firmware.
    pub example: Option<&'a str>,
    /// Features of the firmware's crate beside the board's own; with `None` not even those.
    /// `micromath` comes instead of `libm`.
    pub features: Option<&'a str>,
    /// Level of the log, as in `DEFMT_LOG`.
    pub log: &'a str,
}

/// Result of the build.
pub enum Build {
    /// The linked image.
    Image(PathBuf),
    /// The compiler's message, if it refused.
    Refused(String),
}

impl<'a> Firmware<'a> {
    /// The firmware itself, which logs every token.
    pub fn new(name: &'a str, board: &'a Board) -> Self {
        Firmware {
            name,
            board,
            example: None,
            features: Some(""),
            log: "trace",
        }
    }

    /// Runs the compiler.
    ///
    /// # Errors
    /// If it could not be run or left no image; a program that does not compile is
    /// [`Build::Refused`].
    pub fn build(&self) -> Result<Build, Error> {
        eprintln!(
            "building {} for {} ({}); the first time also the library for it, and on some machines the standard library: minutes",
            self.example.unwrap_or("the firmware"),
            self.name,
            self.board.target
        );
        let boards = boards_folder().canonicalize()?;
        let folder = tempfile::tempdir()?;
        let table = folder.path().join("boards.toml");
        let mut board = self.board.clone();
        board.model = boards
            .join("cortex-m")
            .join(&board.model)
            .display()
            .to_string();
        fs::write(&table, board.to_file(self.name)?)?;

        let flags = format!("-C target-cpu={}", board.cpu);
        let target = board.target.to_uppercase().replace(['-', '.'], "_");
        let mut command = Command::new("bash");
        command
            .arg(boards.join("cross.sh"))
            .args([&*board.target, "--", "build", "--release", "--locked"])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(boards.join("cortex-m"))
            .env("BROOKLET_BOARD", self.name)
            .env("BROOKLET_BOARDS", &table)
            .env("DEFMT_LOG", self.log)
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", &board.opt_level)
            .env(format!("CARGO_TARGET_{target}_RUSTFLAGS"), flags)
            .stdin(Stdio::null());
        match self.example {
            Some(example) => command.args(["--example", example]),
            None => command.args(["--bin", "brooklet-cortex-m"]),
        };
        if self.features == Some("micromath") {
            command.arg("--no-default-features");
        }
        if let Some(more) = self.features {
            command.args([
                "--features",
                &format!("{} {more}", board.features.join(" ")),
            ]);
        }
        let output = command.output()?;
        if !output.status.success() {
            return Ok(Build::Refused(
                String::from_utf8_lossy(&output.stderr).into_owned(),
            ));
        }
        Ok(Build::Image(executable(&String::from_utf8(
            output.stdout,
        )?)?))
    }

    /// The linked image, copied under `name` so that the next build does not replace it; says where
    /// it is.
    ///
    /// # Errors
    /// As [`Firmware::build`], and if the program does not compile.
    pub fn image(&self, name: &str) -> Result<PathBuf, Error> {
        match self.build()? {
            Build::Image(path) => {
                let kept = path.with_file_name(name);
                fs::copy(path, &kept)?;
                eprintln!("the image is {}", kept.display());
                Ok(kept)
            }
            Build::Refused(message) => {
                Err(format!("the firmware does not build:\n{message}").into())
            }
        }
    }
}

/// The path of the one executable among cargo's messages.
pub fn executable(messages: &str) -> Result<PathBuf, Error> {
    for line in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        if let Some(path) = message["executable"].as_str() {
            return Ok(path.into());
        }
    }
    Err("the compiler named no executable".into())
}

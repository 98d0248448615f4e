//! The command as users see it: output, exit codes, errors, signals, pipes.

mod bounds;
mod caption;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/ctranslate2.rs"]
mod ctranslate2;
mod ends;
#[cfg(target_os = "linux")]
mod faults;
mod files;
mod help;
#[path = "../hub/mod.rs"]
mod hub;
mod measures;
mod names;
mod options;
#[cfg(unix)]
mod outputs;
#[path = "../common/program.rs"]
mod program;
mod refusals;
mod slim;
#[path = "../common/talking.rs"]
mod talking;
mod text;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{pulled, tiny};
use files::other_model;
use program::program;

/// Returns the command, isolated from the user's settings.
fn command(arguments: &[&str]) -> Command {
    let mut command = program();
    command
        .args(arguments)
        .env_remove("BROOKLET_ISA")
        .env_remove("COLUMNS")
        .stdin(std::process::Stdio::null());
    command
}

/// Runs the command.
fn brooklet(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the command starts")
}

/// Runs `brooklet SUBCOMMAND -m TINY REST...`.
fn with_tiny(subcommand: &str, rest: &[&str]) -> Output {
    let tiny = tiny();
    brooklet(&[&[subcommand, "-m", tiny.to_str().unwrap()], rest].concat())
}

/// Returns the standard output of a run that must succeed.
#[track_caller]
fn text(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the one sentence of a run that must fail with `code` and without output.
#[track_caller]
fn failure(output: Output, code: i32) -> String {
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(output.stdout.is_empty());
    assert!(!errors.contains("panicked"), "{errors}");
    if code == 1 {
        assert!(
            errors.starts_with("brooklet: ") && errors.lines().count() == 1,
            "not one sentence: {errors}"
        );
    }
    errors
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

const GREEDY: [&str; 4] = ["-n", "24", "--temp", "0"];

fn greedy(rest: &[&str]) -> String {
    text(with_tiny(
        "run",
        &[&["The sea"], &GREEDY[..], rest].concat(),
    ))
}

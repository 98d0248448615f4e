//! What the integration tests share: the command, a tiny model, and the pulled models.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use brooklet::manifest::Manifest;
use brooklet::store::Store;

/// A random model of 64 KB with a SentencePiece vocabulary of the bytes and a few words; trained for 256 positions.
pub fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards/cortex-m/model/random.gguf")
}

/// A pulled model. Without it the test is skipped, with a line that names it, unless `BROOKLET_REQUIRE_MODELS=1` makes that a failure.
pub fn pulled(name: &str) -> Option<PathBuf> {
    let manifest = Manifest::find(name).expect("a manifest of that name");
    let path = Store::from_environment()
        .filter(|store| store.has(&manifest))
        .map(|store| store.path(&manifest));
    if path.is_none() {
        let required = std::env::var_os("BROOKLET_REQUIRE_MODELS").is_some_and(|value| value == "1");
        assert!(
            !required,
            "BROOKLET_REQUIRE_MODELS is set, but {name} has not been pulled"
        );
        println!("skipped: {name} has not been pulled");
    }
    path
}

/// The command, away from the user's settings.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brooklet"));
    command
        .args(arguments)
        .env_remove("BROOKLET_ISA")
        .stdin(std::process::Stdio::null());
    command
}

/// Runs the command.
pub fn brooklet(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the command starts")
}

/// Runs `brooklet SUBCOMMAND -m TINY REST...`.
pub fn with_tiny(subcommand: &str, rest: &[&str]) -> Output {
    let tiny = tiny();
    brooklet(&[&[subcommand, "-m", tiny.to_str().unwrap()], rest].concat())
}

/// What a run that must succeed has written to standard output.
#[track_caller]
pub fn text(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one sentence of a run that must fail with `code` and no output.
#[track_caller]
pub fn failure(output: Output, code: i32) -> String {
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

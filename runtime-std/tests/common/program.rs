//! Start of the command in integration tests.

use std::process::Command;

/// Returns the command of the program under test, with the same runner as this test: an emulator,
/// if one runs another processor's programs.
pub fn program() -> Command {
    let path = env!("CARGO_BIN_EXE_brooklet");
    let runner = runner();
    let mut words = runner.split_whitespace().chain([path]);
    let mut command = Command::new(words.next().unwrap_or(path));
    command.args(words);
    command
}

/// Returns the emulator's command line, which is empty if the program runs natively.
pub fn runner() -> String {
    if cfg!(all(target_arch = "aarch64", target_os = "linux")) {
        std::env::var("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER").unwrap_or_default()
    } else {
        String::new()
    }
}

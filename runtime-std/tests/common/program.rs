//! Start of the command in integration tests.

use std::process::Command;
use std::sync::{Arc, Once};

/// Returns the command of the program under test, with the same runner as this test: an emulator,
/// if one runs another processor's programs.
pub fn program() -> Command {
    static HEARD: Once = Once::new();
    HEARD.call_once(let_programs_hear_hang_ups);
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

/// Ends what `nohup` does to the programs of tests: they would ignore SIGHUP. A handler that does
/// nothing is the same for this process, and programs do not inherit it.
fn let_programs_hear_hang_ups() {
    use signal_hook::consts::SIGHUP;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    if ignored.is_some_and(|mask| mask >> (SIGHUP - 1) & 1 == 1) {
        signal_hook::flag::register(SIGHUP, Arc::default()).unwrap();
    }
}

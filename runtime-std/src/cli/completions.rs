//! `brooklet completions`: scripts by which shells complete this program's command lines.

use std::io::Write;

use clap::{Args, Command};
use clap_complete::Shell;

use super::failure::Failure;

/// Arguments of `brooklet completions`.
#[derive(Args)]
pub struct Arguments {
    /// The shell
    shell: Shell,
}

/// Prints the script for the shell.
pub fn completions(
    arguments: &Arguments,
    mut command: Command,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    // The writer cannot fail, so neither can this.
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    out.write_all(&script).map_err(Failure::Output)
}

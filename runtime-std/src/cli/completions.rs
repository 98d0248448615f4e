//! `brooklet completions`: scripts by which shells complete this program's command lines.
//!
//! A script asks the program itself for what may follow, in the variable [`VARIABLE`]. So models
//! that were pulled since are completed too.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, Args};
use clap_complete::Shell;
use clap_complete::engine::{
    ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};
use clap_complete::env::Shells;

use super::failure::Failure;
use super::model;

/// Holds the shell's name where a script asks what may follow.
const VARIABLE: &str = "BROOKLET_COMPLETE";

/// Arguments of `brooklet completions`.
#[derive(Args)]
pub struct Arguments {
    /// The shell
    shell: Shell,
}

/// Prints the script for the shell.
pub fn completions(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Failure> {
    let shells = Shells::builtins();
    let shell = shells
        .completer(&arguments.shell.to_string())
        .ok_or_else(|| Failure::Input(format!("no script is known for {}", arguments.shell)))?;
    let (name, mut script) = ("brooklet", Vec::new());
    // The writer cannot fail, so neither can this.
    shell
        .write_registration(VARIABLE, name, name, name, &mut script)
        .map_err(Failure::Output)?;
    out.write_all(&script).map_err(Failure::Output)
}

/// Answers a shell's script, if it is one that asks: writes what may follow the words after `--`.
/// `command` builds the command line.
pub fn answer(command: impl FnOnce() -> clap::Command) -> Option<ExitCode> {
    let shell = std::env::var(VARIABLE).ok()?;
    let shells = Shells::builtins();
    let shell = shells.completer(&shell)?;
    let mut words = std::env::args_os().skip(1);
    if words.next()? != "--" {
        return None;
    }
    let mut said = Vec::new();
    let folder = std::env::current_dir().ok();
    let done = shell
        .write_complete(
            &mut command(),
            words.collect(),
            folder.as_deref(),
            &mut said,
        )
        .and_then(|()| std::io::stdout().write_all(&said));
    // Whoever sits there sees the words that follow, or none.
    Some(ExitCode::from(u8::from(done.is_err())))
}

/// Has an argument that takes a model complete the names of models; of those in the store alone
/// where `subcommand` removes one.
pub fn with_models(subcommand: &str, argument: Arg) -> Arg {
    let removes = subcommand == "rm" || argument.get_id() == "rm";
    let pulls = subcommand == "pull";
    match argument.get_id().as_str() {
        "rm" | "name" if removes => {
            argument.add(ArgValueCompleter::new(|begun: &OsStr| names(begun, true)))
        }
        "name" if pulls => {
            argument.add(ArgValueCompleter::new(|begun: &OsStr| names(begun, false)))
        }
        "model" | "input" | "first" => argument.add(ArgValueCompleter::new(names_and_files)),
        _ => argument,
    }
}

fn names(begun: &OsStr, in_store: bool) -> Vec<CompletionCandidate> {
    let begun = begun.to_string_lossy();
    model::names(&begun, in_store)
        .into_iter()
        .map(CompletionCandidate::new)
        .collect()
}

fn names_and_files(begun: &OsStr) -> Vec<CompletionCandidate> {
    let mut all = names(begun, false);
    let is_model = |path: &Path| path.is_dir() || path.extension() == Some(OsStr::new("gguf"));
    all.extend(PathCompleter::any().filter(is_model).complete(begun));
    all
}

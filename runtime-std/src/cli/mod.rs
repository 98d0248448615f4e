//! The `brooklet` command: one file a subcommand.
//!
//! Results go to standard output and nothing else does; errors, logs, statistics and progress go to
//! standard error. What is cut or ignored is said there once ([`crate::notice`]), and in JSON. Exit
//! codes: 0 done (also where the reader of the output went away, or Ctrl-C
//! ended an endless run), 1 failed (also where a mapped model's file was cut short meanwhile), 2
//! wrong command line; a signal ends the program as such, so that shells say 130 for Ctrl-C, 143
//! for SIGTERM and 129 for SIGHUP.

mod bench;
mod cache;
mod caption;
mod chat;
mod completions;
mod convert;
mod dimensions;
mod effects;
mod failure;
mod input;
mod inspect;
mod interrupt;
mod json;
mod licence;
mod man;
mod model;
mod models;
mod names;
mod numbers;
mod output;
mod plan;
mod ppl;
mod progress;
mod prompt;
mod quantize;
mod recommend;
mod reference;
mod repository;
mod run;
mod sampling;
mod slim;
mod terminal;
mod tokenize;
mod traffic;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::notice::{Notice, Notices};
pub use failure::Failure;

/// Streams a language model for ever, in a number of bytes that is fixed before it starts.
#[derive(Parser)]
#[command(
    name = "brooklet",
    version,
    about,
    max_term_width = 100,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log choices and their reasons to standard error; twice for more
    #[arg(short, long, global = true, display_order = 900, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Talk with a model, for as long as you like
    Chat(chat::Arguments),
    /// Continue a text, for ever if you like
    Run(run::Arguments),
    /// Write down what is said in a sound
    Caption(caption::Arguments),
    /// Measure how well a text is predicted
    Ppl(ppl::Arguments),
    /// Show the tokens of a text
    Tokenize(tokenize::Arguments),
    /// Show the text of tokens
    Detokenize(tokenize::DetokenizeArguments),
    /// Show the purpose of every byte, and the window that fits each budget
    Plan(plan::Arguments),
    /// Show a model's metadata, formats, sizes and licence
    #[command(alias = "show")]
    Inspect(inspect::Arguments),
    /// Write a copy of a model with its weights in another format
    ///
    /// Each tensor gets the type that llama.cpp's llama-quantize gives it. The bytes are the same
    /// for F16, Q8_0, Q5_1, Q5_0, Q4_1 and Q4_0; for the K types and IQ4_NL they differ, with a
    /// smaller error. A file that is quantised already is converted too, with a warning: its errors
    /// add up.
    Quantize(quantize::Arguments),
    /// Make a model file of a speech model of another program
    ///
    /// Reads Whisper as whisper.cpp has it (ggml-*.bin) and as faster-whisper has it (CTranslate2),
    /// and Moonshine as its makers publish it (ONNX Runtime). Names and keys are those of
    /// transcribe.cpp's files.
    Convert(convert::Arguments),
    /// Write a copy of a model that caches keys alone, and computes values from them
    ///
    /// For models whose attention has as many key heads as query heads: their cache becomes half as
    /// large (slim attention). Keys in f16 or q8_0 are not exact, and what that does to values
    /// depends on the model; it is measured on a text, layer by layer, and each layer gets as many
    /// rank-correction channels as hold the bound, or stays as it is.
    Slim(slim::Arguments),
    /// Measure speed, and compare it with that of reading the weights
    Bench(bench::Arguments),
    /// Fetch a model: checked, resumable, its licence shown
    Pull(models::PullArguments),
    /// List the models that can be pulled or are in the store; remove or recommend one
    #[command(aliases = ["list", "ls"])]
    Models(models::ModelsArguments),
    /// Remove a pulled model
    Rm(models::RmArguments),
    /// Print the script by which a shell completes command lines
    Completions(completions::Arguments),
    /// Print a manual page, or write all of them
    Man(man::Arguments),
    /// Show the help of the program or of a subcommand
    #[command(hide = true)]
    Help(HelpArguments),
}

/// Arguments of `brooklet help`.
#[derive(clap::Args)]
struct HelpArguments {
    /// The subcommand
    subcommand: Option<String>,
}

/// The end of a program whose model's file was cut short.
const SHRUNK: &str = "brooklet: the model's file was cut short while it was mapped, or its disk fails; --no-mmap reads it into memory instead\n";

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    if let Some(answered) = completions::answer(command_line) {
        return answered;
    }
    let Parsed { cli, ignored } = match parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version go to standard output and succeed; a closed pipe there is no reason
            // to complain.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    start_logging(cli.verbose);
    if let Err(error) = crate::system::mmap::exit_where_files_shrink(SHRUNK) {
        tracing::info!(%error, "a model's file that is cut short while it is mapped will end the program by a signal");
    }
    interrupt::outlive_size_limits();
    let mut out = io::BufWriter::with_capacity(1 << 13, io::stdout().lock());
    let result = interrupt::watch().and_then(|()| dispatch(cli.command, said(ignored), &mut out));
    let flushed = out.flush().map_err(Failure::Output);
    finish(result.and(flushed))
}

/// Runs a command line (its first word is the program's name), writing the results to `out`: for
/// tests and for programs that embed the command.
///
/// # Errors
/// The command's; [`Failure::Usage`] for a wrong command line or one that asks for help.
pub fn execute(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let Parsed { cli, ignored } =
        parse(arguments).map_err(|error| Failure::Usage(error.to_string()))?;
    dispatch(cli.command, said(ignored), out)?;
    out.flush().map_err(Failure::Output)
}

/// A command line, and the options on it that have no effect.
struct Parsed {
    cli: Cli,
    ignored: Vec<Notice>,
}

fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Parsed, clap::Error> {
    let mut matches = command_line().try_get_matches_from(arguments)?;
    let ignored = effects::ignored(&matches);
    let cli = Cli::from_arg_matches_mut(&mut matches)?;
    Ok(Parsed { cli, ignored })
}

/// The notices so far, said; later ones are said when they come.
fn said(ignored: Vec<Notice>) -> Notices {
    // Standard error may be closed.
    let mut notices = Notices::said_by(|notice| {
        let _ = writeln!(io::stderr(), "brooklet: note: {notice}");
    });
    ignored.into_iter().for_each(|notice| notices.add(notice));
    notices
}

/// The command line. clap wraps all of its help but the usage, which is broken here to fit
/// [`NARROW`] columns.
fn command_line() -> clap::Command {
    let mut command = reference::with_help(Cli::command());
    // Gives the subcommands the program's name, which is a part of their usage.
    command.build();
    command.mut_subcommands(|subcommand| {
        let name = subcommand.get_name().to_owned();
        // `--window -1` is a wrong number, and not an unknown option.
        let mut subcommand = reference::with_help(subcommand).mut_args(|argument| {
            let takes_value = argument.get_action().takes_values() && !argument.is_positional();
            completions::with_models(&name, argument.allow_negative_numbers(takes_value))
        });
        let usage = subcommand.render_usage().to_string();
        subcommand.override_usage(broken(usage.trim_start_matches("Usage: ")))
    })
}

/// Columns of the narrowest terminal.
const NARROW: usize = 40;

/// Breaks a usage before words that would not fit; a flag and its value stay together.
fn broken(usage: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in usage.split(' ') {
        match words.last_mut() {
            Some(flag)
                if flag.starts_with("--") && !flag.contains(' ') && word.starts_with('<') =>
            {
                flag.push_str(&format!(" {word}"));
            }
            _ => words.push(word.to_owned()),
        }
    }
    let indent = "Usage: brooklet ".len();
    let (mut text, mut column) = (String::new(), "Usage:".len());
    for word in words {
        let width = 1 + word.chars().count();
        if column + width > NARROW {
            text.push_str(&format!("\n{:width$}", "", width = indent - 1));
            column = indent - 1;
        }
        text.push_str(&format!(" {word}"));
        column += width;
    }
    text.trim_start().to_owned()
}

fn dispatch(command: Command, notices: Notices, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::Chat(arguments) => chat::chat(&arguments, notices, out),
        Command::Run(arguments) => run::run(&arguments, notices, out),
        Command::Caption(arguments) => caption::caption(&arguments, out),
        Command::Ppl(arguments) => ppl::ppl(&arguments, notices, out),
        Command::Tokenize(arguments) => tokenize::tokenize(&arguments, notices, out),
        Command::Detokenize(arguments) => tokenize::detokenize(&arguments, out),
        Command::Plan(arguments) => plan::plan(&arguments, notices, out),
        Command::Bench(arguments) => bench::bench(&arguments, notices, out),
        Command::Quantize(arguments) => quantize::quantize(&arguments, notices, out),
        Command::Convert(arguments) => convert::convert(&arguments, notices, out),
        Command::Slim(arguments) => slim::slim(&arguments, notices, out),
        Command::Inspect(arguments) => inspect::inspect(&arguments, out),
        Command::Pull(arguments) => models::pull(&arguments, notices, out),
        Command::Models(arguments) => models::models(&arguments, out),
        Command::Rm(arguments) => models::rm(&arguments.name, out),
        Command::Completions(arguments) => completions::completions(&arguments, out),
        Command::Man(arguments) => man::man(&arguments, Cli::command(), out),
        Command::Help(arguments) => help(arguments.subcommand.as_deref(), out),
    }
}

/// Prints the help that `--help` prints.
fn help(subcommand: Option<&str>, out: &mut dyn Write) -> Result<(), Failure> {
    let mut command = command_line();
    let wanted = match subcommand {
        None => &mut command,
        Some(name) => command.find_subcommand_mut(name).ok_or_else(|| {
            Failure::Usage(format!(
                "there is no subcommand \"{}\"",
                name.escape_debug()
            ))
        })?,
    };
    write!(out, "{}", wanted.render_long_help()).map_err(Failure::Output)
}

/// Prints the error, if there is one to report, and returns the exit code; a signal that has ended
/// the command ends the process.
fn finish(result: Result<(), Failure>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let signal = match error {
        Failure::Interrupted(signal) => Some(signal),
        _ => interrupt::signal(),
    };
    if !error.is_closed_pipe() && !matches!(error, Failure::Interrupted(_)) {
        let text = error.to_string();
        // What is wrong may be a name in an untrusted file; only usage has several lines.
        let text = match error {
            Failure::Usage(_) => terminal::shown(&text).into_owned(),
            _ => terminal::shown_line(&text),
        };
        // Nothing is left to be done if standard error is gone too.
        let _ = writeln!(io::stderr(), "brooklet: {text}");
    }
    if let Some(signal) = signal {
        interrupt::end(signal);
    }
    ExitCode::from(error.exit_code())
}

fn start_logging(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let colour = io::stderr().is_terminal() && terminal::has_colours();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(colour)
        .without_time()
        .with_target(false);
    // Of a sound that cannot be read the command says what is wrong with it, in one sentence.
    let of_decoders = match verbose {
        0 => LevelFilter::OFF,
        _ => level,
    };
    let levels = Targets::new()
        .with_default(level)
        .with_target("symphonia", of_decoders);
    tracing_subscriber::registry()
        .with(lines)
        .with(levels)
        .init();
}

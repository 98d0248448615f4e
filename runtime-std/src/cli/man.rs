//! `brooklet man`: manual pages, made of the same texts as `--help`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;

use super::failure::Failure;
use super::reference;

/// Arguments of `brooklet man`.
#[derive(Args)]
pub struct Arguments {
    /// The subcommand whose page to print; the program's own page unless given
    #[arg(conflicts_with = "out")]
    subcommand: Option<String>,
    /// Write the pages of the program and all subcommands to this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints a manual page, or writes all of them.
pub fn man(
    arguments: &Arguments,
    mut command: Command,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    // Gives the subcommands the program's name, which is a part of their usage.
    command.build();
    if let Some(folder) = &arguments.out {
        return write_all(command, folder).map_err(|error| Failure::Write {
            path: folder.clone(),
            error,
        });
    }
    let wanted = match &arguments.subcommand {
        Some(name) => command.find_subcommand(name).cloned().ok_or_else(|| {
            Failure::Usage(format!(
                "there is no subcommand \"{}\"",
                name.escape_debug()
            ))
        })?,
        None => command,
    };
    page(wanted, out).map_err(Failure::Output)
}

fn write_all(command: Command, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let subcommands = command.get_subcommands().cloned();
    let subcommands = subcommands.filter(|command| !command.is_hide_set());
    for command in subcommands.chain([command.clone()]) {
        let name = command.get_display_name().unwrap_or(command.get_name());
        let mut text = Vec::new();
        page(command.clone(), &mut text)?;
        fs::write(folder.join(format!("{name}.1")), text)?;
    }
    Ok(())
}

/// Writes the page of the program or of a subcommand. The synopsis is the usage: a list of every
/// flag would only repeat what follows it.
fn page(mut command: Command, out: &mut dyn Write) -> io::Result<()> {
    let name = command.get_name().to_owned();
    let has_options = command.get_arguments().next().is_some();
    let has_subcommands = command.has_subcommands();
    let usage = command.render_usage().to_string();
    let command = command.override_usage(usage.trim_start_matches("Usage: ").to_owned());
    let man = Man::new(command)
        .source(concat!("brooklet ", env!("CARGO_PKG_VERSION")))
        .manual("brooklet manual");
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    if has_options {
        man.render_options_section(out)?;
    }
    if has_subcommands {
        man.render_subcommands_section(out)?;
    }
    reference::manual(&name).to_writer(out)
}

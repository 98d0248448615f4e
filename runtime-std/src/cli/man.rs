//! `brooklet man`: manual pages, made of the same texts as `--help`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;

use crate::Error;

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
pub fn man(arguments: &Arguments, mut command: Command, out: &mut dyn Write) -> Result<(), Error> {
    if let Some(folder) = &arguments.out {
        return write_all(command, folder).map_err(|error| Error::Write {
            path: folder.clone(),
            error,
        });
    }
    command.build();
    let page = match &arguments.subcommand {
        Some(name) => command
            .find_subcommand(name)
            .cloned()
            .ok_or_else(|| Error::Usage(format!("there is no subcommand \"{}\"", name.escape_debug())))?,
        None => command,
    };
    Man::new(page).render(out).map_err(Error::Output)
}

fn write_all(command: Command, folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}

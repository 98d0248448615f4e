//! `brooklet pull` and `brooklet models`.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::model::store;
use super::{progress, write_json};
use crate::Error;
use crate::manifest::Manifest;
use crate::size::Size;

/// Arguments of `brooklet pull`.
#[derive(Args)]
pub struct PullArguments {
    /// The model's name
    name: String,
}

/// Arguments of `brooklet models`.
#[derive(Args)]
pub struct ModelsArguments {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

/// Fetches a model and prints where it lies.
pub fn pull(arguments: &PullArguments, out: &mut dyn Write) -> Result<(), Error> {
    let Some(manifest) = Manifest::find(&arguments.name) else {
        let names: Vec<String> = Manifest::all()
            .into_iter()
            .map(|manifest| manifest.name)
            .collect();
        return Err(Error::Input(format!(
            "there is no model named \"{}\" to pull: there is {}",
            arguments.name,
            names.join(", ")
        )));
    };
    let path = progress::pull(&manifest, &store()?)?;
    writeln!(out, "{}", path.display()).map_err(Error::Output)
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    title: &'a str,
    pulled: bool,
    bytes: u64,
    licence: &'a str,
    family: &'a str,
    template: &'a str,
    window: usize,
    path: Option<String>,
}

/// Lists the manifests.
pub fn models(arguments: &ModelsArguments, out: &mut dyn Write) -> Result<(), Error> {
    let store = store()?;
    let manifests = Manifest::all();
    let rows = manifests.iter().map(|manifest| Row {
        name: &manifest.name,
        title: &manifest.title,
        pulled: store.has(manifest),
        bytes: manifest.size,
        licence: &manifest.licence,
        family: &manifest.family,
        template: &manifest.template,
        window: manifest.window,
        path: store
            .has(manifest)
            .then(|| store.path(manifest).display().to_string()),
    });
    let rows: Vec<Row<'_>> = rows.collect();
    if arguments.json {
        return write_json(out, &rows);
    }
    for row in &rows {
        let pulled = if row.pulled { "pulled" } else { "-" };
        let size = Size(row.bytes as usize).to_string();
        writeln!(
            out,
            "{:<16} {pulled:<8} {size:>9}  {:<12} {}",
            row.name, row.licence, row.title
        )
        .map_err(Error::Output)?;
    }
    Ok(())
}

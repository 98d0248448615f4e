//! `brooklet pull` and `brooklet models`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::json::{Said, write_json};
use super::licence::own_licence;
use super::model::{named, store};
use super::names::hint;
use super::progress;
use super::recommend::{self, Room};
use super::repository;
use crate::models::hub::HubRepository;
use crate::models::manifest::Manifest;
use crate::models::store::{Store, Stored};
use crate::notice::{Notice, Notices};
use crate::size::Size;

/// Arguments of `brooklet pull`.
#[derive(Args)]
pub struct PullArguments {
    /// A name that `brooklet models` lists, or hf:OWNER/REPO/FILE.gguf
    name: String,
    /// Agree to the terms that some models have; else you are asked on a terminal
    #[arg(long)]
    accept_terms: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Arguments of `brooklet models`.
#[derive(Args)]
pub struct ModelsArguments {
    /// Remove a pulled model and its unfinished downloads
    #[arg(long, value_name = "NAME", conflicts_with = "json")]
    rm: Option<String>,
    /// Show the best model for conversations that fits this machine; fetches nothing
    #[arg(long, conflicts_with = "rm")]
    recommend: bool,
    /// Print JSON: an array, or with --recommend an object
    #[arg(long)]
    json: bool,
}

/// Arguments of `brooklet rm`.
#[derive(Args)]
pub struct RmArguments {
    /// The model's name
    pub name: String,
}

/// The result of a pull.
#[derive(Serialize)]
struct Pulled<'p> {
    name: &'p str,
    path: &'p Path,
    bytes: Option<u64>,
    notices: Said<'p>,
}

/// A recommendation.
#[derive(Serialize)]
struct Recommended {
    /// None if no model fits.
    name: Option<String>,
    bytes: Option<u64>,
    pulled: bool,
    tried: bool,
    memory_bytes: Option<u64>,
    disk_bytes: Option<u64>,
}

/// Fetches a model and prints where it lies.
pub fn pull(
    arguments: &PullArguments,
    mut notices: Notices,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let Some(manifest) = named(&arguments.name)? else {
        return Err(Failure::Input(format!(
            "there is no model named \"{}\"{} to pull: there are {}, and hf:OWNER/REPOSITORY/FILE.gguf",
            arguments.name.escape_debug(),
            hint(&arguments.name),
            Manifest::names()
        )));
    };
    if manifest.embedded().is_some() {
        return Err(Failure::Input(format!(
            "{} is a part of this program: there is nothing to pull",
            manifest.name
        )));
    }
    if arguments.accept_terms && manifest.terms.is_none() {
        notices.add(Notice::OptionIgnored {
            option: "--accept-terms".into(),
            reason: "the model has no terms to agree to",
        });
    }
    let path = progress::pull(&manifest, &store()?, arguments.accept_terms)?;
    if arguments.json {
        let pulled = Pulled {
            name: &manifest.name,
            path: &path,
            bytes: length(&path),
            notices: Said(&notices),
        };
        return write_json(out, &pulled);
    }
    writeln!(out, "{}", path.display()).map_err(Failure::Output)
}

/// Lists the models, or removes one.
pub fn models(arguments: &ModelsArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let store = store()?;
    if let Some(name) = &arguments.rm {
        return rm(name, out);
    }
    if arguments.recommend {
        return recommend(&store, arguments.json, out);
    }
    let rows = rows(&store);
    if arguments.json {
        return write_json(out, &rows);
    }
    list(&rows, &store, out).map_err(Failure::Output)
}

/// Removes a model, and says how much that frees.
pub fn rm(name: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let bytes = remove(&store()?, name)?;
    writeln!(out, "removed {name}: {}", Size(bytes as usize)).map_err(Failure::Output)
}

/// Shows the best model that fits this machine.
fn recommend(store: &Store, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let room = Room::here();
    let best = recommend::here(&room);
    let pulled = best.as_ref().is_some_and(|best| store.has(best));
    if json {
        let report = Recommended {
            bytes: best.as_ref().and_then(recommend::bytes),
            pulled,
            tried: best.as_ref().is_some_and(|best| !best.untried),
            name: best.map(|best| best.name),
            memory_bytes: room.memory,
            disk_bytes: room.disk,
        };
        return write_json(out, &report);
    }
    let Some(best) = best else {
        return Err(Failure::Input(format!(
            "no model for conversations that is known fits this machine ({})",
            room.text()
        )));
    };
    let state = match (pulled, best.untried) {
        (true, _) => "it is pulled already",
        (false, true) => "this project has not tried it",
        (false, false) => "it is fetched at its first use",
    };
    writeln!(
        out,
        "{}: {}, {}, licence {}; {state}\nThis machine has {}. Talk with it by `brooklet chat {}`.",
        best.name,
        best.title,
        Size(recommend::bytes(&best).unwrap_or_default() as usize),
        best.licence,
        room.text(),
        best.name
    )
    .map_err(Failure::Output)
}

/// Removes a model from the store; returns how many bytes that frees.
fn remove(store: &Store, name: &str) -> Result<u64, Failure> {
    let removed = if let Some(stored) = store.others().iter().find(|stored| stored.name == name) {
        store.remove_stored(stored)?
    } else if let Some(repository) = HubRepository::parse(name) {
        // What is to be removed lies here: the hub is not asked.
        match repository::pulled(&repository) {
            Some(file) => store.remove(&file.manifest())?,
            None => None,
        }
    } else if let Some(manifest) = named(name)? {
        if manifest.embedded().is_some() {
            return Err(Failure::Input(format!(
                "{name} is a part of this program and stays"
            )));
        }
        store.remove(&manifest)?
    } else {
        return Err(Failure::Input(format!(
            "there is no model named \"{}\"{}: `brooklet models` lists the models",
            name.escape_debug(),
            hint(name)
        )));
    };
    removed.ok_or_else(|| {
        Failure::Input(format!(
            "{name} has not been pulled: there is nothing to remove"
        ))
    })
}

/// One model, pulled or not. Unknown facts are absent.
#[derive(Serialize)]
struct Row {
    name: String,
    title: Option<String>,
    /// True if it is a part of the program.
    embedded: bool,
    pulled: bool,
    /// True if this project has run it.
    tried: bool,
    /// Of the whole file.
    bytes: Option<u64>,
    /// Of unfinished downloads.
    partial_bytes: u64,
    licence: Option<String>,
    licence_url: Option<String>,
    family: Option<String>,
    template: Option<String>,
    window: Option<usize>,
    path: Option<PathBuf>,
}

/// Rows of the manifests, then of other models in the store, then of unfinished downloads.
fn rows(store: &Store) -> Vec<Row> {
    let manifests = Manifest::all();
    let listed = manifests
        .into_iter()
        .map(|manifest| of_manifest(store, manifest));
    let others = store
        .others()
        .into_iter()
        .map(|stored| of_stored(store, stored, true));
    let unfinished = store
        .unfinished()
        .into_iter()
        .map(|stored| of_stored(store, stored, false));
    listed.chain(others).chain(unfinished).collect()
}

fn of_manifest(store: &Store, manifest: Manifest) -> Row {
    let path = store.has(&manifest).then(|| store.path(&manifest));
    Row {
        embedded: manifest.embedded().is_some(),
        pulled: path.is_some(),
        tried: !manifest.untried,
        bytes: path.as_deref().and_then(length).or(manifest.size),
        partial_bytes: store.partial_bytes(&manifest),
        name: manifest.name,
        title: Some(manifest.title),
        licence: Some(manifest.licence),
        licence_url: Some(manifest.licence_url),
        family: Some(manifest.family),
        template: Some(manifest.template),
        window: Some(manifest.window),
        path,
    }
}

fn of_stored(store: &Store, stored: Stored, pulled: bool) -> Row {
    Row {
        embedded: false,
        pulled,
        tried: false,
        bytes: length(&stored.path),
        partial_bytes: stored
            .hub
            .as_ref()
            .map_or(0, |hub| store.partial_bytes(&hub.manifest())),
        name: stored.name,
        title: None,
        licence: own_licence(&stored.path),
        licence_url: stored.hub.map(|hub| hub.page()),
        family: None,
        template: None,
        window: None,
        path: pulled.then_some(stored.path),
    }
}

fn length(path: &Path) -> Option<u64> {
    Some(std::fs::metadata(path).ok()?.len())
}

/// Prints one line per model, and the bytes of all of them.
fn list(rows: &[Row], store: &Store, out: &mut dyn Write) -> io::Result<()> {
    let width = |text: &dyn Fn(&Row) -> usize| rows.iter().map(text).max().unwrap_or(0);
    let name = width(&|row| row.name.chars().count());
    let licence = width(&|row| row.licence_or_page().chars().count());
    for row in rows {
        let line = format!(
            "{:name$}  {:8}  {:>8}  {:licence$}  {}",
            row.name,
            row.state(),
            row.bytes
                .map_or_else(|| "-".into(), |bytes| Size(bytes as usize).to_string()),
            row.licence_or_page(),
            row.remark(),
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    let pulled = rows.iter().filter(|row| row.pulled);
    let bytes: u64 = pulled.clone().filter_map(|row| row.bytes).sum();
    let partial: u64 = rows.iter().map(|row| row.partial_bytes).sum();
    write!(out, "{} pulled, {}", pulled.count(), Size(bytes as usize))?;
    if partial > 0 {
        write!(out, ", unfinished {}", Size(partial as usize))?;
    }
    writeln!(out, ", in {}", store.folder().display())
}

impl Row {
    fn state(&self) -> &'static str {
        if self.embedded {
            return "embedded";
        }
        match (self.pulled, self.partial_bytes) {
            (true, _) => "pulled",
            (false, 0) => "-",
            (false, _) => "partial",
        }
    }

    fn licence_or_page(&self) -> &str {
        self.licence
            .as_deref()
            .or(self.licence_url.as_deref())
            .unwrap_or("unknown")
    }

    fn remark(&self) -> String {
        match &self.title {
            Some(title) if self.tried => title.clone(),
            Some(title) => format!("{title} (untested)"),
            None => "(untested)".into(),
        }
    }
}

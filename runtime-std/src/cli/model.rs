//! `-m`: a path, or the name of a model that is pulled on first use.

use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::Failure;
use super::names::hint;
use super::progress::say;
use super::repository;
use crate::embedded::OWN_MODEL;
use crate::model::{Model, ModelOptions};
use crate::models::hub::{HubFile, HubRepository, is_gguf};
use crate::models::manifest::Manifest;
use crate::models::store::Store;
use crate::size::Size;
use crate::system::mmap::{Access, ModelFile};

/// Arguments that say how the model's file is brought in.
#[derive(Args)]
pub struct AccessArguments {
    /// Read the file into memory instead of mapping it
    #[arg(long)]
    no_mmap: bool,
}

impl AccessArguments {
    fn access(&self) -> Access {
        if self.no_mmap {
            Access::Read
        } else {
            Access::Map
        }
    }

    /// Opens the model that `model` names, pulling it first if that is needed.
    pub fn open(&self, model: &str) -> Result<OpenModel, Failure> {
        open(model, self.access())
    }
}

/// Arguments that name a model.
#[derive(Args)]
pub struct ModelArguments {
    /// A GGUF file, a name that `brooklet models` lists, hf:OWNER/REPO[:FORMAT], or
    /// hf:OWNER/REPO/FILE.gguf; pulled on first use
    #[arg(short, long)]
    pub model: String,
    #[command(flatten)]
    access: AccessArguments,
}

/// Arguments that may name a model; without one, it is the program's own.
#[derive(Args)]
pub struct OptionalModelArguments {
    /// A GGUF file, a name that `brooklet models` lists, hf:OWNER/REPO[:FORMAT], or
    /// hf:OWNER/REPO/FILE.gguf; pulled on first use. Without it, a small model that is embedded in
    /// this program
    #[arg(short, long)]
    pub model: Option<String>,
    #[command(flatten)]
    access: AccessArguments,
}

/// A model's file and, if the model was named, its manifest.
pub struct OpenModel {
    /// The bytes.
    pub file: ModelFile,
    /// The manifest of a model that `brooklet models` lists.
    pub manifest: Option<Manifest>,
}

impl OpenModel {
    /// Checks the file, for `workers` workers; what the manifest says stays here.
    pub fn check(self, workers: usize) -> Result<(Model, Option<Manifest>), Failure> {
        let OpenModel { file, manifest } = self;
        Ok((ModelOptions::new().workers(workers).check(file)?, manifest))
    }

    /// As [`OpenModel::check`], for a command that feeds text to the model: a speech model, which
    /// must hear something first, is refused.
    pub fn check_text(self, workers: usize) -> Result<(Model, Option<Manifest>), Failure> {
        let (model, manifest) = self.check(workers)?;
        if model.config().encoder.get().is_some() {
            return Err(Failure::Input(format!(
                "{} is a speech model: `brooklet caption` writes down with it what is said in a sound",
                model.file().path().display()
            )));
        }
        Ok((model, manifest))
    }
}

impl ModelArguments {
    /// Opens the model, pulling it first if that is needed.
    pub fn open(&self) -> Result<OpenModel, Failure> {
        self.access.open(&self.model)
    }
}

impl OptionalModelArguments {
    /// Opens the model of that name, pulling it first if that is needed; without a name, the
    /// program's own. The choice of the model never depends on the network, nor the program's own
    /// on the working directory.
    pub fn open_named(&self, model: Option<&str>) -> Result<OpenModel, Failure> {
        match model {
            Some(model) => self.access.open(model),
            None => open_named(named(OWN_MODEL)?, OWN_MODEL, self.access.access()),
        }
    }
}

/// Opens the model that `model` names: a manifest's or the hub's, else a file, else one that
/// somebody has put into the store.
fn open(model: &str, access: Access) -> Result<OpenModel, Failure> {
    let manifest = named(model)?;
    // A folder of that name could not be meant.
    if manifest.is_some() && Path::new(model).is_file() {
        say(&format!(
            "{model} is a model's name: for the file here, write ./{model}"
        ));
    }
    open_named(manifest, model, access)
}

fn open_named(
    manifest: Option<Manifest>,
    model: &str,
    access: Access,
) -> Result<OpenModel, Failure> {
    if let Some(manifest) = &manifest
        && let Some(bytes) = manifest.embedded()
    {
        return Ok(OpenModel {
            file: ModelFile::embedded(&manifest.name, bytes),
            manifest: Some(manifest.clone()),
        });
    }
    let path = match &manifest {
        Some(manifest) => pulled(manifest)?,
        None if Path::new(model).exists() => PathBuf::from(model),
        None => match stored(model) {
            Some(path) => path,
            None if looks_like_a_path(model) => PathBuf::from(model),
            None => {
                let names = Manifest::names();
                return Err(Failure::Input(format!(
                    "there is no file and no model named \"{model}\"{}: there are {names}, and hf:OWNER/REPOSITORY/FILE.gguf",
                    hint(model)
                )));
            }
        },
    };
    let file = ModelFile::open(&path, access).map_err(|error| Failure::Read {
        path: path.clone(),
        error,
    })?;
    if let Some(error) = file.refusal() {
        say(&format!(
            "{} cannot be mapped ({error}): its {} are read into memory",
            path.display(),
            Size(file.len())
        ));
    }
    tracing::info!(path = %path.display(), mapped = file.is_mapped(), bytes = file.len(), "opened the model");
    // The manifest of a hub file states nothing but the file's place.
    let manifest = manifest.filter(|manifest| manifest.path.is_none());
    Ok(OpenModel { file, manifest })
}

/// The path of a model in the store that no manifest names, with or without the end of its name.
fn stored(model: &str) -> Option<PathBuf> {
    let others = Store::from_environment()?.others();
    let of_name = |name: &str| others.iter().find(|stored| stored.name == name);
    let stored = of_name(model).or_else(|| of_name(&format!("{model}.gguf")))?;
    Some(stored.path.clone())
}

/// Returns the manifest of the model of that name, or the one made for a file of the hub.
pub fn named(model: &str) -> Result<Option<Manifest>, Failure> {
    if let Some(repository) = HubRepository::parse(model) {
        return Ok(Some(repository::resolve(&repository)?.manifest()));
    }
    match HubFile::parse(model) {
        Some(hub) => Ok(Some(hub?.manifest())),
        None => Ok(Manifest::find(model)),
    }
}

/// Names of models that begin with `begun`: of all that have one, or only of those `in_store`. The
/// store's other files are among both.
pub fn names(begun: &str, in_store: bool) -> Vec<String> {
    let store = Store::from_environment();
    let is_there = |manifest: &Manifest| store.as_ref().is_some_and(|store| store.has(manifest));
    let mut names: Vec<String> = Manifest::all()
        .into_iter()
        .filter(|manifest| !in_store || is_there(manifest))
        .map(|manifest| manifest.name)
        .collect();
    let others = store.iter().flat_map(Store::others);
    names.extend(others.map(|stored| stored.name));
    names.retain(|name| name.starts_with(begun));
    names
}

fn looks_like_a_path(model: &str) -> bool {
    model.contains(std::path::MAIN_SEPARATOR) || model.contains('/') || is_gguf(Path::new(model))
}

/// The store of this environment.
pub fn store() -> Result<Store, Failure> {
    Store::from_environment()
        .ok_or_else(|| Failure::Input("no folder for models is known: set BROOKLET_MODELS".into()))
}

fn pulled(manifest: &Manifest) -> Result<PathBuf, Failure> {
    let store = store()?;
    if store.has(manifest) {
        return Ok(store.path(manifest));
    }
    super::progress::pull(manifest, &store, false)
}

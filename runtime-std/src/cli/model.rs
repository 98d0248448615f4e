//! `-m`: a path, or the name of a model that is pulled on first use.

use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::Failure;
use super::names::hint;
use super::repository;
use crate::embedded::OWN_MODEL;
use crate::model::{Model, ModelOptions};
use crate::models::hub::{HubFile, HubRepository};
use crate::models::manifest::Manifest;
use crate::models::store::Store;
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
    /// program's own. The choice of the model never depends on the network.
    pub fn open_named(&self, model: Option<&str>) -> Result<OpenModel, Failure> {
        self.access.open(model.unwrap_or(OWN_MODEL))
    }
}

/// Opens the model that `model` names: a file if there is one, else a manifest's or the hub's.
pub fn open(model: &str, access: Access) -> Result<OpenModel, Failure> {
    let manifest = if Path::new(model).exists() {
        None
    } else {
        named(model)?
    };
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
        None if looks_like_a_path(model) || Path::new(model).exists() => PathBuf::from(model),
        None => {
            let names = Manifest::names();
            return Err(Failure::Input(format!(
                "there is no file and no model named \"{model}\"{}: there are {names}, and hf:OWNER/REPOSITORY/FILE.gguf",
                hint(model)
            )));
        }
    };
    let file = ModelFile::open(&path, access).map_err(|error| Failure::Read {
        path: path.clone(),
        error,
    })?;
    tracing::info!(path = %path.display(), mapped = file.is_mapped(), bytes = file.len(), "opened the model");
    // The manifest of a hub file states nothing but the file's place.
    let manifest = manifest.filter(|manifest| manifest.path.is_none());
    Ok(OpenModel { file, manifest })
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

fn looks_like_a_path(model: &str) -> bool {
    model.contains(std::path::MAIN_SEPARATOR) || model.contains('/') || model.ends_with(".gguf")
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

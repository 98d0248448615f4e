//! The folder that pulled models lie in, and what `-m` means.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::manifest::Manifest;

/// The environment variable that names the folder of pulled models.
pub const STORE_VARIABLE: &str = "BROOKLET_MODELS";

/// The folder of pulled models.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The folder that `BROOKLET_MODELS` names; else `brooklet` in `$XDG_CACHE_HOME`; else `~/.cache/brooklet`. `None` if there is not
    /// even a home folder.
    pub fn from_environment() -> Option<Store> {
        Store::from(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn from(variable: impl Fn(&str) -> Option<OsString>) -> Option<Store> {
        let folder = if let Some(folder) = variable(STORE_VARIABLE) {
            PathBuf::from(folder)
        } else if let Some(cache) = variable("XDG_CACHE_HOME") {
            Path::new(&cache).join("brooklet")
        } else {
            Path::new(&variable("HOME")?).join(".cache/brooklet")
        };
        Some(Store { folder })
    }

    /// A store in this folder, which need not exist yet.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Store {
        Store {
            folder: folder.into(),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the file of a pulled model lies, or would.
    pub fn path(&self, manifest: &Manifest) -> PathBuf {
        self.folder.join(format!("{}.gguf", manifest.name))
    }

    /// Whether the model has been pulled. Its digest was checked then; now only its size is.
    pub fn has(&self, manifest: &Manifest) -> bool {
        std::fs::metadata(self.path(manifest)).is_ok_and(|file| file.is_file() && file.len() == manifest.size)
    }

    /// Where unfinished downloads of a model are kept, so that the next attempt goes on from there.
    pub(crate) fn staging(&self, manifest: &Manifest) -> PathBuf {
        self.folder.join(".partial").join(&manifest.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_chosen_by_the_environment() {
        let folder = |set: &[(&str, &str)]| {
            let find = |name: &str| {
                set.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| value.into())
            };
            Store::from(find).map(|store| store.folder)
        };
        let all = [
            ("BROOKLET_MODELS", "/m"),
            ("XDG_CACHE_HOME", "/x"),
            ("HOME", "/h"),
        ];
        assert_eq!(folder(&all), Some("/m".into()));
        assert_eq!(folder(&all[1..]), Some("/x/brooklet".into()));
        assert_eq!(folder(&all[2..]), Some("/h/.cache/brooklet".into()));
        assert_eq!(folder(&[]), None);
    }

    #[test]
    fn a_file_of_another_size_is_not_the_model() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_folder(folder.path());
        let manifest = Manifest {
            size: 4,
            ..Manifest::all().remove(0)
        };
        assert!(!store.has(&manifest));
        std::fs::write(store.path(&manifest), b"abc").unwrap();
        assert!(!store.has(&manifest));
        std::fs::write(store.path(&manifest), b"abcd").unwrap();
        assert!(store.has(&manifest));
    }
}

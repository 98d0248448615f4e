//! The folder of pulled models, and the paths of named models in it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::models::hub::{HubFile, is_gguf};
use crate::models::manifest::Manifest;
use crate::system::disk;

/// The environment variable that names the folder of pulled models.
pub const STORE_VARIABLE: &str = "BROOKLET_MODELS";

/// The folder of unfinished downloads in the store.
const PARTIAL: &str = ".partial";

/// Name of the file beside an unfinished download that holds the digest of the whole file.
pub(crate) const DIGEST_MARK: &str = "hub-digest";

/// Most folders above a file of the hub: owner, repository and folders of a repository.
const DEPTH: usize = 16;

/// Most folders above a file that somebody has put into the store.
const DEPTH_OF_OTHERS: usize = 4;

/// The reason why the store cannot be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or folder cannot be written or removed.
    #[error("cannot write {}: {error}", .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The model is being pulled, perhaps by another process.
    #[error("{0} is being pulled: stop that first")]
    Busy(String),
}

/// The folder of pulled models.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// A model in the store that no manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name for `-m` if it is a file of the hub; else its path in the store.
    pub name: String,
    /// Its path.
    pub path: PathBuf,
    /// The file of the hub that it is.
    pub hub: Option<HubFile>,
}

impl Store {
    /// The folder that `BROOKLET_MODELS` names; else `brooklet` in `$XDG_CACHE_HOME`; else
    /// `~/.cache/brooklet`. `None` if there is not even a home folder.
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

    /// Path of a pulled model's file, or of one that would be pulled.
    pub fn path(&self, manifest: &Manifest) -> PathBuf {
        match &manifest.path {
            Some(path) => self.folder.join(path),
            None => self.folder.join(format!("{}.gguf", manifest.name)),
        }
    }

    /// True if the model has been pulled. Its digest was checked then; now only its size is, where
    /// that is known.
    pub fn has(&self, manifest: &Manifest) -> bool {
        let right = |bytes| manifest.size.is_none_or(|size| size == bytes);
        fs::metadata(self.path(manifest)).is_ok_and(|file| file.is_file() && right(file.len()))
    }

    /// Folder in which unfinished downloads of a model are kept, so that the next attempt goes on
    /// from there.
    pub(crate) fn staging(&self, manifest: &Manifest) -> PathBuf {
        let name = match &manifest.path {
            Some(path) => path.as_path(),
            None => Path::new(&manifest.name),
        };
        self.partial(name, &disk::is_writable).join(name)
    }

    /// The folder of unfinished downloads in which this user can make `name`: if another user has
    /// begun it in a shared store, one of this user's own.
    fn partial(&self, name: &Path, is_writable: &dyn Fn(&Path) -> bool) -> PathBuf {
        let shared = self.folder.join(PARTIAL);
        let wanted = shared.join(name);
        let mut above = wanted
            .ancestors()
            .take_while(|folder| folder.starts_with(&shared));
        match (above.find(|folder| folder.exists()), disk::user()) {
            (Some(folder), Some(user)) if !is_writable(folder) => {
                self.folder.join(format!("{PARTIAL}-{user}"))
            }
            _ => shared,
        }
    }

    /// The file whose lock claims a model's files in the store. The claim ends when the file is
    /// dropped.
    ///
    /// # Errors
    /// The system's, with the path that it is about.
    pub(crate) fn lock_file(&self, manifest: &Manifest) -> Result<File, (PathBuf, io::Error)> {
        let path = appended(&self.staging(manifest), ".lock");
        let folder = path.parent().unwrap_or(&self.folder).to_path_buf();
        fs::create_dir_all(&folder).map_err(|error| (folder, error))?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&path);
        // Another user's can be locked without being written.
        file.or_else(|error| File::open(&path).map_err(|_| error))
            .map_err(|error| (path, error))
    }

    /// Every whole model in the store that is no manifest's: files of the hub, and others that
    /// somebody has put there, at most three folders deep.
    pub fn others(&self) -> Vec<Stored> {
        let manifests = Manifest::all();
        let mut paths = Vec::new();
        collect(&self.folder, DEPTH_OF_OTHERS, &is_gguf, &mut paths);
        let of_hub = self.folder.join(HubFile::folder());
        paths.retain(|path| !path.starts_with(&of_hub));
        paths.retain(|path| {
            manifests
                .iter()
                .all(|manifest| self.path(manifest) != *path)
        });
        collect(&of_hub, DEPTH, &is_gguf, &mut paths);
        self.named(paths)
    }

    /// Files of the hub that have arrived in part; the paths are those of the whole files.
    pub fn unfinished(&self) -> Vec<Stored> {
        let partial = self.partial(HubFile::folder(), &disk::is_writable);
        let mut paths = Vec::new();
        let is_mark = |path: &Path| path.file_name().is_some_and(|name| name == DIGEST_MARK);
        collect(
            &partial.join(HubFile::folder()),
            DEPTH,
            &is_mark,
            &mut paths,
        );
        let whole = paths.iter().filter_map(|mark| {
            Some(
                self.folder
                    .join(mark.parent()?.strip_prefix(&partial).ok()?),
            )
        });
        self.named(whole.filter(|path| !path.exists()).collect())
    }

    fn named(&self, mut paths: Vec<PathBuf>) -> Vec<Stored> {
        paths.sort();
        let named = |path: PathBuf| {
            let relative = path.strip_prefix(&self.folder).ok()?;
            let hub = HubFile::at(relative);
            let name = hub
                .as_ref()
                .map_or_else(|| relative.display().to_string(), HubFile::to_string);
            Some(Stored { name, path, hub })
        };
        paths.into_iter().filter_map(named).collect()
    }

    /// Bytes that unfinished downloads of the model take.
    pub fn partial_bytes(&self, manifest: &Manifest) -> u64 {
        folder_size(&self.staging(manifest))
    }

    /// Removes the model and what is left of unfinished downloads; returns how many bytes that
    /// frees, `None` if nothing is there.
    ///
    /// # Errors
    /// The system's; [`StoreError::Busy`] while the model is being pulled.
    pub fn remove(&self, manifest: &Manifest) -> Result<Option<u64>, StoreError> {
        let (path, staging) = (self.path(manifest), self.staging(manifest));
        let refused = |path: &Path| {
            let path = path.to_path_buf();
            move |error| StoreError::Write { path, error }
        };
        if !path.is_file() && folder_size(&staging) == 0 {
            return Ok(None);
        }
        let lock = self
            .lock_file(manifest)
            .map_err(|(path, error)| StoreError::Write { path, error })?;
        // Where the system has no locks, nobody can hold one.
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(StoreError::Busy(manifest.name.clone()));
        }
        let mut bytes = folder_size(&staging);
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(refused(&staging))?;
        }
        if let Ok(file) = fs::metadata(&path) {
            fs::remove_file(&path).map_err(refused(&path))?;
            bytes += file.len();
        }
        // Its digest, and folders that are empty now, are of no use to anybody.
        let _ = fs::remove_file(digest_path(&path));
        self.remove_empty_folders(&path);
        Ok(Some(bytes))
    }

    /// Removes a model that no manifest names; returns how many bytes that frees, `None` if nothing
    /// is there.
    ///
    /// # Errors
    /// As [`Store::remove`].
    pub fn remove_stored(&self, stored: &Stored) -> Result<Option<u64>, StoreError> {
        if let Some(hub) = &stored.hub {
            return self.remove(&hub.manifest());
        }
        let Ok(file) = fs::metadata(&stored.path) else {
            return Ok(None);
        };
        fs::remove_file(&stored.path).map_err(|error| StoreError::Write {
            path: stored.path.clone(),
            error,
        })?;
        Ok(Some(file.len()))
    }

    /// Removes the folders above `path` that are empty, up to the store's own.
    fn remove_empty_folders(&self, path: &Path) {
        let above = path
            .ancestors()
            .skip(1)
            .take_while(|folder| *folder != self.folder);
        for folder in above {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}

/// Path of the recorded digest of a pulled file whose manifest has none, in the format of
/// `sha256sum`.
pub(crate) fn digest_path(model: &Path) -> PathBuf {
    appended(model, ".sha256")
}

fn appended(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}

/// Adds the files that lie in `folder`, at most `depth` folders deep, and are `wanted`. Names that
/// begin with a dot are passed over, and folders that are links, which may lead round.
fn collect(folder: &Path, depth: usize, wanted: &dyn Fn(&Path) -> bool, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth > 1 {
            collect(&path, depth - 1, wanted, paths);
        } else if path.is_file() && wanted(&path) {
            paths.push(path);
        }
    }
}

/// Bytes of all files under `folder`.
pub(crate) fn folder_size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
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
    fn models_are_found_where_somebody_has_put_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_folder(folder.path());
        for name in [
            "b.GGUF",
            "a/x.gguf",
            "a/b/c/y.gguf",
            "a/b/c/d/deep.gguf",
            "a/notes.txt",
            ".partial/hf/o/r/z.gguf/model.gguf",
            "hf/o/r/z.gguf",
            "hf/o/r/z.GGUF",
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        let names: Vec<String> = store.others().into_iter().map(|other| other.name).collect();
        assert_eq!(
            names,
            [
                "a/b/c/y.gguf",
                "a/x.gguf",
                "b.GGUF",
                "hf:o/r/z.GGUF",
                "hf:o/r/z.gguf"
            ]
        );
    }

    #[cfg(unix)]
    #[test]
    fn what_another_user_has_begun_is_not_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_folder(folder.path());
        let shared = folder.path().join(".partial");
        let own = folder
            .path()
            .join(format!(".partial-{}", disk::user().unwrap()));
        let name = Path::new("hf/o/r/z.gguf");
        // Nothing is there: the folder will be this user's.
        assert_eq!(store.partial(name, &|_| false), shared);
        fs::create_dir_all(shared.join("hf/o")).unwrap();
        let is_others = |others: PathBuf| {
            let is_writable = move |folder: &Path| folder != others;
            store.partial(name, &is_writable)
        };
        assert_eq!(is_others(shared.join("hf/o")), own);
        assert_eq!(is_others(shared.join("hf")), shared);
        fs::create_dir_all(shared.join(name)).unwrap();
        assert_eq!(is_others(shared.join(name)), own);
        // Its lock is another's, too, but can be taken.
        let manifest = HubFile::parse("hf:o/r/z.gguf").unwrap().unwrap().manifest();
        let [first, second] = [(); 2].map(|()| store.lock_file(&manifest).unwrap());
        first.lock().unwrap();
        assert!(matches!(second.try_lock(), Err(TryLockError::WouldBlock)));
    }

    #[test]
    fn a_file_of_another_size_is_not_the_model() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_folder(folder.path());
        let manifest = Manifest {
            size: Some(4),
            ..Manifest::all().remove(0)
        };
        assert!(!store.has(&manifest));
        std::fs::write(store.path(&manifest), b"abc").unwrap();
        assert!(!store.has(&manifest));
        std::fs::write(store.path(&manifest), b"abcd").unwrap();
        assert!(store.has(&manifest));
    }
}

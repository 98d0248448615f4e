//! `hf:owner/repository/file`: a file of the Hugging Face hub as the name of a model, and where it
//! lies in the store.
//!
//! Such a name is untrusted text that becomes a path, so each of its parts must be the plain name
//! of a file: what could leave the store's folder, or be read as something else by a shell or
//! another system, is refused when the name is read.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use crate::models::manifest::{DEFAULT_REVISION, Manifest, Source};
use crate::planning::DEFAULT_CACHE;

/// Prefix of such names.
pub const PREFIX: &str = "hf:";

/// The folder of such files in the store.
const FOLDER: &str = "hf";

/// Longest part in bytes: `repository@revision` and `file.gguf.sha256` then stay below the 255 that
/// file systems allow.
const LONGEST_PART: usize = 120;

/// Characters of a part beside letters and digits.
const PUNCTUATION: &str = "-_.+=,~()[] ";

/// The reason why a text does not name a file on the hub.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HubNameError {
    /// Owner, repository or file is missing.
    #[error(
        "a model on the hub is written hf:OWNER/REPOSITORY, hf:OWNER/REPOSITORY:FORMAT or hf:OWNER/REPOSITORY/FILE.gguf, with @REVISION after REPOSITORY or not"
    )]
    Incomplete,
    /// The file is of another kind.
    #[error("\"{}\" is not a GGUF file: its name does not end in .gguf", .0.escape_debug())]
    NotGguf(String),
    /// A part is empty, too long, begins with a dot, or has a character that names of files here do
    /// not have.
    #[error("\"{}\" cannot be part of a model's name: each part has 1 to {LONGEST_PART} letters, digits or {PUNCTUATION:?}, and begins with no dot", .0.escape_debug())]
    Part(String),
}

/// A GGUF file of a repository on the hub. Every part of it is the plain name of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    /// `owner/name`.
    repository: String,
    /// Branch or commit; the main branch unless given.
    revision: Option<String>,
    /// Path in the repository, with `/` between its parts.
    file: String,
}

impl HubFile {
    /// Path in the repository.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Reads `hf:owner/repository[@revision]/[folder/...]file.gguf`; `None` if the text does not
    /// begin with `hf:`.
    pub fn parse(name: &str) -> Option<Result<HubFile, HubNameError>> {
        Some(HubFile::parse_path(name.strip_prefix(PREFIX)?))
    }

    fn parse_path(path: &str) -> Result<HubFile, HubNameError> {
        let mut pieces = path.splitn(3, '/');
        let (Some(owner), Some(name), Some(file)) = (pieces.next(), pieces.next(), pieces.next())
        else {
            return Err(HubNameError::Incomplete);
        };
        let (name, revision) = match name.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (name, None),
        };
        for part in [owner, name]
            .into_iter()
            .chain(revision)
            .chain(file.split('/'))
        {
            if !is_plain(part) {
                return Err(HubNameError::Part(part.into()));
            }
        }
        if !file.ends_with(".gguf") {
            return Err(HubNameError::NotGguf(file.into()));
        }
        Ok(HubFile {
            repository: format!("{owner}/{name}"),
            revision: revision.map(str::to_owned),
            file: file.into(),
        })
    }

    /// The file that lies at this path, relative to the store's folder; `None` if it is no file of
    /// the hub.
    pub(crate) fn at(path: &Path) -> Option<HubFile> {
        let parts: Option<Vec<&str>> = path
            .strip_prefix(FOLDER)
            .ok()?
            .components()
            .map(|part| match part {
                Component::Normal(name) => name.to_str(),
                _ => None,
            })
            .collect();
        HubFile::parse_path(&parts?.join("/")).ok()
    }

    /// The folder, relative to the store's, that all files of the hub lie in.
    pub(crate) fn folder() -> &'static Path {
        Path::new(FOLDER)
    }

    /// Path of the file, relative to the store's folder.
    pub(crate) fn path(&self) -> PathBuf {
        // Plain names only: see `parse_path`.
        Path::new(FOLDER).join(self.to_string().trim_start_matches(PREFIX))
    }

    /// Address of the repository's page.
    pub fn page(&self) -> String {
        format!("https://huggingface.co/{}", self.repository)
    }

    /// The manifest for a pull. The digest and the size are those that the hub states then.
    pub fn manifest(&self) -> Manifest {
        Manifest {
            name: self.to_string(),
            title: self.to_string(),
            licence: "as its repository says".into(),
            licence_url: self.page(),
            terms: None,
            family: String::new(),
            template: String::new(),
            window: DEFAULT_CACHE,
            untried: true,
            size: None,
            about: None,
            sha256: None,
            sinks: None,
            sources: vec![Source::Hf {
                repository: self.repository.clone(),
                revision: self
                    .revision
                    .clone()
                    .unwrap_or_else(|| DEFAULT_REVISION.into()),
                file: self.file.clone(),
            }],
            path: Some(self.path()),
        }
    }
}

/// A repository of the hub, one of whose files is meant: `hf:owner/repository[@revision][:format]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubRepository {
    /// `owner/name`.
    pub repository: String,
    /// Branch or commit; the main branch unless given.
    revision: Option<String>,
    /// The format of the weights, such as `Q4_K_M`, in capitals; any unless given.
    pub format: Option<String>,
}

impl HubRepository {
    /// Reads such a name; `None` if the text is not of this form. Every part is the plain name of
    /// a file.
    pub fn parse(name: &str) -> Option<HubRepository> {
        let path = name.strip_prefix(PREFIX)?;
        let (path, format) = match path.split_once(':') {
            Some((path, format)) => (path, Some(format)),
            None => (path, None),
        };
        let (owner, name) = path.split_once('/')?;
        let (name, revision) = match name.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (name, None),
        };
        let mut parts = [owner, name].into_iter().chain(revision).chain(format);
        parts.all(is_plain).then(|| HubRepository {
            repository: format!("{owner}/{name}"),
            revision: revision.map(str::to_owned),
            format: format.map(str::to_uppercase),
        })
    }

    /// Branch or commit.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    /// The file at that path in the repository; `None` if its name cannot be one in the store.
    pub fn file(&self, path: &str) -> Option<HubFile> {
        let at = self.revision.as_deref();
        let at = at.map_or_else(String::new, |revision| format!("@{revision}"));
        HubFile::parse_path(&format!("{}{at}/{path}", self.repository)).ok()
    }

    /// True if the file is one of this repository and revision.
    pub fn has(&self, file: &HubFile) -> bool {
        file.repository == self.repository && file.revision == self.revision
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HubFile {
            repository,
            revision,
            file,
        } = self;
        let at = if revision.is_some() { "@" } else { "" };
        write!(
            f,
            "{PREFIX}{repository}{at}{}/{file}",
            revision.as_deref().unwrap_or_default()
        )
    }
}

/// True if the text is a plain file name on every system.
fn is_plain(part: &str) -> bool {
    (1..=LONGEST_PART).contains(&part.len())
        && !part.starts_with(['.', ' '])
        && !part.ends_with(['.', ' '])
        && part
            .chars()
            .all(|c| c.is_alphanumeric() || PUNCTUATION.contains(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(name: &str) -> Result<HubFile, HubNameError> {
        HubFile::parse(name).expect("it begins with hf:")
    }

    #[test]
    fn names_are_read_written_and_found_again_in_the_store() {
        let cases = [
            ("hf:a/b/c.gguf", "a/b", None, "c.gguf", "hf/a/b/c.gguf"),
            (
                "hf:a/b@v1.0/c.gguf",
                "a/b",
                Some("v1.0"),
                "c.gguf",
                "hf/a/b@v1.0/c.gguf",
            ),
            (
                "hf:A-1/b.GGUF/d e/ü/c(1).gguf",
                "A-1/b.GGUF",
                None,
                "d e/ü/c(1).gguf",
                "hf/A-1/b.GGUF/d e/ü/c(1).gguf",
            ),
        ];
        for (name, repository, revision, file, path) in cases {
            let hub = parse(name).unwrap();
            assert_eq!(
                (&hub.repository[..], hub.revision.as_deref(), &hub.file[..]),
                (repository, revision, file)
            );
            assert_eq!(
                (hub.to_string(), hub.path()),
                (name.to_owned(), PathBuf::from(path))
            );
            assert_eq!(HubFile::at(&hub.path()), Some(hub));
        }
        assert_eq!(HubFile::parse("smollm2-135m"), None);
        assert_eq!(HubFile::at(Path::new("other/a/b/c.gguf")), None);
    }

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for name in ["hf:", "hf:a", "hf:a/b", "hf:a/b.gguf"] {
            assert_eq!(parse(name), Err(HubNameError::Incomplete), "{name}");
        }
        for (name, part) in [
            ("hf:../b/c.gguf", ".."),
            ("hf:a/../c.gguf", ".."),
            ("hf:a/b/../c.gguf", ".."),
            ("hf:a/b/./c.gguf", "."),
            ("hf:/etc/c.gguf", ""),
            ("hf:a//c.gguf", ""),
            ("hf:a/b//c.gguf", ""),
            ("hf:a/b/c.gguf/", ""),
            ("hf:a/b@/c.gguf", ""),
            ("hf:a/b@../c.gguf", ".."),
            ("hf:a/b@c@d/c.gguf", "c@d"),
            ("hf:a/b/.gguf", ".gguf"),
            ("hf:a/b/c\\d.gguf", "c\\d.gguf"),
            ("hf:a/b/C:c.gguf", "C:c.gguf"),
            ("hf:a/b/c\n.gguf", "c\n.gguf"),
            ("hf:a/b/c\0.gguf", "c\0.gguf"),
            ("hf:a/b/\u{202e}c.gguf", "\u{202e}c.gguf"),
            ("hf:a/b?x=/c.gguf", "b?x="),
            ("hf:a/b/c%2f.gguf", "c%2f.gguf"),
        ] {
            assert_eq!(
                parse(name),
                Err(HubNameError::Part(part.into())),
                "{name:?}"
            );
        }
        assert_eq!(
            parse("hf:a/b/c.bin"),
            Err(HubNameError::NotGguf("c.bin".into()))
        );
        let long = "x".repeat(LONGEST_PART + 1);
        assert_eq!(
            parse(&format!("hf:a/{long}/c.gguf")),
            Err(HubNameError::Part(long))
        );
    }

    #[test]
    fn errors_are_one_line_whatever_the_name() {
        for name in ["hf:a/b/c\n\u{1b}[31m.gguf", "hf:a/b/c", "hf:"] {
            let error = parse(name).unwrap_err().to_string();
            assert!(!error.chars().any(char::is_control), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_below_its_folder(name in "hf:[a.@/~ \\\\-]{0,12}/[a.@/]{1,8}\\.gguf") {
            if let Some(Ok(hub)) = HubFile::parse(&name) {
                let path = hub.path();
                prop_assert!(path.starts_with(FOLDER) && path.components().count() >= 4);
                prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
                prop_assert_eq!(HubFile::at(&path).map(|hub| hub.to_string()), Some(name));
            }
        }
    }
}

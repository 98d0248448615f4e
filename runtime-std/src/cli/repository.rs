//! `hf:OWNER/REPO[:FORMAT]`: which file of a repository is meant.

use serde::Deserialize;

use super::failure::Failure;
use super::model::store;
use super::progress::say;
use crate::models::hub::{HubFile, HubRepository};
use crate::models::pull;

/// Formats in the order in which one is chosen where none is named: first those of 4 bits, which
/// most people run.
const PREFERRED: [&str; 8] = [
    "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "Q5_K_M", "Q6_K", "Q8_0", "F16",
];

/// Most files that an error lists.
const MOST_LISTED: usize = 12;

#[derive(Deserialize)]
struct Listing {
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// The file that is meant: one that lies in the store already, without a look at the network; else
/// one that the hub lists.
pub fn resolve(wanted: &HubRepository) -> Result<HubFile, Failure> {
    if let Some(file) = pulled(wanted) {
        return Ok(file);
    }
    let list = pull::list(&wanted.repository, wanted.revision())?;
    let list: Listing = serde_json::from_slice(&list).map_err(|_| {
        Failure::Input(format!(
            "the hub's list of the files of {} is no such list",
            wanted.repository
        ))
    })?;
    let names: Vec<String> = list
        .siblings
        .into_iter()
        .map(|file| file.rfilename)
        .collect();
    let chosen = choose(&names, wanted.format.as_deref());
    let file = chosen.and_then(|name| wanted.file(name)).ok_or_else(|| {
        let files: Vec<&str> = models(&names).take(MOST_LISTED).collect();
        let of_format = wanted.format.as_ref().map_or_else(String::new, |format| format!(" in {format}"));
        Failure::Input(format!(
            "{} has no single GGUF file{of_format} to choose: it has {}; name one as hf:{0}/FILE.gguf",
            wanted.repository,
            if files.is_empty() { "none".into() } else { files.join(", ").escape_debug().to_string() }
        ))
    })?;
    say(&format!(
        "{} has {}, which is taken",
        wanted.repository,
        file.file()
    ));
    Ok(file)
}

/// The file of the repository in the store.
pub fn pulled(wanted: &HubRepository) -> Option<HubFile> {
    let stored = store().ok()?.others();
    let files = stored.into_iter().filter_map(|stored| stored.hub);
    let files: Vec<HubFile> = files.filter(|file| wanted.has(file)).collect();
    let names: Vec<String> = files.iter().map(|file| file.file().to_owned()).collect();
    let name = choose(&names, wanted.format.as_deref())?;
    files.iter().find(|file| file.file() == name).cloned()
}

/// Whole models among files: no parts of one, and no encoders of pictures.
fn models(names: &[String]) -> impl Iterator<Item = &str> {
    names.iter().map(String::as_str).filter(|name| {
        let lower = name.to_lowercase();
        let is_part = lower.rsplit_once("-of-").is_some_and(|(_, count)| {
            count
                .trim_end_matches(".gguf")
                .bytes()
                .all(|byte| byte.is_ascii_digit())
        });
        lower.ends_with(".gguf") && !is_part && !lower.contains("mmproj")
    })
}

/// The file of that format; without one, the only file, or the one of the best known format.
fn choose<'n>(names: &'n [String], format: Option<&str>) -> Option<&'n str> {
    let of = |format: &str| {
        let mut found = models(names).filter(|name| is_of(name, format));
        let first = found.next()?;
        found.next().is_none().then_some(first)
    };
    match format {
        Some(format) => of(format),
        None => {
            let mut all = models(names);
            match (all.next(), all.next()) {
                (Some(only), None) => Some(only),
                _ => PREFERRED.into_iter().find_map(of),
            }
        }
    }
}

/// True if a file's name says that its weights are in that format: `model-Q4_K_M.gguf`,
/// `model.q4_k_m.gguf`.
fn is_of(name: &str, format: &str) -> bool {
    let name = name.to_uppercase();
    let stem = name.strip_suffix(".GGUF").unwrap_or(&name);
    stem.strip_suffix(format)
        .is_some_and(|before| before.is_empty() || before.ends_with(['-', '.', '_', '/']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_chosen_by_format() {
        let names: Vec<String> = [
            "README.md",
            "m-Q8_0.gguf",
            "m-q4_k_m.gguf",
            "m.Q4_K_S.gguf",
            "IQ4_0.gguf",
            "mmproj-F16.gguf",
            "m-F16-00001-of-00002.gguf",
            "m-F16-00002-of-00002.gguf",
        ]
        .map(String::from)
        .to_vec();
        assert_eq!(choose(&names, None), Some("m-q4_k_m.gguf"));
        for (format, expected) in [
            ("Q8_0", Some("m-Q8_0.gguf")),
            ("Q4_K_S", Some("m.Q4_K_S.gguf")),
            ("Q4_0", None),
            ("F16", None),
            ("K_M", Some("m-q4_k_m.gguf")),
        ] {
            assert_eq!(choose(&names, Some(format)), expected, "{format}");
        }
        assert_eq!(choose(&names[1..2], None), Some("m-Q8_0.gguf"));
        assert_eq!(choose(&names[..1], None), None);
        // Two of one format: neither is taken.
        let two = ["a-Q8_0.gguf", "b-Q8_0.gguf"].map(String::from);
        assert_eq!(choose(&two, Some("Q8_0")), None);
    }
}

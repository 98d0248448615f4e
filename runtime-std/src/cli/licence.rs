//! The licence that a model's file states.

use std::path::Path;

use brooklet_core::gguf::Gguf;

use crate::system::mmap::{Access, ModelFile};

/// Most characters that are shown of a licence from a file of unknown origin, which may state
/// anything.
const LONGEST_LICENCE: usize = 40;

/// The licence that the file states.
pub fn licence(file: &Gguf<'_>) -> Option<String> {
    Some(file.get("general.license")?.as_str()?.to_owned())
}

/// The beginning of the licence that the file at `path` states, fit to be shown.
pub fn own_licence(path: &Path) -> Option<String> {
    let file = ModelFile::open(path, Access::Map).ok()?;
    let licence = licence(&Gguf::parse(&file).ok()?)?;
    Some(licence.escape_debug().take(LONGEST_LICENCE).collect())
}

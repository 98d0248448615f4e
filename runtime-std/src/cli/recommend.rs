//! The best model that fits this machine's memory and disk.

use std::path::{Path, PathBuf};

use super::model::store;
use crate::models::manifest::Manifest;
use crate::size::Size;
use crate::system::disk;
use crate::system::memory::available_bytes;

/// Of the memory that is free, the part that a model's weights may take: the rest is for the cache
/// and for other programs.
const MEMORY_SHARE: (u64, u64) = (2, 3);

/// Limits of the choice.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Free memory, if the system says.
    pub memory: Option<u64>,
    /// Free bytes of the store's disk, if the system says.
    pub disk: Option<u64>,
}

impl Room {
    /// The room on this machine.
    pub fn here() -> Room {
        Room {
            memory: available_bytes(),
            disk: store().ok().and_then(|store| free_bytes(store.folder())),
        }
    }

    /// True if a model of that many bytes fits. What lies in the store takes no more of the disk.
    fn holds(&self, bytes: u64, is_pulled: bool) -> bool {
        let (part, whole) = MEMORY_SHARE;
        self.memory
            .is_none_or(|memory| bytes <= memory / whole * part)
            && (is_pulled || self.disk.is_none_or(|disk| bytes <= disk))
    }

    /// The room in words.
    pub fn text(&self) -> String {
        let part = |bytes: Option<u64>, what: &str| match bytes {
            Some(bytes) => format!("{} of {what} free", Size(bytes as usize)),
            None => format!("{what} unknown"),
        };
        format!(
            "{}, {}",
            part(self.memory, "memory"),
            part(self.disk, "disk")
        )
    }
}

/// The largest model that chats and fits. Larger ones answer better.
pub fn best(
    models: Vec<Manifest>,
    room: &Room,
    is_pulled: impl Fn(&Manifest) -> bool,
) -> Option<Manifest> {
    models
        .into_iter()
        .filter(|model| !model.template.is_empty())
        .filter(|model| bytes(model).is_some_and(|bytes| room.holds(bytes, is_pulled(model))))
        .max_by_key(bytes)
}

/// Bytes of a model's file, roughly where they are not known.
pub fn bytes(model: &Manifest) -> Option<u64> {
    model.size.or(model.about)
}

/// The best model on this machine.
pub fn here(room: &Room) -> Option<Manifest> {
    let store = store().ok();
    best(Manifest::all(), room, |model| {
        store.as_ref().is_some_and(|store| store.has(model))
    })
}

/// Advice about a small default model: that it is small, and which better one fits here.
pub fn advice(name: &str) -> String {
    let default = Manifest::find(name);
    let size = |model: &Manifest| {
        bytes(model).map_or_else(String::new, |bytes| format!(" ({})", Size(bytes as usize)))
    };
    let small = default.as_ref().map_or_else(String::new, size);
    match here(&Room::here()).filter(|best| best.name != name) {
        Some(best) => format!(
            "which is small{small}: {0}{1} fits this machine and answers better (`brooklet chat {0}`)",
            best.name,
            size(&best)
        ),
        None => format!("which is small{small}: no larger one that is known fits this machine"),
    }
}

/// Free bytes of the disk on which a folder is, or will be.
fn free_bytes(folder: &Path) -> Option<u64> {
    let mut folder: PathBuf = std::path::absolute(folder).ok()?;
    while !folder.exists() {
        if !folder.pop() {
            return None;
        }
    }
    disk::free(&folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best_in(memory: u64, disk: u64, pulled: &str) -> Option<String> {
        let room = Room {
            memory: Some(memory),
            disk: Some(disk),
        };
        best(Manifest::all(), &room, |model| model.name == pulled).map(|model| model.name)
    }

    #[test]
    fn the_largest_that_fits_is_recommended() {
        let sizes = |name: &str| bytes(&Manifest::find(name).unwrap()).unwrap();
        let smallest = sizes("smollm2-135m");
        let huge = 1 << 40;
        assert_eq!(best_in(smallest, huge, ""), None);
        assert_eq!(
            best_in(2 * smallest, huge, "").as_deref(),
            Some("smollm2-135m")
        );
        // The disk counts as well, unless the model lies there already.
        assert_eq!(best_in(huge, smallest - 1, ""), None);
        let largest = best_in(huge, huge, "").unwrap();
        assert!(sizes(&largest) > smallest, "{largest}");
        assert_eq!(best_in(huge, 0, &largest), Some(largest));
    }

    #[cfg(unix)]
    #[test]
    fn a_disk_of_a_folder_that_is_not_there_yet_is_its_parent_s() {
        let folder = tempfile::tempdir().unwrap();
        let (here, there) = (
            free_bytes(folder.path()),
            free_bytes(&folder.path().join("a/b")),
        );
        assert!(here.is_some_and(|bytes| bytes > 0) && there.is_some());
    }
}

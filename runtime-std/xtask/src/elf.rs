//! Bytes of a board's memories that an image takes, read from the linked file.

use std::fs;
use std::path::Path;

use brooklet_core::arena::ALIGN;
use object::elf::PF_W;
use object::{Object, ObjectSegment, ObjectSymbol, SegmentFlags};

use crate::Error;

/// The flat image, for a loader that knows no file format: all contents of the file, from the
/// lowest address on, with zeros in the gaps.
///
/// # Errors
/// If the file cannot be read, is no ELF file, or its parts lie `LARGEST_FLAT` or more apart.
pub fn flat(image: &Path) -> Result<Vec<u8>, Error> {
    const LARGEST_FLAT: u64 = 1 << 30;
    let bytes = fs::read(image)?;
    let file = object::File::parse(&*bytes)?;
    let filled = || file.segments().filter(|segment| segment.file_range().1 > 0);
    let start = filled().map(|segment| segment.address()).min().unwrap_or(0);
    let mut flat = Vec::new();
    for segment in filled() {
        let (at, data) = (segment.address() - start, segment.data()?);
        if at >= LARGEST_FLAT {
            return Err(
                format!("{}: a part lies {at} bytes from the first", image.display()).into(),
            );
        }
        let at = usize::try_from(at)?;
        flat.resize(flat.len().max(at + data.len()), 0);
        flat[at..][..data.len()].copy_from_slice(data);
    }
    Ok(flat)
}

/// Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Code, constants (the model among them) and the initial values of variables.
    pub flash: u64,
    /// Variables, without the stack.
    pub ram: u64,
    /// The arena among them, without the flag that it is claimed.
    pub arena: u64,
}

impl Sizes {
    /// Reads the segments and the symbol `ARENA` of a linked image.
    ///
    /// # Errors
    /// If the file cannot be read, is no ELF file, or has not exactly one arena.
    pub fn of(image: &Path) -> Result<Sizes, Error> {
        let bytes = fs::read(image)?;
        let file = object::File::parse(&*bytes)?;
        let (mut flash, mut ram) = (0, 0);
        for segment in file.segments() {
            flash += segment.file_range().1;
            if let SegmentFlags::Elf { p_flags, .. } = segment.flags()
                && p_flags & PF_W == PF_W
            {
                ram += segment.size();
            }
        }
        let arenas: Vec<u64> = file
            .symbols()
            .filter(|symbol| symbol.name().is_ok_and(is_arena))
            .map(|symbol| symbol.size())
            .collect();
        let [arena] = arenas[..] else {
            return Err(format!(
                "{} has {} arenas instead of one",
                image.display(),
                arenas.len()
            )
            .into());
        };
        Ok(Sizes {
            flash,
            ram,
            arena: arena.saturating_sub(ALIGN as u64),
        })
    }
}

/// Returns true for the arena of an embedded model, in either of the compiler's ways to write
/// names.
fn is_arena(symbol: &str) -> bool {
    format!("{:#}", rustc_demangle::demangle(symbol)).ends_with("::ARENA")
}

#[cfg(test)]
mod tests {
    use super::is_arena;

    #[test]
    fn the_arena_is_found_however_names_are_written() {
        let v0 = "_RNvNtNtCs4fqI2P2rA04_17brooklet_cortex_m5model5MODEL5ARENA";
        let legacy = "_ZN17brooklet_cortex_m5model5MODEL5ARENA17h289b60cab7017f64E";
        assert!(is_arena(v0) && is_arena(legacy));
        for other in ["ARENA", "_ZN5model5MODEL6ARENAS17h289b60cab7017f64E"] {
            assert!(!is_arena(other), "{other}");
        }
    }
}

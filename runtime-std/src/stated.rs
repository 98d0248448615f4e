//! Facts that a file states in keys of this program's own: the sinks that a model was found to
//! need, and the errors of slim layers. Copies carry them, so that they run as their originals do.

use brooklet_core::cache::ElementType;
use brooklet_core::gguf::Gguf;

/// Key of the number of sinks, a `u32`.
pub const SINKS_KEY: &str = "brooklet.sinks";

/// Key of the error that was accepted when slim layers were made, an `f32`.
pub const ACCEPTED_KEY: &str = "brooklet.slim.accepted";

/// Keys of the errors of slim layers by the cache's element type, each an `f32`.
pub const ERROR_KEYS: [(ElementType, &str); 3] = [
    (ElementType::F32, "brooklet.slim.error.f32"),
    (ElementType::F16, "brooklet.slim.error.f16"),
    (ElementType::Q8_0, "brooklet.slim.error.q8_0"),
];

/// The sinks that the model needs, if the file says so.
pub fn sinks(file: &Gguf<'_>) -> Option<usize> {
    let sinks = file.get(SINKS_KEY)?.as_u64()?;
    // More than a model has tokens of context is refused when its arena is planned.
    usize::try_from(sinks).ok()
}

/// Errors of a slim file's layers, as they were measured when it was made: the largest of all
/// layers, relative to the attention output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlimErrors {
    /// By the cache's element type, in the order of [`ERROR_KEYS`].
    pub by_type: [f32; 3],
    /// The error that was accepted.
    pub accepted: f32,
}

impl SlimErrors {
    /// The errors that `file` states.
    pub fn of(file: &Gguf<'_>) -> Option<SlimErrors> {
        let number = |key| file.get(key)?.as_f32().filter(|number| *number >= 0.0);
        let mut by_type = [0.0; 3];
        for (error, (_, key)) in by_type.iter_mut().zip(ERROR_KEYS) {
            *error = number(key)?;
        }
        Some(SlimErrors {
            by_type,
            accepted: number(ACCEPTED_KEY)?,
        })
    }

    /// The error with a cache of that type.
    pub fn with(&self, cache_type: ElementType) -> f32 {
        let of = |(error, (of, _)): (f32, (ElementType, _))| (of == cache_type).then_some(error);
        let mut errors = self.by_type.into_iter().zip(ERROR_KEYS).filter_map(of);
        errors.next().unwrap_or(f32::INFINITY)
    }
}

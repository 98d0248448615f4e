//! Cargo features that code asks for in more than one place, each as a constant.

/// The families other than llama, and the steps that only these families take.
pub(crate) const FAMILIES: bool = cfg!(feature = "families");

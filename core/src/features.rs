//! The cargo features that code asks for in more than one place, each as a constant.

/// The families beside llama, and the steps that only they take.
pub(crate) const FAMILIES: bool = cfg!(feature = "families");

//! The runtime of brooklet for machines with an operating system.
pub use brooklet_core as core;

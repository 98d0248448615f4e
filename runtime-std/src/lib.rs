//! The runtime of brooklet for machines with an operating system.
#![warn(missing_docs)]

pub use brooklet_core as core;

pub mod mmap;
pub mod pool;

//! The runtime of brooklet for machines with an operating system.
#![warn(missing_docs)]

pub use brooklet_core as core;

pub mod manifest;
pub mod mmap;
pub mod pool;
pub mod pull;
pub mod store;

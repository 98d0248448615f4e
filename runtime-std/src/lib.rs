//! The runtime of brooklet for machines with an operating system.
#![warn(missing_docs)]

pub use brooklet_core as core;

pub mod cli;
pub mod engine;
mod error;
pub mod generate;
pub mod manifest;
pub mod memory;
pub mod mmap;
pub mod planning;
pub mod pool;
pub mod pull;
pub mod size;
pub mod store;
pub mod text;

pub use error::Error;

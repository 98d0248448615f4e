//! A model: what it is ([`Config`]), and its weights, borrowed from the file.

mod config;
mod error;
pub mod llama;
mod weights;

pub use config::{Config, Family};
pub use error::ModelError;
pub use weights::{Layer, Model, layers};

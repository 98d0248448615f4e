//! A model: what it is ([`Config`]), and its weights, borrowed from the file.

mod config;
mod error;
pub mod llama;
mod weights;

pub use config::{Config, Family, Layouts, MAX_SLIM_LAYERS};
pub use error::ModelError;
pub use llama::Visit;
pub use weights::{Layer, Model, SlimWeights, layers};

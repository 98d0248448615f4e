//! A model: what it is ([`Config`]), its weights, borrowed from the file ([`Model`]), and its forward pass.
//!
//! A family is a [`Design`], which says how layers are put together; the layers are written once for all of them.

mod attention;
mod config;
mod design;
mod error;
mod facts;
mod families;
mod feed_forward;
pub(crate) mod forward;
mod tensors;
mod weights;

pub use config::{Config, Layouts, LocalLayers, MAX_SLIM_LAYERS};
pub use design::{Design, FeedForward, NormKind, Norms, Positions, QueryKeyNorm};
pub use error::ModelError;
pub use families::Family;
pub use forward::Visit;
pub use weights::{Layer, Model, Norm, RopeFactors, SlimWeights, layers};

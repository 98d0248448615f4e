//! A model: its facts ([`Config`]) and its weights, borrowed from the file ([`Model`]).
//!
//! A family is a [`Design`], the structure of its layers; the blocks are written once for all
//! families.

mod blocks;
mod config;
mod design;
mod encoder;
mod error;
mod facts;
mod families;
mod names;
mod tensors;
mod unsupported;
mod weights;

pub use blocks::{Attention, CrossAttention, FeedForward, Layer, Linear, Norm, SlimWeights};
pub use config::{Config, Layouts, MAX_SLIM_LAYERS};
pub use design::{
    Design, FeedForwardKind, FusedGate, LayerKind, LayerKinds, NormKind, Norms, Positions,
    QueryKeyNorm,
};
pub(crate) use encoder::{Convolution, WIDTHS};
pub use encoder::{Encoder, EncoderConfig, EncoderInput, Stem};
pub use error::{LayerName, ModelError};
pub use families::Family;
pub use names::Naming;
pub use weights::{Model, RopeFactors, layers};

pub use crate::features::OfFamilies;

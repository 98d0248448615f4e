//! Qwen 2 and 2.5 (Yang et al., arXiv 2407.10671, section 2.2.1): Llama's layers with biases on
//! queries, keys and values; the two halves of a head are rotated together.

use super::llama;
use crate::model::design::{Design, Positions};
use crate::nn::rope::Pairs;

pub(super) const DESIGN: Design = Design {
    positions: Positions::Rotary(Pairs::Halves),
    ..llama::DESIGN
};

//! SmolLM3 (Hugging Face, 2025): Llama's layers, of which every fourth does not rotate its queries
//! and keys (NoPE, Kazemnejad et al., arXiv 2305.19466; the mixture is that of Yang et al., arXiv
//! 2501.18795).
//!
//! Files hold queries and keys as Llama's do, also in the layers that do not rotate them.

use super::llama;
use crate::model::Config;
use crate::model::design::{Design, LayerKind, LayerKinds};

pub(super) const DESIGN: Design = llama::DESIGN;

/// The last of every so many layers does not rotate. No metadata say so.
const PERIOD: usize = 4;

pub(super) const fn complete(mut config: Config) -> Config {
    let rotated = config.kinds.of(0);
    let plain = LayerKind {
        rotation: None,
        ..rotated
    };
    config.kinds = LayerKinds::alternating(plain, rotated, PERIOD);
    config
}

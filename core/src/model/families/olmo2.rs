//! OLMo 2 (OLMo Team, arXiv 2501.00656, section 3.1): Llama's layers, normed after each sublayer
//! and not before, with queries and keys normed over all heads.

use super::qwen2;
use crate::model::design::{Design, Norms, QueryKeyNorm};

pub(super) const DESIGN: Design = Design {
    norms: Norms::After,
    query_key_norm: QueryKeyNorm::AllHeads,
    ..qwen2::DESIGN
};

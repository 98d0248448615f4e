//! Qwen 3 (Yang et al., arXiv 2505.09388, section 2): Qwen 2 without the biases, and each head's
//! queries and keys normed before they are rotated.

use super::qwen2;
use crate::model::design::{Design, QueryKeyNorm};

pub(super) const DESIGN: Design = Design {
    query_key_norm: QueryKeyNorm::EachHead,
    ..qwen2::DESIGN
};

//! One layer's attention for some tokens: rotate, write to the cache, attend; the same code for decode and for a prefill chunk.
//!
//! One token is written to the ring and then attends to it. The tokens of a chunk go to a store of their own first, rounded as
//! they will be in the ring, since the ring still holds what the chunk's first tokens must see; each attends to the ring with the
//! slots of the chunk's earlier tokens replaced, and then the chunk is copied over.

pub(crate) mod geometry;
pub mod inputs;
pub(crate) mod kv;
pub(crate) mod reach;
pub(crate) mod slim;

/// Most ranges of tokens that attend as jobs of their own.
const MAX_RANGES: usize = 4;

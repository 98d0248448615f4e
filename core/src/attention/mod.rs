//! One layer's attention for the tokens of a pass, over any cache layout: prepare the tokens, write
//! them to the cache, attend, commit; the same code for decode and for a prefill chunk.
//!
//! One token is written to the ring and then attends to it. The tokens of a chunk go to a store of
//! their own first, rounded as they will be in the ring, since the ring still holds what the
//! chunk's first tokens must see; each attends to the ring with the slots of the chunk's earlier
//! tokens replaced, and then the chunk is copied over.
//!
//! - [`shape`]: the numbers of a layer's attention, and what each cache layout costs for them.
//! - `step`: preparing, writing, committing, and dividing the work into jobs, once for all layouts.
//! - `kv`: jobs over keys and values.
//! - `derived`: jobs over what values are computed from (layouts k+r and x).
//! - `geometry`: the runs of consecutive positions in a cache, for keys that are rotated as they
//!   are read.

pub(crate) mod derived;
pub(crate) mod geometry;
mod kv;
pub mod shape;
mod step;

pub use shape::Shape;
pub(crate) use step::{Attend, Caches, Step, Values};

#[cfg(test)]
mod tests;

//! One layer's attention for the tokens of a pass, over any cache layout: prepare the tokens, write
//! them to the cache, attend, commit. Decode and a prefill chunk use the same code.
//!
//! In decode, the token is written to the ring and then attends to it. The tokens of a chunk first
//! go to a store of their own, rounded as they will be in the ring, because the ring still holds
//! tokens that the chunk's first tokens must see. Each token attends to the ring with the slots of
//! the chunk's earlier tokens replaced. Then the chunk is copied to the ring.
//!
//! - [`shape`]: the numbers of a layer's attention, and the costs of each cache layout for them.
//! - `step`: preparing, writing, committing, and dividing the work into jobs, once for all layouts.
//! - `kv`: jobs over keys and values.
//! - `derived`: jobs over rows from which values are computed (layouts k+r and x).
//! - `whole`: every row of an encoder to all of its rows, in 8-bit integers.
//! - `geometry`: the runs of consecutive positions in a cache, for keys that are rotated when they
//!   are read.

pub(crate) mod derived;
pub(crate) mod geometry;
mod kv;
pub mod shape;
mod step;
pub(crate) mod whole;

pub use shape::Shape;
pub(crate) use step::{Attend, Caches, Step, Values, write_source};

#[cfg(test)]
mod tests;

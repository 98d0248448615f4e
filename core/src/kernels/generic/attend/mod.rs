//! Attention of a few query rows over cached keys and values: scores, softmax, weighted sum.
//!
//! # Memory layout
//!
//! A *store* holds up to `capacity` slots, one token each. Values are row-major, `[slot][column]`.
//! Keys are interleaved in tiles of [`TILE`] slots, `[tile][column][slot in tile]` (the last tile
//! is as wide as it has slots), so that the scores of a whole tile are sums of vectors over slots.
//! No horizontal sum is needed, and one load serves every query row. With 8-bit elements each slot
//! has an f16 scale per 32 columns of the concatenated row: `[tile][block][slot in tile]` for keys,
//! `[slot][block]` for values.
//!
//! # Two ways
//!
//! `kv_*` reads keys that are stored rotated, and values beside them. `derived_*` reads the columns
//! that values are derived from (layouts k+r and x). It rotates keys tile by tile if the model
//! rotates them, and sums columns over slots before they become values.
//!
//! # Order
//!
//! A score is the plain sum over columns in order (for 8-bit elements: over the columns of each
//! block in order, times the block's scale, then over blocks). The softmax's sum puts slot `s` in
//! partial sum `s mod 16`. The weighted sum runs over slots in order. Products and sums are never
//! fused. All of this order depends on slots only. A token therefore gets the same bits alone or in
//! a chunk, on any instruction set and any number of threads.

mod derived_pairs;
mod derived_scores;
mod derived_sums;
mod derived_values;
mod element;
mod kv;
mod kv_scores;
mod kv_values;
mod raw_keys;
mod tiles;

pub(crate) use derived_scores::RotatedScores;
pub(crate) use derived_sums::{SlotSums, Summed, TileWeights};
pub(crate) use derived_values::{Expand, Map};
pub use element::{ElementType, UnknownElementType};
pub(crate) use kv::{Attend, HIDDEN, Job, MAX_ROWS, Output, Row, ScoreBias, scratch_floats};
pub(crate) use raw_keys::RawKeys;
pub use raw_keys::{LaneAngles, Run};
pub use tiles::{Planes, Rows, SlotRun, Store, TILE, TileStore, Tiles};

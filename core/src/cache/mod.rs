//! The cache: the choice of kept tokens (policy, ring, reach), and the rows kept of them (layout,
//! planes).
//!
//! A slot holds one token. Token `t` (counted from the last reset) takes slot `t` while there are
//! empty slots. Then the window's slots are a ring: the oldest window token is overwritten, and the
//! sinks, the first slots, never are. So eviction moves no byte. Whole messages can be evicted at
//! once, again without moving a byte: the [`Ring`] knows where the kept tokens begin.
//! [`crate::kernels::attend`] defines the place of an element in a plane.
//!
//! - [`Policy`]: the choice of tokens to keep.
//! - [`Layout`]: the rows that a layer keeps of a token: keys and values, keys and rank-correction
//!   channels (slim attention, Graef and Wasielewski, arXiv 2503.05840), or inputs. [`CacheShape`]
//!   is its one description, from which bytes and carving follow.
//! - [`ElementType`]: f32, f16 or q8_0.
//! - [`Ring`]: the slot of each token. `Reach`: the ring and the rotary angles of the layers of one
//!   kind.
//! - `LayerCache`: one layer's cache. `CacheMemory`: all layers'. `Source`: the rows of an encoder.

mod layer;
mod layout;
mod memory;
mod planes;
mod policy;
mod reach;
mod ring;
mod source;

use core::ops::Range;

pub(crate) use layer::LayerCache;
pub use layout::{CacheShape, Columns, CrossLayout, Layout, LayoutChoice};
pub(crate) use memory::{CacheMemory, ChunkShape};
pub use planes::round;
pub use policy::{Policy, PolicyKind, UnknownName};
pub(crate) use reach::{MAX_REACHES, Reach, Reaches};
pub use ring::Ring;
pub(crate) use source::Source;

pub use crate::kernels::attend::ElementType;
use crate::kernels::attend::TILE;

/// Largest number of parts that a cache is cut into for several workers.
pub(crate) const MAX_CACHE_PARTS: usize = 8;

/// Cut of slots into parts for several workers to write to. Parts are whole tiles, and each is
/// again a cache, because tiles lie one after the other in every plane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// First slot of the first part.
    pub(crate) start: usize,
    /// Slot after the last part's last slot.
    pub(crate) end: usize,
    /// Slots of a part; the last may have fewer.
    pub(crate) each: usize,
}

impl Cut {
    /// Cuts slots `slots` of `capacity` into at most [`MAX_CACHE_PARTS`] parts of at least a tile.
    fn new(slots: Range<usize>, capacity: usize) -> Cut {
        let start = slots.start / TILE * TILE;
        let end = slots.end.next_multiple_of(TILE).min(capacity);
        let each = (end - start)
            .div_ceil(MAX_CACHE_PARTS)
            .next_multiple_of(TILE)
            .max(TILE);
        Cut { start, end, each }
    }

    /// Iterates over the parts, in order.
    fn parts(self) -> impl Iterator<Item = Range<usize>> {
        (self.start..self.end)
            .step_by(self.each)
            .map(move |start| start..self.end.min(start + self.each))
    }
}

//! The cache: tokens that are kept (policy, ring, reach), and what is kept of them (layout, planes).
//!
//! A slot holds one token. Token `t` (counted from the last reset) takes slot `t` while there are
//! empty ones; then the window's slots are a ring, so that the oldest window token is overwritten
//! and the sinks, the first slots, never are: eviction moves no byte. Whole messages can be evicted
//! at once, which moves none either: the [`Ring`] knows where the kept tokens begin. The place of an
//! element in a plane is [`crate::kernels::attend`]'s.
//!
//! - [`Policy`]: which tokens are kept.
//! - [`Layout`]: what a layer keeps of a token: keys and values, keys and rank-correction channels
//!   (slim attention, Graef and Wasielewski, arXiv 2503.05840), or inputs. [`CacheShape`] is its one
//!   description, from which bytes and carving follow.
//! - [`ElementType`]: f32, f16 or q8_0.
//! - [`Ring`]: which slot a token takes. `Reach`: the ring and the rotary angles of the layers of one
//!   kind.
//! - [`LayerCache`]: one layer's cache. `CacheMemory`: all layers'.

mod layer;
mod layout;
mod memory;
mod planes;
mod policy;
mod reach;
mod ring;

use core::ops::Range;

pub(crate) use layer::LayerCache;
pub use layout::{CacheShape, Columns, Layout, LayoutChoice};
pub(crate) use memory::{CacheMemory, ChunkShape};
pub use planes::round;
pub use policy::{Policy, PolicyKind, UnknownName};
pub(crate) use reach::{MAX_REACHES, Reach, Reaches};
pub use ring::Ring;

pub use crate::kernels::attend::ElementType;
use crate::kernels::attend::TILE;

/// Most parts that a cache is cut into for several workers.
pub(crate) const MAX_CACHE_PARTS: usize = 8;

/// How slots are cut into parts for several workers to write to: whole tiles, which are a cache like any other, since tiles lie
/// one after the other in every plane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// First slot of the first part.
    pub(crate) start: usize,
    /// Slot after the last part's.
    pub(crate) end: usize,
    /// Slots of a part; the last may have fewer.
    pub(crate) each: usize,
}

impl Cut {
    /// Slots `slots` of `capacity`, in parts of at least a tile, at most [`MAX_CACHE_PARTS`].
    fn new(slots: Range<usize>, capacity: usize) -> Cut {
        let start = slots.start / TILE * TILE;
        let end = slots.end.next_multiple_of(TILE).min(capacity);
        let each = (end - start)
            .div_ceil(MAX_CACHE_PARTS)
            .next_multiple_of(TILE)
            .max(TILE);
        Cut { start, end, each }
    }

    /// The parts, in order.
    fn parts(self) -> impl Iterator<Item = Range<usize>> {
        (self.start..self.end)
            .step_by(self.each)
            .map(move |start| start..self.end.min(start + self.each))
    }
}

//! Keys that are cached as they come from the projection, without rotation.

use core::ops::Range;

use super::tiles::{TILE, TileStore};
use crate::nn::rope::Pairs;
use crate::quant::F32;

/// Cosines and sines of one pair's angle at every place in a tile.
pub type LaneAngles = [[f32; TILE]; 2];

/// The keys of one head.
#[derive(Clone, Copy)]
pub(crate) struct RawKeys<'a> {
    /// Keys of all heads, with their mean subtracted.
    pub(crate) store: TileStore<'a>,
    /// First column of the head, and the number of its columns.
    pub(crate) head: (usize, usize),
    /// Mean that is added to each of the head's columns before rotation; empty for none.
    pub(crate) mean: &'a [F32],
    /// Pairing of the head's columns.
    pub(crate) pairs: Pairs,
    /// One entry per pair.
    pub(crate) lanes: &'a [LaneAngles],
}

/// Slots that hold tokens of consecutive positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The slots.
    pub slots: Range<usize>,
    /// Position of the token in the first of them.
    pub position: u64,
}

impl Run {
    /// Tiles that the slots are in.
    pub fn tiles(&self) -> Range<usize> {
        self.slots.start / TILE..self.slots.end.div_ceil(TILE)
    }

    /// Position of a (possibly hypothetical) token in the first slot of tile `tile`; it may wrap
    /// below 0.
    pub fn tile_position(&self, tile: usize) -> u64 {
        self.position
            .wrapping_sub(self.slots.start as u64)
            .wrapping_add((tile * TILE) as u64)
    }
}

//! The rows of an encoder, and what is kept of them for cross-attention.

use super::memory::carve;
use super::{CacheShape, LayerCache, Layout};

/// Memory of an encoder: its residual stream, the keys and values of one of its layers, and the
/// caches that the decoder's cross-attention reads. All of it is empty in models without an
/// encoder.
pub(crate) struct Source<'a> {
    /// `positions x d_model`: the encoder's residual stream.
    pub(crate) rows: &'a mut [f32],
    own: &'a mut [u8],
    cross: &'a mut [u8],
    len: usize,
}

impl<'a> Source<'a> {
    /// A source without rows.
    pub(crate) fn new(rows: &'a mut [f32], own: &'a mut [u8], cross: &'a mut [u8]) -> Self {
        // Slots without a row are multiplied by a weight of zero, so they must not hold NaN.
        own.fill(0);
        cross.fill(0);
        Source {
            rows,
            own,
            cross,
            len: 0,
        }
    }

    /// Number of rows that cross-attention reads; 0 before the first was encoded.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Sets the number of rows that cross-attention reads.
    pub(crate) fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    /// Returns the residual stream beside the keys and values of the encoder's layer that is
    /// computed, of shape `shape`.
    pub(crate) fn own(&mut self, shape: &CacheShape) -> (&mut [f32], LayerCache<'_>) {
        (self.rows, carve(shape, self.own))
    }

    /// As [`Source::own`], with the layer's memory as bytes.
    pub(crate) fn own_bytes(&mut self) -> (&mut [f32], &mut [u8]) {
        (self.rows, self.own)
    }

    /// Returns what cross-attention of the decoder's layer `layer` reads, of shape `shape`: in
    /// layout x it is the same for all layers.
    pub(crate) fn cross(&mut self, layer: usize, shape: &CacheShape) -> LayerCache<'_> {
        let start = match shape.layout {
            Layout::X => 0,
            Layout::Kv | Layout::KR { .. } => layer * shape.bytes(),
        };
        carve(shape, &mut self.cross[start..])
    }
}

//! The caches of all layers in one buffer.

use super::{CacheShape, LayerCache, Source};
use crate::arena::Carver;

/// Caches of all layers, one after the other, and the memory of a chunk, which layers use in turn.
///
/// The places of the layers are computed once, when a stream starts.
pub(crate) struct CacheMemory<'a> {
    layers: &'a mut [u8],
    /// First byte of every layer's cache.
    starts: &'a mut [usize],
    chunk: &'a mut [u8],
    /// Rows of an encoder.
    pub(crate) source: Source<'a>,
}

impl<'a> CacheMemory<'a> {
    /// Computes the places of `starts.len()` layers, of the shapes `shape`, in `layers`.
    pub(crate) fn new(
        layers: &'a mut [u8],
        starts: &'a mut [usize],
        chunk: &'a mut [u8],
        source: Source<'a>,
        shape: impl Fn(usize) -> CacheShape,
    ) -> Self {
        let mut at = 0;
        for (layer, start) in starts.iter_mut().enumerate() {
            *start = at;
            at += shape(layer).bytes();
        }
        CacheMemory {
            layers,
            starts,
            chunk,
            source,
        }
    }

    /// Fills the caches of all layers with zeros.
    pub(crate) fn clear(&mut self) {
        self.layers.fill(0);
    }

    /// Returns the cache of layer `layer`, of shape `shape`, and the cache of a chunk if `chunk` is
    /// given.
    pub(crate) fn layer(
        &mut self,
        layer: usize,
        shape: &CacheShape,
        chunk: Option<ChunkShape>,
    ) -> (LayerCache<'_>, Option<LayerCache<'_>>) {
        let memory = &mut self.layers[self.starts[layer]..];
        let chunk = chunk.map(|chunk| {
            if shape.layout.derives_values() {
                // Lanes past the tokens are multiplied by a weight of zero, so they must not hold
                // NaN.
                self.chunk.fill(0);
            }
            let shape = CacheShape {
                slots: if shape.layout.derives_values() {
                    chunk.most
                } else {
                    chunk.tokens
                },
                exact_sinks: 0,
                ..*shape
            };
            carve(&shape, self.chunk)
        });
        (carve(shape, memory), chunk)
    }
}

/// Sizes of a chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkShape {
    /// Number of tokens of this chunk.
    pub(crate) tokens: usize,
    /// Largest number of tokens in any chunk: the slots of a cache from which values are computed,
    /// whose scratch has a place for each of them.
    pub(crate) most: usize,
}

pub(super) fn carve<'m>(shape: &CacheShape, memory: &'m mut [u8]) -> LayerCache<'m> {
    match Carver::new(memory).and_then(|mut carver| shape.carve(&mut carver)) {
        Some(cache) => cache,
        None => unreachable!("the plan gives every layer the bytes of its cache"),
    }
}

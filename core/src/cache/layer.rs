//! The cache of one layer, in any layout.

use core::ops::Range;

use super::planes::{Plane, finite};
use super::{Cut, MAX_CACHE_PARTS};
use crate::kernels::Isa;
use crate::kernels::attend::{Store, TileStore};

/// One layer's cache: the plane that queries are multiplied with (keys or inputs), the plane beside
/// it (values or rank-correction channels), and the values of the first sinks.
pub(crate) struct LayerCache<'a> {
    first: Plane<'a>,
    beside: Option<Plane<'a>>,
    sink_values: &'a mut [f32],
}

impl<'a> LayerCache<'a> {
    pub(super) fn new(
        first: Plane<'a>,
        beside: Option<Plane<'a>>,
        sink_values: &'a mut [f32],
    ) -> Self {
        LayerCache {
            first,
            beside,
            sink_values,
        }
    }

    /// Cuts slots `slots` into separate caches, so that several workers can write to them. The
    /// parts have no sink values.
    pub(crate) fn parts(
        &mut self,
        slots: Range<usize>,
    ) -> (heapless::Vec<LayerCache<'_>, MAX_CACHE_PARTS>, Cut) {
        let cut = Cut::new(slots, self.first.capacity());
        let mut first = self.first.cutter();
        let mut beside = self.beside.as_mut().map(Plane::cutter);
        let part = |slots: Range<usize>| LayerCache {
            first: first.part(slots.clone()),
            beside: beside.as_mut().map(|beside| beside.part(slots)),
            sink_values: &mut [],
        };
        (cut.parts().map(part).collect(), cut)
    }

    /// Number of slots.
    pub(crate) fn capacity(&self) -> usize {
        self.first.capacity()
    }

    /// Returns keys and values together, to attend to, of a cache in layout kv.
    ///
    /// # Panics
    /// If the cache has another layout.
    pub(crate) fn keys_and_values(&self) -> Store<'_> {
        match &self.beside {
            Some(values) => Plane::store(&self.first, values),
            None => unreachable!("layout kv has two planes"),
        }
    }

    /// Returns the planes in tiles, to attend to, of a cache from which values are computed.
    ///
    /// # Panics
    /// In debug builds, if the cache is in layout kv.
    pub(crate) fn tiles(&self) -> (TileStore<'_>, Option<TileStore<'_>>) {
        (self.first.tiles(), self.beside.as_ref().map(Plane::tiles))
    }

    /// Values of the first sinks, row after row.
    pub(crate) fn sink_values(&self) -> &[f32] {
        self.sink_values
    }

    /// Writes the value of sink `slot`.
    ///
    /// # Panics
    /// If it is not one of the first sinks, or the row is not as wide as the cache.
    pub(crate) fn write_sink_value(&mut self, slot: usize, value: &[f32]) {
        let kept = &mut self.sink_values[slot * value.len()..][..value.len()];
        for (kept, x) in kept.iter_mut().zip(value) {
            *kept = finite(*x);
        }
    }

    /// Rounds a token's rows to their planes' element types and writes them to `slot`.
    ///
    /// # Panics
    /// If there is no such slot, or the rows are not as wide as their planes.
    pub(crate) fn write(&mut self, isa: Isa, slot: usize, first: &[f32], beside: &[f32]) {
        self.first.write(isa, slot, first);
        if let Some(plane) = &mut self.beside {
            plane.write(isa, slot, beside);
        }
    }

    /// Copies a token of another cache of the same shape unchanged, so that committing a prefill
    /// chunk changes no bit.
    ///
    /// # Panics
    /// If there is no such slot, or types or columns differ.
    pub(crate) fn copy(&mut self, to: usize, other: &LayerCache<'_>, from: usize) {
        self.first.copy(to, &other.first, from);
        if let (Some(plane), Some(other)) = (&mut self.beside, &other.beside) {
            plane.copy(to, other, from);
        }
    }
}

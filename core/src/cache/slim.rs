//! The layout k+r of slim attention: keys before rotation, a few further channels, and the values of the first sinks. With inputs in
//! place of keys it is the layouts x and e ([`crate::attention::inputs`]).

use core::ops::Range;

use super::planes::{Order, Plane, finite};
use super::{Cut, MAX_CACHE_PARTS};
use crate::arena::Carver;
use crate::kernels::Isa;
use crate::kernels::attend::TileStore;
use crate::plan::CacheType;

/// Keys (not rotated, without their mean) or inputs, and further channels of one layer, mutable.
pub struct SlimCache<'a> {
    keys: Plane<'a>,
    channels: Option<Plane<'a>>,
    sink_values: &'a mut [f32],
}

/// How large a [`SlimCache`] is.
#[derive(Clone, Copy, Debug)]
pub struct SlimShape {
    /// Element type of the keys.
    pub cache_type: CacheType,
    /// Slots.
    pub capacity: usize,
    /// Columns of all key heads together; of an input, where inputs are cached.
    pub columns: usize,
    /// Columns of all value heads together.
    pub value_columns: usize,
    /// Further channels; 0 for the plain form of slim attention.
    pub rank: usize,
    /// First sinks, whose values are kept as they are.
    pub exact_sinks: usize,
}

impl<'a> SlimCache<'a> {
    /// Views `memory` (aligned, of the planned size) as a cache; `None` if it is too short.
    pub fn carve(memory: &'a mut [u8], shape: SlimShape) -> Option<Self> {
        let SlimShape {
            cache_type,
            capacity,
            columns,
            value_columns,
            rank,
            exact_sinks,
        } = shape;
        let mut carver = Carver::new(memory)?;
        let mut plane = |cache_type: CacheType, columns| {
            Plane::carve(&mut carver, cache_type, Order::Interleaved, capacity, columns)
        };
        let keys = plane(cache_type, columns)?;
        let channels = if rank > 0 {
            Some(plane(cache_type.of_channels(), rank)?)
        } else {
            None
        };
        Some(SlimCache {
            keys,
            channels,
            sink_values: carver.take(exact_sinks * value_columns)?,
        })
    }

    /// As [`super::KvCache::parts`]; the parts have no sinks.
    pub(crate) fn parts(
        &mut self,
        slots: Range<usize>,
    ) -> (heapless::Vec<SlimCache<'_>, MAX_CACHE_PARTS>, Cut) {
        let cut = Cut::new(slots, self.keys.capacity());
        let mut keys = self.keys.cutter();
        let mut channels = self.channels.as_mut().map(Plane::cutter);
        let part = |slots: Range<usize>| SlimCache {
            keys: keys.part(slots.clone()),
            channels: channels.as_mut().map(|channels| channels.part(slots)),
            sink_values: &mut [],
        };
        (cut.parts().map(part).collect(), cut)
    }

    /// Slots.
    pub fn capacity(&self) -> usize {
        self.keys.capacity()
    }

    /// Keys and channels, to attend to.
    pub fn stores(&self) -> (TileStore<'_>, Option<TileStore<'_>>) {
        (self.keys.tiles(), self.channels.as_ref().map(Plane::tiles))
    }

    /// Values of the first sinks, row after row.
    pub fn sink_values(&self) -> &[f32] {
        self.sink_values
    }

    /// The value of sink `slot`.
    ///
    /// # Panics
    /// If it is not one of the first sinks, or the row is not as wide as the cache.
    pub fn write_sink_value(&mut self, slot: usize, value: &[f32]) {
        let kept = &mut self.sink_values[slot * value.len()..][..value.len()];
        kept.iter_mut()
            .zip(value)
            .for_each(|(kept, x)| *kept = finite(*x));
    }

    /// Rounds a token's key (without its mean) and channels to their element types and writes them to `slot`.
    ///
    /// # Panics
    /// If there is no such slot, or the rows are not as wide as the cache.
    pub fn write(&mut self, isa: Isa, slot: usize, key: &[f32], channels: &[f32]) {
        self.keys.write(isa, slot, key);
        if let Some(plane) = &mut self.channels {
            plane.write(isa, slot, channels);
        }
    }

    /// Copies a token of another cache of the same shape, as it is.
    ///
    /// # Panics
    /// If there is no such slot, or types or columns differ.
    pub fn copy(&mut self, to: usize, other: &SlimCache<'_>, from: usize) {
        self.keys.copy(to, &other.keys, from);
        if let (Some(plane), Some(other)) = (&mut self.channels, &other.channels) {
            plane.copy(to, other, from);
        }
    }
}

//! The layout kv: a key and a value for every slot.

use core::ops::Range;

use super::planes::{Order, Plane};
use super::{Cut, MAX_CACHE_PARTS};
use crate::arena::Carver;
use crate::kernels::Isa;
use crate::kernels::attend::Store;
use crate::plan::CacheType;

/// Keys (rotated) and values of one layer, mutable.
pub struct KvCache<'a> {
    keys: Plane<'a>,
    values: Plane<'a>,
}

impl<'a> KvCache<'a> {
    /// Views `memory` (aligned, of the planned size) as `capacity` slots of `columns` key and as many value columns; `None` if it
    /// is too short.
    pub fn carve(
        memory: &'a mut [u8],
        cache_type: CacheType,
        capacity: usize,
        columns: usize,
    ) -> Option<Self> {
        let mut carver = Carver::new(memory)?;
        let mut plane = |order| Plane::carve(&mut carver, cache_type, order, capacity, columns);
        Some(KvCache {
            keys: plane(Order::Interleaved)?,
            values: plane(Order::Rows)?,
        })
    }

    /// Slots `slots` in parts, caches of their own, for as many workers to write to.
    pub(crate) fn parts(
        &mut self,
        slots: Range<usize>,
    ) -> (heapless::Vec<KvCache<'_>, MAX_CACHE_PARTS>, Cut) {
        let cut = Cut::new(slots, self.keys.capacity());
        let (mut keys, mut values) = (self.keys.cutter(), self.values.cutter());
        let part = |slots: Range<usize>| KvCache {
            keys: keys.part(slots.clone()),
            values: values.part(slots),
        };
        (cut.parts().map(part).collect(), cut)
    }

    /// The same memory, to attend to.
    pub fn store(&self) -> Store<'_> {
        Plane::store(&self.keys, &self.values)
    }

    /// Rounds a token's key and value (already rotated, all heads) to the element type and writes them to `slot`.
    ///
    /// # Panics
    /// If there is no such slot, or the rows are not as wide as the cache.
    pub fn write(&mut self, isa: Isa, slot: usize, key: &[f32], value: &[f32]) {
        self.keys.write(isa, slot, key);
        self.values.write(isa, slot, value);
    }

    /// Copies a token of another cache of the same shape, as it is: committing a prefill chunk changes no bit.
    ///
    /// # Panics
    /// If there is no such slot, or types or columns differ.
    pub fn copy(&mut self, to: usize, other: &KvCache<'_>, from: usize) {
        self.keys.copy(to, &other.keys, from);
        self.values.copy(to, &other.values, from);
    }
}

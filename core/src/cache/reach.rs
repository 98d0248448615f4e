//! The reach of a kind of layer: which tokens its cache keeps, and the rotary angles of the tokens
//! of a pass.
//!
//! Most models have one kind. Some have two: layers that attend to all that is kept, and layers that were trained with a local window
//! and a rotary base of their own, which keep only that.

use super::{Policy, Ring};
use crate::nn::rope;

/// The tokens that layers of one kind keep, and angles.
pub(crate) struct Reach<'a> {
    /// Which slots tokens take.
    pub(crate) ring: Ring,
    /// Turns per position of each pair, in units of 2^-64 turn.
    pub(crate) frequencies: &'a mut [u64],
    /// `tokens x pairs`: angles at absolute positions.
    pub(crate) angles: &'a mut [[f32; 2]],
    /// The same at positions within the cache; empty if there can be no sinks.
    pub(crate) sink_angles: &'a mut [[f32; 2]],
    /// The local window, if that is the kind.
    local: Option<usize>,
}

/// Most kinds of layers of a model.
pub(crate) const MAX_REACHES: usize = 2;

/// The reaches of a model's kinds of layers.
pub(crate) struct Reaches<'a> {
    kinds: [Option<Reach<'a>>; MAX_REACHES],
}

impl<'a> Reaches<'a> {
    /// The reaches that `of_kind` makes of kinds `0..count`.
    pub(crate) fn new(count: usize, mut of_kind: impl FnMut(usize) -> Reach<'a>) -> Self {
        Reaches {
            kinds: core::array::from_fn(|kind| (kind < count).then(|| of_kind(kind))),
        }
    }

    /// The reach of kind `kind`.
    ///
    /// # Panics
    /// If there is no such kind.
    pub(crate) fn of(&self, kind: usize) -> &Reach<'a> {
        match &self.kinds[kind] {
            Some(reach) => reach,
            None => unreachable!("layers have kinds that there are"),
        }
    }

    /// All reaches.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Reach<'a>> {
        self.kinds.iter().flatten()
    }

    /// All reaches, mutable.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Reach<'a>> {
        self.kinds.iter_mut().flatten()
    }
}

impl<'a> Reach<'a> {
    /// An empty one; every slice is as long as the plan has it.
    pub(crate) fn new(
        policy: Policy,
        local: Option<usize>,
        frequencies: &'a mut [u64],
        angles: &'a mut [[f32; 2]],
        sink_angles: &'a mut [[f32; 2]],
    ) -> Self {
        let mut reach = Reach {
            ring: Ring::new(0, 0),
            frequencies,
            angles,
            sink_angles,
            local,
        };
        reach.reset(policy);
        reach
    }

    /// Forgets all tokens.
    pub(crate) fn reset(&mut self, policy: Policy) {
        let (sinks, window) = policy.slots(self.local);
        self.ring = Ring::new(sinks, window);
    }

    /// Fills the angles of the next `tokens` tokens. What they are multiplied with is 1 but for LongRoPE.
    pub(crate) fn turn(&mut self, tokens: usize, magnitude: f32) {
        let pairs = self.frequencies.len();
        for index in 0..tokens {
            let position = self.ring.position() + index as u64;
            let row = index * pairs..(index + 1) * pairs;
            rope::angles(self.frequencies, position, &mut self.angles[row.clone()]);
            if self.ring.sinks() > 0 {
                let within = self.ring.cache_position(position);
                rope::angles(self.frequencies, within, &mut self.sink_angles[row]);
            }
        }
        if magnitude != 1.0 {
            let sinks = if self.ring.sinks() > 0 { tokens * pairs } else { 0 };
            let angles = self.angles[..tokens * pairs].iter_mut();
            for [cos, sin] in angles.chain(&mut self.sink_angles[..sinks]) {
                (*cos, *sin) = (*cos * magnitude, *sin * magnitude);
            }
        }
    }

    /// Evicts what lies before absolute position `start` from the window.
    pub(crate) fn evict_before(&mut self, start: u64) {
        let tokens = start.saturating_sub(self.ring.window_start());
        self.ring.evict(usize::try_from(tokens).unwrap_or(usize::MAX));
    }

    /// Makes sinks of the first tokens of a cache whose other layers now keep `window` beside theirs: as many as a local window leaves
    /// room for, if they are still there.
    pub(crate) fn pin(&mut self, window: usize) {
        let Some(local) = self.local else {
            self.ring.pin(self.ring.position() as usize);
            return;
        };
        let room = local.min(self.ring.capacity()).saturating_sub(window);
        let pinned = (self.ring.position().min(room as u64)) as usize;
        if self.ring.position() < self.ring.capacity() as u64 && pinned > self.ring.sinks() {
            self.ring.pin(pinned);
        }
    }
}

//! Visible cache range per kind of layer: the tokens that its cache keeps, and the rotary angles of
//! the tokens of a pass.
//!
//! Most models have one kind of layer. Some have two: layers that attend to all kept tokens, and
//! layers that were trained with a local window and their own rotary base, which keep only that
//! window.

use super::{Policy, Ring};
use crate::nn::rope;

/// The tokens that layers of one kind keep, and angles.
pub(crate) struct Reach<'a> {
    /// Ring of the tokens' slots.
    pub(crate) ring: Ring,
    /// Turns per position of each pair, in units of 2^-64 turn.
    pub(crate) frequencies: &'a mut [u64],
    /// `tokens x pairs`: angles at absolute positions.
    pub(crate) angles: &'a mut [[f32; 2]],
    /// Angles at positions within the cache, in the same shape; empty if there can be no sinks.
    pub(crate) sink_angles: &'a mut [[f32; 2]],
    /// Local window of the kind; `None` for layers that attend to all kept tokens.
    local: Option<usize>,
}

/// Largest number of layer kinds in a model.
pub(crate) const MAX_REACHES: usize = 2;

/// The reaches of all layer kinds of a model.
pub(crate) struct Reaches<'a> {
    kinds: [Option<Reach<'a>>; MAX_REACHES],
}

impl<'a> Reaches<'a> {
    /// Creates the reaches of kinds `0..count` with `of_kind`.
    pub(crate) fn new(count: usize, mut of_kind: impl FnMut(usize) -> Reach<'a>) -> Self {
        Reaches {
            kinds: core::array::from_fn(|kind| (kind < count).then(|| of_kind(kind))),
        }
    }

    /// Reach of kind `kind`.
    ///
    /// # Panics
    /// If there is no such kind.
    pub(crate) fn of(&self, kind: usize) -> &Reach<'a> {
        match &self.kinds[kind] {
            Some(reach) => reach,
            None => unreachable!("layers have kinds that there are"),
        }
    }

    /// Iterates over all reaches.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Reach<'a>> {
        self.kinds.iter().flatten()
    }

    /// Iterates over all reaches, mutably.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Reach<'a>> {
        self.kinds.iter_mut().flatten()
    }
}

impl<'a> Reach<'a> {
    /// Creates an empty reach; every slice has its planned length.
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

    /// Fills the angles of the next `tokens` tokens. `magnitude` multiplies cosines and sines; it
    /// is 1 except for LongRoPE.
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
            let sinks = if self.ring.sinks() > 0 {
                tokens * pairs
            } else {
                0
            };
            let angles = self.angles[..tokens * pairs].iter_mut();
            for [cos, sin] in angles.chain(&mut self.sink_angles[..sinks]) {
                (*cos, *sin) = (*cos * magnitude, *sin * magnitude);
            }
        }
    }

    /// Evicts the window's tokens before absolute position `start`.
    pub(crate) fn evict_before(&mut self, start: u64) {
        let tokens = start.saturating_sub(self.ring.window_start());
        self.ring
            .evict(usize::try_from(tokens).unwrap_or(usize::MAX));
    }

    /// Turns the first tokens into sinks, in a model whose other layers now keep `window` tokens
    /// besides theirs: as many as a local window leaves room for, if those tokens are still in the
    /// cache.
    pub(crate) fn pin(&mut self, window: usize) {
        let Some(local) = self.local else {
            self.ring.pin(self.ring.position() as usize);
            return;
        };
        let room = local.min(self.ring.capacity()).saturating_sub(window);
        let pinned = (self.ring.position().min(room as u64)) as usize;
        // Fewer sinks than before leave the other layers a larger window, and these none to spare.
        if self.ring.position() < self.ring.capacity() as u64 {
            self.ring.pin(pinned);
        }
    }
}

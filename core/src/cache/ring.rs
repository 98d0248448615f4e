//! Slots of tokens in a cache.

use core::ops::Range;

use crate::kernels::attend::SlotRun;

/// The slots of tokens, and the kept tokens: the sinks, and all from [`Ring::window_start`] on.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    sinks: usize,
    capacity: usize,
    position: u64,
    start: u64,
}

impl Ring {
    /// An empty ring of `sinks + window` slots.
    pub(crate) const fn new(sinks: usize, window: usize) -> Ring {
        Ring {
            sinks,
            capacity: sinks + window,
            position: 0,
            start: sinks as u64,
        }
    }

    /// A ring that is full with `tokens` tokens, all of which every query sees: the rows of an
    /// encoder. Nothing is written to it.
    pub(crate) const fn whole(tokens: usize) -> Ring {
        Ring {
            sinks: 0,
            capacity: tokens,
            position: tokens as u64,
            start: 0,
        }
    }

    /// Number of slots, including the sinks'.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Number of slots that are never overwritten.
    pub const fn sinks(&self) -> usize {
        self.sinks
    }

    /// Number of tokens since the last reset: the absolute position of the next one.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Absolute position of the oldest kept token of the window; that of the next token if the
    /// window is empty.
    pub const fn window_start(&self) -> u64 {
        self.start
    }

    /// Number of kept tokens.
    pub const fn live(&self) -> usize {
        if self.position < self.sinks as u64 {
            self.position as usize
        } else {
            self.sinks + (self.position - self.start) as usize
        }
    }

    /// Slots that hold a token, kept or evicted, once `more` further tokens are in.
    pub(crate) const fn used_after(&self, more: usize) -> usize {
        let seen = self.position.saturating_add(more as u64);
        if seen < self.capacity as u64 {
            seen as usize
        } else {
            self.capacity
        }
    }

    /// Slot of the token at absolute position `position`.
    pub const fn slot(&self, position: u64) -> usize {
        if position < self.capacity as u64 {
            return position as usize;
        }
        self.sinks + ((position - self.sinks as u64) % self.window() as u64) as usize
    }

    const fn window(&self) -> usize {
        self.capacity - self.sinks
    }

    /// Position of the oldest window token for which there is room when the token at `position` is
    /// the newest.
    const fn oldest_with_room(&self, position: u64) -> u64 {
        let oldest = (position + 1).saturating_sub(self.window() as u64);
        if oldest > self.sinks as u64 {
            oldest
        } else {
            self.sinks as u64
        }
    }

    /// Index of the token at `position` in the sequence of kept tokens (sinks, then window) when it
    /// is the newest: the first paper calls these positions within the cache.
    pub(crate) const fn cache_position(&self, position: u64) -> u64 {
        if position < self.sinks as u64 {
            return position;
        }
        let oldest = self.oldest_with_room(position);
        let start = if self.start > oldest {
            self.start
        } else {
            oldest
        };
        self.sinks as u64 + (position - start)
    }

    /// Runs of the slots whose tokens the query at `position` sees, each with the distance within
    /// the cache of its first token. From slot to slot the distance falls by 1.
    pub(crate) fn distances(&self, position: u64) -> [(Range<usize>, usize); 3] {
        let newest = self.cache_position(position) as usize;
        let sinks = self.sinks.min(newest + 1);
        let window = newest + 1 - sinks;
        let oldest = self.run(position + 1 - window as u64);
        let [wrapped, straight] = oldest.runs(window).map(|(slots, index)| {
            // An empty run may begin behind the newest token.
            (slots, window.saturating_sub(index + 1))
        });
        [(0..sinks, newest), wrapped, straight]
    }

    /// The slots that the next tokens will take.
    pub(crate) const fn chunk_slots(&self) -> SlotRun {
        self.run(self.position)
    }

    /// Slots of evicted tokens that none has overwritten when the token at `position` is the
    /// newest: where they begin, and how many.
    pub(crate) const fn evicted_slots(&self, position: u64) -> (SlotRun, usize) {
        let oldest = self.oldest_with_room(position);
        (self.run(oldest), self.start.saturating_sub(oldest) as usize)
    }

    const fn run(&self, position: u64) -> SlotRun {
        SlotRun {
            first: self.slot(position),
            wrap_to: self.sinks,
            capacity: self.capacity,
        }
    }

    /// Counts `tokens` tokens as written.
    pub(crate) const fn advance(&mut self, tokens: usize) {
        self.position += tokens as u64;
        if self.position > 0 {
            let oldest = self.oldest_with_room(self.position - 1);
            if oldest > self.start {
                self.start = oldest;
            }
        }
    }

    /// Evicts the `tokens` oldest tokens of the window, or as many as there are; returns how many.
    /// Their slots are taken in turn.
    pub(crate) const fn evict(&mut self, tokens: usize) -> usize {
        let window = self.position.saturating_sub(self.start);
        let evicted = if (tokens as u64) < window {
            tokens as u64
        } else {
            window
        };
        self.start += evicted;
        evicted as usize
    }

    /// Makes the first `tokens` tokens the sinks, be they more or fewer than before.
    ///
    /// # Panics
    /// If they have not been fed, a token was evicted, or no slot would be left for a window.
    pub(crate) const fn pin(&mut self, tokens: usize) {
        assert!(tokens as u64 <= self.position && tokens < self.capacity);
        assert!(self.start == self.sinks as u64 && self.position <= self.capacity as u64);
        self.sinks = tokens;
        self.start = tokens as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_keeps_sinks_and_overwrites_the_oldest() {
        let ring = Ring::new(2, 3);
        let slots: std::vec::Vec<usize> = (0..12).map(|t| ring.slot(t)).collect();
        assert_eq!(slots, [0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4, 2]);
        assert_eq!(ring.cache_position(4), 4);
        assert_eq!(ring.cache_position(1 << 40), 4);
    }

    #[test]
    fn distances_are_those_within_the_cache() {
        let ring = Ring::new(2, 3);
        assert_eq!(ring.distances(0)[0], (0..1, 0));
        assert_eq!(ring.distances(1)[0], (0..2, 1));
        let of = |position| {
            ring.distances(position)
                .map(|(slots, first)| (slots, first))
        };
        assert_eq!(of(4), [(0..2, 4), (2..2, 0), (2..5, 2)]);
        // Slots 2, 3, 4 hold the tokens 8, 9, 7.
        assert_eq!(of(9), [(0..2, 4), (2..4, 1), (4..5, 2)]);
    }

    #[test]
    fn every_query_sees_all_of_a_whole_ring() {
        let ring = Ring::whole(7);
        for query in 0..20 {
            assert_eq!(ring.used_after(query), 7);
            assert_eq!(ring.evicted_slots(ring.position() + query as u64).1, 0);
        }
        assert_eq!(ring.live(), 7);
    }

    /// The ring against a list of (position, slot) that the test keeps.
    #[test]
    fn evicting_and_pinning_keep_the_books() {
        for (sinks, window, pinned) in [(0, 5, 0), (2, 7, 2), (1, 9, 4)] {
            let mut ring = Ring::new(sinks, window);
            let capacity = sinks + window;
            let mut slots: std::vec::Vec<Option<u64>> = std::vec![None; capacity];
            for position in 0..pinned as u64 {
                slots[ring.slot(position)] = Some(position);
                ring.advance(1);
            }
            ring.pin(pinned);
            let mut kept: std::vec::Vec<u64> = std::vec![];
            for position in pinned as u64..200 {
                if position % 7 == 3 {
                    let asked = (position % 5) as usize;
                    let evicted = ring.evict(asked);
                    assert_eq!(evicted, asked.min(kept.len()));
                    kept.drain(..evicted);
                }
                if kept.len() == capacity - pinned {
                    kept.remove(0);
                }
                kept.push(position);
                assert_eq!(
                    ring.cache_position(position),
                    (pinned + kept.len() - 1) as u64
                );
                slots[ring.slot(position)] = Some(position);
                let of_slots = &slots[..ring.used_after(1)];
                let mut distances = std::vec![None; of_slots.len()];
                for (run, first) in ring.distances(position) {
                    for (index, slot) in run.enumerate() {
                        assert_eq!(distances[slot].replace(first - index), None);
                    }
                }
                for (of, distance) in of_slots.iter().zip(distances) {
                    let index = if of.unwrap() < pinned as u64 {
                        Some(of.unwrap() as usize)
                    } else {
                        let of_window = kept.iter().position(|kept| Some(*kept) == *of);
                        of_window.map(|index| pinned + index)
                    };
                    let newest = pinned + kept.len() - 1;
                    assert_eq!(distance, index.map(|index| newest - index));
                }
                let (run, len) = ring.evicted_slots(position);
                let dead: std::vec::Vec<usize> = (0..len).map(|i| run.slot(i)).collect();
                for (slot, of) in slots[..ring.used_after(1)].iter().enumerate() {
                    let of = of.unwrap();
                    let live = of < pinned as u64 || kept.contains(&of);
                    assert_eq!(dead.contains(&slot), !live, "slot {slot} at {position}");
                }
                ring.advance(1);
                assert_eq!(ring.live(), pinned + kept.len());
                assert_eq!(ring.window_start(), kept[0]);
            }
        }
    }
}

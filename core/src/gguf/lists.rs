//! Ends of the longest lists of strings, so that a look-up of a key need not read them again.

use super::value::{ARRAY, ARRAY_HEADER};

/// Number of lists whose ends are kept. A tokenizer has two long ones: its tokens and its merges.
const KEPT: usize = 4;

/// Places of the longest metadata arrays whose elements have no fixed size.
#[derive(Clone, Copy)]
pub(super) struct Lists {
    /// Start of the first element, and end of the last; 0 and 0 for none.
    places: [(usize, usize); KEPT],
}

impl Lists {
    /// Knows no list.
    pub(super) const fn new() -> Self {
        Lists {
            places: [(0, 0); KEPT],
        }
    }

    /// Notes a list that is not noted yet, in the place of the shortest one if that is shorter.
    pub(super) const fn note(&mut self, start: usize, end: usize) {
        let mut shortest = 0;
        let mut i = 0;
        while i < KEPT {
            if self.places[i].0 == start {
                return;
            }
            if self.bytes(i) < self.bytes(shortest) {
                shortest = i;
            }
            i += 1;
        }
        if end - start > self.bytes(shortest) {
            self.places[shortest] = (start, end);
        }
    }

    /// Returns the end of the value of type `value_type` at `pos`, if that is a list whose end was
    /// noted.
    pub(super) const fn end(&self, pos: usize, value_type: u32) -> Option<usize> {
        if value_type != ARRAY {
            return None;
        }
        let mut i = 0;
        while i < KEPT {
            let (start, end) = self.places[i];
            if end > start && start - ARRAY_HEADER == pos {
                return Some(end);
            }
            i += 1;
        }
        None
    }

    const fn bytes(&self, i: usize) -> usize {
        self.places[i].1 - self.places[i].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_are_kept() {
        let mut lists = Lists::new();
        let lens = [30, 10, 0, 50, 20, 40, 5];
        let at = |i: usize| 100 * (i + 1);
        for (i, len) in lens.into_iter().enumerate() {
            lists.note(at(i), at(i) + len);
        }
        for (i, len) in lens.into_iter().enumerate() {
            let kept = (len >= 20).then_some(at(i) + len);
            assert_eq!(lists.end(at(i) - ARRAY_HEADER, ARRAY), kept, "{len}");
            assert_eq!(lists.end(at(i) - ARRAY_HEADER, 8), None);
            assert_eq!(lists.end(at(i), ARRAY), None);
        }
    }
}

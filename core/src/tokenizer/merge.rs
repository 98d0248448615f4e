//! Merging of neighbouring symbols until no pair may be merged: the common part of byte-level BPE
//! and SentencePiece, which differ only in the priority of a pair.
//!
//! Method: the lowest priority wins, the leftmost pair among equals. A tournament tree over the
//! positions of a window of the text holds, for each symbol, the priority of the pair it starts, so
//! a merge costs O(log n) and a window of n bytes O(n log n). Source of the algorithms: Sennrich et
//! al., "Neural Machine Translation of Rare Words with Subword Units" (2016), algorithm 1; Kudo and
//! Richardson, "SentencePiece" (2018).
//!
//! # Pieces longer than the window
//!
//! A piece that is longer than the window is merged window by window. Of each window only the
//! tokens that start in its first half are final, and the next window starts where they end. A
//! merge depends on its neighbours, so this gives the tokens of the whole piece unless a decision
//! depends on text more than half a window ahead. A window of four times the longest token was
//! enough for every tested text (100,000 letters, 20,000 blanks, 20,000 times the same letter).

use crate::arena::Carver;

/// Priority of a pair that may not be merged.
pub(super) const NEVER: u32 = u32::MAX;

/// Marks that there is no symbol before this one.
const NO_SYMBOL: u32 = u32::MAX;

/// Number of bytes of text in the smallest window.
pub(super) const MIN_WINDOW: usize = 64;

/// Number of bytes of text in the largest window.
const MAX_WINDOW: usize = 1 << 26;

/// Smallest part of a text that consists of whole initial symbols: a character, plain or escaped.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    pub(super) bytes: [u8; 4],
    pub(super) len: usize,
}

/// Rules of a kind of tokenizer for its symbols.
pub(super) trait Rules {
    /// Number of bytes of the initial symbol at the start of `text` (not empty): from 1 to 4, and
    /// at most all of them.
    fn symbol(&self, text: &[u8]) -> usize;

    /// Priority of merging `pair[..middle]` with `pair[middle..]`, or [`NEVER`].
    fn priority(&self, pair: &[u8], middle: usize) -> u32;

    /// Emits the token of a symbol that is not merged further, or the tokens of its bytes.
    fn emit(&self, symbol: &[u8], out: &mut dyn FnMut(u32));

    /// Token of a whole piece that needs no merging.
    fn whole(&self, piece: &[u8]) -> Option<u32>;
}

/// A window of text with its symbols, in caller-owned memory.
pub(super) struct Window<'a> {
    /// The text; its length, a power of two, is the capacity.
    bytes: &'a mut [u8],
    /// For each symbol's first byte: the end of the symbol.
    end: &'a mut [u32],
    /// For each symbol's first byte: the start of the symbol before it.
    before: &'a mut [u32],
    /// Tournament tree of twice the capacity: node 1 is the root, node `i` has children `2i`
    /// and `2i + 1`, the leaf of position `p` is `m + p`, with `m` leaves.
    tree: &'a mut [u32],
}

impl<'a> Window<'a> {
    /// Number of bytes of memory for a window of `capacity` bytes of text, a power of two.
    pub(super) const fn bytes(capacity: usize) -> usize {
        // Powers of two of at least 64: no part needs padding.
        capacity * (1 + 4 + 4 + 8)
    }

    /// Capacity for pieces of `piece` bytes.
    pub(super) const fn capacity(piece: usize) -> usize {
        if piece < MIN_WINDOW {
            MIN_WINDOW
        } else if piece > MAX_WINDOW {
            MAX_WINDOW
        } else {
            piece.next_power_of_two()
        }
    }

    /// Takes the largest window that fits into `memory` bytes; `None` if not even the smallest
    /// does.
    pub(super) fn take(carver: &mut Carver<'a>, memory: usize) -> Option<Self> {
        let mut capacity = MIN_WINDOW;
        while capacity < MAX_WINDOW && Self::bytes(2 * capacity) <= memory {
            capacity *= 2;
        }
        Some(Window {
            bytes: carver.take(capacity)?,
            end: carver.take(capacity)?,
            before: carver.take(capacity)?,
            tree: carver.take(2 * capacity)?,
        })
    }

    /// Merges the piece that `chunks` spell and emits its tokens.
    pub(super) fn encode(
        &mut self,
        chunks: impl Iterator<Item = Chunk>,
        rules: &impl Rules,
        out: &mut dyn FnMut(u32),
    ) {
        let mut chunks = chunks.fuse();
        let mut len = self.fill(0, &mut chunks);
        if len < self.full()
            && let Some(token) = rules.whole(&self.bytes[..len])
        {
            return out(token);
        }
        while len > 0 {
            self.merge(len, rules);
            let last = len < self.full();
            let limit = if last { len } else { len / 2 };
            let mut at = 0;
            while at < limit {
                let end = self.end[at] as usize;
                rules.emit(&self.bytes[at..end], out);
                at = end;
            }
            self.bytes.copy_within(at..len, 0);
            len = if last {
                0
            } else {
                self.fill(len - at, &mut chunks)
            };
        }
    }

    /// Number of bytes from which a window counts as full, because the next chunk might not fit.
    fn full(&self) -> usize {
        self.bytes.len() - 3
    }

    /// Appends chunks to the first `len` bytes until the window is full or there are no more.
    fn fill(&mut self, mut len: usize, chunks: &mut impl Iterator<Item = Chunk>) -> usize {
        while len < self.full() {
            let Some(chunk) = chunks.next() else { break };
            self.bytes[len..len + chunk.len].copy_from_slice(&chunk.bytes[..chunk.len]);
            len += chunk.len;
        }
        len
    }

    /// Merges the first `len` bytes (at least 1) until no pair may be merged.
    fn merge(&mut self, len: usize, rules: &impl Rules) {
        let leaves = len.next_power_of_two();
        self.start(len, leaves, rules);
        while self.tree[1] != NEVER {
            let mut node = 1;
            while node < leaves {
                node *= 2;
                // The left child wins ties.
                node += usize::from(self.tree[node] > self.tree[node + 1]);
            }
            let left = node - leaves;
            let right = self.end[left] as usize;
            let end = self.end[right];
            self.end[left] = end;
            if (end as usize) < len {
                self.before[end as usize] = left as u32;
            }
            self.set(leaves, right, NEVER);
            self.set(leaves, left, self.priority(left, len, rules));
            let before = self.before[left];
            if before != NO_SYMBOL {
                let before = before as usize;
                self.set(leaves, before, self.priority(before, len, rules));
            }
        }
    }

    /// Cuts the first `len` bytes into initial symbols and builds the tournament tree.
    fn start(&mut self, len: usize, leaves: usize, rules: &impl Rules) {
        self.tree[leaves..2 * leaves].fill(NEVER);
        let (mut at, mut before) = (0, NO_SYMBOL);
        while at < len {
            let end = at + rules.symbol(&self.bytes[at..len]);
            self.end[at] = end as u32;
            self.before[at] = before;
            before = at as u32;
            at = end;
        }
        let mut at = 0;
        while at < len {
            self.tree[leaves + at] = self.priority(at, len, rules);
            at = self.end[at] as usize;
        }
        for node in (1..leaves).rev() {
            self.tree[node] = self.tree[2 * node].min(self.tree[2 * node + 1]);
        }
    }

    /// Priority of the pair that the symbol at `left` starts.
    fn priority(&self, left: usize, len: usize, rules: &impl Rules) -> u32 {
        let right = self.end[left] as usize;
        if right >= len {
            return NEVER;
        }
        let end = self.end[right] as usize;
        rules.priority(&self.bytes[left..end], right - left)
    }

    /// Sets the priority at a position and updates the tree above it.
    fn set(&mut self, leaves: usize, position: usize, priority: u32) {
        let mut node = leaves + position;
        self.tree[node] = priority;
        while node > 1 {
            node /= 2;
            self.tree[node] = self.tree[2 * node].min(self.tree[2 * node + 1]);
        }
    }
}

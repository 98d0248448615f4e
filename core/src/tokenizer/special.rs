//! Special tokens (control, unknown, user-defined) written out in a text, such as `<|im_start|>`.
//!
//! llama.cpp takes them out of a text before anything else, longest token first, over the whole
//! text at once. Here the text is walked once, and each match is checked against longer ones that
//! overlap it, which gives the same matches. (Of two overlapping matches of equal length the
//! earlier wins; llama.cpp does not define which.)

use core::ops::Range;

use super::index::{Index, text_at};
use super::vocab::{Kind, Vocab};

/// Length of the longest special token that is looked for, which bounds the work at each byte of a
/// text.
const MAX_LEN: usize = 256;

/// An occurrence of a special token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// Start, in bytes of the text.
    pub(super) start: usize,
    /// Length in bytes.
    pub(super) len: usize,
    /// The token.
    pub(super) id: u32,
}

/// Choice of the special tokens that count; user-defined ones always do.
#[derive(Clone, Copy)]
pub(super) struct Allowed<'q> {
    /// True if control and unknown tokens count.
    pub(super) control: bool,
    /// Ranges of the text in which control and unknown tokens do not count.
    pub(super) quoted: &'q [Range<usize>],
}

impl Allowed<'_> {
    fn control_at(&self, start: usize, len: usize) -> bool {
        let overlaps = |quoted: &Range<usize>| quoted.start < start + len && start < quoted.end;
        self.control && !self.quoted.iter().any(overlaps)
    }
}

/// Results of collecting the special tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpecialTokens {
    len: usize,
    /// A bit for each byte with which one of them starts.
    starts: [u32; 8],
    any_user_defined: bool,
}

impl SpecialTokens {
    /// Collects the ids of the special tokens into `ids`, which has room for all of them, sorted by
    /// their strings.
    pub(super) const fn collect(vocab: &Vocab<'_>, offsets: &[u32], ids: &mut [u32]) -> Self {
        let mut found = SpecialTokens {
            len: 0,
            starts: [0; 8],
            any_user_defined: false,
        };
        let mut id = 0;
        while id < vocab.len() {
            let text = text_at(vocab.tokens, offsets, id as u32);
            let kind = vocab.kind(id as u32, text);
            if let Some(&first) = text.first()
                && matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined)
                && found.len < ids.len()
            {
                found.starts[(first / 32) as usize] |= 1 << (first % 32);
                found.any_user_defined |= matches!(kind, Kind::UserDefined);
                ids[found.len] = id as u32;
                found.len += 1;
            }
            id += 1;
        }
        let (ids, _) = ids.split_at_mut(found.len);
        sort(vocab, offsets, ids);
        found
    }
}

/// Heapsort (Williams, 1964) by string, then by id: it needs no extra memory for any file, and
/// works in `const`.
const fn sort(vocab: &Vocab<'_>, offsets: &[u32], ids: &mut [u32]) {
    let mut root = ids.len() / 2;
    let mut end = ids.len();
    while end > 1 {
        if root > 0 {
            root -= 1;
        } else {
            end -= 1;
            ids.swap(0, end);
        }
        let mut parent = root;
        while 2 * parent + 1 < end {
            let mut child = 2 * parent + 1;
            if child + 1 < end && is_before(vocab, offsets, ids[child], ids[child + 1]) {
                child += 1;
            }
            if !is_before(vocab, offsets, ids[parent], ids[child]) {
                break;
            }
            ids.swap(parent, child);
            parent = child;
        }
    }
}

/// Returns true if token `a` sorts before token `b`.
const fn is_before(vocab: &Vocab<'_>, offsets: &[u32], a: u32, b: u32) -> bool {
    let (first, second) = (
        text_at(vocab.tokens, offsets, a),
        text_at(vocab.tokens, offsets, b),
    );
    let mut i = 0;
    while i < first.len() && i < second.len() {
        if first[i] != second[i] {
            return first[i] < second[i];
        }
        i += 1;
    }
    if first.len() != second.len() {
        first.len() < second.len()
    } else {
        a < b
    }
}

/// The special tokens of a vocabulary.
#[derive(Clone, Copy)]
pub(super) struct Specials<'a> {
    vocab: Vocab<'a>,
    index: Index<'a>,
    /// Their ids, sorted by their strings.
    sorted: &'a [u32],
    starts: [u32; 8],
    any_user_defined: bool,
}

impl<'a> Specials<'a> {
    /// Creates the list of those that [`SpecialTokens::collect`] put into `ids`.
    pub(super) const fn over(
        vocab: Vocab<'a>,
        index: Index<'a>,
        found: SpecialTokens,
        ids: &'a [u32],
    ) -> Self {
        let (sorted, _) = ids.split_at(found.len);
        Specials {
            vocab,
            index,
            sorted,
            starts: found.starts,
            any_user_defined: found.any_user_defined,
        }
    }

    /// Returns the first special token in `text` at or after byte `from` that counts.
    pub(super) fn next(&self, text: &[u8], from: usize, allowed: Allowed<'_>) -> Option<Match> {
        if !allowed.control && !self.any_user_defined {
            return None;
        }
        // Before a longer match that overlaps, a shorter one may still fit: `end` is the start of
        // the longer one.
        let (mut from, mut end, mut found) = (from, text.len(), None);
        while let Some(first) = self.leftmost(&text[..end], from, allowed) {
            let Some(mut longer) = self.overlapped(&text[..end], first, allowed) else {
                return Some(first);
            };
            while let Some(longest) = self.overlapped(&text[..end], longer, allowed) {
                longer = longest;
            }
            (from, end, found) = (first.start, longer.start, Some(longer));
        }
        found
    }

    fn leftmost(&self, text: &[u8], from: usize, allowed: Allowed<'_>) -> Option<Match> {
        (from..text.len()).find_map(|start| self.longest(text, start, allowed))
    }

    /// Returns the longest match that starts inside `shorter` and is longer; the earliest of
    /// equals.
    fn overlapped(&self, text: &[u8], shorter: Match, allowed: Allowed<'_>) -> Option<Match> {
        let mut best = shorter;
        for start in shorter.start + 1..shorter.start + shorter.len {
            match self.longest(text, start, allowed) {
                Some(longer) if longer.len > best.len => best = longer,
                _ => {}
            }
        }
        (best != shorter).then_some(best)
    }

    /// Returns the longest special token at byte `start`: the sorted list is narrowed byte by byte.
    fn longest(&self, text: &[u8], start: usize, allowed: Allowed<'_>) -> Option<Match> {
        let rest = &text[start..text.len().min(start + MAX_LEN)];
        let first = *rest.first()?;
        if self.starts[usize::from(first / 32)] & 1 << (first % 32) == 0 {
            return None;
        }
        let mut ids = self.sorted;
        let mut best = None;
        for (depth, &byte) in rest.iter().enumerate() {
            // The range holds the strings that share the first `depth` bytes; those that end here
            // come first.
            let key = |id: u32| self.index.text(id).get(depth).copied();
            let low = ids.partition_point(|&id| key(id) < Some(byte));
            let high = ids.partition_point(|&id| key(id) <= Some(byte));
            ids = &ids[low..high];
            let len = depth + 1;
            let whole = ids
                .iter()
                .take_while(|&&id| self.index.text(id).len() == len);
            let control = allowed.control_at(start, len);
            let mut counting = whole.filter(|&&id| control || self.kind(id) == Kind::UserDefined);
            if let Some(&id) = counting.next() {
                best = Some(Match { start, len, id });
            }
            if ids.is_empty() {
                break;
            }
        }
        best
    }

    /// Returns true if the blanks after token `id` belong to it: in Phi-3 those after every special
    /// token but three. GGUF has no entry for that property, so llama.cpp also decides by the
    /// model's name.
    pub(super) fn swallows_blanks(&self, id: u32) -> bool {
        let exceptions: [&[u8]; 3] = [b"<unk>", b"<s>", b"<|endoftext|>"];
        self.vocab.is_phi3 && !exceptions.contains(&self.index.text(id))
    }

    /// Returns the special token with exactly this spelling.
    pub(super) fn named(&self, name: &[u8]) -> Option<u32> {
        let place = self
            .sorted
            .partition_point(|&id| self.index.text(id) < name);
        let &id = self.sorted.get(place)?;
        (self.index.text(id) == name).then_some(id)
    }

    fn kind(&self, id: u32) -> Kind {
        self.vocab.kind(id, self.index.text(id))
    }
}

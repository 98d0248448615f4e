//! Filling the tables of the index: in `const`, so that a firmware's tables lie in flash, and at
//! run time by the same code.

use super::error::{Field, TokenizerError};
use super::index::{Extent, Hash, PROBES, Slots, Spelling, halves, text_at};
use super::special::SpecialTokens;
use super::spm::SPACE;
use super::vocab::{Kind, Vocab};
use crate::const_fn::{same, tri};
use crate::gguf::Array;

/// The parts of an index's memory.
pub(super) struct Parts<'m> {
    /// For each token, the offset of its string from the start of the array.
    pub(super) offsets: &'m mut [u32],
    /// The table of tokens.
    pub(super) tokens: &'m mut [u32],
    /// The table of merges.
    pub(super) ranks: &'m mut [u32],
    /// Ids of the special tokens, sorted by their strings.
    pub(super) specials: &'m mut [u32],
}

/// Facts about filled parts, besides their content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary {
    pub(super) extent: Extent,
    pub(super) specials: SpecialTokens,
    /// SentencePiece only: words can be merged one by one.
    pub(super) words_apart: bool,
}

/// Fills the parts, which have the lengths of [`Vocab::parts`]; their old content does not matter.
///
/// The table leaves out control and unknown tokens, empty ones and those that cannot be spelled:
/// merging text never makes one of them. Of equal tokens the first counts, and the same holds for
/// merges. Merges without two halves that spell bytes are left out: they could never apply.
pub(super) const fn fill(vocab: &Vocab<'_>, parts: Parts<'_>) -> Result<Summary, TokenizerError> {
    let Parts {
        offsets,
        tokens,
        ranks,
        specials,
    } = parts;
    tri!(locate(vocab.tokens, offsets));
    let (token_slots, longest_token) = tri!(add_tokens(vocab, offsets, tokens));
    let (rank_slots, longest_merge) = tri!(add_merges(vocab, ranks));
    let words_apart = match vocab.spelling() {
        Spelling::Plain => words_are_apart(vocab, offsets, tokens, token_slots),
        Spelling::Mapped => false,
    };
    Ok(Summary {
        extent: Extent {
            tokens: token_slots,
            ranks: rank_slots,
            longest_token,
            longest_merge,
        },
        specials: SpecialTokens::collect(vocab, offsets, specials),
        words_apart,
    })
}

/// Fills the table of tokens; also returns the length of the longest token.
const fn add_tokens(
    vocab: &Vocab<'_>,
    offsets: &[u32],
    slots: &mut [u32],
) -> Result<(Slots, usize), TokenizerError> {
    clear(slots);
    let of = Slots::new(offsets.len() as u32 - 1);
    let mut longest = 0;
    let mut id = 0;
    while id < offsets.len() {
        let text = text_at(vocab.tokens, offsets, id as u32);
        let counts = !matches!(vocab.kind(id as u32, text), Kind::Control | Kind::Unknown);
        if counts && let Some(hash) = vocab.spelling().hash(Hash::START, text) {
            let hash = hash.finish();
            if find_token(vocab.tokens, offsets, slots, of, hash, text).is_none() {
                if !insert(slots, of, hash, id as u32) {
                    let field = Field::Tokens;
                    return Err(TokenizerError::Crowded { field, index: id });
                }
                if text.len() > longest {
                    longest = text.len();
                }
            }
        }
        id += 1;
    }
    Ok((of, longest))
}

/// Fills the table of merges; also returns the length of the longest merge.
const fn add_merges(
    vocab: &Vocab<'_>,
    slots: &mut [u32],
) -> Result<(Slots, usize), TokenizerError> {
    clear(slots);
    let Some(merges) = vocab.merges() else {
        return Ok((Slots::new(0), 0));
    };
    let of = Slots::new(tri!(last_offset(merges, Field::Merges)));
    let mut longest = 0;
    let mut elements = merges.elements();
    let mut index = 0;
    while index < merges.len() {
        let offset = (elements.position() - merges.start()) as u32;
        let text = match elements.next_value() {
            Some(value) => match value.as_bytes() {
                Some(text) => text,
                None => &[],
            },
            None => &[],
        };
        if let Some(hash) = hash_of_merge(vocab.spelling(), text)
            && !has_merge(merges, slots, of, hash, text)
        {
            if !insert(slots, of, hash, offset) {
                let field = Field::Merges;
                return Err(TokenizerError::Crowded { field, index });
            }
            if text.len() > longest {
                longest = text.len();
            }
        }
        index += 1;
    }
    Ok((of, longest))
}

const fn hash_of_merge(spelling: Spelling, text: &[u8]) -> Option<u32> {
    let Some((left, right)) = halves(text) else {
        return None;
    };
    let Some(hash) = spelling.hash(Hash::START, left) else {
        return None;
    };
    match spelling.hash(hash.middle(), right) {
        Some(hash) => Some(hash.finish()),
        None => None,
    }
}

/// Returns the token in the table whose string in the file is `text`.
const fn find_token(
    strings: Array<'_>,
    offsets: &[u32],
    slots: &[u32],
    of: Slots,
    hash: u32,
    text: &[u8],
) -> Option<u32> {
    let mut probe = 0;
    while probe < PROBES && probe < slots.len() {
        let slot = slots[Slots::place(hash, probe, slots.len())];
        if slot == 0 {
            return None;
        }
        if let Some(id) = of.number(slot, hash)
            && same(text_at(strings, offsets, id), text)
        {
            return Some(id);
        }
        probe += 1;
    }
    None
}

/// Returns true if the merge is already in the table.
const fn has_merge(merges: Array<'_>, slots: &[u32], of: Slots, hash: u32, text: &[u8]) -> bool {
    let mut probe = 0;
    while probe < PROBES && probe < slots.len() {
        let slot = slots[Slots::place(hash, probe, slots.len())];
        if slot == 0 {
            return false;
        }
        if let Some(offset) = of.number(slot, hash)
            && let Some(found) = merges.string_at(offset as usize)
            && same(found, text)
        {
            return true;
        }
        probe += 1;
    }
    false
}

/// Inserts a number; returns true if there was room near its place.
const fn insert(slots: &mut [u32], of: Slots, hash: u32, number: u32) -> bool {
    let mut probe = 0;
    while probe < PROBES && probe < slots.len() {
        let place = Slots::place(hash, probe, slots.len());
        if slots[place] == 0 {
            slots[place] = of.with(hash, number);
            return true;
        }
        probe += 1;
    }
    false
}

const fn clear(slots: &mut [u32]) {
    let mut i = 0;
    while i < slots.len() {
        slots[i] = 0;
        i += 1;
    }
}

/// Writes the offset of each string of `strings` from the array's start.
const fn locate(strings: Array<'_>, offsets: &mut [u32]) -> Result<(), TokenizerError> {
    tri!(last_offset(strings, Field::Tokens));
    let mut elements = strings.elements();
    let mut i = 0;
    while i < offsets.len() {
        offsets[i] = (elements.position() - strings.start()) as u32;
        elements.next_value();
        i += 1;
    }
    Ok(())
}

/// End of the last string of `strings`, from the array's start; it must be less than
/// `u32::MAX - 1`.
const fn last_offset(strings: Array<'_>, field: Field) -> Result<u32, TokenizerError> {
    let mut elements = strings.elements();
    while elements.next_value().is_some() {}
    let end = elements.position() - strings.start();
    if end as u64 >= u32::MAX as u64 - 1 {
        return Err(TokenizerError::BadSize(field));
    }
    Ok(end as u32)
}

/// Returns true if no token of the table has a space after a non-space, so that words can be merged
/// one by one.
const fn words_are_apart(vocab: &Vocab<'_>, offsets: &[u32], slots: &[u32], of: Slots) -> bool {
    let mut id = 0;
    while id < offsets.len() {
        let text = text_at(vocab.tokens, offsets, id as u32);
        if has_inner_space(text) {
            let hash = Hash::START.of_all(text);
            if let Some(found) = find_token(vocab.tokens, offsets, slots, of, hash, text)
                && found as usize == id
            {
                return false;
            }
        }
        id += 1;
    }
    true
}

/// Returns true if a space follows a non-space.
const fn has_inner_space(text: &[u8]) -> bool {
    let mut at = 1;
    while at + 3 <= text.len() {
        let after_space = at >= 3 && is_space(text, at - 3);
        if is_space(text, at) && !after_space {
            return true;
        }
        at += 1;
    }
    false
}

/// Returns true if the three bytes at `at` are U+2581, which stands for a space.
const fn is_space(text: &[u8], at: usize) -> bool {
    text[at] == SPACE[0] && text[at + 1] == SPACE[1] && text[at + 2] == SPACE[2]
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec::Vec;

    use super::super::tests::{Meta, file, with};
    use super::*;
    use crate::tokenizer::vocab::table_len;

    #[test]
    fn a_file_made_to_collide_is_refused() {
        let len = PROBES + 100;
        let slots = table_len(len) as u64;
        let in_first_slot =
            |text: &Vec<u8>| (u64::from(Hash::START.of_all(text)) * slots) >> 32 == 0;
        let numbers = (0..).map(|i: u32| i.to_string().into_bytes());
        let tokens: Vec<Vec<u8>> = numbers.filter(in_first_slot).take(len).collect();
        let file = file(&[
            ("model", Meta::Str("llama")),
            ("tokens", Meta::Strings(tokens)),
        ]);
        let (field, index) = (Field::Tokens, PROBES);
        let error = with(&file, 64, |_| ()).unwrap_err();
        assert_eq!(error, TokenizerError::Crowded { field, index });
    }

    #[test]
    fn inner_spaces_follow_something_else() {
        for (text, inner) in [
            ("", false),
            ("\u{2581}", false),
            ("\u{2581}\u{2581}a", false),
            ("a\u{2581}", true),
            ("\u{2581}a\u{2581}b", true),
            ("\u{2581}ab", false),
        ] {
            assert_eq!(has_inner_space(text.as_bytes()), inner, "{text:?}");
        }
    }
}

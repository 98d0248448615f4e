//! Classes of code points, and code points of bytes that may not be UTF-8.

use super::case_table::RUNS as CASES;
use super::unicode_table::RUNS;

/// Classes that the splitting patterns distinguish: `\p{L}`, `\p{N}`, `\s` and the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Letter,
    Number,
    Blank,
    Other,
}

/// Class of a code point.
pub(super) fn class(code: u32) -> Class {
    match code {
        0x61..=0x7A | 0x41..=0x5A => Class::Letter,
        0x30..=0x39 => Class::Number,
        // The white space of Unicode's PropList.
        0x09..=0x0D
        | 0x20
        | 0x85
        | 0xA0
        | 0x1680
        | 0x2000..=0x200A
        | 0x2028
        | 0x2029
        | 0x202F
        | 0x205F
        | 0x3000 => Class::Blank,
        0..=0x7F => Class::Other,
        _ => {
            // The last run that starts at or before `code`; run 0 starts at code point 0.
            let run = RUNS.partition_point(|&run| run >> 2 <= code) - 1;
            match RUNS[run] & 3 {
                1 => Class::Letter,
                2 => Class::Number,
                _ => Class::Other,
            }
        }
    }
}

/// Letters and marks by case, as some splitting patterns distinguish them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// `[\p{Lu}\p{Lt}]`
    Upper,
    /// `\p{Ll}`
    Lower,
    /// `[\p{Lm}\p{Lo}\p{M}]`
    Both,
    /// Neither a letter nor a mark.
    None,
}

/// Case of a code point.
pub(super) fn case(code: u32) -> Case {
    // The last run that starts at or before `code`; run 0 starts at code point 0.
    let run = CASES.partition_point(|&run| run >> 2 <= code) - 1;
    match CASES[run] & 3 {
        1 => Case::Upper,
        2 => Case::Lower,
        3 => Case::Both,
        _ => Case::None,
    }
}

/// Code point for a byte that is not part of a character.
const REPLACEMENT: u32 = 0xFFFD;

/// Decodes the first code point of `text` and the number of its bytes: (U+FFFD, 1) for a byte that
/// starts no whole character, (U+FFFD, 0) for no bytes.
///
/// Like llama.cpp, this accepts surrogates and overlong encodings. Unlike llama.cpp, which throws
/// on code points over 0x10FFFF, it returns U+FFFD for them.
pub(super) const fn first_char(text: &[u8]) -> (u32, usize) {
    let Some(&lead) = text.first() else {
        return (REPLACEMENT, 0);
    };
    let (len, bits) = match lead {
        0..0x80 => return (lead as u32, 1),
        0xC0..0xE0 => (2, lead & 0x1F),
        0xE0..0xF0 => (3, lead & 0x0F),
        0xF0..0xF8 => (4, lead & 0x07),
        _ => return (REPLACEMENT, 1),
    };
    if text.len() < len {
        return (REPLACEMENT, 1);
    }
    let mut code = bits as u32;
    let mut i = 1;
    while i < len {
        if text[i] & 0xC0 != 0x80 {
            return (REPLACEMENT, 1);
        }
        code = code << 6 | (text[i] & 0x3F) as u32;
        i += 1;
    }
    if code > 0x10FFFF {
        (REPLACEMENT, 1)
    } else {
        (code, len)
    }
}

/// Encodes `code` (at most 0x10FFFF; surrogates too) in 1 to 4 bytes, and returns them with their
/// number.
pub(super) fn spell(code: u32) -> ([u8; 4], usize) {
    let tail = |shift: u32| 0x80 | (code >> shift & 0x3F) as u8;
    match code {
        0..0x80 => ([code as u8, 0, 0, 0], 1),
        0x80..0x800 => ([0xC0 | (code >> 6) as u8, tail(0), 0, 0], 2),
        0x800..0x10000 => ([0xE0 | (code >> 12) as u8, tail(6), tail(0), 0], 3),
        _ => (
            [0xF0 | (code >> 18 & 7) as u8, tail(12), tail(6), tail(0)],
            4,
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use super::*;

    #[test]
    fn runs_are_sorted_and_start_at_zero() {
        for runs in [&RUNS[..], &CASES] {
            assert_eq!(runs[0], 0);
            assert!(runs.is_sorted_by(|a, b| a >> 2 < b >> 2));
        }
    }

    #[test]
    fn letters_have_a_case_and_nothing_else_but_marks_has() {
        for code in 0..=0x10FFFF {
            let has_case = case(code) != Case::None;
            match class(code) {
                Class::Letter => assert!(has_case, "{code:x}"),
                Class::Number | Class::Blank => assert!(!has_case, "{code:x}"),
                Class::Other => {}
            }
        }
        for (character, of) in [
            ('A', Case::Upper),
            ('Ж', Case::Upper),
            ('ǅ', Case::Upper),
            ('z', Case::Lower),
            ('ß', Case::Lower),
            ('中', Case::Both),
            ('ʰ', Case::Both),
            ('\u{301}', Case::Both),
            ('!', Case::None),
            ('😀', Case::None),
        ] {
            assert_eq!(case(character.into()), of, "{character}");
        }
    }

    #[test]
    fn classes_of_known_characters() {
        for letter in [
            'a',
            'Z',
            'é',
            'ß',
            'ж',
            'ا',
            'अ',
            '中',
            '가',
            'ª',
            '𝒜',
            '\u{11F02}',
        ] {
            assert_eq!(class(letter.into()), Class::Letter, "{letter}");
        }
        for number in ['0', '9', '²', '½', '٣', 'Ⅷ', '①', '𝟘'] {
            assert_eq!(class(number.into()), Class::Number, "{number}");
        }
        for blank in [' ', '\t', '\n', '\u{85}', '\u{A0}', '\u{3000}', '\u{2028}'] {
            assert_eq!(class(blank.into()), Class::Blank);
        }
        for other in [
            '!',
            '_',
            '€',
            '\u{301}',
            '😀',
            '\0',
            '\u{200B}',
            '\u{E000}',
            '\u{10FFFF}',
        ] {
            assert_eq!(class(other.into()), Class::Other, "{other}");
        }
    }

    #[test]
    fn blanks_are_the_standard_library_s() {
        for code in 0..=0x10FFFFu32 {
            if let Some(c) = char::from_u32(code) {
                assert_eq!(class(code) == Class::Blank, c.is_whitespace(), "{code:x}");
            }
        }
    }

    #[test]
    fn every_character_reads_back() {
        for c in (0..=0x10FFFFu32).filter_map(char::from_u32) {
            let text = String::from(c);
            assert_eq!(first_char(text.as_bytes()), (c.into(), c.len_utf8()));
            let (bytes, len) = spell(c.into());
            assert_eq!(&bytes[..len], text.as_bytes());
        }
    }

    #[test]
    fn broken_characters_take_one_byte() {
        for broken in [
            &b"\x80"[..],
            b"\xFF",
            b"\xC3",
            b"\xC3a",
            b"\xE2\x96",
            b"\xF0\x9F\x98a",
            b"\xF4\x90\x80\x80",
            b"\xF8\x80",
        ] {
            assert_eq!(first_char(broken), (REPLACEMENT, 1), "{broken:x?}");
        }
        assert_eq!(first_char(b""), (REPLACEMENT, 0));
        assert_eq!(first_char(b"\xC0\x80"), (0, 2));
        assert_eq!(first_char(b"\xED\xA0\x80"), (0xD800, 3));
    }
}

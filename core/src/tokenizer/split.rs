//! Splitting of text into the pieces that byte-level BPE encodes one by one: the "pre-tokenizers"
//! of `tokenizer.ggml.pre`, written by hand because there is no regular expression engine here.
//!
//! Each function takes the rest of a text and returns the number of bytes of its first piece. They
//! agree with llama.cpp (`llama-vocab.cpp`, `unicode.cpp`) on every text, except for
//! [`PreTokenizer::Gpt4o`] and [`PreTokenizer::Tekken`]: there llama.cpp knows the case of ASCII
//! only, and takes no marks for parts of words. Here they are as the models were trained with them,
//! in their `tokenizer.json`.

use super::unicode::{Case, Class, case, class, first_char};
use crate::features::FAMILIES;

/// The rule by which text is split before byte-level BPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum PreTokenizer {
    /// GPT-2's `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
    Gpt2,
    /// As [`PreTokenizer::Gpt2`], after every digit was split off as a piece of its own.
    Smollm,
    /// Llama 3's `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}`, continued by
    /// `| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`; a piece that is a token as a whole is
    /// not merged.
    LlamaBpe,
    /// As [`PreTokenizer::LlamaBpe`], and pieces are always merged (OLMo 2, DBRX).
    Dbrx,
    /// As [`PreTokenizer::Dbrx`] with `\p{N}` for `\p{N}{1,3}`.
    Qwen2,
    /// As [`PreTokenizer::Qwen2`] with ` ?[^\s\p{L}\p{N}\r\n]+` for
    /// ` ?[^\s\p{L}\p{N}]+[\r\n]*`.
    SeedCoder,
    /// GPT-4o's: words by case, `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*` and
    /// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?`, or the same with `+` and `*`
    /// exchanged; then as [`PreTokenizer::Dbrx`] with `[\r\n/]*` for `[\r\n]*`. Needs the feature
    /// `families`.
    Gpt4o,
    /// Mistral's: as [`PreTokenizer::Gpt4o`] without the contractions, with `\p{N}` for
    /// `\p{N}{1,3}`; a piece that is a token as a whole is not merged. Needs the feature `families`.
    Tekken,
}

impl PreTokenizer {
    /// Returns the rule that a value of `tokenizer.ggml.pre` names. Several names share a rule.
    pub(super) const fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            // GPT-NeoX's own pattern is GPT-2's: its models (Pythia, OLMo 1, MPT) use these names.
            b"gpt-2" | b"gpt2" | b"phi-2" | b"mpt" | b"olmo" | b"jais" | b"trillion"
            | b"gigachat" | b"mellum" | b"exaone4" => Self::Gpt2,
            b"smollm" | b"starcoder" | b"refact" | b"command-r" | b"codeshell" | b"exaone"
            | b"minerva-7b" => Self::Smollm,
            b"llama-bpe" | b"llama3" | b"llama-v3" | b"falcon3" | b"falcon-h1" | b"pixtral"
            | b"lfm2" => Self::LlamaBpe,
            b"dbrx" | b"smaug-bpe" | b"chatglm-bpe" => Self::Dbrx,
            b"qwen2" | b"deepseek-r1-qwen" | b"stablelm2" | b"hunyuan" | b"megrez" | b"grok-2" => {
                Self::Qwen2
            }
            b"seed-coder" => Self::SeedCoder,
            b"gpt-4o" | b"llama4" if FAMILIES => Self::Gpt4o,
            b"tekken" if FAMILIES => Self::Tekken,
            _ => return None,
        })
    }

    /// Returns true if a piece that is a token as a whole becomes that token, whatever the merges
    /// say.
    pub(super) const fn ignores_merges(self) -> bool {
        matches!(self, Self::LlamaBpe | Self::Tekken)
    }

    /// Number of bytes of the first piece of `text`: at least 1 unless `text` is empty. `text` ends
    /// at a special token or at the end of the whole text.
    pub(super) fn piece(self, text: &[u8]) -> usize {
        match self {
            Self::Gpt2 => gpt2(text, false),
            Self::Smollm => gpt2(text, true),
            Self::LlamaBpe | Self::Dbrx => llama3(text, 3, Char::breaks_line),
            Self::Qwen2 => llama3(text, 1, Char::breaks_line),
            Self::SeedCoder => llama3(text, 1, |_| false),
            Self::Gpt4o | Self::Tekken if FAMILIES => {
                let is_gpt = self == Self::Gpt4o;
                let digits = if is_gpt { 3 } else { 1 };
                let tail = |char: Char| char.breaks_line() || char.code == 0x2F;
                cased_word(text, is_gpt).unwrap_or_else(|| after_words(text, digits, tail))
            }
            // `named` gives these out only where they are built.
            Self::Gpt4o | Self::Tekken => text.len(),
        }
    }
}

/// A character of the text, with the facts that the patterns test.
#[derive(Clone, Copy)]
struct Char {
    code: u32,
    class: Class,
    /// Start of the next character, in bytes.
    next: usize,
}

impl Char {
    fn is_blank(self) -> bool {
        self.class == Class::Blank
    }

    /// Matches `[\r\n]`.
    fn breaks_line(self) -> bool {
        self.code == 0x0D || self.code == 0x0A
    }
}

/// Returns the character at byte `at`; `None` at the end of the text.
fn look(text: &[u8], at: usize) -> Option<Char> {
    let (code, len) = first_char(text.get(at..)?);
    (len > 0).then(|| Char {
        code,
        class: class(code),
        next: at + len,
    })
}

/// End of the run of characters that `wanted` accepts, from byte `at` on.
fn run(text: &[u8], mut at: usize, wanted: impl Fn(Char) -> bool) -> usize {
    while let Some(char) = look(text, at).filter(|&char| wanted(char)) {
        at = char.next;
    }
    at
}

/// Number of bytes of `'s|'t|'re|'ve|'m|'ll|'d` at the start of `text`.
fn contraction(text: &[u8], any_case: bool) -> Option<usize> {
    let ascii = |at| {
        let char = look(text, at)?;
        let byte = u8::try_from(char.code).ok()?;
        let byte = if any_case {
            byte.to_ascii_lowercase()
        } else {
            byte
        };
        Some((byte, char.next))
    };
    let (b'\'', at) = ascii(0)? else {
        return None;
    };
    let (first, at) = ascii(at)?;
    if matches!(first, b's' | b't' | b'm' | b'd') {
        return Some(at);
    }
    let (second, at) = ascii(at)?;
    matches!((first, second), (b'r', b'e') | (b'v', b'e') | (b'l', b'l')).then_some(at)
}

/// Matches `\s+(?!\S)|\s+` at the start of `text`: a run of blanks. If the run has more than one
/// blank and a character follows for which `ends` is false, the last blank is left out.
fn blanks(text: &[u8], ends: impl Fn(Class) -> bool) -> usize {
    let (mut end, mut last) = (0, 0);
    loop {
        match look(text, end) {
            Some(char) if char.is_blank() => (last, end) = (end, char.next),
            Some(char) if last > 0 && !ends(char.class) => return last,
            _ => return end,
        }
    }
}

/// Matches GPT-2's pattern. With `digits_apart`, a digit is a piece of its own and the text ends
/// before it.
fn gpt2(text: &[u8], digits_apart: bool) -> usize {
    let ends = |class| digits_apart && class == Class::Number;
    let Some(first) = look(text, 0) else {
        return 0;
    };
    if ends(first.class) {
        return first.next;
    }
    if let Some(end) = contraction(text, false) {
        return end;
    }
    let (class, start) = match look(text, first.next) {
        Some(second) if first.code == 0x20 && !second.is_blank() && !ends(second.class) => {
            (second.class, first.next)
        }
        _ => (first.class, 0),
    };
    match class {
        Class::Blank => blanks(text, ends),
        class => run(text, start, |char| char.class == class),
    }
}

/// Matches the two parts of GPT-4o's pattern for words: `M? U* L+ C?` and `M? U+ L* C?`, where `M`
/// is no letter, number or line break, `U` has no lower and `L` no upper case, and `C` is a
/// contraction. The number of bytes at the start of `text`, unless there is none.
fn cased_word(text: &[u8], contracted: bool) -> Option<usize> {
    let first = look(text, 0)?;
    let may_lead = !matches!(first.class, Class::Letter | Class::Number) && !first.breaks_line();
    let starts = [may_lead.then_some(first.next), Some(0)];
    let starts = || starts.into_iter().flatten();
    let end = starts()
        .find_map(|start| ends_lower(text, start))
        .or_else(|| starts().find_map(|start| all_upper(text, start)))?;
    let more = contraction(&text[end..], true).filter(|_| contracted);
    Some(end + more.unwrap_or(0))
}

/// Matches `U* L+` at byte `start`. As few characters as need be are given back by `U*`: from the
/// last one on that is also an `L`.
fn ends_lower(text: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut given_back) = (start, None);
    while let Some(char) = look(text, at) {
        match case(char.code) {
            Case::Upper => {}
            Case::Both => given_back = Some(char.next),
            Case::Lower => {
                return Some(run(text, at, |char| {
                    matches!(case(char.code), Case::Lower | Case::Both)
                }));
            }
            Case::None => break,
        }
        at = char.next;
    }
    given_back
}

/// Matches `U+` at byte `start`, where `U* L+` did not match: so no `L` follows.
fn all_upper(text: &[u8], start: usize) -> Option<usize> {
    let end = run(text, start, |char| {
        matches!(case(char.code), Case::Upper | Case::Both)
    });
    (end > start).then_some(end)
}

/// Matches Llama 3's pattern, with at most `digits` digits in a piece, and with characters that
/// `tail` accepts at the end of one without letters and digits.
fn llama3(text: &[u8], digits: usize, tail: impl Fn(Char) -> bool) -> usize {
    let Some(first) = look(text, 0) else {
        return 0;
    };
    if let Some(end) = contraction(text, true) {
        return end;
    }
    let second = look(text, first.next).map(|char| char.class);
    let may_lead = first.class != Class::Number && !first.breaks_line();
    if first.class == Class::Letter || (may_lead && second == Some(Class::Letter)) {
        return run(text, first.next, |char| char.class == Class::Letter);
    }
    after_words(text, digits, tail)
}

/// Matches what follows the words in Llama 3's pattern; see [`llama3`].
fn after_words(text: &[u8], digits: usize, tail: impl Fn(Char) -> bool) -> usize {
    let Some(first) = look(text, 0) else {
        return 0;
    };
    let second = look(text, first.next).map(|char| char.class);
    if first.class == Class::Number {
        let more = (1..digits).try_fold(first.next, |end, _| match look(text, end) {
            Some(char) if char.class == Class::Number => Ok(char.next),
            _ => Err(end),
        });
        return more.unwrap_or_else(|end| end);
    }
    let led = first.code == 0x20 && second == Some(Class::Other);
    if led || first.class == Class::Other {
        let end = run(text, first.next, |char| char.class == Class::Other);
        return run(text, end, tail);
    }
    // `\s*[\r\n]+`: the run of blanks up to the last line break in it.
    let (mut at, mut after_break) = (0, None);
    while let Some(char) = look(text, at).filter(|char| char.is_blank()) {
        at = char.next;
        after_break = if char.breaks_line() {
            Some(at)
        } else {
            after_break
        };
    }
    after_break.unwrap_or_else(|| blanks(text, |_| false))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn pieces(pre: PreTokenizer, text: &str) -> Vec<&str> {
        let mut rest = text;
        let mut out = Vec::new();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(pre.piece(rest.as_bytes()));
            out.push(piece);
            rest = tail;
        }
        out
    }

    #[test]
    fn gpt2_keeps_a_blank_with_its_word() {
        let text = "I'll  say 'tis 1234 times!\n\n  ok  ";
        let want = [
            "I", "'ll", " ", " say", " '", "tis", " 1234", " times", "!", "\n\n ", " ok", "  ",
        ];
        assert_eq!(pieces(PreTokenizer::Gpt2, text), want);
    }

    #[test]
    fn smollm_takes_digits_apart_and_ends_the_text_there() {
        let text = "x  12² 'S\u{3000}é";
        let want = ["x", "  ", "1", "2", "²", " '", "S", "\u{3000}", "é"];
        assert_eq!(pieces(PreTokenizer::Smollm, text), want);
    }

    #[test]
    fn llama_bpe_groups_digits_and_line_breaks() {
        let text = "we'RE 12345 (ok)\r\n\n  \n  a\t\tb _x";
        let want = [
            "we", "'RE", " ", "123", "45", " (", "ok", ")\r\n\n", "  \n", " ", " a", "\t", "\tb",
            " _", "x",
        ];
        assert_eq!(pieces(PreTokenizer::LlamaBpe, text), want);
        assert_eq!(pieces(PreTokenizer::Qwen2, "a12"), ["a", "1", "2"]);
        assert_eq!(pieces(PreTokenizer::LlamaBpe, " "), [" "]);
        assert_eq!(pieces(PreTokenizer::Dbrx, text), want);
    }

    #[test]
    fn some_take_a_piece_that_is_a_token_as_it_is() {
        for (name, pre, ignores) in [
            ("llama-bpe", PreTokenizer::LlamaBpe, true),
            ("dbrx", PreTokenizer::Dbrx, false),
            ("qwen2", PreTokenizer::Qwen2, false),
            ("olmo", PreTokenizer::Gpt2, false),
            ("gpt-4o", PreTokenizer::Gpt4o, false),
            ("tekken", PreTokenizer::Tekken, true),
        ] {
            assert_eq!(PreTokenizer::named(name.as_bytes()), Some(pre));
            assert_eq!(pre.ignores_merges(), ignores, "{name}");
        }
        assert_eq!(PreTokenizer::named(b"deepseek-coder"), None);
    }

    /// Pieces by Hugging Face's `tokenizers`: see `runtime-std/oracles/split_goldens.py`.
    #[test]
    fn words_are_split_as_the_models_own_tokenizers_do() {
        let bytes = |hex: &str| -> Vec<u8> {
            let digits = hex.as_bytes().as_chunks::<2>().0;
            let byte = |pair: &[u8; 2]| {
                u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap()
            };
            digits.iter().map(byte).collect()
        };
        let goldens = include_str!("../../tests/golden/splits.txt");
        let mut tried = 0;
        for line in goldens.lines() {
            let mut words = line.split(' ');
            let pre = PreTokenizer::named(words.next().unwrap().as_bytes()).unwrap();
            let want: Vec<_> = words.map(bytes).collect();
            let text = want.concat();
            let (mut rest, mut got) = (&text[..], Vec::new());
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(pre.piece(rest));
                got.push(piece.to_vec());
                rest = tail;
            }
            let shown = |pieces: &[Vec<u8>]| -> Vec<std::string::String> {
                let text = |piece: &Vec<u8>| std::string::String::from_utf8_lossy(piece).into();
                pieces.iter().map(text).collect()
            };
            assert!(
                got == want,
                "{pre:?}: {:?}, {:?}",
                shown(&got),
                shown(&want)
            );
            tried += 1;
        }
        assert!(tried > 700);
    }

    proptest! {
        #[test]
        fn any_bytes_are_covered_by_pieces(text in prop::collection::vec(any::<u8>(), 0..60)) {
            for pre in [
                PreTokenizer::Gpt2,
                PreTokenizer::Smollm,
                PreTokenizer::LlamaBpe,
                PreTokenizer::Dbrx,
                PreTokenizer::Qwen2,
                PreTokenizer::SeedCoder,
                PreTokenizer::Gpt4o,
                PreTokenizer::Tekken,
            ] {
                let mut at = 0;
                while at < text.len() {
                    let len = pre.piece(&text[at..]);
                    prop_assert!(len > 0 && at + len <= text.len());
                    at += len;
                }
            }
        }
    }
}

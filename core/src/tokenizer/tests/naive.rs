//! Whole tokenizers on random texts, against naive ones in this file.

use proptest::prelude::*;

use super::*;

/// Merges `symbols` by the definition: the lowest rank first, the leftmost of equals.
fn merge_naively<R: PartialOrd>(
    symbols: &mut Vec<Vec<u8>>,
    rank: impl Fn(&[u8], &[u8]) -> Option<R>,
) {
    loop {
        let mut best: Option<(R, usize)> = None;
        for i in 1..symbols.len() {
            if let Some(rank) = rank(&symbols[i - 1], &symbols[i])
                && best.as_ref().is_none_or(|(other, _)| rank < *other)
            {
                best = Some((rank, i));
            }
        }
        let Some((_, i)) = best else { return };
        let right = symbols.remove(i);
        symbols[i - 1].extend(right);
    }
}

/// Splits by the longest special token first, over the whole text, as llama.cpp does; the parts
/// between are bytes.
fn split_naively(text: &[u8], specials: &[&str]) -> Vec<Result<usize, Vec<u8>>> {
    let mut parts = vec![Err(text.to_vec())];
    for len in (1..=8).rev() {
        let mut next = Vec::new();
        for part in parts {
            let Err(text) = part else {
                next.push(part);
                continue;
            };
            let mut from = 0;
            let mut at = 0;
            while at < text.len() {
                let found = specials
                    .iter()
                    .position(|s| s.len() == len && text[at..].starts_with(s.as_bytes()));
                let Some(found) = found else {
                    at += 1;
                    continue;
                };
                next.push(Err(text[from..at].to_vec()));
                next.push(Ok(found));
                at += len;
                from = at;
            }
            next.push(Err(text[from..].to_vec()));
        }
        parts = next;
    }
    parts.retain(|part| *part != Err(vec![]));
    parts
}

/// Texts with many merges, and texts of every kind.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[abc ]{0,200}",
        "(?s).{0,60}",
        "[ \\n\\t'a1é中😀\u{2581}]{0,60}"
    ]
}

proptest! {
    #[test]
    fn bpe_is_the_naive_one(text in texts(), rules in prop::collection::vec(("[abc ]{1,3}", "[abc ]{1,3}"), 0..30)) {
        let mut known: Vec<Vec<u8>> = Vec::new();
        let mut merges: Vec<(&[u8], &[u8])> = Vec::new();
        for (a, b) in &rules {
            let all = [a.as_bytes(), b.as_bytes()].concat();
            if !known.contains(&all) {
                known.push(all);
                merges.push((a.as_bytes(), b.as_bytes()));
            }
        }
        let mut want = Vec::new();
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(PreTokenizer::Gpt2.piece(rest));
            let mut symbols: Vec<Vec<u8>> = piece.iter().map(|&byte| vec![byte]).collect();
            merge_naively(&mut symbols, |a, b| merges.iter().position(|&merge| merge == (a, b)));
            want.extend(symbols.iter().map(|symbol| match known.iter().position(|k| k == symbol) {
                Some(token) => 256 + token as u32,
                None => symbol[0].into(),
            }));
            rest = tail;
        }
        let file = file(&bpe("gpt-2", &merges, &[]));
        let got = with(&file, 1024, |t| ids(t, text.as_bytes(), PLAIN)).unwrap();
        prop_assert_eq!(got, want);
    }

    #[test]
    fn spm_is_the_naive_one(
        text in texts(),
        pieces in prop::collection::btree_map("[abc▁]{2,4}", -3i8..3, 0..30),
        prefix: bool,
    ) {
        let mut scored: Vec<(&str, f32)> = ["a", "b", "c", "▁"].map(|s| (s, -10.0)).to_vec();
        scored.extend(pieces.iter().map(|(piece, &score)| (&piece[..], score.into())));
        let find = |bytes: &[u8]| scored.iter().position(|(s, _)| s.as_bytes() == bytes);
        let prefixed = if prefix && !text.is_empty() { [" ", &text].concat() } else { text.clone() };
        let mut symbols: Vec<Vec<u8>> =
            prefixed.replace(' ', "▁").chars().map(|c| String::from(c).into_bytes()).collect();
        merge_naively(&mut symbols, |a, b| Some(-scored[find(&[a, b].concat())?].1));
        let want: Vec<u32> = symbols.iter().flat_map(|symbol| match find(symbol) {
            Some(piece) => vec![259 + piece as u32],
            None => symbol.iter().map(|&byte| 3 + u32::from(byte)).collect(),
        }).collect();
        let file = but(spm(&scored), "add_space_prefix", Meta::Flag(prefix));
        let (got, back) = with(&file, 1024, |t| {
            let ids = ids(t, text.as_bytes(), PLAIN);
            let back = bytes(t, &ids);
            (ids, back)
        }).unwrap();
        prop_assert_eq!(got, want);
        prop_assert_eq!(back, prefixed.replace('▁', " ").into_bytes());
    }

    #[test]
    fn special_tokens_are_split_as_llama_cpp_does(
        text in "[ab]{0,40}",
        names in prop::collection::btree_set("[ab]{1,6}", 0..8),
    ) {
        let names: Vec<&str> = names.iter().map(|s| &s[..]).collect();
        let extra: Vec<(&str, i32)> = names.iter().map(|&name| (name, 3)).collect();
        let want: Vec<u32> = split_naively(text.as_bytes(), &names).into_iter().flat_map(|part| match part {
            Ok(special) => vec![256 + special as u32],
            Err(bytes) => bytes.into_iter().map(u32::from).collect(),
        }).collect();
        let file = file(&bpe("gpt-2", &[], &extra));
        prop_assert_eq!(with(&file, 64, |t| ids(t, text.as_bytes(), SPECIAL)).unwrap(), want);
    }

    #[test]
    fn bpe_gives_back_any_text(text in "(?s).{0,300}", pre in prop::sample::select(vec!["gpt-2", "smollm", "llama-bpe", "qwen2"])) {
        let file = file(&bpe(pre, HELLO, &[]));
        let back = with(&file, 64, |t| {
            let ids = ids(t, text.as_bytes(), PLAIN);
            bytes(t, &ids)
        }).unwrap();
        prop_assert_eq!(back, text.as_bytes());
    }

    /// Except for the spelling of spaces: a broken character absorbs the bytes of an escaped space,
    /// as in llama.cpp.
    #[test]
    fn spm_gives_back_any_bytes(text in prop::collection::vec(any::<u8>(), 0..300)) {
        let file = but(spm(&[("▁", 0.0)]), "add_space_prefix", Meta::Flag(false));
        let back = with(&file, 64, |t| {
            let ids = ids(t, &text, PLAIN);
            bytes(t, &ids)
        }).unwrap();
        let escaped = |text: &[u8]| text.split(|&byte| byte == b' ').collect::<Vec<_>>().join("▁".as_bytes());
        prop_assert_eq!(escaped(&back), escaped(&text));
    }

    #[test]
    fn long_pieces_need_no_larger_window(text in "[abc]{0,2000}") {
        let merges: &[(&[u8], &[u8])] = &[(b"a", b"b"), (b"c", b"a"), (b"ab", b"c"), (b"ca", b"ca"), (b"b", b"b")];
        let file = file(&bpe("gpt-2", merges, &[]));
        let [small, large] = [64, 4096].map(|window| with(&file, window, |t| ids(t, text.as_bytes(), PLAIN)).unwrap());
        prop_assert_eq!(small, large);
    }

    #[test]
    fn broken_files_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        text in prop::collection::vec(any::<u8>(), 0..50),
        sentence_piece: bool,
    ) {
        let mut file = if sentence_piece {
            file(&spm(&[("▁a", f32::NAN), ("aa", 1.0)]))
        } else {
            file(&bpe("gpt-2", HELLO, &[("<s>", 3), ("<u>", 4)]))
        };
        for (index, byte) in changes {
            let at = index.index(file.len());
            file[at] = byte;
        }
        if Gguf::parse(&file).is_ok() {
            let _ = with(&file, 64, |t| {
                let ids = ids(t, &text, EncodeOptions { special: true, ..EncodeOptions::default() });
                bytes(t, &ids).len()
            });
        }
    }

    #[test]
    fn streams_whole_characters_only(bytes in prop::collection::vec(
        prop_oneof![any::<u8>(), prop::sample::select("a€é😀".as_bytes().to_vec())], 0..40
    )) {
        let mut stream = Utf8Stream::new();
        let mut text = String::new();
        for &byte in &bytes {
            stream.push([byte], &mut |part| text.push_str(part));
        }
        stream.finish(&mut |part| text.push_str(part));
        prop_assert_eq!(&text, &String::from_utf8_lossy(&bytes));
    }
}

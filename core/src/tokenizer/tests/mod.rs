//! Whole tokenizers, on small vocabularies.

mod naive;

use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use super::*;
use crate::arena::ALIGN;
use crate::gguf::Gguf;

/// A metadata value to write.
#[derive(Clone)]
pub(super) enum Meta {
    Str(&'static str),
    Strings(Vec<Vec<u8>>),
    Floats(Vec<f32>),
    Ints(Vec<i32>),
    Id(u32),
    Flag(bool),
}

fn string(out: &mut Vec<u8>, s: &[u8]) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s);
}

fn array(out: &mut Vec<u8>, element: u32, len: usize) {
    out.extend(9u32.to_le_bytes());
    out.extend(element.to_le_bytes());
    out.extend((len as u64).to_le_bytes());
}

/// Writes a GGUF file that has only metadata.
pub(super) fn file(entries: &[(&str, Meta)]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    for (key, value) in entries {
        let prefix = if key.contains('.') {
            ""
        } else {
            "tokenizer.ggml."
        };
        string(&mut out, std::format!("{prefix}{key}").as_bytes());
        match value {
            Meta::Str(s) => {
                out.extend(8u32.to_le_bytes());
                string(&mut out, s.as_bytes());
            }
            Meta::Strings(all) => {
                array(&mut out, 8, all.len());
                all.iter().for_each(|s| string(&mut out, s));
            }
            Meta::Floats(all) => {
                array(&mut out, 6, all.len());
                all.iter().for_each(|v| out.extend(v.to_le_bytes()));
            }
            Meta::Ints(all) => {
                array(&mut out, 5, all.len());
                all.iter().for_each(|v| out.extend(v.to_le_bytes()));
            }
            Meta::Id(id) => {
                out.extend(4u32.to_le_bytes());
                out.extend(id.to_le_bytes());
            }
            Meta::Flag(flag) => {
                out.extend(7u32.to_le_bytes());
                out.push((*flag).into());
            }
        }
    }
    out
}

/// Builds the tokenizer of `file` with windows of `window` bytes.
pub(super) fn with<R>(
    file: &[u8],
    window: usize,
    run: impl FnOnce(&mut Tokenizer<'_>) -> R,
) -> Result<R, TokenizerError> {
    let gguf = Gguf::parse(file).unwrap();
    let vocab = Vocab::from_gguf(&gguf)?;
    let bytes = vocab.index_bytes(window);
    let mut memory = vec![0xA5; bytes + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    let mut tokenizer = Tokenizer::new(&vocab, &mut memory[start..start + bytes])?;
    Ok(run(&mut tokenizer))
}

const PLAIN: EncodeOptions = EncodeOptions {
    bos: Mark::Never,
    eos: Mark::Never,
    special: false,
    continued: false,
};
const SPECIAL: EncodeOptions = EncodeOptions {
    special: true,
    ..PLAIN
};

fn ids(tokenizer: &mut Tokenizer<'_>, text: &[u8], options: EncodeOptions) -> Vec<u32> {
    let mut out = Vec::new();
    tokenizer.encode(text, options, &mut |id| out.push(id));
    out
}

fn bytes(tokenizer: &Tokenizer<'_>, ids: &[u32]) -> Vec<u8> {
    ids.iter()
        .flat_map(|&id| tokenizer.piece(id, true))
        .collect()
}

/// Spells `bytes` as GPT-2 does, by OpenAI's loop.
fn spelled(bytes: &[u8]) -> Vec<u8> {
    let printable = |b: u8| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut out = String::new();
    for &byte in bytes {
        let code = if printable(byte) {
            byte.into()
        } else {
            0x100 + (0..byte).filter(|&b| !printable(b)).count() as u32
        };
        out.push(char::from_u32(code).unwrap());
    }
    out.into_bytes()
}

/// Entries of a BPE tokenizer: ids 0 to 255 are the bytes, then come the results of `merges`, then
/// `extra` tokens with their types.
fn bpe(
    pre: &'static str,
    merges: &[(&[u8], &[u8])],
    extra: &[(&str, i32)],
) -> Vec<(&'static str, Meta)> {
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| spelled(&[byte])).collect();
    tokens.extend(merges.iter().map(|(a, b)| spelled(&[*a, *b].concat())));
    let mut types = vec![1; tokens.len()];
    for &(name, kind) in extra {
        tokens.push(name.into());
        types.push(kind);
    }
    let merges = merges
        .iter()
        .map(|(a, b)| [spelled(a), spelled(b)].join(&b' '))
        .collect();
    vec![
        ("model", Meta::Str("gpt2")),
        ("pre", Meta::Str(pre)),
        ("tokens", Meta::Strings(tokens)),
        ("token_type", Meta::Ints(types)),
        ("merges", Meta::Strings(merges)),
    ]
}

/// Entries of a SentencePiece tokenizer: ids 0 to 2 are `<unk>`, `<s>`, `</s>`, then come the 256
/// bytes, then `pieces` with their scores.
fn spm(pieces: &[(&str, f32)]) -> Vec<(&'static str, Meta)> {
    let mut tokens: Vec<Vec<u8>> = ["<unk>", "<s>", "</s>"].map(Into::into).to_vec();
    let mut types = vec![2, 3, 3];
    for byte in 0..=255u8 {
        tokens.push(std::format!("<0x{byte:02X}>").into_bytes());
        types.push(6);
    }
    tokens.extend(pieces.iter().map(|(text, _)| text.as_bytes().to_vec()));
    types.resize(tokens.len(), 1);
    let mut scores = vec![0.0; 259];
    scores.extend(pieces.iter().map(|&(_, score)| score));
    vec![
        ("model", Meta::Str("llama")),
        ("tokens", Meta::Strings(tokens)),
        ("token_type", Meta::Ints(types)),
        ("scores", Meta::Floats(scores)),
    ]
}

/// Writes `entries` with the entry `key` replaced or added.
fn but(mut entries: Vec<(&'static str, Meta)>, key: &'static str, value: Meta) -> Vec<u8> {
    entries.retain(|entry| entry.0 != key);
    entries.push((key, value));
    file(&entries)
}

const HELLO: &[(&[u8], &[u8])] = &[
    (b"h", b"e"),
    (b"l", b"l"),
    (b"he", b"ll"),
    (b" ", b"hell"),
    (b" hell", b"o"),
];

#[test]
fn bpe_merges_by_rank() {
    let file = file(&bpe("gpt-2", HELLO, &[]));
    with(&file, 64, |t| {
        assert_eq!(ids(t, b"hello hello", PLAIN), [258, 111, 260]);
        assert_eq!(ids(t, b"lll", PLAIN), [257, 108]);
        assert_eq!(bytes(t, &[258, 111, 260, 999]), b"hello hello");
        assert_eq!(ids(t, b"", PLAIN), []);
    })
    .unwrap();
}

#[test]
fn llama_bpe_takes_whole_words_first() {
    // "lo" is a token without a merge.
    let extra = [("lo", 1)];
    let [merged, whole] = ["qwen2", "llama-bpe"].map(|pre| {
        let file = file(&bpe(pre, HELLO, &extra));
        with(&file, 64, |t| ids(t, b"lo", PLAIN)).unwrap()
    });
    assert_eq!(merged, [108, 111]);
    assert_eq!(whole, [261]);
}

#[test]
fn special_tokens_are_split_out_only_when_asked() {
    let extra = [
        ("<|a|>", 3),
        ("<|a|>b", 3),
        ("<u>", 4),
        ("<unk>", 2),
        ("x<u>y", 4),
    ];
    let file = file(&bpe("gpt-2", HELLO, &extra));
    with(&file, 64, |t| {
        assert_eq!(ids(t, b"<|a|>he<|a|>b<unk>", SPECIAL), [261, 256, 262, 264]);
        assert_eq!(ids(t, b"<|a|><u>", PLAIN), [60, 124, 97, 124, 62, 263]);
        // The longer of two overlapping ones wins, wherever it starts.
        assert_eq!(ids(t, b"<u>x<u>y<u", PLAIN), [263, 265, 60, 117]);
        assert_eq!(bytes(t, &[261, 263]), b"<|a|><u>");
        assert_eq!(t.piece(261, false).count(), 0);
        assert_eq!(t.piece(263, false).count(), 3);
        assert_eq!(t.special(b"<|a|>b"), Some(262));
        assert_eq!(t.special(b"<|a"), None);
        assert_eq!(t.special(b"he"), None);
    })
    .unwrap();
}

#[test]
fn text_never_merges_into_a_control_token() {
    let file = file(&bpe("llama-bpe", &[], &[("evil", 3)]));
    with(&file, 64, |t| {
        assert_eq!(ids(t, b"evil", PLAIN), b"evil".map(u32::from));
        assert_eq!(ids(t, b"evil", SPECIAL), [256]);
    })
    .unwrap();
}

#[test]
fn marks_follow_the_metadata_or_the_caller() {
    let mut entries = bpe("gpt-2", &[], &[("<s>", 3), ("</s>", 3)]);
    entries.extend([
        ("bos_token_id", Meta::Id(256)),
        ("add_eos_token", Meta::Flag(true)),
    ]);
    let file = but(entries, "eos_token_id", Meta::Id(257));
    with(&file, 64, |t| {
        assert_eq!(ids(t, b"a", EncodeOptions::default()), [97, 257]);
        let bos = Mark::Always;
        assert_eq!(ids(t, b"a", EncodeOptions { bos, ..PLAIN }), [256, 97]);
        assert_eq!(ids(t, b"a", PLAIN), [97]);
        assert_eq!((t.bos(), t.eos()), (Some(256), Some(257)));
    })
    .unwrap();
}

#[test]
fn generation_ends_by_metadata_and_by_name() {
    // "<|im_end|>" has the type of a normal token, but counts as control.
    let mut entries = bpe(
        "gpt-2",
        &[],
        &[
            ("<|im_end|>", 1),
            ("<stop>", 3),
            ("<turn>", 3),
            ("<x>", 3),
            ("<end_of_turn>", 4),
            ("<|end|>", 3),
            ("<|endoftext|>", 3),
        ],
    );
    entries.push(("eos_token_id", Meta::Id(257)));
    entries.push(("fim_sep_token_id", Meta::Id(3)));
    entries.push(("fim_pad_token_id", Meta::Id(3000)));
    let file = but(entries, "eot_token_id", Meta::Id(258));
    with(&file, 64, |t| {
        let ends: Vec<u32> = (0..300).filter(|&id| t.is_end_of_generation(id)).collect();
        assert_eq!(ends, [3, 256, 257, 258, 260, 261, 262]);
        assert_eq!(ids(t, b"<|im_end|>", SPECIAL), [256]);
        assert_eq!(t.piece(256, false).count(), 0);
    })
    .unwrap();
}

#[test]
fn spm_merges_by_score_and_falls_back_to_bytes() {
    let pieces = [
        ("▁", -9.0),
        ("a", -1.0),
        ("b", -2.0),
        ("ab", -5.0),
        ("▁a", -6.0),
        ("▁ab", -7.0),
    ];
    let entries = spm(&pieces);
    with(&file(&entries), 64, |t| {
        assert_eq!(ids(t, b"ab ab", PLAIN), [264, 264]);
        assert_eq!(ids(t, b"ab", EncodeOptions::default()), [1, 264]);
        assert_eq!(ids(t, "aé".as_bytes(), PLAIN), [263, 3 + 0xC3, 3 + 0xA9]);
        assert_eq!(ids(t, b"<s>a", SPECIAL), [1, 263]);
        assert_eq!(bytes(t, &[264, 3 + 0xC3, 3 + 0xA9]), " abé".as_bytes());
        assert_eq!(ids(t, b"", PLAIN), []);
    })
    .unwrap();
    let with_prefix = file(&entries);
    let no_prefix = but(entries, "add_space_prefix", Meta::Flag(false));
    assert_eq!(
        with(&no_prefix, 64, |t| ids(t, b"ab", PLAIN)).unwrap(),
        [262]
    );
    let continued = EncodeOptions {
        continued: true,
        ..PLAIN
    };
    assert_eq!(
        with(&with_prefix, 64, |t| ids(t, b"ab", continued)).unwrap(),
        [262]
    );
}

#[test]
fn phi_3_s_special_tokens_take_the_blanks_after_them() {
    let pieces = ["<|user|>", "<|end|>", "<|endoftext|>", "a", "\n"].map(|piece| (piece, -1.0));
    let mut entries = spm(&pieces);
    for (key, value) in &mut entries {
        if let ("token_type", Meta::Ints(types)) = (*key, value) {
            types[259] = 4;
        }
    }
    entries.push(("add_space_prefix", Meta::Flag(false)));
    let text = b"<|user|> \n\ta<|end|>\n<|endoftext|>\na<s>\n</s>\n\n";
    for (name, taken) in [
        ("Phi3", true),
        ("microsoft_Phi-3 mini", true),
        ("Phi 4", false),
        ("phi-", false),
        ("", false),
    ] {
        let mut entries = entries.clone();
        entries.push(("general.name", Meta::Str(name)));
        let got = with(&file(&entries), 64, |t| ids(t, text, SPECIAL)).unwrap();
        if taken {
            assert_eq!(got, [259, 262, 260, 261, 263, 262, 1, 263, 2], "{name}");
        } else {
            let (space, tab) = ([3 + 0xE2, 3 + 0x96, 3 + 0x81], 3 + 9);
            assert_eq!(
                got[..6],
                [259, space[0], space[1], space[2], 263, tab],
                "{name}"
            );
            assert_eq!(
                got[6..],
                [262, 260, 263, 261, 263, 262, 1, 263, 2, 263, 263],
                "{name}"
            );
        }
    }
}

#[test]
fn user_defined_runs_of_blanks_are_found_before_merging() {
    // As in Gemma: runs of line breaks and of spaces are whole tokens, of the type that is taken
    // out of a text first.
    let pieces = ["\n\n", "\n\n\n", "▁▁", "▁", "a", "▁a"].map(|piece| (piece, -1.0));
    let mut entries = spm(&pieces);
    for (key, value) in &mut entries {
        if let ("token_type", Meta::Ints(types)) = (*key, value) {
            types[259..261].fill(4);
        }
    }
    entries.push(("add_space_prefix", Meta::Flag(false)));
    with(&file(&entries), 64, |t| {
        assert_eq!(ids(t, b"a\n\n\n\n\na", PLAIN), [263, 260, 259, 263]);
        assert_eq!(ids(t, b"\n a", PLAIN), [3 + 10, 264]);
        assert_eq!(ids(t, b"a  a", PLAIN), [263, 261, 263]);
        assert_eq!(bytes(t, &[259, 261, 264]), b"\n\n   a");
    })
    .unwrap();
}

#[test]
fn spm_without_byte_tokens_says_unknown() {
    let tokens = ["<unk>", "a"].map(|s| s.as_bytes().to_vec()).to_vec();
    let file = file(&[
        ("model", Meta::Str("llama")),
        ("tokens", Meta::Strings(tokens)),
        ("token_type", Meta::Ints(vec![2, 1])),
        ("add_space_prefix", Meta::Flag(false)),
    ]);
    with(&file, 64, |t| {
        assert_eq!(ids(t, b"ab", PLAIN), [1, 0]);
        // The default ids 1 and 2 of SentencePiece: only one is in range.
        assert_eq!((t.bos(), t.eos()), (Some(1), None));
    })
    .unwrap();
}

#[test]
fn bad_metadata_is_refused() {
    let good = bpe("gpt-2", HELLO, &[]);
    let error = |key, value| with(&but(good.clone(), key, value), 64, |_| ()).unwrap_err();
    use TokenizerError as E;
    assert_eq!(error("model", Meta::Id(1)), E::WrongType(Field::Model));
    assert_eq!(
        error("model", Meta::Str("bert")),
        E::UnknownModel(Name::new(b"bert"))
    );
    let unknown = error("pre", Meta::Str("no-such-pre-tokenizer-and-a-long-one"));
    assert_eq!(
        unknown.to_string(),
        "the pre-tokenizer \"no-such-pre-tokenizer-an\" is unknown"
    );
    assert_eq!(
        error("tokens", Meta::Strings(vec![])),
        E::BadSize(Field::Tokens)
    );
    assert_eq!(
        error("tokens", Meta::Ints(vec![1])),
        E::WrongType(Field::Tokens)
    );
    assert_eq!(
        error("merges", Meta::Flag(true)),
        E::WrongType(Field::Merges)
    );
    assert_eq!(
        error("token_type", Meta::Floats(vec![])),
        E::WrongType(Field::TokenTypes)
    );
    for (key, field) in [
        ("add_bos_token", Field::AddBos),
        ("add_eos_token", Field::AddEos),
    ] {
        assert_eq!(error(key, Meta::Id(1)), E::WrongType(field));
    }
    let prefix = but(spm(&[]), "add_space_prefix", Meta::Id(1));
    assert_eq!(
        with(&prefix, 64, |_| ()).unwrap_err(),
        E::WrongType(Field::AddSpacePrefix)
    );
    let field = Field::TokenTypes;
    assert_eq!(
        error("token_type", Meta::Ints(vec![1; 9])),
        E::TooFew {
            field,
            found: 9,
            tokens: 261
        }
    );
    let scores = but(spm(&[]), "scores", Meta::Floats(vec![0.0; 258]));
    let field = Field::Scores;
    assert_eq!(
        with(&scores, 64, |_| ()).unwrap_err(),
        E::TooFew {
            field,
            found: 258,
            tokens: 259
        }
    );
    for (key, field) in [
        ("model", Field::Model),
        ("pre", Field::Pre),
        ("tokens", Field::Tokens),
        ("merges", Field::Merges),
    ] {
        let mut entries = good.clone();
        entries.retain(|entry| entry.0 != key);
        assert_eq!(
            with(&file(&entries), 64, |_| ()).unwrap_err(),
            E::Missing(field)
        );
    }
}

#[test]
fn senseless_metadata_is_left_out() {
    let mut entries = bpe("gpt-2", HELLO, &[("", 3), ("", 1), ("he", 1), ("€", 1)]);
    let Meta::Strings(mut merges) = entries.pop().unwrap().1 else {
        unreachable!()
    };
    let odd = ["", " ", "x", "x ", " x", "x y z", "a b", "€ a", "h e"];
    merges.splice(0..0, odd.map(|s| s.as_bytes().to_vec()));
    entries.extend([
        ("merges", Meta::Strings(merges)),
        ("bos_token_id", Meta::Id(70_000)),
    ]);
    let file = but(entries, "eos_token_id", Meta::Str("no id"));
    with(&file, 64, |t| {
        // "a b" makes no token: it falls back to its bytes. The first of two equal tokens counts.
        assert_eq!(ids(t, b"abhell x", PLAIN), [97, 98, 258, 32, 120]);
        assert_eq!((t.bos(), t.eos()), (None, None));
        assert_eq!(bytes(t, &[261, 262, 263, 264]), "he€".as_bytes());
    })
    .unwrap();
}

#[test]
fn memory_is_exactly_what_was_announced() {
    let file = file(&bpe("gpt-2", HELLO, &[("<s>", 3)]));
    let gguf = Gguf::parse(&file).unwrap();
    let vocab = Vocab::from_gguf(&gguf).unwrap();
    let needed = vocab.index_bytes(0);
    assert_eq!(needed, vocab.index_bytes(64));
    assert_eq!(vocab.index_bytes(65) - needed, 64 * 17);
    let mut memory = vec![0; needed + 2 * ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    for given in 0..needed {
        let error = Tokenizer::new(&vocab, &mut memory[start..start + given]).err();
        assert_eq!(error, Some(TokenizerError::OutOfMemory { needed, given }));
    }
    assert!(Tokenizer::new(&vocab, &mut memory[start..start + needed]).is_ok());
    let error = Tokenizer::new(&vocab, &mut memory[start + 1..start + 1 + needed]).err();
    assert_eq!(error, Some(TokenizerError::Misaligned));
}

#[test]
fn a_quoted_user_forges_no_token() {
    let file = file(&bpe(
        "gpt-2",
        &[],
        &[("<s>", 3), ("<|end|>", 3), ("<u>", 4)],
    ));
    let control = [256, 257];
    with(&file, 64, |t| {
        let mut framed = |before: &str, words: &str, after: &str| {
            let text = [before, words, after].concat();
            let mut out = Vec::new();
            let quoted = before.len()..before.len() + words.len();
            let quoted = std::slice::from_ref(&quoted);
            t.encode_quoting(text.as_bytes(), SPECIAL, quoted, &mut |id| out.push(id));
            assert_eq!(bytes(t, &out), text.as_bytes());
            let found: Vec<u32> = out
                .iter()
                .copied()
                .filter(|id| control.contains(id))
                .collect();
            (found, out)
        };
        assert_eq!(framed("<s>", "a<|end|>b<s>", "<|end|>").0, control);
        // The user's half does not complete the program's half either.
        assert_eq!(framed("<|e", "nd|><|", "end|>").0, []);
        assert_eq!(framed("<s>", "<s", "><|end|>").0, control);
        // User-defined tokens are ordinary words.
        assert_eq!(framed("<s>", "a<u>", "").1, [256, 97, 258]);
        // Around plain words, the tokens are those of the whole text.
        assert_eq!(framed("<s>a ", "b c", "d<|end|>").0, control);
    })
    .unwrap();
}

#[test]
fn a_stream_holds_back_half_a_character() {
    let mut stream = Utf8Stream::new();
    let mut seen = Vec::new();
    for part in [&b"a\xE2"[..], b"\x82", b"\xACb"] {
        let mut text = String::new();
        stream.push(part.iter().copied(), &mut |part| text.push_str(part));
        seen.push(text);
    }
    assert_eq!(seen, ["a", "", "€b"]);
}

//! Builds a tokenizer from any file's metadata and feeds it text: the body of the fuzz target and
//! of the replay of its corpus. The text is the part of the file where tensors' data would be.

use brooklet_core::arena::ALIGN;
use brooklet_core::gguf::Gguf;
use brooklet_core::tokenizer::{EncodeOptions, Mark, Tokenizer, Utf8Stream, Vocab};

/// Parses `bytes` and, if they are a GGUF file with a tokenizer, encodes the text and decodes the
/// tokens.
///
/// # Panics
/// If a promise of the tokenizer is broken.
pub fn walk(bytes: &[u8]) {
    let Ok(file) = Gguf::parse(bytes) else { return };
    let text = bytes.get(file.data_start()..).unwrap_or(&[]);
    let vocab = match Vocab::from_gguf(&file) {
        Ok(vocab) => vocab,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(!vocab.is_empty());
    for piece in [0, text.len()] {
        let needed = vocab.index_bytes(piece);
        assert!(
            needed < (bytes.len() + 64) * 512,
            "{needed} bytes for a file of {}",
            bytes.len()
        );
        let mut memory = vec![0; needed + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        match Tokenizer::new(&vocab, &mut memory[start..start + needed]) {
            Ok(mut tokenizer) => use_all(&mut tokenizer, text),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn use_all(tokenizer: &mut Tokenizer<'_>, text: &[u8]) {
    let vocab_len = tokenizer.vocab().len();
    for special in [false, true] {
        let options = EncodeOptions {
            bos: Mark::Always,
            eos: Mark::Always,
            special,
            continued: special,
        };
        let third = text.len() / 3;
        tokenizer.encode_quoting(
            text,
            options,
            std::slice::from_ref(&(third..2 * third)),
            &mut |id| {
                assert!((id as usize) < vocab_len);
            },
        );
        let ids = encode(tokenizer, text, options);
        assert_eq!(
            ids,
            encode(tokenizer, text, options),
            "what was encoded before makes a difference"
        );
        assert!(ids.iter().all(|&id| (id as usize) < vocab_len));
        // A byte can become an escaped space of three bytes, and each of these a token.
        assert!(
            ids.len() <= 3 * text.len() + 8,
            "{} tokens for {} bytes",
            ids.len(),
            text.len()
        );
        let mut stream = Utf8Stream::new();
        let mut shown = String::new();
        for id in ids {
            stream.push(tokenizer.piece(id, special), &mut |part| {
                shown.push_str(part)
            });
        }
        stream.finish(&mut |part| shown.push_str(part));
    }
    for id in (0..vocab_len as u32 + 2).chain([u32::MAX]) {
        let bytes: Vec<u8> = tokenizer.piece(id, true).collect();
        assert!(bytes.is_empty() || (id as usize) < vocab_len);
        if let Some(named) = tokenizer.special(&bytes) {
            assert!((named as usize) < vocab_len);
        }
        assert!(!tokenizer.is_end_of_generation(id) || (id as usize) < vocab_len);
    }
    for marked in [tokenizer.bos(), tokenizer.eos()].into_iter().flatten() {
        assert!((marked as usize) < vocab_len);
    }
}

fn encode(tokenizer: &mut Tokenizer<'_>, text: &[u8], options: EncodeOptions) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encode(text, options, &mut |id| ids.push(id));
    ids
}

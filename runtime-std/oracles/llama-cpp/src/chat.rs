//! A scripted conversation as llama.cpp's own programs hold one: a kept prefix, and context shift.

use crate::Result;
use crate::args::Args;
use crate::peer::{Peer, feed};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::token::LlamaToken;
use std::fs::File;
use std::io::{BufWriter, Write};

/// The tokens in the cache, in order; the position of each is its index.
struct Held<'c> {
    context: LlamaContext<'c>,
    tokens: Vec<LlamaToken>,
    keep: usize,
    capacity: usize,
}

impl Held<'_> {
    /// Feeds tokens. If they do not fit, evicts half of the tokens after the kept prefix first, as
    /// with `--keep N --context-shift`.
    fn feed(&mut self, tokens: &[LlamaToken]) -> Result<()> {
        while self.tokens.len() + tokens.len() > self.capacity {
            let discard = (self.tokens.len() - self.keep) / 2;
            if discard == 0 {
                return Err("a message does not fit the context".into());
            }
            let (from, to) = (u32::try_from(self.keep)?, u32::try_from(self.keep + discard)?);
            self.context.clear_kv_cache_seq(Some(0), Some(from), Some(to))?;
            self.context
                .kv_cache_seq_add(0, Some(to), None, -i32::try_from(discard)?)?;
            self.tokens.drain(self.keep..self.keep + discard);
        }
        feed(&mut self.context, tokens, self.tokens.len(), false)?;
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    fn best(&self) -> Result<LlamaToken> {
        let row = self.context.get_logits_ith(-1);
        let greater = |best: usize, at: usize| if row[at] > row[best] { at } else { best };
        Ok(LlamaToken(i32::try_from((0..row.len()).fold(0, greater))?))
    }
}

/// Asks the questions of a file, one a line, in the ChatML frame, and answers greedily with at most
/// N tokens. Writes a line of JSON per turn: the answer, and the text in the cache.
pub fn chat(args: &Args) -> Result<()> {
    let peer = Peer::load(args)?;
    let (system, questions) = (args.word(1, "SYSTEM")?, args.word(2, "QUESTIONS")?);
    let questions = std::fs::read_to_string(questions)?;
    let mut out = BufWriter::new(File::create(args.word(3, "OUT")?)?);
    let limit: usize = args.value("-n")?.unwrap_or(64);
    let vocab = peer.model.vocab();
    let tokens = |text: &str| vocab.tokenize(text.as_bytes(), false, true);
    let prefix = tokens(&format!("<|im_start|>system\n{system}<|im_end|>\n"));
    let capacity = args.value("-c")?.unwrap_or(512);
    let mut held = Held {
        context: peer.context(args, capacity)?,
        tokens: Vec::new(),
        keep: prefix.len(),
        capacity,
    };
    held.feed(&prefix)?;
    let end = tokens("<|im_end|>");
    for (index, question) in questions.lines().enumerate() {
        held.feed(&tokens(&format!(
            "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )))?;
        let mut answer = Vec::new();
        while answer.len() < limit {
            let token = held.best()?;
            if vocab.is_eog(token) {
                break;
            }
            answer.push(token);
            held.feed(&[token])?;
        }
        held.feed(&end)?;
        held.feed(&tokens("\n"))?;
        let text =
            |ids: &[LlamaToken]| String::from_utf8_lossy(&vocab.detokenize(ids, false, true)).into_owned();
        let (answer, live) = (json(&text(&answer)), json(&text(&held.tokens)));
        writeln!(out, r#"{{"turn":{},"answer":{answer},"live":{live}}}"#, index + 1)?;
    }
    Ok(out.flush()?)
}

/// A JSON string.
fn json(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\0'..='\x1f' => out += &format!("\\u{:04x}", u32::from(character)),
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

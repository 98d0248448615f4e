//! Logits, and the probabilities, perplexity and greedy text that follow from them.

use crate::Result;
use crate::args::Args;
use crate::peer::{Peer, feed, read_ids};
use llama_cpp_2::token::LlamaToken;
use std::fs::File;
use std::io::{BufWriter, Write};

/// Tokens per call of llama.cpp, which limits the logits that it holds to 256 rows.
const CHUNK: usize = 256;

/// Writes the raw logits of the first N ids, one little-endian f32 row per id.
pub fn logits(args: &Args) -> Result<()> {
    let peer = Peer::load(args)?;
    let ids = first_ids(args, &peer)?;
    let mut out = BufWriter::new(File::create(args.word(2, "OUT")?)?);
    for_each_row(args, &peer, &ids, |_, row| {
        let bytes: Vec<u8> = row.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        Ok(out.write_all(&bytes)?)
    })?;
    Ok(out.flush()?)
}

/// Prints, for each of the first N ids that has a successor: position, successor, top-1 id and both
/// log-probabilities.
pub fn topk(args: &Args) -> Result<()> {
    let peer = Peer::load(args)?;
    let ids = first_ids(args, &peer)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for_each_row(args, &peer, &ids, |at, row| {
        if let Some(next) = ids.get(at + 1) {
            let (top, _) = top_two(row);
            let (ln_top, ln_next) = (log_prob(row, top), log_prob(row, index(*next)));
            writeln!(out, "{at}\t{}\t{top}\t{ln_top:.6}\t{ln_next:.6}", next.0)?;
        }
        Ok(())
    })
}

/// Prints the mean negative log-likelihood of tokens A+1 to A+N, the cache being empty before token
/// A. With `--window W` the cache keeps the first S (`--sinks`, 0 unless given) and the last W
/// tokens.
pub fn ppl(args: &Args) -> Result<()> {
    let peer = Peer::load(args)?;
    let ids = read_ids(args.word(1, "IDS_FILE")?, peer.vocab())?;
    let start: usize = args.value("--start")?.unwrap_or(0);
    let rest = ids
        .get(start..)
        .filter(|rest| rest.len() > 1)
        .ok_or("--start leaves nothing to predict")?;
    let count = args.value("--count")?.unwrap_or(rest.len() - 1);
    if count == 0 || count >= rest.len() {
        return Err(format!("--count {count}: between 1 and {}", rest.len() - 1).into());
    }
    let started = std::time::Instant::now();
    let mut total = 0.0;
    let mut add = |at: usize, row: &[f32]| {
        total -= log_prob(row, index(rest[at + 1]));
        Ok(())
    };
    match args.value("--window")? {
        None => for_each_row(args, &peer, &rest[..count], add)?,
        Some(window) => for_each_shifted_row(args, &peer, &rest[..count], window, &mut add)?,
    }
    let nll = total / count as f64;
    let (ppl, seconds) = (nll.exp(), started.elapsed().as_secs_f64());
    println!(r#"{{"tokens":{count},"start":{start},"nll":{nll:.6},"ppl":{ppl:.4},"seconds":{seconds:.2}}}"#);
    Ok(())
}

/// Prints N greedy tokens, one a line, each with the difference between the two greatest logits.
/// End-of-text tokens do not stop it.
pub fn generate(args: &Args) -> Result<()> {
    let peer = Peer::load(args)?;
    let prompt = read_ids(args.word(1, "IDS_FILE")?, peer.vocab())?;
    let count: usize = args.value("-n")?.unwrap_or(64);
    let mut context = peer.context(args, prompt.len() + count)?;
    let mut made = Vec::with_capacity(count);
    let mut at = 0;
    for chunk in prompt.chunks(CHUNK) {
        feed(&mut context, chunk, at, false)?;
        at += chunk.len();
    }
    while made.len() < count {
        let row = context.get_logits_ith(-1);
        let (top, second) = top_two(row);
        println!("{top}\t{:.6}", row[top] - row[second]);
        made.push(LlamaToken(i32::try_from(top)?));
        feed(&mut context, &made[made.len() - 1..], at, false)?;
        at += 1;
    }
    let text = peer.model.vocab().detokenize(&made, false, true);
    eprintln!("{}", String::from_utf8_lossy(&text));
    Ok(())
}

fn first_ids(args: &Args, peer: &Peer) -> Result<Vec<LlamaToken>> {
    let mut ids = read_ids(args.word(1, "IDS_FILE")?, peer.vocab())?;
    ids.truncate(args.value("-n")?.unwrap_or(usize::MAX));
    if ids.is_empty() {
        Err("no ids to feed".into())
    } else {
        Ok(ids)
    }
}

/// Feeds all ids from an empty cache and shows each row of logits with its index.
fn for_each_row(
    args: &Args,
    peer: &Peer,
    ids: &[LlamaToken],
    mut show: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let mut context = peer.context(args, ids.len())?;
    for (number, chunk) in ids.chunks(CHUNK).enumerate() {
        let first = number * CHUNK;
        feed(&mut context, chunk, first, true)?;
        for offset in 0..chunk.len() {
            show(first + offset, context.get_logits_ith(i32::try_from(offset)?))?;
        }
    }
    Ok(())
}

/// Feeds ids one by one; once sinks + window entries are held, the oldest entry that is no sink is
/// dropped and llama.cpp shifts the rest down by one position. The shift rotates cached keys in
/// place, so `--cache-type f32` is advised.
fn for_each_shifted_row(
    args: &Args,
    peer: &Peer,
    ids: &[LlamaToken],
    window: usize,
    show: &mut impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let sinks: usize = args.value("--sinks")?.unwrap_or(0);
    let capacity = sinks + window;
    let mut context = peer.context(args, capacity)?;
    let oldest = u32::try_from(sinks)?;
    for at in 0..ids.len() {
        if at >= capacity {
            context.clear_kv_cache_seq(Some(0), Some(oldest), Some(oldest + 1))?;
            context.kv_cache_seq_add(0, Some(oldest + 1), None, -1)?;
        }
        feed(&mut context, &ids[at..=at], at.min(capacity - 1), true)?;
        show(at, context.get_logits_ith(-1))?;
    }
    Ok(())
}

fn index(id: LlamaToken) -> usize {
    usize::try_from(id.0).expect("ids were checked when read")
}

/// Natural logarithm of the softmax probability of `id`, summed in f64.
fn log_prob(row: &[f32], id: usize) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    f64::from(row[id] - max) - sum.ln()
}

/// Indices of the greatest and second greatest logit; of equals the first wins.
fn top_two(row: &[f32]) -> (usize, usize) {
    let mut best = if row[1] > row[0] { (1, 0) } else { (0, 1) };
    for (at, &logit) in row.iter().enumerate().skip(2) {
        if logit > row[best.0] {
            best = (at, best.0);
        } else if logit > row[best.1] {
            best.1 = at;
        }
    }
    best
}

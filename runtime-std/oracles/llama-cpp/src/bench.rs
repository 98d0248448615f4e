//! Timings with llama-bench's meaning: prefill is one decode of P tokens into an empty cache that
//! computes the last token's logits only; decode is N tokens fed one by one from an empty cache,
//! full logits each.

use crate::Result;
use crate::args::Args;
use crate::system::memory::Memory;
use crate::peer::{Peer, feed, system_line, threads};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::token::LlamaToken;
use std::io::{BufRead, Write};
use std::time::Instant;

/// Runs the benchmark, or serves single runs with `--serve`.
pub fn bench(args: &Args) -> Result<()> {
    let peer = Peer::load(args)?;
    refuse_baseline_build(&system_line())?;
    if args.has("--serve") {
        serve(args, &peer)
    } else {
        measure(args, &peer)
    }
}

/// Refuses a build for baseline x86-64, which would make every ratio worthless.
fn refuse_baseline_build(line: &str) -> Result<()> {
    #[cfg(target_arch = "x86_64")]
    for (here, name) in [
        (std::arch::is_x86_feature_detected!("avx2"), "AVX2"),
        (std::arch::is_x86_feature_detected!("avx512vnni"), "AVX512_VNNI"),
    ] {
        if here && !line.contains(&format!("{name} = 1")) {
            return Err(format!(
                "built without {name}, which this CPU has: set RUSTFLAGS=\"-C target-cpu=native\""
            )
            .into());
        }
    }
    if line.is_empty() {
        Err("llama.cpp gives no system line".into())
    } else {
        Ok(())
    }
}

fn measure(args: &Args, peer: &Peer) -> Result<()> {
    let prompt: usize = args.value("-p")?.unwrap_or(256);
    let generated: usize = args.value("-n")?.unwrap_or(64);
    let runs: usize = args.value("-r")?.unwrap_or(5);
    if prompt == 0 || generated == 0 || runs == 0 {
        return Err("-p, -n and -r are at least 1".into());
    }
    let mut context = peer.context(args, prompt.max(generated))?;
    let vocab = peer.vocab();
    prefill(&mut context, vocab, prompt)?;
    let prefills = repeat(runs, || prefill(&mut context, vocab, prompt))?;
    decode(&mut context, vocab, 1)?;
    let decodes = repeat(runs, || decode(&mut context, vocab, generated))?;
    let prefill = Rates::of(prompt, prefills);
    let decode = Rates::of(generated, decodes);
    let memory = Memory::now()?;
    println!(
        r#"{{"program":"llama.cpp (llama-cpp-2 0.1.160)","prompt":{prompt},"generated":{generated},"runs":{runs},"threads":{},{},{},"peak_rss_kb":{},"rss_anon_kb":{}}}"#,
        threads(args)?,
        prefill.json("prefill"),
        decode.json("decode"),
        memory.peak_kb,
        memory.anon_kb,
    );
    Ok(())
}

/// Prints READY, then answers each line: `p N` and `n N` with the seconds of one run, `m` with peak
/// and anonymous resident kB. Ends with the input. The model stays loaded, so that a driver can
/// alternate with another program.
fn serve(args: &Args, peer: &Peer) -> Result<()> {
    let mut context = peer.context(args, 2048)?;
    let vocab = peer.vocab();
    let mut out = std::io::stdout().lock();
    prefill(&mut context, vocab, 32)?;
    decode(&mut context, vocab, 2)?;
    writeln!(out, "READY")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["p", count] => writeln!(out, "{:.6}", prefill(&mut context, vocab, tokens(count)?)?)?,
            ["n", count] => writeln!(out, "{:.6}", decode(&mut context, vocab, tokens(count)?)?)?,
            ["m"] => {
                let memory = Memory::now()?;
                writeln!(out, "{} {}", memory.peak_kb, memory.anon_kb)?;
            }
            _ => return Err(format!("unknown request: {line}").into()),
        }
        out.flush()?;
    }
    Ok(())
}

fn tokens(word: &str) -> Result<usize> {
    match word.parse() {
        Ok(count @ 1..=2048) => Ok(count),
        _ => Err(format!("{word}: between 1 and 2048 tokens").into()),
    }
}

fn repeat(runs: usize, mut run: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
    (0..runs).map(|_| run()).collect()
}

/// Seconds of one decode call over `count` tokens, last logits only. llama.cpp splits it into
/// batches of 512.
fn prefill(context: &mut LlamaContext, vocab: usize, count: usize) -> Result<f64> {
    context.clear_kv_cache();
    let ids = arbitrary_ids(vocab, count);
    let started = Instant::now();
    feed(context, &ids, 0, false)?;
    wait(context);
    Ok(started.elapsed().as_secs_f64())
}

/// Seconds of `count` one-token calls.
fn decode(context: &mut LlamaContext, vocab: usize, count: usize) -> Result<f64> {
    context.clear_kv_cache();
    let ids = arbitrary_ids(vocab, count);
    let started = Instant::now();
    for at in 0..count {
        feed(context, &ids[at..=at], at, false)?;
        wait(context);
    }
    Ok(started.elapsed().as_secs_f64())
}

/// Waits for the end of the computation by reading the logits.
fn wait(context: &LlamaContext) {
    std::hint::black_box(context.get_logits_ith(-1)[0]);
}

/// Returns the same ids in every run, by a multiplicative walk through the vocabulary.
fn arbitrary_ids(vocab: usize, count: usize) -> Vec<LlamaToken> {
    (1..=count)
        .map(|n| LlamaToken((n * 7919 % vocab) as i32))
        .collect()
}

/// Tokens per second over some runs.
struct Rates {
    median: f64,
    min: f64,
    max: f64,
}

impl Rates {
    fn of(tokens: usize, seconds: Vec<f64>) -> Self {
        let mut rates: Vec<f64> = seconds.iter().map(|seconds| tokens as f64 / seconds).collect();
        rates.sort_by(f64::total_cmp);
        let half = rates.len() / 2;
        let median = if rates.len() % 2 == 1 {
            rates[half]
        } else {
            (rates[half - 1] + rates[half]) / 2.0
        };
        Rates {
            median,
            min: rates[0],
            max: rates[rates.len() - 1],
        }
    }

    fn json(&self, name: &str) -> String {
        format!(
            r#""{name}_tps":{:.2},"{name}_tps_min":{:.2},"{name}_tps_max":{:.2}"#,
            self.median, self.min, self.max
        )
    }
}

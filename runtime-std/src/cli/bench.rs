//! `brooklet bench`: speed from an empty cache.
//!
//! Prefill feeds P tokens and computes the last one's logits; decode feeds N tokens one by one and
//! computes every one's. Which tokens they are does not matter to the work.

use std::io::{self, BufRead, Write};
use std::time::Instant;

use brooklet_core::stream::Stream;
use clap::Args;
use serde_json::json;

use super::cache::CacheArguments;
use super::failure::Failure;
use super::json::write_json;
use super::model::ModelArguments;
use super::numbers::whole;
use super::run::log_plan;
use crate::engine::{Engine, Resources};
use crate::planning::Settings;
use crate::system::memory::MemoryUse;

/// Most tokens of a run, and most runs.
const MOST_PER_RUN: usize = 1 << 20;
const MOST_RUNS: usize = 10_000;

/// Arguments of `brooklet bench`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Tokens of the prompt
    #[arg(short, long, value_name = "P", default_value_t = 256, value_parser = whole(1, MOST_PER_RUN))]
    prompt: usize,
    /// Tokens to decode
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", default_value_t = 64, value_parser = whole(1, MOST_PER_RUN))]
    tokens: usize,
    /// Runs of each
    #[arg(short, long, value_name = "R", default_value_t = 5, value_parser = whole(1, MOST_RUNS))]
    runs: usize,
    #[command(flatten)]
    cache: CacheArguments,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print READY, then answer each line of standard input (`p N`, `n N`: seconds of one run; `d
    /// N`: of N tokens decoded after those of the last line; `m`: peak and anonymous kB)
    #[arg(long, hide = true)]
    serve: bool,
}

/// Measures, or serves single measurements to a driver that alternates with another program.
pub fn bench(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Failure> {
    let open = arguments.model.open()?;
    let (model, manifest) = open.check_text(arguments.cache.compute.workers())?;
    let settings = Settings {
        sampling: false,
        ..arguments.cache.settings(manifest.as_ref())?
    };
    let plan = model.plan_with_index(&settings)?;
    log_plan(&plan);
    let mut resources = Resources::as_planned(&model, &plan)?;
    let mut engine = Engine::new(&model, &mut resources)?;
    let mut bench = Bench {
        stream: engine.stream(),
        vocab: model.config().vocab,
        tokens: Vec::new(),
    };
    if arguments.serve {
        return bench.serve(out);
    }
    // The first run of each brings in the weights and is not counted.
    bench.prefill(arguments.prompt)?;
    let prefill = Rates::measure(arguments.runs, arguments.prompt, || {
        bench.prefill(arguments.prompt)
    })?;
    bench.decode(1)?;
    let decode = Rates::measure(arguments.runs, arguments.tokens, || {
        bench.decode(arguments.tokens)
    })?;
    if !arguments.json {
        let line = |name, tokens, rates: &Rates| {
            let [low, median, high] = [rates.0[0], rates.median(), rates.0[rates.0.len() - 1]];
            format!("{name:<8} {tokens:>6} tokens  {median:>9.2} tokens/s  ({low:.2} to {high:.2})")
        };
        let prefill = line("prefill", arguments.prompt, &prefill);
        let decode = line("decode", arguments.tokens, &decode);
        return writeln!(out, "{prefill}\n{decode}").map_err(Failure::Output);
    }
    let memory = MemoryUse::now().unwrap_or_default();
    let report = json!({
        "prefill_tps": prefill.median(),
        "decode_tps": decode.median(),
        "prefill_tps_runs": prefill.0,
        "decode_tps_runs": decode.0,
        "prompt": arguments.prompt,
        "generated": arguments.tokens,
        "runs": arguments.runs,
        "threads": plan.options().workers,
        "isa": crate::system::pool::detect_isa()?.name(),
        "policy": plan.options().policy.name(),
        "cache_type": plan.options().cache_type.name(),
        "arena_bytes": plan.bytes(),
        "peak_rss_kb": memory.peak_kib,
        "rss_anon_kb": memory.anonymous_kib,
    });
    write_json(out, &report)
}

/// Tokens per second of several runs, slowest first.
struct Rates(Vec<f64>);

impl Rates {
    fn measure(
        runs: usize,
        tokens: usize,
        mut run: impl FnMut() -> Result<f64, Failure>,
    ) -> Result<Rates, Failure> {
        let rates: Result<Vec<f64>, Failure> =
            (0..runs).map(|_| Ok(tokens as f64 / run()?)).collect();
        let mut rates = rates?;
        rates.sort_by(f64::total_cmp);
        Ok(Rates(rates))
    }

    fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        if self.0.len().is_multiple_of(2) {
            (self.0[middle - 1] + self.0[middle]) / 2.0
        } else {
            self.0[middle]
        }
    }
}

struct Bench<'b, 'a> {
    stream: &'b mut Stream<'a>,
    vocab: usize,
    tokens: Vec<u32>,
}

impl Bench<'_, '_> {
    /// `count` tokens from all over the vocabulary.
    fn choose(&mut self, count: usize) {
        self.tokens.clear();
        self.tokens
            .extend((0..count).map(|i| (i.wrapping_mul(7919) % self.vocab) as u32));
    }

    /// Seconds of one prefill.
    fn prefill(&mut self, count: usize) -> Result<f64, Failure> {
        self.choose(count);
        self.stream.reset();
        let start = Instant::now();
        self.stream.feed(&self.tokens)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds of decoding `count` tokens.
    fn decode(&mut self, count: usize) -> Result<f64, Failure> {
        self.stream.reset();
        self.decode_further(count)
    }

    /// Seconds of decoding `count` tokens after those that the cache has: with a cache that an
    /// earlier run filled, each evicts one.
    fn decode_further(&mut self, count: usize) -> Result<f64, Failure> {
        self.choose(count);
        let start = Instant::now();
        for token in &self.tokens {
            self.stream.feed(&[*token])?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn serve(&mut self, out: &mut dyn Write) -> Result<(), Failure> {
        self.prefill(32)?;
        self.decode(2)?;
        answer(out, "READY")?;
        for line in io::stdin().lock().lines() {
            let line = line.map_err(|error| Failure::Read {
                path: "-".into(),
                error,
            })?;
            let mut words = line.split_whitespace();
            let (what, count) = (
                words.next(),
                words
                    .next()
                    .and_then(|word| word.parse().ok())
                    .filter(|n| *n > 0),
            );
            match (what, count) {
                (Some("p"), Some(count)) => answer(out, &format!("{:.6}", self.prefill(count)?))?,
                (Some("n"), Some(count)) => answer(out, &format!("{:.6}", self.decode(count)?))?,
                (Some("d"), Some(count)) => {
                    answer(out, &format!("{:.6}", self.decode_further(count)?))?
                }
                (Some("m"), None) => {
                    let memory = MemoryUse::now().unwrap_or_default();
                    answer(
                        out,
                        &format!("{} {}", memory.peak_kib, memory.anonymous_kib),
                    )?;
                }
                _ => {
                    return Err(Failure::Input(format!(
                        "\"{line}\" is not `p N`, `n N`, `d N` or `m`"
                    )));
                }
            }
        }
        Ok(())
    }
}

fn answer(out: &mut dyn Write, line: &str) -> Result<(), Failure> {
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(Failure::Output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_sorted_and_halved() {
        let mut seconds = [4.0, 1.0, 2.0].into_iter();
        let rates = Rates::measure(3, 8, || Ok(seconds.next().unwrap_or(1.0))).unwrap();
        assert_eq!(rates.0, [2.0, 4.0, 8.0]);
        assert_eq!(rates.median(), 4.0);
        assert_eq!(Rates(vec![1.0, 2.0]).median(), 1.5);
    }
}

//! `brooklet bench`: speed, and how near it is to that of reading.
//!
//! Prefill feeds P tokens and computes the last one's logits; decode feeds N tokens one by one and
//! computes every one's; both after D tokens that are not counted. Which tokens they are does not
//! matter to the work. After each run of decode the weights are read, and nothing else is done: the
//! machine's own measure, in the same minute.

use std::io::{self, BufRead, Write};
use std::time::Instant;

use brooklet_core::stream::Stream;
use clap::Args;
use serde::Serialize;

use super::cache::CacheArguments;
use super::failure::Failure;
use super::json::{Noted, Said, write_json};
use super::model::ModelArguments;
use super::numbers::whole;
use super::run::planned;
use super::terminal::shown_line;
use super::traffic::{Weights, cache_bytes};
use crate::engine::{Engine, Resources};
use crate::notice::{Notice, Notices};
use crate::planning::Settings;
use crate::size::Size;
use crate::system::isa::detect_isa;
use crate::system::machine::{Energy, Machine, Throttle};
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
    /// Tokens that are in the cache before either begins
    #[arg(short, long, value_name = "D", default_value_t = 0, value_parser = whole(0, MOST_PER_RUN))]
    depth: usize,
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
pub fn bench(
    arguments: &Arguments,
    mut notices: Notices,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let open = arguments.model.open()?;
    let (model, manifest) = open.check_text(arguments.cache.compute.workers())?;
    let model = arguments.cache.compute.tuned(model, &mut notices)?;
    let settings = Settings {
        sampling: false,
        ..arguments.cache.settings(&model, manifest.as_ref())?
    };
    let plan = planned(&model, &settings, &mut notices)?;
    let mut resources = Resources::as_planned(&model, &plan)?;
    let mut engine = Engine::new(&model, &mut resources)?;
    let mut bench = Bench {
        stream: engine.stream(),
        vocab: model.config().vocab,
        tokens: Vec::new(),
        meter: None,
    };
    if arguments.serve {
        return bench.serve(out);
    }
    let (weights, pool) = (Weights::of(model.gguf()), model.pool()?);
    let throttle = Throttle::now();
    let (count, depth, runs) = (arguments.tokens, arguments.depth, arguments.runs);
    // The first run of each brings in the weights and is not counted.
    bench.prefill(depth, arguments.prompt)?;
    let prefill = Rates::measure(runs, arguments.prompt, || {
        bench.prefill(depth, arguments.prompt)
    })?;
    bench.decode(0, 1)?;
    weights.read(&*pool);
    bench.meter = Energy::start().map(|energy| Meter {
        energy,
        joules: Some(0.0),
    });
    let mut readings = Vec::new();
    let decode = Rates::measure(runs, count, || {
        let seconds = bench.decode(depth, count)?;
        readings.push(weights.read(&*pool));
        Ok(seconds)
    })?;
    let reading = Rates::of(readings, weights.bytes());
    if let (Some(before), Some(after)) = (throttle, Throttle::now())
        && after.since(before)
    {
        notices.add(Notice::Throttled);
    }
    let memory = MemoryUse::now().unwrap_or_default();
    // The cache grows while it is measured: half of the tokens are there on average.
    let cache = cache_bytes(&model, &plan, depth + count.div_ceil(2));
    let bytes = weights.bytes() + cache;
    let (prefill_tps, decode_tps) = (prefill.median(), decode.median());
    let report = Report {
        prefill_tps,
        decode_tps,
        prefill_tps_runs: prefill.0,
        decode_tps_runs: decode.0,
        first_token_seconds: arguments.prompt as f64 / prefill_tps,
        prompt: arguments.prompt,
        generated: count,
        depth,
        runs,
        threads: plan.options().workers,
        isa: detect_isa()?.name(),
        policy: plan.options().policy.name(),
        cache_type: plan.options().cache_type.name(),
        weight_bytes: weights.bytes(),
        cache_bytes: cache,
        decode_bytes_per_second: bytes as f64 * decode_tps,
        reading_bytes_per_second: reading.median(),
        joules_per_token: bench
            .meter
            .and_then(|meter| meter.joules)
            .map(|joules| joules / (runs * count) as f64),
        arena_bytes: plan.bytes(),
        peak_rss_kb: memory.peak_kib,
        rss_anon_kb: memory.anonymous_kib,
        machine: Machine::now(),
    };
    if arguments.json {
        let notices = Said(&notices);
        return write_json(out, &Noted { report, notices });
    }
    report.print(out).map_err(Failure::Output)
}

/// Speeds, bytes and the machine.
#[derive(Serialize)]
struct Report {
    prefill_tps: f64,
    decode_tps: f64,
    prefill_tps_runs: Vec<f64>,
    decode_tps_runs: Vec<f64>,
    /// From the prompt to its last token's logits.
    first_token_seconds: f64,
    prompt: usize,
    generated: usize,
    depth: usize,
    runs: usize,
    threads: usize,
    isa: &'static str,
    policy: &'static str,
    cache_type: &'static str,
    /// Bytes that a token reads: weights, and on average of the cache.
    weight_bytes: usize,
    cache_bytes: usize,
    decode_bytes_per_second: f64,
    /// The weights alone, read by as many threads.
    reading_bytes_per_second: f64,
    joules_per_token: Option<f64>,
    arena_bytes: usize,
    peak_rss_kb: u64,
    rss_anon_kb: u64,
    machine: Machine,
}

impl Report {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let rates = |name, tokens, median: f64, runs: &[f64]| {
            let (low, high) = (runs[0], runs[runs.len() - 1]);
            format!("{name:<8} {tokens:>6} tokens  {median:>9.2} tokens/s  ({low:.2} to {high:.2})")
        };
        let prefill = rates(
            "prefill",
            self.prompt,
            self.prefill_tps,
            &self.prefill_tps_runs,
        );
        let decode = rates(
            "decode",
            self.generated,
            self.decode_tps,
            &self.decode_tps_runs,
        );
        writeln!(out, "{prefill}\n{decode}")?;
        if self.depth > 0 {
            writeln!(out, "both after {} tokens", self.depth)?;
        }
        writeln!(
            out,
            "a token  {} of weights, {} of cache: {:.1} GB/s, {:.0} % of {:.1} GB/s (the weights read, and nothing else done)",
            Size(self.weight_bytes),
            Size(self.cache_bytes),
            self.decode_bytes_per_second * 1e-9,
            100.0 * self.decode_bytes_per_second / self.reading_bytes_per_second,
            self.reading_bytes_per_second * 1e-9
        )?;
        if let Some(joules) = self.joules_per_token {
            writeln!(
                out,
                "energy   {joules:.4} J a token, the processor's package"
            )?;
        }
        let kib = |kib: u64| Size(usize::try_from(kib << 10).unwrap_or(usize::MAX));
        writeln!(
            out,
            "first    token after {:.3} s\nmemory   {} at most, {} of it not of files; the arena {}",
            self.first_token_seconds,
            kib(self.peak_rss_kb),
            kib(self.rss_anon_kb),
            Size(self.arena_bytes)
        )?;
        let machine = &self.machine;
        let known = [machine.board.as_deref(), machine.processor.as_deref()];
        let mut words: Vec<String> = known.into_iter().flatten().map(shown_line).collect();
        let threads = match self.threads {
            1 => "1 thread".to_owned(),
            count => format!("{count} threads"),
        };
        words.push(format!("{} kernels, {threads}", self.isa));
        if let Some(governor) = &machine.governor {
            words.push(format!("governor {}", shown_line(governor)));
        }
        if let (Some(now), Some(highest)) = (machine.clock_khz, machine.highest_clock_khz) {
            let ghz = |khz: u64| khz as f64 * 1e-6;
            words.push(format!("{:.1} of {:.1} GHz", ghz(now), ghz(highest)));
        }
        writeln!(out, "machine  {}", words.join(", "))
    }
}

/// Tokens per second of several runs, slowest first.
struct Rates(Vec<f64>);

impl Rates {
    fn measure(
        runs: usize,
        tokens: usize,
        mut run: impl FnMut() -> Result<f64, Failure>,
    ) -> Result<Rates, Failure> {
        let seconds: Result<Vec<f64>, Failure> = (0..runs).map(|_| run()).collect();
        Ok(Rates::of(seconds?, tokens))
    }

    /// Of `count` things in each of these seconds.
    fn of(seconds: Vec<f64>, count: usize) -> Rates {
        let rates = seconds.into_iter().map(|seconds| count as f64 / seconds);
        let mut rates: Vec<f64> = rates.collect();
        rates.sort_by(f64::total_cmp);
        Rates(rates)
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
    meter: Option<Meter>,
}

/// Energy that decoding has used.
struct Meter {
    energy: Energy,
    joules: Option<f64>,
}

impl Meter {
    /// Forgets the energy since the last call, which was not for decoding.
    fn begin(&mut self) {
        if self.energy.lap().is_none() {
            self.joules = None;
        }
    }

    fn end(&mut self) {
        let used = self.energy.lap();
        self.joules = self.joules.zip(used).map(|(joules, used)| joules + used);
    }
}

impl Bench<'_, '_> {
    /// `count` tokens from all over the vocabulary.
    fn choose(&mut self, count: usize) {
        self.tokens.clear();
        self.tokens
            .extend((0..count).map(|i| (i.wrapping_mul(7919) % self.vocab) as u32));
    }

    /// Forgets all, and fills the cache with `depth` tokens.
    fn fill(&mut self, depth: usize) -> Result<(), Failure> {
        self.stream.reset();
        if depth > 0 {
            self.choose(depth);
            self.stream.feed(&self.tokens)?;
        }
        Ok(())
    }

    /// Seconds of one prefill after `depth` tokens.
    fn prefill(&mut self, depth: usize, count: usize) -> Result<f64, Failure> {
        self.fill(depth)?;
        self.choose(count);
        let start = Instant::now();
        self.stream.feed(&self.tokens)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds of decoding `count` tokens after `depth` others.
    fn decode(&mut self, depth: usize, count: usize) -> Result<f64, Failure> {
        self.fill(depth)?;
        self.meter.iter_mut().for_each(Meter::begin);
        let seconds = self.decode_further(count)?;
        self.meter.iter_mut().for_each(Meter::end);
        Ok(seconds)
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
        self.prefill(0, 32)?;
        self.decode(0, 2)?;
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
                (Some("p"), Some(count)) => {
                    answer(out, &format!("{:.6}", self.prefill(0, count)?))?
                }
                (Some("n"), Some(count)) => answer(out, &format!("{:.6}", self.decode(0, count)?))?,
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

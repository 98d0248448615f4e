//! Streams a long text and shows that nothing changes: perplexity, memory, allocations, time per
//! token.
//!
//! ```text
//! cargo run --release --example forever -- MODEL.gguf BOOK.txt \
//!     [--tokens 1000000] [--decodes 100000] [--window 508] [--slice 4000]
//! ```
//!
//! 1. The text (repeated if it ends) goes through the ring in chunks of 64. Three slices of it,
//!    early, in the middle and at the end, are scored. They are scored again from a fresh cache
//!    that has seen only the same sinks and the window's tokens before the slice.
//! 2. Then tokens are decoded one by one, in turns: 64 with a full window, each of which evicts one
//!    token, then 64 after an eviction of 64 at once, none of which evicts. Both read the same
//!    slots, and both are exposed to the same noise of the machine.
//!
//! Fails if memory grows by more than [`STACKS_KIB`] after the first thousand tokens, if anything
//! is allocated, or if a slice's perplexity differs by 1 % or more. Times are only printed.

use std::alloc::System;
use std::error::Error;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use brooklet::core::stream::Stream;
use brooklet::core::tokenizer::EncodeOptions;
use brooklet::engine::{Engine, Resources};
use brooklet::planning::DEFAULT_SINKS;
use brooklet::score::negative_log_likelihood;
use brooklet::system::memory::MemoryUse;
use brooklet::system::pool::Pool;
use brooklet::{ModelOptions, Settings};
use clap::Parser;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CHUNK: usize = 64;

/// First tokens that are kept for ever.
const SINKS: usize = DEFAULT_SINKS;

/// Tokens after which memory must not grow, all of them before the first slice.
const SETTLED: usize = 1000;

/// Later growth allowed for the threads' stacks: a thread may sleep for the first time, or the
/// system may deliver a signal, at any token.
const STACKS_KIB: u64 = 16;

#[derive(Parser)]
struct Arguments {
    /// A GGUF file
    model: PathBuf,
    /// A text, the longer the better
    text: PathBuf,
    /// Tokens that go through the ring
    #[arg(long, default_value_t = 1_000_000)]
    tokens: usize,
    /// Tokens that are decoded one by one afterwards
    #[arg(long, default_value_t = 100_000)]
    decodes: usize,
    /// Tokens in the window, beside four sinks
    #[arg(long, default_value_t = 508)]
    window: usize,
    /// Tokens in each of the slices that are scored twice
    #[arg(long, default_value_t = 4_000)]
    slice: usize,
    /// Threads; as many as there are processors unless given
    #[arg(short, long)]
    threads: Option<usize>,
}

fn calls() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// KiB that the process itself holds, in memory or swapped.
fn held() -> u64 {
    MemoryUse::now().map_or(0, |memory| memory.anonymous_kib + memory.swap_kib)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let workers = arguments.threads.unwrap_or_else(Pool::default_workers);
    let model = ModelOptions::new()
        .workers(workers)
        .open(&arguments.model)?;
    let settings = Settings {
        window: Some(arguments.window),
        sampling: false,
        logits_rows: 16,
        ..Settings::default()
    };
    let book = model.tokenize(&std::fs::read(&arguments.text)?, EncodeOptions::default())?;
    let text = Text(book);
    let slices = slices(&arguments)?;
    let mut resources = Resources::new(&model, &settings)?;
    println!(
        "{} tokens of text, arena {} bytes, {workers} threads",
        text.0.len(),
        resources.plan().bytes(),
    );
    let mut engine = Engine::new(&model, &mut resources)?;
    let stream = engine.stream();
    let grown = pass(stream, &text, &slices, &arguments)?;
    let allocated = decode(stream, &text, &arguments)?;
    if grown || allocated {
        return Err("memory, allocations or perplexity changed".into());
    }
    Ok(())
}

/// Returns the three slices: early, in the middle, and at the end.
fn slices(arguments: &Arguments) -> Result<[Range<usize>; 3], String> {
    let (len, before) = (arguments.slice, SETTLED.max(arguments.window + SINKS));
    let most = arguments.tokens.saturating_sub(before) / 3;
    if len == 0 || len > most {
        return Err(format!("a slice must have from 1 to {most} tokens"));
    }
    let at = |start: usize| start..start + len;
    Ok([
        at(before),
        at((arguments.tokens - len) / 2),
        at(arguments.tokens - len),
    ])
}

/// A text without an end.
struct Text(Vec<u32>);

impl Text {
    fn token(&self, at: usize) -> u32 {
        self.0[at % self.0.len()]
    }

    /// Returns the tokens of `range`, at most a chunk.
    fn chunk<'b>(&self, range: Range<usize>, buffer: &'b mut [u32; CHUNK]) -> &'b [u32] {
        let part = &mut buffer[..range.len()];
        for (token, at) in part.iter_mut().zip(range) {
            *token = self.token(at);
        }
        part
    }

    /// Feeds `range`. If `score` is true, returns the sum of the nats of each token's successor.
    fn feed(
        &self,
        stream: &mut Stream<'_>,
        range: Range<usize>,
        score: bool,
    ) -> Result<f64, Box<dyn Error>> {
        let (mut buffer, mut nats) = ([0; CHUNK], 0.0);
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + CHUNK);
            let part = self.chunk(at..end, &mut buffer);
            if score {
                stream.feed_each(part, &mut |i, logits| {
                    nats += negative_log_likelihood(logits, self.token(at + i + 1) as usize)
                })?;
            } else {
                stream.absorb(part)?;
            }
            at = end;
        }
        Ok(nats)
    }
}

/// Runs the whole text once, and the slices again; returns true if anything grew.
fn pass(
    stream: &mut Stream<'_>,
    text: &Text,
    slices: &[Range<usize>; 3],
    arguments: &Arguments,
) -> Result<bool, Box<dyn Error>> {
    let start = Instant::now();
    // Both with and without scores, so that every planned page has been written to.
    text.feed(stream, 0..SETTLED / 2, true)?;
    text.feed(stream, SETTLED / 2..SETTLED, false)?;
    let (allocations, settled) = (calls(), held());
    let (mut most, mut at) = (settled, stream.position() as usize);
    let mut streamed = [0.0; 3];
    for (nats, slice) in streamed.iter_mut().zip(slices) {
        while at < slice.start {
            let end = slice.start.min(at + 8192);
            text.feed(stream, at..end, false)?;
            at = end;
            most = most.max(held());
        }
        *nats = text.feed(stream, slice.clone(), true)?;
        at = slice.end;
        most = most.max(held());
    }
    let allocated = calls() - allocations;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} tokens in {seconds:.0} s; {settled} KiB held after {SETTLED} tokens, at most {most} later; {allocated} allocations",
        stream.position()
    );
    let mut differs = false;
    for (nats, slice) in streamed.iter().zip(slices) {
        stream.reset();
        text.feed(stream, 0..SINKS, false)?;
        text.feed(stream, slice.start - arguments.window..slice.start, false)?;
        let fresh = text.feed(stream, slice.clone(), true)? / slice.len() as f64;
        let nats = nats / slice.len() as f64;
        let change = 100.0 * ((nats - fresh).exp() - 1.0);
        println!(
            "slice {slice:?}: perplexity {:.4}, from a fresh cache {:.4}: {change:+.3} %",
            nats.exp(),
            fresh.exp()
        );
        differs |= change.abs() >= 1.0;
    }
    Ok(most > settled + STACKS_KIB || allocated > 0 || differs)
}

/// Decodes tokens one by one; returns true if anything was allocated.
fn decode(
    stream: &mut Stream<'_>,
    text: &Text,
    arguments: &Arguments,
) -> Result<bool, Box<dyn Error>> {
    stream.reset();
    text.feed(stream, 0..arguments.window + SINKS, false)?;
    let block = CHUNK.min(arguments.window);
    let blocks = arguments.decodes / (2 * block);
    // The vectors are written to once, so that their pages exist before memory is measured.
    let mut times: [Vec<u64>; 2] = [0, 1].map(|_| vec![1; blocks * block]);
    times.iter_mut().for_each(Vec::clear);
    let (allocations, settled) = (calls(), held());
    for _ in 0..blocks {
        for (times, evicted) in times.iter_mut().zip([0, block]) {
            stream.evict(evicted)?;
            for _ in 0..block {
                let token = text.token(stream.position() as usize);
                let start = Instant::now();
                stream.feed(&[token])?;
                times.push(start.elapsed().as_nanos() as u64);
            }
        }
    }
    let (allocated, grown) = (calls() - allocations, held().saturating_sub(settled));
    println!(
        "{} tokens one by one: {allocated} allocations, {grown} KiB more",
        2 * blocks * block
    );
    let mut medians = [0.0; 2];
    for ((times, median), name) in times
        .iter_mut()
        .zip(&mut medians)
        .zip(["evicting", "not evicting"])
    {
        times.sort_unstable();
        let at = |share: f64| {
            times
                .get(((times.len() as f64 - 1.0) * share) as usize)
                .map_or(0.0, |ns| *ns as f64 / 1e6)
        };
        *median = at(0.5);
        println!(
            "{name:>12}: median {:.4} ms, 90 % {:.4}, 99 % {:.4}, 99.9 % {:.4}, most {:.4}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(1.0)
        );
    }
    println!(
        "medians differ by {:+.2} %",
        100.0 * (medians[0] / medians[1] - 1.0)
    );
    Ok(allocated > 0 || grown > STACKS_KIB)
}

//! Checks that the whole process allocates nothing after the first token, as counted by the global
//! allocator.

mod common;

use std::alloc::System;
use std::io::{self, Write};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Calls of the allocator so far, on any thread.
fn calls() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// Records the number of allocations at the first token and at the last byte.
#[derive(Default)]
struct Watch {
    bytes: usize,
    first: Option<usize>,
    last: usize,
}

impl Write for Watch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len();
        self.last = calls();
        Ok(bytes.len())
    }

    /// The first flush comes after the first token.
    fn flush(&mut self) -> io::Result<()> {
        self.last = calls();
        self.first.get_or_insert(self.last);
        Ok(())
    }
}

/// Returns the allocations between the first token and the end of the output, and the bytes of
/// output.
fn after_the_first_token(model: &str, rest: &[&str]) -> (usize, usize) {
    let mut watch = Watch::default();
    let arguments = [&["brooklet", "run", "-m", model, "The sea was"], rest].concat();
    brooklet::cli::execute(arguments, &mut watch).unwrap();
    (watch.last - watch.first.unwrap(), watch.bytes)
}

/// Runs without the usual harness, whose threads allocate as well.
fn main() {
    let before = calls();
    drop(std::hint::black_box(Box::new(1)));
    assert!(calls() > before, "the counter counts");
    let tiny = common::tiny();
    let tiny = tiny.to_str().unwrap();
    // Once in a process a thread begins to wait for signals; it has by the end of this run.
    after_the_first_token(tiny, &["-n", "700", "--ignore-eos", "-t", "1"]);
    let runs: [&[&str]; 6] = [
        &["-n", "700", "--temp", "0", "-t", "1"],
        &["-n", "700", "--window", "16", "-t", "3", "--ignore-eos"],
        &[
            "-n",
            "300",
            "--json",
            "--stats",
            "--ignore-eos",
            "--cache-type",
            "q8_0",
        ],
        &[
            "-n",
            "300",
            "--stop",
            "never this",
            "--stop",
            "nor that",
            "--ignore-eos",
            "--repeat-penalty",
            "1.2",
        ],
        &[
            "-n",
            "100",
            "--policy",
            "window",
            "--window",
            "9",
            "--ignore-eos",
            "--cache-type",
            "f32",
        ],
        &[
            "-n",
            "100",
            "--policy",
            "recompute",
            "--window",
            "9",
            "--ignore-eos",
            "--top-p",
            "0.5",
            "--min-p",
            "0",
        ],
    ];
    for rest in runs {
        let (allocations, bytes) = after_the_first_token(tiny, rest);
        assert_eq!(allocations, 0, "{rest:?}");
        assert!(bytes > 0);
    }
    // Keys alone in every layer: chunks, single tokens, evictions.
    let folder = tempfile::tempdir().unwrap();
    let slim = folder.path().join("slim.gguf");
    let slim = slim.to_str().unwrap();
    brooklet::cli::execute(["brooklet", "slim", "tiny", "-o", slim], &mut io::sink()).unwrap();
    for cache_type in ["f16", "q8_0"] {
        let rest = [
            "-n",
            "300",
            "--window",
            "60",
            "-t",
            "2",
            "--ignore-eos",
            "--cache",
            "k",
            "--cache-type",
            cache_type,
        ];
        let (allocations, bytes) = after_the_first_token(slim, &rest);
        assert_eq!(allocations, 0, "{rest:?}");
        assert!(bytes > 300);
    }
    if let Some(model) = common::pulled("smollm2-135m") {
        let (allocations, _) = after_the_first_token(
            model.to_str().unwrap(),
            &["-n", "64", "--ram", "64MiB", "--stats"],
        );
        assert_eq!(allocations, 0);
    }
    println!("nothing is allocated after the first token");
}

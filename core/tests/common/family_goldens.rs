//! The tiny models of every family and their logits by `transformers`, for tests of several crates.
//! Made by `runtime-std/oracles/family_goldens.py`, which describes the files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use brooklet_core::cache::{ElementType, Policy};
use brooklet_core::gguf::Gguf;
use brooklet_core::model::Config;
use brooklet_core::plan::Options;
use brooklet_core::stream::Stream;

#[path = "streamed.rs"]
mod streamed;

pub use streamed::with_stream;

/// Returns the folder of the files: this source file is a part of core's tests and of the host
/// program's.
pub fn folder() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let core = match env!("CARGO_PKG_NAME") {
        "brooklet-core" => here.to_owned(),
        _ => here.join("../core"),
    };
    core.join("tests/golden/families")
}

/// Content of `families.txt`: the tokens, and the positions of the kept logits.
pub struct Goldens {
    /// The tokens that are fed.
    pub ids: Vec<u32>,
    /// Positions whose logits are kept.
    pub rows: Vec<usize>,
    pub sinks: usize,
    pub window: usize,
    /// Name, and true if the second block of logits is that of the recompute policy.
    pub models: Vec<(String, bool)>,
}

impl Goldens {
    pub fn read() -> Goldens {
        let text = fs::read_to_string(folder().join("families.txt")).unwrap();
        let (mut lines, mut models) = (BTreeMap::new(), Vec::new());
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["model", name, _vocab, policy] => {
                    models.push((name.to_owned(), policy == "recompute"))
                }
                [key, ref rest @ ..] => {
                    lines.insert(key.to_owned(), rest.join(" "));
                }
                [] => {}
            }
        }
        let numbers = |key: &str| {
            lines[key]
                .split(' ')
                .map(|word| word.parse::<usize>().unwrap())
                .collect::<Vec<_>>()
        };
        Goldens {
            ids: numbers("ids").into_iter().map(|id| id as u32).collect(),
            rows: numbers("rows"),
            sinks: numbers("sinks")[0],
            window: numbers("window")[0],
            models,
        }
    }

    pub fn dense(&self) -> Policy {
        Policy::Dense {
            capacity: self.ids.len(),
        }
    }

    /// Returns the policy of the second block.
    pub fn other(&self, recompute: bool) -> Policy {
        let (sinks, window) = (self.sinks, self.window);
        if recompute {
            Policy::Recompute { window }
        } else {
            Policy::Sink { sinks, window }
        }
    }
}

/// File of a family and its logits.
pub struct Golden {
    pub bytes: Vec<u8>,
    pub logits: Vec<f32>,
}

impl Golden {
    pub fn read(name: &str) -> Golden {
        let read =
            |extension: &str| fs::read(folder().join(format!("{name}.{extension}"))).unwrap();
        Golden {
            bytes: read("gguf"),
            logits: read("f32")
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect(),
        }
    }

    pub fn config(&self) -> Config {
        Config::from_gguf(&Gguf::parse(&self.bytes).unwrap()).unwrap()
    }

    /// Returns the logits after each of `ids`.
    pub fn run(&self, options: &Options, ids: &[u32]) -> Vec<Vec<f32>> {
        let mut out = Vec::new();
        with_stream(&self.bytes, options, |stream| feed(stream, ids, &mut out));
        out
    }

    /// Returns the largest difference from the goldens' block `block`, relative to the largest
    /// number in it.
    pub fn error(&self, block: usize, rows: &[usize], ours: &[Vec<f32>]) -> f32 {
        let vocab = ours[0].len();
        let len = rows.len() * vocab;
        let theirs = &self.logits[block * len..][..len];
        let largest = theirs.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        rows.iter()
            .zip(theirs.chunks_exact(vocab))
            .flat_map(|(row, theirs)| ours[*row].iter().zip(theirs))
            .map(|(a, b)| (a - b).abs() / largest)
            .fold(0.0, f32::max)
    }
}

pub fn feed(stream: &mut Stream<'_>, ids: &[u32], out: &mut Vec<Vec<f32>>) {
    stream
        .feed_each(ids, &mut |_, logits| out.push(logits.to_vec()))
        .unwrap();
}

/// Options with everything in f32.
pub fn exact(policy: Policy, chunk: usize) -> Options {
    Options {
        policy,
        cache_type: ElementType::F32,
        chunk,
        logits_rows: chunk,
        f32_activations: true,
        ..Options::sink(0, 1)
    }
}

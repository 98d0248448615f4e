//! The engine on small random models, against goldens of programs from outside this project: mean
//! negative log-likelihoods and logits by a numpy forward pass in f64 (`gguf` 0.19.0 dequantises),
//! greedy ids by llama.cpp, which also gave the same likelihoods. Made by
//! `runtime-std/oracles/random_goldens.py`.

use std::collections::HashMap;
use std::path::PathBuf;

use brooklet_core::cache::{ElementType, Policy};
use brooklet_core::plan::Options;

#[path = "common/streamed.rs"]
mod streamed;

use streamed::with_stream;

/// Error of the mean likelihood over 160 tokens, everything in f32 against f64; the goldens have
/// six decimals.
const NLL_F32: f64 = 3e-6;
/// Error of one logit, in f32 against f64; logits are up to 12.
const LOGIT_F32: f64 = 2e-5;
/// Error of the mean likelihood with keys and values rounded to f16: these models' scores spread
/// far wider than a trained model's.
const NLL_F16: f64 = 5e-4;
/// The same, rounded to q8_0.
const NLL_Q8_0: f64 = 1.5e-2;
/// Error of the mean likelihood with int8 activations.
const NLL_INT8: f64 = 1.5e-2;

const NAMES: [&str; 11] = [
    "gqa-f32",
    "mha-f32",
    "mqa-llama3-f32",
    "linear-f32",
    "gqa-f16",
    "gqa-bf16",
    "gqa-q4_0",
    "gqa-q4_1",
    "gqa-q5_0",
    "gqa-q5_1",
    "gqa-q8_0",
];

/// A model's bytes and the lines of its golden, by key.
struct Golden {
    name: &'static str,
    bytes: Vec<u8>,
    values: HashMap<String, Vec<f64>>,
}

/// Number of words in the key of a line: a key may end in parameters.
fn key_words(line: &str) -> usize {
    match line.split(' ').next() {
        Some("window") => 2,
        Some("sink" | "recompute") => 3,
        _ => 1,
    }
}

impl Golden {
    fn read(name: &'static str) -> Golden {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
        let text =
            std::fs::read_to_string(folder.join(format!("golden/random-{name}.txt"))).unwrap();
        let entry = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let (key, values) = words.split_at(key_words(line));
            (
                key.join(" "),
                values.iter().map(|v| v.parse().unwrap()).collect(),
            )
        };
        Golden {
            name,
            bytes: std::fs::read(folder.join(format!("data/random-{name}.gguf"))).unwrap(),
            values: text.lines().map(entry).collect(),
        }
    }

    fn all() -> impl Iterator<Item = Golden> {
        NAMES.into_iter().map(Golden::read)
    }

    fn ids(&self, key: &str) -> Vec<u32> {
        self.values[key].iter().map(|id| *id as u32).collect()
    }

    fn nll(&self, policy: &str) -> f64 {
        self.values[policy][0]
    }

    /// Mean negative log-likelihood of every `stride`-th successor of the golden's ids, fed `step`
    /// at a time.
    fn measure(&self, options: &Options, step: usize, stride: usize) -> f64 {
        let ids = self.ids("ids");
        let fed = ids.len() - 1;
        let (mut total, mut count) = (0.0, 0);
        with_stream(&self.bytes, options, |stream| {
            for first in (0..fed).step_by(step) {
                let tokens = &ids[first..fed.min(first + step)];
                let visit = &mut |index: usize, logits: &[f32]| {
                    let at = first + index;
                    if at.is_multiple_of(stride) {
                        total -= log_probability(logits, ids[at + 1]);
                        count += 1;
                    }
                };
                stream.feed_each(tokens, visit).unwrap();
            }
        });
        total / f64::from(count)
    }
}

fn log_probability(logits: &[f32], id: u32) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::MIN, f32::max));
    let sum: f64 = logits.iter().map(|l| (f64::from(*l) - max).exp()).sum();
    f64::from(logits[id as usize]) - max - sum.ln()
}

/// Options with f32 activations and cache, in chunks of `chunk`.
fn exact(policy: Policy, chunk: usize) -> Options {
    Options {
        policy,
        cache_type: ElementType::F32,
        chunk,
        logits_rows: chunk,
        f32_activations: true,
        ..Options::sink(4, 28)
    }
}

const POLICIES: [(&str, Policy); 3] = [
    ("dense", Policy::Dense { capacity: 160 }),
    ("window 32", Policy::Window { window: 32 }),
    (
        "sink 4 28",
        Policy::Sink {
            sinks: 4,
            window: 28,
        },
    ),
];

#[test]
fn likelihoods_under_every_policy_and_format() {
    for golden in Golden::all() {
        for (key, policy) in POLICIES {
            for chunk in [1, 7, 32] {
                let got = golden.measure(&exact(policy, chunk), chunk, 1);
                let want = golden.nll(key);
                assert!(
                    (got - want).abs() < NLL_F32,
                    "{} {key} by {chunk}: {got} {want}",
                    golden.name
                );
            }
        }
        let got = golden.measure(&exact(Policy::Recompute { window: 32 }, 16), 16, 16);
        let want = golden.nll("recompute 32 16");
        assert!(
            (got - want).abs() < NLL_F32,
            "{} recompute: {got} {want}",
            golden.name
        );
    }
}

#[test]
fn likelihoods_with_smaller_caches() {
    for golden in Golden::all() {
        for (key, policy) in POLICIES {
            for (cache_type, budget) in [(ElementType::F16, NLL_F16), (ElementType::Q8_0, NLL_Q8_0)]
            {
                let options = Options {
                    cache_type,
                    ..exact(policy, 16)
                };
                let (got, want) = (golden.measure(&options, 16, 1), golden.nll(key));
                assert!(
                    (got - want).abs() < budget,
                    "{} {key} {cache_type:?}: {got} {want}",
                    golden.name
                );
            }
        }
    }
}

#[test]
fn likelihoods_with_int8_activations() {
    for golden in Golden::all() {
        let options = Options {
            f32_activations: false,
            ..exact(Policy::Dense { capacity: 160 }, 32)
        };
        let (got, want) = (golden.measure(&options, 32, 1), golden.nll("dense"));
        assert!(
            (got - want).abs() < NLL_INT8,
            "{}: {got} {want}",
            golden.name
        );
    }
}

#[test]
fn logits_of_the_last_token() {
    for golden in Golden::all() {
        let ids = golden.ids("ids");
        with_stream(
            &golden.bytes,
            &exact(Policy::Dense { capacity: 160 }, 32),
            |stream| {
                let logits = stream.feed(&ids[..160]).unwrap();
                for (got, want) in logits.iter().zip(&golden.values["last"]) {
                    assert!(
                        (f64::from(*got) - want).abs() < LOGIT_F32,
                        "{}: {got} {want}",
                        golden.name
                    );
                }
            },
        );
    }
}

#[test]
fn greedy_ids_are_those_of_llama_cpp() {
    let with_greedy = Golden::all().filter(|golden| golden.values.contains_key("greedy"));
    let mut checked = 0;
    for golden in with_greedy {
        let want = golden.ids("greedy");
        let mut fed = golden.ids("ids");
        with_stream(
            &golden.bytes,
            &exact(Policy::Dense { capacity: 200 }, 32),
            |stream| {
                for want in want {
                    let logits = stream.feed(&fed).unwrap();
                    let got = (0..logits.len())
                        .max_by(|a, b| logits[*a].total_cmp(&logits[*b]))
                        .unwrap();
                    assert_eq!(got as u32, want, "{}", golden.name);
                    fed = vec![want];
                }
            },
        );
        checked += 1;
    }
    assert_eq!(checked, 4);
}

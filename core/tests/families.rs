//! Every family on a tiny random model, against logits of Hugging Face `transformers`: dense, under
//! the sink policy, and (if positions are learned) under the recompute policy. Models and logits
//! are made by `runtime-std/oracles/family_goldens.py`, which describes the files and also compares
//! them with llama.cpp.
//!
//! The results are the table in `core/docs/families.md`: the test compares it, and writes it if
//! `BROOKLET_BLESS` is set.

#[path = "common/family_goldens.rs"]
mod family_goldens;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use brooklet_core::cache::{ElementType, LayoutChoice, Policy};
use brooklet_core::model::Family;
use brooklet_core::plan::{Options, Plan, PlanError};

use family_goldens::{Golden, Goldens, exact, feed, with_stream};

/// Largest error of a logit, with everything in f32 on both sides, relative to the largest logit of
/// the model.
const BUDGET: f32 = 2e-5;

#[test]
fn every_family_gives_the_logits_of_transformers() {
    let goldens = Goldens::read();
    let mut table = String::from(
        "| family | tiny model | dense | streaming | policies | layouts |\n|---|---|---|---|---|---|\n",
    );
    let mut seen = Vec::new();
    for (name, recompute) in &goldens.models {
        let golden = Golden::read(name);
        let config = golden.config();
        seen.push(config.family);
        let errors = [goldens.dense(), goldens.other(*recompute)].map(|policy| {
            let block = usize::from(policy != goldens.dense());
            let ours = golden.run(&exact(policy, 1), &goldens.ids);
            let error = golden.error(block, &goldens.rows, &ours);
            assert!(error <= BUDGET, "{name}, {}: {error}", policy.name());
            error
        });
        let policies = if *recompute {
            "dense, recompute"
        } else {
            "dense, window, recompute, sink"
        };
        writeln!(
            table,
            "| {} | {name} | {:.0e} | {:.0e}{} | {policies} | {} |",
            config.family.name(),
            errors[0],
            errors[1],
            if *recompute { " (recompute)" } else { "" },
            match (config.may_be_slim(), config.may_keep_inputs()) {
                (true, true) => "kv, k+r, x",
                (true, false) => "kv, k+r",
                (false, _) => "kv",
            },
        )
        .unwrap();
    }
    // Models of speech have goldens of their own: `speech.rs`.
    seen.extend([Family::Whisper, Family::Moonshine]);
    assert!(Family::ALL.iter().all(|family| seen.contains(family)));
    compare("errors", &table);
}

/// Checks that the part of `core/docs/families.md` between the comments `name` and `/name` is
/// `table`.
fn compare(name: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/families.md");
    let text = fs::read_to_string(&path).unwrap();
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let start = text.find(&open).unwrap() + open.len();
    let end = text.find(&close).unwrap();
    if std::env::var_os("BROOKLET_BLESS").is_some() {
        fs::write(&path, format!("{}{table}{}", &text[..start], &text[end..])).unwrap();
    } else {
        assert_eq!(
            &text[start..end],
            table,
            "run with BROOKLET_BLESS=1, and look at the difference"
        );
    }
}

#[test]
fn chunks_change_no_bit_of_any_family() {
    let goldens = Goldens::read();
    let ids = &goldens.ids[..120];
    for (name, recompute) in &goldens.models {
        let golden = Golden::read(name);
        for policy in [goldens.dense(), goldens.other(*recompute)] {
            for cache_type in [ElementType::F32, ElementType::Q8_0] {
                let run = |chunk: usize| {
                    let options = Options {
                        cache_type,
                        ..exact(policy, chunk)
                    };
                    golden.run(&options, ids)
                };
                let one_by_one = run(1);
                for chunk in [7, 33] {
                    assert!(
                        run(chunk) == one_by_one,
                        "{name}, {policy:?}, chunks of {chunk}"
                    );
                }
            }
        }
    }
}

/// A conversation: a prompt is pinned, messages are evicted. It covers local layers, a local window
/// that is the larger one, one between, and no planned sinks.
#[test]
fn chunks_change_no_bit_of_a_conversation() {
    let goldens = Goldens::read();
    for name in [
        "llama",
        "gemma3",
        "gemma3-middle",
        "gemma3-wide",
        "smollm3",
        "mpt-6-heads",
    ] {
        let golden = Golden::read(name);
        for (sinks, prompt) in [(0, 12), (2, 12), (2, 30)] {
            let run = |chunk: usize| {
                let policy = Policy::Sink { sinks, window: 40 };
                let mut out = Vec::new();
                with_stream(&golden.bytes, &exact(policy, chunk), |stream| {
                    feed(stream, &goldens.ids[..prompt], &mut out);
                    stream.pin().unwrap();
                    for (turn, ids) in goldens.ids[prompt..].chunks(23).enumerate() {
                        feed(stream, ids, &mut out);
                        if turn % 2 == 1 {
                            assert_eq!(stream.evict(9), Ok(9), "{name}");
                        }
                    }
                });
                out
            };
            let one_by_one = run(1);
            assert!(one_by_one.iter().flatten().all(|logit| logit.is_finite()));
            for chunk in [5, 16] {
                assert!(
                    run(chunk) == one_by_one,
                    "{name}, {sinks} sinks, chunks of {chunk}"
                );
            }
        }
    }
}

/// A model without RoPE gives the logits of `transformers` from a cache of its layers' inputs,
/// token by token and in chunks; other models refuse the layout.
#[test]
fn a_cache_of_inputs_gives_the_same_logits() {
    let goldens = Goldens::read();
    let mut tried = 0;
    for (name, recompute) in &goldens.models {
        let golden = Golden::read(name);
        let config = golden.config();
        let inputs = |policy, chunk| Options {
            layout: LayoutChoice::X,
            ..exact(policy, chunk)
        };
        if !config.may_keep_inputs() {
            let refused = Plan::new(&config, &inputs(goldens.dense(), 1));
            assert!(matches!(refused, Err(PlanError::Inputs { .. })), "{name}");
            continue;
        }
        tried += 1;
        for policy in [goldens.dense(), goldens.other(*recompute)] {
            let block = usize::from(policy != goldens.dense());
            for chunk in [1, 7, 33] {
                let ours = golden.run(&inputs(policy, chunk), &goldens.ids);
                let error = golden.error(block, &goldens.rows, &ours);
                assert!(
                    error <= BUDGET,
                    "{name}, {}, {chunk}: {error}",
                    policy.name()
                );
            }
        }
        let bytes = |options: &Options| {
            let plan = Plan::new(&config, options).unwrap();
            plan.part(brooklet_core::plan::Part::Cache)
        };
        let (kv, x) = (exact(goldens.dense(), 1), inputs(goldens.dense(), 1));
        assert_eq!(bytes(&kv), 2 * bytes(&x), "{name}");
    }
    assert!(tried > 0);
}

#[test]
fn learned_positions_refuse_sinks_and_windows() {
    let config = Golden::read("gpt2").config();
    let (sinks, window) = (2, 40);
    for policy in [Policy::Sink { sinks, window }, Policy::Window { window }] {
        let error = Plan::new(&config, &exact(policy, 1)).unwrap_err();
        assert_eq!(
            error,
            PlanError::LearnedPositions {
                trained: config.context
            }
        );
        assert!(error.to_string().contains("learned"), "{error}");
    }
}

/// Every fourth layer does not rotate; a cache whose values or keys are computed would have to
/// rotate in some layers only, and is refused.
#[test]
fn layers_of_unlike_rotation_keep_keys_and_values() {
    let config = Golden::read("smollm3").config();
    let rotates = (0..config.layers).map(|layer| config.kinds.of(layer).rotation.is_some());
    assert!(rotates.eq([true, true, true, false, true]));
    assert!(config.shape().is_rotated());
    assert!(!config.may_be_slim() && !config.may_keep_inputs());
}

/// Scores that fall with distance are not the product of a query and a key alone, so both are
/// cached; nothing is rotated, and a cache of inputs is refused for the reason that is true.
#[test]
fn biased_scores_keep_keys_and_values() {
    let config = Golden::read("mpt").config();
    assert!(!config.shape().is_rotated() && config.alibi.get().is_some());
    assert!(!config.may_be_slim() && !config.may_keep_inputs());
    let options = Options {
        layout: LayoutChoice::X,
        ..exact(
            Policy::Sink {
                sinks: 2,
                window: 40,
            },
            1,
        )
    };
    let error = Plan::new(&config, &options).unwrap_err();
    assert_eq!(error, PlanError::Inputs { rotated: false });
    assert!(error.to_string().contains("ALiBi"), "{error}");
}

/// A local layer sees at most the tokens that it was trained with, and its cache holds no more.
#[test]
fn local_layers_keep_their_window_only() {
    let config = Golden::read("gemma3").config();
    let local = config.kinds.smallest_window().unwrap();
    let bytes = |window: usize| {
        let policy = Policy::Sink { sinks: 4, window };
        Plan::new(&config, &exact(policy, 1))
            .unwrap()
            .part(brooklet_core::plan::Part::Cache)
    };
    let token = 2 * config.kv_columns() * 4;
    let global = (0..config.layers)
        .filter(|layer| config.local_window(*layer).is_none())
        .count();
    assert!(global > 0 && global < config.layers);
    assert_eq!(bytes(local + 96) - bytes(local + 32), 64 * token * global);
    // With a smaller window, sinks take the room that it leaves.
    assert_eq!(
        Policy::Sink {
            sinks: 4,
            window: 10
        }
        .slots(Some(12)),
        (2, 10)
    );
    assert_eq!(
        Policy::Sink {
            sinks: 4,
            window: 8
        }
        .slots(Some(12)),
        (4, 8)
    );
    assert_eq!(
        Policy::Sink {
            sinks: 4,
            window: 12
        }
        .slots(Some(12)),
        (0, 12)
    );
}

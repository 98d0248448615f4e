//! Values computed from keys in every family whose attention allows it: the files of
//! `brooklet slim` give the logits that `transformers` gave for the original, dense and streaming.

#[path = "../../core/tests/common/family_goldens.rs"]
mod family_goldens;

use std::fs;

use brooklet_core::cache::Layout;
use family_goldens::{Golden, Goldens, exact, folder};

/// Largest error of a logit with everything in f32, relative to the largest logit. Keys in f32 are
/// inverted.
const BUDGET: f32 = 3e-5;

/// Runs `brooklet slim REST...` in this process.
fn slim(rest: &[&str]) -> Result<String, String> {
    let mut out = Vec::new();
    brooklet::cli::execute([&["brooklet", "slim"], rest].concat(), &mut out)
        .map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn slim_copies_give_the_logits_of_transformers() {
    let goldens = Goldens::read();
    let temporary = tempfile::tempdir().unwrap();
    let copy = temporary.path().join("slim.gguf");
    let mut tried = 0;
    for (name, recompute) in &goldens.models {
        let original = Golden::read(name);
        let config = original.config();
        let path = folder().join(format!("{name}.gguf"));
        let (path, copy) = (path.to_str().unwrap(), copy.to_str().unwrap());
        let arguments = [path, "-o", copy, "--force", "--f32", "--cache-type", "f32"];
        let more = [
            "--calib-tokens",
            "512",
            "--layout",
            "k+r",
            "--bound",
            "1e-4",
        ];
        for drop_values in [false, true] {
            let values: &[&str] = if drop_values { &["--drop-v"] } else { &[] };
            let said = slim(&[&arguments[..], &more, values].concat());
            if !config.may_be_slim() || config.kv_heads < config.heads {
                assert!(said.is_err_and(|said| !said.contains('\n')), "{name}");
                continue;
            }
            said.unwrap();
            tried += 1;
            let slim = Golden {
                bytes: fs::read(copy).unwrap(),
                logits: original.logits.clone(),
            };
            let config = slim.config();
            assert_eq!(config.values_dropped, drop_values, "{name}");
            assert!((0..config.layers).all(|layer| config.layouts.of(layer) != Layout::Kv));
            for policy in [goldens.dense(), goldens.other(*recompute)] {
                let block = usize::from(policy != goldens.dense());
                for chunk in [1, 33] {
                    let ours = slim.run(&exact(policy, chunk), &goldens.ids);
                    let error = slim.error(block, &goldens.rows, &ours);
                    assert!(
                        error <= BUDGET,
                        "{name}, {}, chunks of {chunk}: {error}",
                        policy.name()
                    );
                }
            }
        }
    }
    assert_eq!(tried, 2 * 5);
}

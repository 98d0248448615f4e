//! The effect of each metadata key on a model of each family: the logits of an independent forward
//! pass, nothing, or a refusal. The lines of `golden/metadata.txt` are written by
//! `runtime-std/oracles/metadata_goldens.py`, which describes them.

#[path = "common/family_goldens.rs"]
#[expect(dead_code, reason = "the tests of families use the rest")]
mod family_goldens;
#[path = "common/gguf_edit.rs"]
#[expect(dead_code, reason = "tests of faults use the rest")]
mod gguf_edit;
#[path = "common/speech_goldens.rs"]
#[expect(dead_code, reason = "the test of speech uses the rest")]
mod speech_goldens;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use brooklet_core::cache::Policy;
use brooklet_core::gguf::Gguf;
use brooklet_core::model::{Config, Layer, Model, ModelError};
use brooklet_core::plan::{Options, Plan};
use brooklet_core::transcribe::SpeechTokens;

use family_goldens::{Goldens, exact, folder, with_stream};
use gguf_edit::{Edit, array, string};
use speech_goldens::Golden;

/// Tokens that are fed.
const TOKENS: usize = 48;

/// Largest error of a logit, relative to the largest one of the line: all is f32 here and f64
/// there.
const BUDGET: f32 = 2e-5;

/// Number of the type in a file, and bytes, of a value as the goldens write it.
fn value(text: &str) -> (u32, Vec<u8>) {
    let (kind, text) = text.split_once(':').unwrap();
    let list = |element: u32, bytes: fn(&str) -> Vec<u8>| {
        let values: Vec<&str> = text.split(',').collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| bytes(value)).collect();
        (9, array(element, values.len() as u64, &bytes))
    };
    let whole = |text: &str| text.parse::<u32>().unwrap().to_le_bytes().to_vec();
    let real = |text: &str| text.parse::<f32>().unwrap().to_le_bytes().to_vec();
    let truth = |text: &str| vec![u8::from(text == "1")];
    match kind {
        "u" => (4, whole(text)),
        "f" => (6, real(text)),
        "b" => (7, truth(text)),
        "s" => (8, string(text.replace('_', " ").as_bytes())),
        "au" => list(4, whole),
        "af" => list(6, real),
        "ab" => list(7, truth),
        other => panic!("{other}"),
    }
}

/// The sound and the tokens of a model that hears before it writes; `None` for others.
fn speech(name: &str) -> Option<Golden> {
    match name {
        "random-whisper-f32" => Some(Golden::whisper()),
        "random-moonshine-f32" => Some(Golden::moonshine()),
        _ => None,
    }
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Returns the file of a model with changes.
fn changed(name: &str, changes: &str) -> Vec<u8> {
    let is_speech = speech(name).is_some();
    let folder = if is_speech {
        tests().join("data")
    } else {
        folder()
    };
    let mut edit = Edit::new(&fs::read(folder.join(format!("{name}.gguf"))).unwrap());
    let architecture = edit.text("general.architecture").unwrap();
    for change in changes.split(';').filter(|change| !change.is_empty()) {
        let (key, text) = change.split_once('=').unwrap();
        let (kind, bytes) = value(text);
        if is_speech {
            edit.set(key, kind, bytes);
        } else {
            edit.set(&format!("{architecture}.{key}"), kind, bytes);
        }
    }
    edit.bytes().0
}

/// Reads the whole model, as a program does that runs it.
fn load(bytes: &[u8]) -> Result<(), String> {
    let said = |error: ModelError| error.to_string();
    let file = Gguf::parse(bytes).map_err(|error| error.to_string())?;
    let config = Config::from_gguf(&file).map_err(said)?;
    let layers: Result<Vec<_>, _> = (0..config.layers_in_file())
        .map(|layer| Layer::read(&file, &config, layer))
        .collect();
    let layers = layers.map_err(said)?;
    Model::new(&file, &layers).map_err(said)?;
    if config.encoder.get().is_some() {
        SpeechTokens::from_gguf(&file, config.vocab).map_err(said)?;
    }
    let plan = Plan::new(&config, &options(config.context.min(TOKENS)));
    plan.map(|_| ()).map_err(|error| error.to_string())
}

fn options(capacity: usize) -> Options {
    exact(Policy::Dense { capacity }, 16)
}

fn logits(name: &str, bytes: &[u8]) -> Vec<f32> {
    if let Some(Golden { ids, sounds, .. }) = speech(name) {
        return with_stream(bytes, &options(ids.len()), |stream| {
            stream.encode(&sounds[0].frames).unwrap();
            stream.feed(&ids).unwrap().to_vec()
        });
    }
    let ids = &Goldens::read().ids[..TOKENS];
    with_stream(bytes, &options(TOKENS), |stream| {
        stream.feed(ids).unwrap().to_vec()
    })
}

fn lines() -> Vec<[String; 3]> {
    let text = fs::read_to_string(tests().join("golden/metadata.txt")).unwrap();
    let lines = text.lines().map(|line| {
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        [(); 3].map(|()| words.next().unwrap())
    });
    lines.collect()
}

#[test]
fn every_key_is_honoured_or_refused_or_has_no_effect() {
    let mut counts = [0; 3];
    for [name, changes, result] in lines() {
        let bytes = changed(&name, &changes);
        let loaded = load(&bytes);
        if result == "refused" {
            let Err(error) = loaded else {
                panic!("{name}, {changes}: not refused");
            };
            assert!(!error.contains('\n') && error.len() > 20, "{error}");
            counts[0] += 1;
            continue;
        }
        assert_eq!(loaded, Ok(()), "{name}, {changes}");
        let ours = logits(&name, &bytes);
        let plain = logits(&name, &changed(&name, ""));
        if result == "same" {
            assert!(ours == plain, "{name}, {changes}");
            counts[1] += 1;
            continue;
        }
        let theirs: Vec<f32> = result
            .split(' ')
            .map(|word| word.parse().unwrap())
            .collect();
        let largest = plain.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!(
                (ours - theirs).abs() <= BUDGET * largest,
                "{name}, {changes}: {ours}, {theirs}"
            );
        }
        assert!(ours != plain, "{name}, {changes}");
        counts[2] += 1;
    }
    // Each of the three, of each family.
    assert!(counts.into_iter().all(|count| count > 100), "{counts:?}");
}

/// The documentation lists every key that is tried here, under what happens to it.
#[test]
fn the_table_of_keys_is_complete() {
    let text = fs::read_to_string(tests().join("../docs/families.md")).unwrap();
    let (_, table) = text.split_once("<!-- keys -->").unwrap();
    let (table, _) = table.split_once("<!-- /keys -->").unwrap();
    let mut tried = BTreeSet::new();
    for [_, changes, _] in lines() {
        let keys = changes.split(';');
        tried.extend(keys.map(|change| change.split_once('=').unwrap().0.to_owned()));
    }
    for key in &tried {
        assert!(table.contains(&format!("`{key}`")), "{key}");
    }
    assert!(tried.len() >= 40, "{}", tried.len());
}

//! The random Whisper of core's goldens, written in the form of CTranslate2 and back.

use brooklet_core::gguf::Gguf;
use proptest::prelude::*;

use super::*;
use made::{GOLDEN, Kind, floats, package};

#[path = "../../../../tests/common/ctranslate2.rs"]
mod made;

fn converted(model: &[u8], vocabulary: &[u8], format: Format) -> Result<Vec<u8>, ConvertError> {
    let files = Files {
        model,
        vocabulary,
        config: None,
    };
    let mut out = Vec::new();
    let bytes = write(&files, format, &mut out)?;
    assert_eq!(bytes, out.len() as u64);
    Ok(out)
}

/// Largest difference of a weight, relative to the largest of its tensor; the front end's arrays
/// are not compared.
fn difference(kind: Kind) -> f32 {
    let (model, vocabulary) = package(kind, 0.0);
    let bytes = converted(&model, &vocabulary, Format::F32).unwrap();
    let (ours, golden) = (floats(&bytes), floats(GOLDEN));
    assert!(ours.keys().eq(golden.keys()));
    let mut most = 0.0f32;
    for (name, (dims, values)) in &golden {
        if name.starts_with("frontend.") {
            continue;
        }
        let (our_dims, ours) = &ours[name];
        assert_eq!(our_dims, dims, "{name}");
        let largest = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let errors = values.iter().zip(ours).map(|(a, b)| (a - b).abs());
        most = most.max(errors.fold(0.0, f32::max) / largest);
    }
    most
}

#[test]
fn every_type_gives_the_models_numbers() {
    assert_eq!(difference(Kind::F32), 0.0);
    assert!((0.0..1e-3).contains(&difference(Kind::F16)));
    assert!((1e-5..1e-2).contains(&difference(Kind::Bf16)));
    assert!((1e-5..1e-2).contains(&difference(Kind::Int8)));
}

#[test]
fn keys_are_those_of_the_golden() {
    let (model, vocabulary) = package(Kind::F32, 0.0);
    let bytes = converted(&model, &vocabulary, Format::F32).unwrap();
    let (ours, golden) = (Gguf::parse(&bytes).unwrap(), Gguf::parse(GOLDEN).unwrap());
    let own = ["general.name", "general.license", "stt.variant"];
    // What the golden's maker chose for tests.
    let chosen = [
        "stt.whisper.suppress_tokens",
        "stt.whisper.begin_suppress_tokens",
    ];
    for (key, value) in golden.metadata() {
        let found = ours.get(key).unwrap_or_else(|| panic!("{key}"));
        if !own.contains(&key) && !chosen.contains(&key) {
            assert_eq!(format!("{found:?}"), format!("{value:?}"), "{key}");
        }
    }
    assert_eq!(ours.metadata().count(), golden.metadata().count());
}

#[test]
fn a_vocabulary_may_be_a_list_and_a_config_has_the_tokens_that_are_never_written() {
    let (model, vocabulary) = package(Kind::F32, 0.0);
    let text = String::from_utf8(vocabulary.clone()).unwrap();
    let list = serde_json::to_vec(&text.split('\n').collect::<Vec<_>>()).unwrap();
    assert!(
        converted(&model, &list, Format::F32).unwrap()
            == converted(&model, &vocabulary, Format::F32).unwrap()
    );
    let files = Files {
        model: &model,
        vocabulary: &vocabulary,
        config: Some(br#"{"suppress_ids": [3, 1], "suppress_ids_begin": [], "other": {}}"#),
    };
    let mut out = Vec::new();
    write(&files, Format::Q8_0, &mut out).unwrap();
    let file = Gguf::parse(&out).unwrap();
    let list = |key: &str| -> Vec<u64> {
        let array = file.get(key).unwrap().as_array().unwrap();
        array
            .elements()
            .map(|number| number.as_u64().unwrap())
            .collect()
    };
    assert_eq!(list("stt.whisper.suppress_tokens"), [3, 1]);
    assert_eq!(list("stt.whisper.begin_suppress_tokens").len(), 2);
}

#[test]
fn what_is_no_whisper_is_said() {
    let (model, vocabulary) = package(Kind::F32, 0.5);
    let refused = |model: &[u8], vocabulary: &[u8]| {
        converted(model, vocabulary, Format::F32)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(&model, &vocabulary),
        "this is no Whisper: it has enc.blocks.0.attn.k.bias"
    );
    let (model, vocabulary) = package(Kind::F32, 0.0);
    // A layer whose bias cannot be read is no end of the model.
    let name = b"encoder/layer_1/ffn/linear_0/bias\0";
    let at = model
        .windows(name.len())
        .position(|part| part == name)
        .unwrap();
    let mut other = model.clone();
    other[at + name.len() + 1 + 4] = 2;
    assert!(refused(&other, &vocabulary).contains("numbers of type 2"));
    let config = |config: &'static [u8]| {
        let files = Files {
            model: &model,
            vocabulary: &vocabulary,
            config: Some(config),
        };
        write(&files, Format::F16, &mut std::io::sink()).map_err(|error| error.to_string())
    };
    assert!(
        config(br#"{"suppress_ids": [[1]]}"#)
            .unwrap_err()
            .contains("config.json")
    );
    config(br#"{"suppress_ids": null}"#).unwrap();
    let short = vocabulary.strip_suffix(b"\n").unwrap_or(&vocabulary);
    let short = &short[..short.iter().rposition(|byte| *byte == b'\n').unwrap()];
    assert!(refused(&model, short).starts_with("the vocabulary has "));
    assert_eq!(
        refused(&model, b"a\nb"),
        "the model has no token <|endoftext|>"
    );
    assert!(refused(b"GGUF", &vocabulary).contains("is not in the form of CTranslate2"));
}

proptest! {
    /// Whatever is damaged: an error, or a file; never a panic, and no memory by what is claimed.
    #[test]
    fn damaged_files_give_an_error_or_a_model(
        places in prop::collection::vec((0usize..1 << 24, any::<u8>()), 1..6),
        near_start in any::<bool>(),
        len in 0usize..1 << 24,
    ) {
        let (mut model, vocabulary) = package(Kind::F32, 0.0);
        let reach = if near_start { 400 } else { model.len() };
        for (place, byte) in places {
            model[place % reach] = byte;
        }
        _ = converted(&model, &vocabulary, Format::F32);
        _ = converted(&model[..len % model.len()], &vocabulary, Format::F32);
    }
}

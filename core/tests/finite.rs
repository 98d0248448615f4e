//! Damaged weights: one number of a model is NaN or infinite, and the stream says so, whichever
//! tensor it is in, instead of making a plausible result of it.

#[path = "common/family_goldens.rs"]
#[expect(dead_code, reason = "the tests of families use the rest")]
mod family_goldens;
#[path = "common/gguf_edit.rs"]
#[expect(dead_code, reason = "tests of other faults use the rest")]
mod gguf_edit;

use std::fs;
use std::path::Path;

use brooklet_core::cache::{ElementType, LayoutChoice, Policy};
use brooklet_core::gguf::Gguf;
use brooklet_core::model::{Config, Layer, Model, Positions};
use brooklet_core::plan::Options;
use brooklet_core::quant::Format;
use brooklet_core::stream::StreamError;

use family_goldens::{Goldens, exact, folder, with_stream};
use gguf_edit::Edit;

/// Tokens that are fed.
const IDS: [u32; 5] = [3, 1, 4, 1, 5];

/// Values that are no numbers: as F32, as F16 and as BF16.
const ODD: [(f32, u16, u16); 3] = [
    (f32::NAN, 0x7E00, 0x7FC0),
    (f32::INFINITY, 0x7C00, 0x7F80),
    (f32::NEG_INFINITY, 0xFC00, 0xFF80),
];

/// Models of every family, and of every format that has models here.
fn models() -> Vec<(String, Vec<u8>)> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let formats = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"];
    let of_formats = formats.map(|format| data.join(format!("random-gqa-{format}.gguf")));
    let llama3 = data.join("random-mqa-llama3-f32.gguf");
    let goldens = Goldens::read();
    let names = goldens.models.iter().map(|(name, _)| name);
    let families = names.map(|name| folder().join(format!("{name}.gguf")));
    let paths = families.chain(of_formats).chain([llama3]);
    paths
        .map(|path| (path.display().to_string(), fs::read(path).unwrap()))
        .collect()
}

/// Bytes of the odd value where a block of the format begins: the element, or the block's scale.
fn odd_bytes(format: Format, (single, half, bf16): (f32, u16, u16)) -> Vec<u8> {
    match format {
        Format::F32 => single.to_le_bytes().into(),
        Format::BF16 => bf16.to_le_bytes().into(),
        Format::F16 | Format::Q8_0 | Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 => {
            half.to_le_bytes().into()
        }
        other => panic!("no model here has {}", other.name()),
    }
}

/// Returns the file with an odd value in one tensor, at the start of the row that the last token
/// uses.
fn damaged(good: &Edit, tensor: usize, odd: (f32, u16, u16)) -> Vec<u8> {
    let mut edit = good.clone();
    let entry = &edit.tensors[tensor];
    let format = Format::from_ggml_type(entry.kind).unwrap();
    let row = match entry.name.as_slice() {
        b"token_embd.weight" => IDS[IDS.len() - 1] as usize,
        _ => 0,
    };
    let row_bytes = format.row_bytes(entry.dims[0] as usize).unwrap();
    let at = entry.offset as usize + row * row_bytes;
    let bytes = odd_bytes(format, odd);
    edit.data[at..at + bytes.len()].copy_from_slice(&bytes);
    edit.bytes().0
}

/// Options in which the ways of a number through the engine differ.
fn ways(config: &Config) -> Vec<Options> {
    let dense = Policy::Dense { capacity: 8 };
    let mut ways = vec![
        exact(dense, 1),
        Options {
            cache_type: ElementType::F16,
            f32_activations: false,
            ..exact(dense, 3)
        },
    ];
    if !matches!(config.design.positions, Positions::Learned) {
        let sink = Policy::Sink {
            sinks: 2,
            window: 3,
        };
        ways.push(Options {
            cache_type: ElementType::Q8_0,
            f32_activations: false,
            ..exact(sink, 2)
        });
    }
    ways.push(exact(Policy::Recompute { window: 4 }, 3));
    if config.may_keep_inputs() {
        ways.push(Options {
            layout: LayoutChoice::X,
            ..exact(dense, 2)
        });
    }
    ways
}

/// True if the file can be read as a model.
fn loads(bytes: &[u8]) -> bool {
    let file = Gguf::parse(bytes).unwrap();
    let config = Config::from_gguf(&file).unwrap();
    let layers: Result<Vec<_>, _> = (0..config.layers_in_file())
        .map(|layer| Layer::read(&file, &config, layer))
        .collect();
    layers.is_ok_and(|layers| Model::new(&file, &layers).is_ok())
}

#[test]
fn no_number_that_is_none_is_lost_on_its_way() {
    let mut refused = Vec::new();
    for (model, bytes) in models() {
        let good = Edit::new(&bytes);
        let config = Config::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap();
        for (index, tensor) in good.tensors.iter().enumerate() {
            let name = String::from_utf8_lossy(&tensor.name).into_owned();
            for odd in ODD {
                let bytes = damaged(&good, index, odd);
                if !loads(&bytes) {
                    refused.push(name.clone());
                    continue;
                }
                for options in ways(&config) {
                    let fed = with_stream(&bytes, &options, |stream| stream.feed(&IDS).map(|_| ()));
                    assert!(
                        matches!(fed, Err(StreamError::NotFinite { .. })),
                        "{model}, {name}, {}, {options:?}: {fed:?}",
                        odd.0
                    );
                }
            }
        }
    }
    // Divisors of frequencies are looked at when the model is opened.
    assert!(!refused.is_empty());
    assert!(
        refused.iter().all(|name| name.starts_with("rope_f")),
        "{refused:?}"
    );
}

/// A token whose embedding is damaged is noticed where no logits are computed, and wherever it
/// stands; after a reset the stream computes as if nothing had been.
#[test]
fn a_damaged_token_is_noticed_and_forgotten_by_a_reset() {
    let path = folder().join("llama.gguf");
    let bytes = fs::read(path).unwrap();
    let good = Edit::new(&bytes);
    let embedding = |tensor: &gguf_edit::Tensor| tensor.name == b"token_embd.weight";
    let index = good.tensors.iter().position(embedding).unwrap();
    let bytes_of_damaged = damaged(&good, index, ODD[0]);
    let damaged_token = IDS[IDS.len() - 1];
    let options = exact(
        Policy::Sink {
            sinks: 1,
            window: 6,
        },
        3,
    );
    let logits = |bytes: &[u8], before: &[&[u32]]| {
        with_stream(bytes, &options, |stream| {
            for tokens in before {
                let error = stream.absorb(tokens).unwrap_err();
                assert!(matches!(error, StreamError::NotFinite { .. }), "{error:?}");
                stream.reset();
            }
            stream.feed(&[1, 2, 3, 4]).map(|logits| logits.to_vec())
        })
    };
    // A tied output would have a damaged row, too.
    assert!(
        good.tensors
            .iter()
            .any(|tensor| tensor.name == b"output.weight")
    );
    let want = logits(&bytes, &[]).unwrap();
    let noticed: [&[u32]; 3] = [
        &[damaged_token],
        &[damaged_token, 1, 2, 3, 1, 2, 3],
        &[1, 2, 3, damaged_token, 2],
    ];
    assert_eq!(logits(&bytes_of_damaged, &noticed).unwrap(), want);
}

/// The error tells how far the stream came.
#[test]
fn the_position_of_a_damaged_token_is_told() {
    let bytes = fs::read(folder().join("llama.gguf")).unwrap();
    let good = Edit::new(&bytes);
    let embedding = |tensor: &gguf_edit::Tensor| tensor.name == b"token_embd.weight";
    let index = good.tensors.iter().position(embedding).unwrap();
    let bytes = damaged(&good, index, ODD[1]);
    let options = exact(Policy::Dense { capacity: 16 }, 4);
    with_stream(&bytes, &options, |stream| {
        stream.feed(&[1, 2, 3, 4, 1, 2]).unwrap();
        let error = stream
            .feed(&[1, 2, 3, 4, 1, IDS[IDS.len() - 1]])
            .unwrap_err();
        assert_eq!(error, StreamError::NotFinite { position: 10 });
        assert!(error.to_string().contains("10 tokens"), "{error}");
    });
}

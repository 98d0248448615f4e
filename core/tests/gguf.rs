//! The parser on files of another writer (see `golden/make_gguf.py`), in `const`, and on mutations
//! of them.

use brooklet_core::gguf::{Gguf, GgufError, Value};
use brooklet_core::quant::Format;
use brooklet_core::tensor::Matrix;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

#[path = "common/gguf_walk.rs"]
mod gguf_walk;

static ALL_TYPES: &[u8] = include_bytes!("data/all-types-v3.gguf");
static PLAIN: &[u8] = include_bytes!("data/plain-v2.gguf");

const fn parse(bytes: &[u8]) -> Gguf<'_> {
    match Gguf::parse(bytes) {
        Ok(file) => file,
        Err(_) => panic!("a golden is refused"),
    }
}

/// As on a board: everything needed of the model is known at compile time.
const IN_CONST: () = {
    const FILE: Gguf<'static> = parse(include_bytes!("data/plain-v2.gguf"));
    const ARCHITECTURE: &str = FILE.get("general.architecture").unwrap().as_str().unwrap();
    const BLOCKS: Option<u64> = FILE
        .get_scoped(ARCHITECTURE, "block_count")
        .unwrap()
        .as_u64();
    assert!(matches!(BLOCKS, Some(3)) && FILE.version() == 2);
    let w = FILE.tensor("w").unwrap();
    assert!(w.rows() == 2 && w.cols() == 2 && w.data().len() == 16 && w.data()[3] == 0x3f);
    assert!(FILE.layer_tensor(0, "w").is_none() && FILE.tensors().next_tensor().is_some());
    let truncated = PLAIN.split_at(PLAIN.len() - 32).0;
    assert!(matches!(
        Gguf::parse(truncated),
        Err(GgufError::TensorOutOfFile {
            tensor: 0,
            missing: 16
        })
    ));
};

#[test]
fn a_file_is_read_while_compiling() {
    let () = IN_CONST;
}

#[test]
fn reads_every_scalar_type() {
    let file = parse(ALL_TYPES);
    let get = |name| file.get(name).unwrap();
    assert_eq!(
        (file.version(), file.alignment(), file.metadata_count()),
        (3, 64, 33)
    );
    assert_eq!(get("general.architecture").as_str(), Some("golden"));
    assert_eq!(
        get("golden.writer").as_str(),
        Some("gguf 0.19.0 (Python), numpy 2.4.6")
    );
    assert!(matches!(get("type.u8"), Value::U8(200)));
    assert!(matches!(get("type.i8"), Value::I8(-100)));
    assert!(matches!(get("type.u16"), Value::U16(60000)));
    assert!(matches!(get("type.i16"), Value::I16(-30000)));
    assert!(matches!(get("type.u32"), Value::U32(4_000_000_000)));
    assert!(matches!(get("type.i32"), Value::I32(-2_000_000_000)));
    assert!(matches!(get("type.u64"), Value::U64(u64::MAX)));
    assert!(matches!(get("type.i64"), Value::I64(i64::MIN)));
    assert!(matches!(get("type.f32"), Value::F32(v) if v == 0.1));
    assert!(matches!(get("type.f64"), Value::F64(v) if v == 0.1));
    assert_eq!(
        (get("type.true").as_bool(), get("type.false").as_bool()),
        (Some(true), Some(false))
    );
    assert_eq!(get("type.string").as_str(), Some("brook, ручей, 小川"));
    assert_eq!(get("type.empty_string").as_str(), Some(""));
    assert_eq!(get("type.not_utf8").as_str(), None);
    assert_eq!(get("type.not_utf8").as_bytes(), Some(&b"\xff\x00\xfe"[..]));
    assert_eq!(get("").as_u64(), Some(7));
    assert!(file.get("type").is_none() && file.get("type.u8 ").is_none());
}

#[test]
fn converts_without_loss_or_not_at_all() {
    let file = parse(ALL_TYPES);
    let as_u64 = |name| file.get(name).unwrap().as_u64();
    assert_eq!(as_u64("type.u8"), Some(200));
    assert_eq!(as_u64("type.u16"), Some(60000));
    assert_eq!(as_u64("type.u32"), Some(4_000_000_000));
    assert_eq!(as_u64("type.u64"), Some(u64::MAX));
    for negative in [
        "type.i8",
        "type.i16",
        "type.i32",
        "type.i64",
        "type.f32",
        "type.true",
        "type.string",
    ] {
        assert_eq!(as_u64(negative), None, "{negative}");
    }
    let as_f32 = |name| file.get(name).unwrap().as_f32();
    assert_eq!(
        (as_f32("type.f32"), as_f32("type.f64"), as_f32("type.u8")),
        (Some(0.1), Some(0.1), None)
    );
}

#[test]
fn reads_every_array_type() {
    let file = parse(ALL_TYPES);
    let array = |name: &str| file.get_scoped("array", name).unwrap().as_array().unwrap();
    let debug = |name: &str| {
        array(name)
            .into_iter()
            .map(|v| format!("{v:?}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(debug("uint8"), "U8(0) U8(255)");
    assert_eq!(debug("int8"), "I8(-128) I8(127)");
    assert_eq!(debug("uint16"), "U16(0) U16(65535)");
    assert_eq!(debug("int16"), "I16(-32768) I16(32767)");
    assert_eq!(debug("uint32"), "U32(0) U32(4294967295)");
    assert_eq!(debug("int32"), "I32(-2147483648) I32(2147483647)");
    assert_eq!(debug("float32"), "F32(-0.0) F32(1.5) F32(inf)");
    assert_eq!(debug("bool"), "Bool(true) Bool(false) Bool(true)");
    assert_eq!(debug("uint64"), "U64(0) U64(18446744073709551615)");
    assert_eq!(
        debug("int64"),
        "I64(-9223372036854775808) I64(9223372036854775807)"
    );
    assert_eq!(debug("float64"), "F64(-0.0) F64(1e300)");
    let strings: Vec<_> = array("string")
        .into_iter()
        .map(|v| v.as_str().unwrap())
        .collect();
    assert_eq!(strings, ["a", "", "bcd"]);
    assert_eq!(
        (
            array("string").element_type(),
            array("nested").element_type()
        ),
        (8, 9)
    );
    assert_eq!(array("string").string_at(8 + 1 + 8), Some(&b"bcd"[..]));
    assert_eq!(array("string").string_at(1), None);
}

#[test]
fn reads_nested_arrays() {
    let file = parse(ALL_TYPES);
    let nested = |value: Value<'static>| value.as_array().unwrap().into_iter();
    let numbers = file.get("array.nested").unwrap();
    let numbers: Vec<Vec<Vec<u64>>> = nested(numbers)
        .map(|outer| {
            nested(outer)
                .map(|inner| nested(inner).map(|v| v.as_u64().unwrap()).collect())
                .collect()
        })
        .collect();
    assert_eq!(numbers, [vec![vec![1, 2], vec![3]], vec![vec![4]]]);
    let strings = file.get("array.nested_strings").unwrap();
    let strings: Vec<Vec<&str>> = nested(strings)
        .map(|inner| nested(inner).map(|v| v.as_str().unwrap()).collect())
        .collect();
    assert_eq!(strings, [vec!["x", "yz"], vec![""]]);
}

#[test]
fn reads_tensors_of_every_format_that_the_writer_encodes() {
    let file = parse(ALL_TYPES);
    for format in [
        Format::F32,
        Format::F16,
        Format::BF16,
        Format::Q4_0,
        Format::Q4_1,
        Format::Q5_0,
        Format::Q5_1,
        Format::Q8_0,
    ] {
        let tensor = file
            .tensor(&format!("ramp.{}", format.name().to_lowercase()))
            .unwrap();
        assert_eq!(
            (tensor.format(), tensor.rows(), tensor.cols()),
            (Some(format), 2, 32)
        );
        let matrix = Matrix::new(format, 2, 32, tensor.data()).unwrap();
        for row in 0..2 {
            let mut out = [f32::NAN; 32];
            matrix.dequantize_row(row, &mut out);
            for (i, v) in out.into_iter().enumerate() {
                let exact = (row * 32 + i) as f32 - 20.0;
                // Half of the coarsest step: Q4_0 of a row whose largest element is 43 has steps of
                // 43/8, and clips one of them.
                let tolerance = if format.is_quantized() {
                    43.0 / 8.0
                } else {
                    0.0
                };
                assert!(
                    (v - exact).abs() <= tolerance,
                    "{format:?} {row} {i}: {v} for {exact}"
                );
            }
        }
    }
}

#[test]
fn reads_shapes_and_places_of_tensors() {
    let file = parse(ALL_TYPES);
    let tensor = |name| file.tensor(name).unwrap();
    assert_eq!(
        (tensor("rank.1").rank(), tensor("rank.1").dims()),
        (1, [3, 1, 1, 1])
    );
    assert_eq!(
        (tensor("rank.3").rank(), tensor("rank.3").dims()),
        (3, [2, 3, 4, 1])
    );
    assert_eq!(
        (tensor("rank.4").rank(), tensor("rank.4").dims()),
        (4, [3, 4, 1, 2])
    );
    assert_eq!((tensor("rank.4").cols(), tensor("rank.4").rows()), (3, 8));
    assert_eq!(tensor("rank.3").data()[23 * 4..], 23f32.to_le_bytes());
    let other = tensor("other.i8");
    assert_eq!(
        (
            other.ggml_type(),
            other.format(),
            other.cols(),
            other.data().len()
        ),
        (24, None, 3, 0)
    );
    assert_eq!(
        file.layer_tensor(10, "w").unwrap().data(),
        10f32.to_le_bytes()
    );
    assert_eq!(
        file.layer_tensor(1, "w").unwrap().data(),
        1f32.to_le_bytes()
    );
    assert!(file.layer_tensor(0, "w").is_none() && file.layer_tensor(usize::MAX, "w").is_none());
    for t in file.tensors().filter(|t| t.format().is_some()) {
        let offset = t.data().as_ptr().addr() - ALL_TYPES.as_ptr().addr();
        assert!(
            offset.is_multiple_of(64) && offset >= file.data_start(),
            "{t:?}"
        );
    }
}

#[test]
fn debugging_prints_no_contents() {
    let file = parse(ALL_TYPES);
    let text = format!(
        "{file:?} {:?} {:?}",
        file.get("array.string"),
        file.tensor("rank.3")
    );
    assert!(text.len() < 400, "{text}");
}

/// One change of a valid file.
#[derive(Clone, Debug)]
enum Change {
    Set { at: usize, byte: u8 },
    SetLength { at: usize, value: u64 },
    Cut { at: usize },
    Remove { at: usize, len: usize },
    Repeat { at: usize, len: usize },
}

impl Change {
    fn any() -> impl Strategy<Value = Change> {
        let at = any::<prop::sample::Index>().prop_map(|at| at.index(ALL_TYPES.len()));
        // Counts and lengths at the limits of memory and of the file.
        let value = prop_oneof![
            0..64u64,
            Just(u64::MAX),
            any::<u32>().prop_map(u64::from),
            (0..64u64).prop_map(|n| u64::MAX / 2 - 32 + n),
            (0..64u64, 0..64u32).prop_map(|(n, shift)| (n << shift).wrapping_sub(n)),
        ];
        prop_oneof![
            4 => (at.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Set { at, byte }),
            4 => (at.clone(), value).prop_map(|(at, value)| Change::SetLength { at, value }),
            1 => at.clone().prop_map(|at| Change::Cut { at }),
            1 => (at.clone(), 1..40usize).prop_map(|(at, len)| Change::Remove { at, len }),
            1 => (at, 1..40usize).prop_map(|(at, len)| Change::Repeat { at, len }),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        let range = |at: usize, len: usize| at.min(bytes.len())..(at + len).min(bytes.len());
        match *self {
            Change::Set { at, byte } => {
                let range = range(at, 1);
                bytes[range].fill(byte);
            }
            Change::SetLength { at, value } => {
                let range = range(at, 8);
                let len = range.len();
                bytes[range].copy_from_slice(&value.to_le_bytes()[..len]);
            }
            Change::Cut { at } => bytes.truncate(at),
            Change::Remove { at, len } => drop(bytes.drain(range(at, len))),
            Change::Repeat { at, len } => {
                let range = range(at, len);
                let copy = bytes[range.clone()].to_vec();
                bytes.splice(range.start..range.start, copy);
            }
        }
    }
}

/// The same mutations in every run; `PROPTEST_CASES` is their number (256 by default).
#[test]
fn mutated_files_are_read_soundly_or_refused() {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let changes = prop::collection::vec(Change::any(), 1..4);
    runner
        .run(&changes, |changes| {
            let mut bytes = ALL_TYPES.to_vec();
            for change in &changes {
                change.apply(&mut bytes);
            }
            gguf_walk::walk(&bytes);
            Ok(())
        })
        .unwrap();
}

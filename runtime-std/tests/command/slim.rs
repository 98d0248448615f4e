//! `brooklet slim`, and models that it wrote.

use brooklet::convert::gguf_writer::Header;
use brooklet::core::gguf::{Gguf, Value};
use brooklet::core::quant::Format;

use super::*;

/// A random model with as many key heads as query heads, and no tokenizer.
pub(crate) const MHA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../core/tests/data/random-mha-f32.gguf"
);

/// Fewer tokens of calibration than the default: four texts as long as the model's context.
const FEW: &str = "--calib-tokens=1024";

fn json(output: Output) -> serde_json::Value {
    serde_json::from_str(&text(output)).unwrap()
}

#[test]
fn a_slim_copy_predicts_what_the_original_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (copy, report) = (path("slim.gguf"), path("report.json"));
    let mut said = json(brooklet(&[
        "slim", FEW, MHA, "-o", &copy, "--json", "--f32", "--bound", "0.02", "--report", &report,
    ]));
    assert_eq!(said["notices"].take().as_array().map(Vec::len), Some(0));
    said.as_object_mut().unwrap().remove("notices");
    let written: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!(said, written);
    let layers = said["layers"].as_array().unwrap();
    assert!(layers.iter().any(|layer| layer["layout"] != "kv"), "{said}");
    for layer in layers.iter().filter(|layer| layer["layout"] != "kv") {
        assert!(layer["output_error"]["q8_0"].as_f64().unwrap() <= 0.02);
        assert!(
            layer["output_error"]["f32"].as_f64().unwrap()
                <= layer["output_error"]["q8_0"].as_f64().unwrap()
        );
        assert!(layer["bytes_per_token_after"].as_f64() < layer["bytes_per_token_before"].as_f64());
    }
    let original = nll(MHA, &[]);
    assert_eq!(nll(&copy, &["--cache", "kv"]), original);
    let slim = nll(&copy, &[]);
    assert!(
        slim != original && (slim - original).abs() < 0.05,
        "{slim} for {original}"
    );
    const Q8: [&str; 2] = ["--cache-type", "q8_0"];
    let rounded = nll(&copy, &Q8);
    assert!((rounded - nll(MHA, &Q8)).abs() < 0.1, "{rounded}");
    let bytes = |cache: &str| {
        json(brooklet(&["plan", "-m", &copy, "--cache", cache, "--json"]))["bytes_per_token"]
            .clone()
    };
    assert!(bytes("auto").as_u64() < bytes("kv").as_u64());
    // The planner shows both side by side, with the measured numbers.
    let plan = json(brooklet(&[
        "plan",
        "-m",
        &copy,
        "--cache-type",
        "q8_0",
        "--json",
    ]));
    let [kv, slim] = plan["layouts"].as_array().unwrap().as_slice() else {
        panic!("{plan}")
    };
    assert_eq!(
        (&kv["layout"], &slim["layout"]),
        (&"kv".into(), &"k+r".into())
    );
    assert_eq!(plan["smallest_layout"], "k+r");
    assert!(kv["error"].is_null() && slim["error"].as_f64().unwrap() <= 0.02);
    assert!(slim["products_per_token"].as_u64() > kv["products_per_token"].as_u64());
    let plan = json(brooklet(&[
        "plan",
        "-m",
        tiny().to_str().unwrap(),
        "--json",
    ]));
    assert_eq!(plan["smallest_layout"], "kv");
    let table = text(brooklet(&[
        "plan",
        "-m",
        concat!(env!("CARGO_MANIFEST_DIR"), "/models/dimensions.json"),
    ]));
    assert!(
        table.contains("CodeLlama-7B") && table.contains("savings with E"),
        "{table}"
    );
}

#[test]
fn what_slim_attention_cannot_do_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let copy = path("slim.gguf");
    let tiny = tiny();
    let tiny = tiny.to_str().unwrap();
    let slim = |input: &str, rest: &[&str]| {
        failure(brooklet(&[&["slim", input, "-o", &copy], rest].concat()), 1)
    };
    // Fewer key heads than query heads.
    let error = slim(tiny, &[]);
    assert!(
        error.contains("32 for 64") && error.contains("smaller already"),
        "{error}"
    );
    let error = slim(MHA, &["--calib-tokens", "31"]);
    assert!(
        error.contains("31 tokens") && error.contains("at least 32"),
        "{error}"
    );
    let error = slim(MHA, &["--bound", "1e-9", "--layout", "k+r"]);
    assert!(
        error.contains("layer 0") && error.contains("0.000000001"),
        "{error}"
    );
    assert!(slim(MHA, &["--calib", "/dev/null"]).contains("tokenizer"));
    assert!(slim(MHA, &["--layout", "x"]).contains("RoPE"));
    failure(brooklet(&["slim", MHA, "-o", &copy, "--bound", "0"]), 2);
    // A weight that is NaN.
    let broken = path("broken.gguf");
    let mut bytes = fs::read(MHA).unwrap();
    let keys = data_of(&bytes, "blk.1.attn_k.weight");
    bytes[keys..keys + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&broken, &bytes).unwrap();
    let error = slim(&broken, &[]);
    assert!(error.contains("NaN or infinity"), "{error}");
    assert!(
        !Path::new(&copy).exists(),
        "nothing is written where there is an error"
    );
    // Layouts that the file does not support.
    for (layout, says) in [
        ("k", "2 of the model's 2 layers"),
        ("k+r", "brooklet slim"),
        ("x", "RoPE"),
    ] {
        let error = failure(brooklet(&["plan", "-m", MHA, "--cache", layout]), 1);
        assert!(error.contains(says), "{error}");
    }
    // Maps are valid only for unchanged weights.
    text(brooklet(&["slim", FEW, MHA, "-o", &copy, "--layout", "k"]));
    text(brooklet(&["plan", "-m", &copy, "--cache", "k"]));
    assert!(slim(MHA, &[]).contains("--force"));
    assert!(slim(&copy, &["--force"]).contains("is the input"));
    let error = failure(brooklet(&["quantize", &copy, &path("q"), "Q8_0"]), 1);
    assert!(error.contains("quantise the original"), "{error}");
}

#[test]
fn singular_keys_get_channels_or_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (singular, copy) = (path("singular.gguf"), path("slim.gguf"));
    let mut bytes = fs::read(MHA).unwrap();
    let keys = data_of(&bytes, "blk.0.attn_k.weight");
    // Row 5 is row 4: 32 columns of four bytes.
    let row = bytes[keys + 4 * 128..keys + 5 * 128].to_vec();
    bytes[keys + 5 * 128..keys + 6 * 128].copy_from_slice(&row);
    fs::write(&singular, &bytes).unwrap();
    let error = failure(
        brooklet(&["slim", FEW, &singular, "-o", &copy, "--layout", "k"]),
        1,
    );
    assert!(
        error.contains("layer 0") && error.contains("singular"),
        "{error}"
    );
    assert!(!Path::new(&copy).exists());
    let said = json(brooklet(&[
        "slim", FEW, &singular, "-o", &copy, "--json", "--force", "--bound", "0.05",
    ]));
    let layer = &said["layers"][0];
    assert!(
        layer["layout"] == "kv" || layer["rank"].as_u64() > Some(0),
        "{layer}"
    );
}

/// A file states the cache that it is made for. Another one is refused if values are wrong with it,
/// and it is said if they are worse than was accepted; so it is for a cache without the sinks that
/// errors were measured with.
#[test]
fn a_cache_that_a_slim_file_is_not_made_for_is_refused_or_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (original, copy) = (path("narrow.gguf"), path("slim.gguf"));
    // Half of the key rows are a ten thousandth of the others: a block's scale is the larger ones'.
    let mut bytes = fs::read(MHA).unwrap();
    for layer in 0..2 {
        let keys = data_of(&bytes, &format!("blk.{layer}.attn_k.weight"));
        for row in (0..32).step_by(2) {
            for key in bytes[keys + row * 128..][..128].as_chunks_mut::<4>().0 {
                *key = (f32::from_le_bytes(*key) * 1e-4).to_le_bytes();
            }
        }
    }
    fs::write(&original, &bytes).unwrap();
    let slim = |input: &str, rest: &[&str]| {
        let made = [
            "slim", FEW, input, "-o", &copy, "--force", "--json", "--f32",
        ];
        json(brooklet(&[&made, rest].concat()))
    };
    let made = slim(&original, &["--layout", "k", "--cache-type", "f32"]);
    let error = |cache_type: &str| {
        let layers = made["layers"].as_array().unwrap().iter();
        let errors = layers.map(|layer| layer["output_error"][cache_type].as_f64().unwrap());
        errors.fold(0.0, f64::max)
    };
    assert!(error("f32") < 0.01 && error("q8_0") > 0.5, "{made}");
    for command in ["plan", "bench"] {
        let said = failure(brooklet(&[command, "-m", &copy, "--cache-type", "q8_0"]), 1);
        let percent = format!("errs by {:.0} %", 100.0 * error("q8_0"));
        assert!(
            said.contains(&percent) && said.contains("a cache in f"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let notices = |rest: &[&str]| {
        let said = json(brooklet(&[&["plan", "-m", &copy, "--json"], rest].concat()));
        let notices = said["notices"].as_array().unwrap().iter();
        notices
            .map(|notice| notice["kind"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(notices(&["--cache-type", "f32"]).is_empty());
    assert!(notices(&["--cache-type", "q8_0", "--cache", "kv"]).is_empty());
    assert_eq!(
        notices(&["--cache-type", "f32", "--sinks", "3"]),
        ["slim_sinks"]
    );
    assert_eq!(
        notices(&["--cache-type", "f32", "--policy", "window"]),
        ["slim_sinks"]
    );
    let arguments = ["--layout", "k+r", "--bound", "0.02", "--cache-type", "f16"];
    let made = slim(MHA, &arguments);
    assert!(made["notices"].as_array().unwrap().is_empty());
    assert!(notices(&[]).is_empty());
    assert_eq!(notices(&["--cache-type", "q8_0"]), ["slim_error"]);
    // What is asked for "whatever the error" is written, and said.
    let made = slim(MHA, &["--layout", "k"]);
    assert_eq!(made["notices"][0]["kind"], "slim_error", "{made}");
    assert!(notices(&["--cache-type", "q8_0"]).is_empty());
    // A file that states nothing.
    let mut bytes = fs::read(&copy).unwrap();
    let key = b"brooklet.slim.accepted";
    let at = bytes.windows(key.len()).position(|window| window == key);
    bytes[at.unwrap()] = b'B';
    fs::write(&copy, &bytes).unwrap();
    assert_eq!(notices(&[]), ["slim_unstated"]);
}

/// A copy in which no layer is slim is the original: it is not written, and the reason is given.
#[test]
fn a_copy_without_a_slim_layer_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("slim.gguf");
    let copy = copy.to_str().unwrap();
    let error = failure(
        brooklet(&["slim", FEW, MHA, "-o", copy, "--bound", "1e-4"]),
        1,
    );
    assert!(
        error.contains("no layer can be slim") && error.contains("keys and values in q8_0 err by"),
        "{error}"
    );
    assert!(!Path::new(copy).exists());
    // Keys that are all zero.
    let zero = folder.path().join("zero.gguf");
    let zero = zero.to_str().unwrap();
    let mut bytes = fs::read(MHA).unwrap();
    let keys = data_of(&bytes, "blk.0.attn_k.weight");
    bytes[keys..][..32 * 32 * 4].fill(0);
    fs::write(zero, &bytes).unwrap();
    let said = text(brooklet(&[
        "slim", FEW, zero, "-o", copy, "--bound", "0.05",
    ]));
    assert!(said.contains("inf") && !said.contains("NaN"), "{said}");
}

/// Copies of a model whose manifest states its sinks run with as many.
#[test]
fn copies_keep_the_sinks_that_the_original_needs() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let sinks = |model: &str| json(brooklet(&["plan", "-m", model, "--json"]))["sinks"].clone();
    let (slim, small) = (path("slim.gguf"), path("q4_0.gguf"));
    text(brooklet(&[
        "slim",
        "tiny",
        "-o",
        &slim,
        "--calib-tokens",
        "256",
    ]));
    text(brooklet(&["quantize", "tiny", &small, "Q4_0"]));
    assert_eq!(sinks("tiny"), 1);
    assert_eq!((sinks(&slim), sinks(&small)), (1.into(), 1.into()));
}

/// Tiny keys give maps with large numbers.
#[test]
fn a_map_too_large_for_f16_is_stored_in_f32() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (original, copy) = (path("small.gguf"), path("slim.gguf"));
    let mut bytes = fs::read(MHA).unwrap();
    let keys = data_of(&bytes, "blk.0.attn_k.weight");
    for key in bytes[keys..][..32 * 32 * 4].as_chunks_mut::<4>().0 {
        *key = (f32::from_le_bytes(*key) / 16384.0).to_le_bytes();
    }
    fs::write(&original, &bytes).unwrap();
    let arguments = [
        "--json",
        "--layout",
        "k+r",
        "--bound",
        "0.1",
        "--cache-type",
        "f16",
    ];
    let said = json(brooklet(
        &[&["slim", FEW, &original, "-o", &copy], &arguments[..]].concat(),
    ));
    for (layer, format) in [(0, "F32"), (1, "F16")] {
        assert_eq!(said["layers"][layer]["map_format"], format, "{said}");
        let error = said["layers"][layer]["output_error"]["f16"]
            .as_f64()
            .unwrap();
        assert!(error < 0.1, "{said}");
    }
    let (want, got) = (nll(&original, &[]), nll(&copy, &[]));
    assert!((got - want).abs() < 0.05, "{got} for {want}");
}

/// Without value projections, the values of the first sinks are computed from their keys before the
/// keys are rounded.
#[test]
fn without_values_the_copy_is_smaller_and_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (whole, copy) = (path("whole.gguf"), path("slim.gguf"));
    let arguments = ["--json", "--f32", "--layout", "k+r", "--bound", "0.02"];
    let slim = |out: &str, rest: &[&str]| {
        json(brooklet(
            &[&["slim", FEW, MHA, "-o", out], &arguments[..], rest].concat(),
        ))
    };
    let (with, without) = (slim(&whole, &[]), slim(&copy, &["--drop-v"]));
    let error = |report: &serde_json::Value, layer: usize, cache_type: &str| {
        report["layers"][layer]["output_error"][cache_type]
            .as_f64()
            .unwrap()
    };
    for layer in 0..2 {
        assert!(!tensors(&copy).contains(&format!("blk.{layer}.attn_v.weight")));
        let (with, without) = (error(&with, layer, "q8_0"), error(&without, layer, "q8_0"));
        assert!(
            without <= 0.02 && without < 1.1 * with,
            "{without}, but {with} with W_V"
        );
    }
    let size = |path: &str| fs::metadata(path).unwrap().len();
    // The difference is two matrices of 32 x 32, except for the header.
    assert!((8000..9000).contains(&(size(&whole) - size(&copy))));
    let (with, without) = (nll(&whole, &[]), nll(&copy, &[]));
    assert!(
        (without - with).abs() < 1e-3,
        "{without}, but {with} with W_V"
    );
    for command in ["plan", "run"] {
        let error = failure(brooklet(&[command, "-m", &copy, "--cache", "kv"]), 1);
        assert!(error.contains("the file lacks attn_v.weight"), "{error}");
    }
    let plan = text(brooklet(&["plan", "-m", &copy]));
    assert!(
        plan.contains("not possible with this file, which lacks W_V"),
        "{plan}"
    );
    let error = failure(brooklet(&["slim", &copy, "-o", &path("again")]), 1);
    assert!(
        error.contains("--drop-v") && error.contains("the original"),
        "{error}"
    );
}

/// The negative log-likelihood of three hundred tokens, with a cache in f32 unless `rest` says
/// otherwise.
fn nll(model: &str, rest: &[&str]) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let ids = folder.path().join("ids");
    let numbers: Vec<String> = (0..300u32)
        .map(|i| ((i * i * 7 + i) % 64).to_string())
        .collect();
    fs::write(&ids, numbers.join(" ")).unwrap();
    let ids = ids.to_str().unwrap();
    let cache_type: &[&str] = match rest {
        ["--cache-type", ..] => &[],
        _ => &["--cache-type", "f32"],
    };
    let stream = ["--sinks", "2", "--window", "50", "--json"];
    let said = json(brooklet(
        &[
            &["ppl", "-m", model, "--ids", ids],
            &stream,
            cache_type,
            rest,
        ]
        .concat(),
    ));
    said["nll"].as_f64().unwrap()
}

/// Names of a file's tensors.
fn tensors(path: &str) -> Vec<String> {
    let bytes = fs::read(path).unwrap();
    let file = Gguf::parse(&bytes).unwrap();
    file.tensors()
        .map(|tensor| tensor.name().to_string())
        .collect()
}

/// The model of four heads with biases, and keys that are rotated or not.
fn biased(rotated: bool) -> Vec<u8> {
    let bytes = fs::read(MHA).unwrap();
    let file = Gguf::parse(&bytes).unwrap();
    let mut header = Header::with_metadata_of(&file);
    if !rotated {
        header.set("llama.rope.dimension_count", Value::U32(0));
    }
    let names: Vec<String> = (0..2)
        .flat_map(|layer| {
            ["attn_q", "attn_k", "attn_v", "attn_output"]
                .map(|part| format!("blk.{layer}.{part}.bias"))
        })
        .collect();
    for tensor in file.tensors() {
        let dims = &tensor.dims()[..tensor.rank()];
        header
            .tensor(tensor.name(), dims, tensor.format().unwrap())
            .unwrap();
    }
    for name in &names {
        header.tensor(name, &[32], Format::F32).unwrap();
    }
    let mut body = header.write(Vec::new()).unwrap();
    for tensor in file.tensors() {
        body.write(tensor.data()).unwrap();
    }
    for (n, _) in names.iter().enumerate() {
        let bias = (0..32).map(|i| ((i * 37 + n * 11) % 19) as f32 / 9.0 - 1.0);
        body.write(&bias.flat_map(f32::to_le_bytes).collect::<Vec<u8>>())
            .unwrap();
    }
    body.finish().unwrap().0
}

/// The value bias becomes part of the output bias. The key bias adds the same number to all scores
/// of keys that are not rotated.
#[test]
fn biases_move_where_they_cost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (original, copy) = (path("biased.gguf"), path("slim.gguf"));
    for rotated in [true, false] {
        fs::write(&original, biased(rotated)).unwrap();
        let said = json(brooklet(&[
            "slim", FEW, &original, "-o", &copy, "--json", "--f32", "--force", "--bound", "0.05",
        ]));
        let names = tensors(&copy);
        for (index, layer) in said["layers"].as_array().unwrap().iter().enumerate() {
            let has = |part: &str| names.contains(&format!("blk.{index}.{part}"));
            let is_slim = layer["layout"] != "kv";
            assert!(is_slim, "{layer}");
            assert!(has("attn_q.bias") && has("attn_output.bias") && !has("attn_v.bias"));
            assert_eq!(has("attn_k.bias"), rotated);
        }
        let want = nll(&original, &[]);
        let kv = nll(&copy, &["--cache", "kv"]);
        assert!((kv - want).abs() < 1e-4, "{kv} for {want}");
        let slim = nll(&copy, &[]);
        assert!(
            slim != kv && (slim - want).abs() < 0.05,
            "{slim} for {want}"
        );
        // A second move changes nothing.
        let again = path("again.gguf");
        text(brooklet(&[
            "slim", FEW, &copy, "-o", &again, "--force", "--f32", "--bound", "0.05",
        ]));
        assert_eq!(nll(&again, &["--cache", "kv"]), kv);
    }
}

/// Offset in the file of a tensor's data.
fn data_of(bytes: &[u8], name: &str) -> usize {
    let file = brooklet::core::gguf::Gguf::parse(bytes).unwrap();
    let data = file.tensor(name).unwrap().data();
    data.as_ptr().addr() - bytes.as_ptr().addr()
}

//! `brooklet quantize` on whole files, compared with the results of llama.cpp's quantiser
//! (`golden/make_quantize.py`).

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs `brooklet quantize REST...` in this process.
fn quantize(rest: &[&str]) -> Result<String, String> {
    let mut out = Vec::new();
    brooklet::cli::execute([&["brooklet", "quantize"], rest].concat(), &mut out)
        .map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn files_are_those_of_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("quantized.gguf");
    let golden = include_str!("golden/quantized.sha256");
    assert_eq!(golden.lines().count(), 150);
    for line in golden.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [digest, format, model] = words[..] else {
            panic!("{line}")
        };
        let input = root().join(model);
        quantize(&[
            input.to_str().unwrap(),
            output.to_str().unwrap(),
            format,
            "--force",
        ])
        .unwrap();
        assert_eq!(
            hex(&Sha256::digest(fs::read(&output).unwrap())),
            digest,
            "{model} {format}"
        );
    }
    assert_eq!(names(folder.path()), ["quantized.gguf"]);
}

#[test]
fn a_quantised_model_runs() {
    let folder = tempfile::tempdir().unwrap();
    let input = root().join("core/tests/data/random.gguf");
    for format in [
        "F16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "Q4_K_M", "IQ4_NL",
    ] {
        let output = folder.path().join(format);
        let output = output.to_str().unwrap();
        quantize(&[input.to_str().unwrap(), output, format]).unwrap();
        let mut text = Vec::new();
        brooklet::cli::execute(
            [
                "brooklet", "run", "-m", output, "The sea", "-n", "8", "--temp", "0",
            ],
            &mut text,
        )
        .unwrap();
        assert!(!text.is_empty());
    }
}

#[test]
fn the_report_has_the_promised_keys() {
    let folder = tempfile::tempdir().unwrap();
    let input = root().join("core/tests/data/random-gqa-f16.gguf");
    let output = folder.path().join("out.gguf");
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    let report: serde_json::Value =
        serde_json::from_str(&quantize(&[input, output, "q8_0", "--json", "-t", "2"]).unwrap())
            .unwrap();
    assert_eq!(report["bytes"], fs::metadata(output).unwrap().len());
    assert_eq!(
        (&report["input"], &report["output"]),
        (&input.into(), &output.into())
    );
    assert_eq!(
        (&report["format"], &report["requantized"]),
        (&"Q8_0".into(), &0.into())
    );
    assert_eq!(report["formats"]["Q8_0"]["tensors"], report["converted"]);
    assert_eq!(report["notices"], serde_json::json!([]));
    for key in [
        "tensors",
        "elements",
        "bytes_before",
        "bytes_after",
        "bits_per_weight",
    ] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key}");
    }
    let text = quantize(&[input, output, "q8_0", "--force"]).unwrap();
    assert!(
        text.contains("bits each") && text.contains("Q8_0"),
        "{text}"
    );
}

#[test]
fn what_must_not_be_written_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.gguf");
    fs::copy(root().join("core/tests/data/random-gqa-f16.gguf"), &model).unwrap();
    let before = fs::read(&model).unwrap();
    let path = model.to_str().unwrap();
    let refused = |rest: &[&str], why: &str| {
        let error = quantize(rest).unwrap_err();
        assert!(error.contains(why), "{error}");
        assert_eq!(
            (names(folder.path()), fs::read(&model).unwrap()),
            (vec!["model.gguf".to_owned()], before.clone())
        );
    };
    refused(&[path, path, "Q8_0", "--force"], "is the input");
    let roundabout = folder.path().join(".").join("model.gguf");
    refused(
        &[path, roundabout.to_str().unwrap(), "Q8_0", "--force"],
        "is the input",
    );
    let other = root().join("core/tests/data/random.gguf");
    refused(
        &[other.to_str().unwrap(), path, "Q8_0"],
        "exists: --force replaces it",
    );
    refused(
        &[path, folder.path().to_str().unwrap(), "Q8_0", "--force"],
        "it is a folder",
    );
    refused(
        &[path, "/absent/folder/out.gguf", "Q8_0"],
        "/absent/folder/out.gguf",
    );
    refused(&[path, "out.gguf", "Q4_K"], "F16, Q8_0, Q6_K");
    refused(&[path, "out.gguf", "Q8_0", "-t", "0"], "from 1 to");
    let cut = tempfile::NamedTempFile::new().unwrap();
    fs::write(cut.path(), &before[..before.len() - 1]).unwrap();
    let output = folder.path().join("out.gguf");
    refused(
        &[
            cut.path().to_str().unwrap(),
            output.to_str().unwrap(),
            "Q8_0",
        ],
        "truncated",
    );
}

#[cfg(unix)]
#[test]
fn a_link_to_the_input_is_the_input() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.gguf");
    fs::copy(root().join("core/tests/data/random-gqa-f16.gguf"), &model).unwrap();
    let link = folder.path().join("link.gguf");
    std::os::unix::fs::symlink(&model, &link).unwrap();
    let error = quantize(&[
        model.to_str().unwrap(),
        link.to_str().unwrap(),
        "Q8_0",
        "--force",
    ])
    .unwrap_err();
    assert!(error.contains("is the input"), "{error}");
}

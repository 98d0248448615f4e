//! Refusals: in one sentence, with the number that matters, and never by a crash.

use super::*;

#[test]
fn an_unknown_instruction_set_is_named_with_those_there_are() {
    let tiny = tiny();
    let arguments = ["run", "-m", tiny.to_str().unwrap(), "x", "-n", "1"];
    let error = failure(
        command(&arguments)
            .env("BROOKLET_ISA", "mmx")
            .output()
            .unwrap(),
        1,
    );
    assert!(
        error.contains("\"mmx\"") && error.contains("scalar"),
        "{error}"
    );
}

#[test]
fn wrong_command_lines_exit_with_two() {
    let wrong: [&[&str]; 10] = [
        &[],
        &["fly"],
        &["bench"],
        &["run", "-m", "x", "--unknown"],
        &["run", "-m", "x", "p", "-n", "-2"],
        &["run", "-m", "x", "p", "--ram", "64apples"],
        &["run", "-m", "x", "p", "--policy", "forget"],
        &["run", "-m", "x", "p", "--temp", "-1"],
        &["ppl", "-m", "x"],
        &["ppl", "-m", "x", "-f", "y", "--ids", "z"],
    ];
    for arguments in wrong {
        let error = failure(brooklet(arguments), 2);
        assert!(!error.is_empty(), "{arguments:?}");
    }
    for zero in [["-t", "0"], ["--window", "0"], ["-t", "1000"]] {
        let error = failure(with_tiny("run", &["x", zero[0], zero[1]]), 2);
        assert!(
            error.contains(zero[1]) || error.contains("at least 1"),
            "{error}"
        );
    }
}

#[test]
fn files_that_are_no_models_are_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let run = |path: &Path| {
        failure(
            brooklet(&["run", "-m", path.to_str().unwrap(), "x", "-n", "1"]),
            1,
        )
    };
    assert!(run(&folder.path().join("absent.gguf")).contains("absent.gguf"));
    assert!(run(folder.path()).contains("directory"));
    for (name, bytes) in [("empty", &b""[..]), ("text", b"once upon a time")] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        assert!(run(&path).contains("not a GGUF file"));
    }
    assert!(failure(brooklet(&["run", "-m", "no-such-model", "x"]), 1).contains("smollm2-135m"));
}

#[test]
fn truncated_and_flipped_models_never_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.gguf");
    let good = fs::read(tiny()).unwrap();
    let run = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        brooklet(&[
            "run",
            "-m",
            path.to_str().unwrap(),
            "The sea",
            "-n",
            "4",
            "-t",
            "2",
        ])
    };
    for cut in (0..good.len()).step_by(good.len() / 23) {
        failure(run(&good[..cut]), 1);
    }
    // Most flips are in the header, where they have the largest effect.
    let header = good.len() / 4;
    for at in (0..header)
        .step_by(header / 61)
        .chain((header..good.len()).step_by(good.len() / 29))
    {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        let output = run(&bytes);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            matches!(output.status.code(), Some(0 | 1)),
            "byte {at}: {:?} {errors}",
            output.status
        );
        assert!(!errors.contains("panicked"), "byte {at}: {errors}");
    }
}

/// Weights that are damaged are noticed by every command that computes with them. (`slim` has its
/// own test.)
#[test]
fn damaged_weights_end_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.gguf");
    let mut bytes = fs::read(tiny()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    let text = folder.path().join("text");
    fs::write(&text, "The sea was calm and the sky was blue. ".repeat(40)).unwrap();
    let (model, text) = (path.to_str().unwrap(), text.to_str().unwrap());
    let commands: [&[&str]; 6] = [
        &["run", "-m", model, "-n", "5", "--temp", "0", "Hi"],
        &["run", "-m", model, "-n", "5", "Hi"],
        &["run", "-m", model, "-n", "5", "--policy", "recompute", "Hi"],
        &["ppl", "-m", model, "-f", text, "--count", "50"],
        &[
            "ppl", "-m", model, "-f", text, "--count", "50", "--stride", "7",
        ],
        &["bench", "-m", model, "-n", "4", "-p", "4", "-r", "1"],
    ];
    for arguments in commands {
        let error = failure(brooklet(arguments), 1);
        assert!(
            error.contains("NaN or infinity") && error.contains("tokens"),
            "{arguments:?}: {error}"
        );
    }
}

#[test]
fn a_budget_that_is_too_small_says_what_is_missing_and_what_would_fit() {
    let error = failure(with_tiny("run", &["x", "--ram", "1KiB"]), 1);
    assert!(
        error.contains("1024") && error.contains("missing") && error.contains("smallest window"),
        "{error}"
    );
    let error = failure(
        with_tiny("run", &["x", "--ram", "120kB", "--window", "250"]),
        1,
    );
    assert!(
        error.contains("a window of") && error.contains("would fit"),
        "{error}"
    );
    let error = failure(with_tiny("run", &["x", "--window", "1000"]), 1);
    assert!(
        error.contains("256") && error.contains("the largest window is 252"),
        "{error}"
    );
}

/// Runs the command on something endless, with far less memory than would be needed to read much of
/// it.
#[cfg(target_os = "linux")]
fn in_little_memory(words: &[&str], from: &str) -> Output {
    let inner = command(words);
    Command::new("sh")
        .args(["-c", &format!("ulimit -v 2000000; {from} \"$0\" \"$@\"")])
        .arg(inner.get_program())
        .args(inner.get_args())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn of_what_is_endless_no_more_is_read_than_can_be_used() {
    // An emulator's own memory is more than that.
    if !program::runner().is_empty() {
        return;
    }
    // What is no model shows in its first bytes.
    for device in ["/dev/zero", "/dev/urandom"] {
        for words in [
            &["inspect", device][..],
            &["inspect", device, "--no-mmap"],
            &["run", "-m", device, "x"],
            &["quantize", device, "/tmp/never-written", "Q8_0"],
        ] {
            let said = failure(in_little_memory(words, ""), 1);
            assert!(said.contains("not a GGUF file"), "{said}");
        }
    }
    let said = failure(in_little_memory(&["inspect", "/dev/stdin"], "yes |"), 1);
    assert!(said.contains("not a GGUF file"), "{said}");
    // A model that goes on for ever is read up to its end.
    let tiny = tiny();
    let from = format!("cat '{}' /dev/zero |", tiny.display());
    let words = [
        "run",
        "-m",
        "/dev/stdin",
        "The sea",
        "-n",
        "4",
        "--temp",
        "0",
    ];
    let said = text(in_little_memory(&words, &from));
    assert_eq!(
        said,
        text(with_tiny("run", &["The sea", "-n", "4", "--temp", "0"]))
    );
    // Texts have a bound.
    let model = tiny.to_str().unwrap();
    let mha = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../core/tests/data/random-mha-f32.gguf"
    );
    for words in [
        &["run", "-m", model, "-f", "/dev/zero"][..],
        &["tokenize", "-m", model, "-f", "/dev/full"],
        &["ppl", "-m", model, "-f", "/dev/zero"],
        &["ppl", "-m", model, "--ids", "/dev/zero"],
        &[
            "slim",
            mha,
            "-o",
            "/tmp/never-written",
            "--calib",
            "/dev/zero",
        ],
        &["run", "-m", model, "-f", "-"],
    ] {
        let said = failure(in_little_memory(words, "exec </dev/zero;"), 1);
        assert!(
            said.contains("256 MiB (268435456 bytes), the most that a text may have"),
            "{said}"
        );
    }
    assert!(!Path::new("/tmp/never-written").exists());
}

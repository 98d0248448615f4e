//! The text of `brooklet run`, the same with every way to compute it and every source of the
//! prompt.

use super::*;

#[test]
fn the_same_text_whatever_the_threads_the_map_and_the_instruction_set() {
    let expected = greedy(&["-t", "1"]);
    assert!(!expected.is_empty());
    assert_eq!(greedy(&["-t", "2"]), expected);
    assert_eq!(greedy(&["-t", "5", "--no-mmap"]), expected);
    let tiny = tiny();
    let arguments = [
        &["run", "-m", tiny.to_str().unwrap(), "The sea"],
        &GREEDY[..],
    ]
    .concat();
    for isa in brooklet::system::isa::available_isas() {
        let output = command(&arguments)
            .env("BROOKLET_ISA", isa.name())
            .output()
            .unwrap();
        assert_eq!(text(output), expected, "{}", isa.name());
    }
}

#[test]
fn the_prompt_comes_from_an_argument_a_file_or_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prompt");
    fs::write(&path, "The sea").unwrap();
    let expected = greedy(&[]);
    let from_file = [&["-f", path.to_str().unwrap()], &GREEDY[..]].concat();
    assert_eq!(text(with_tiny("run", &from_file)), expected);
    let tiny = tiny();
    let arguments = [&["run", "-m", tiny.to_str().unwrap()], &GREEDY[..]].concat();
    let output = command(&arguments)
        .stdin(fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    assert_eq!(text(output), expected);
}

#[test]
fn json_holds_the_same_text() {
    let plain = greedy(&[]);
    let report = json(&greedy(&["--json"]));
    assert_eq!(report["text"], plain);
    assert_eq!(report["statistics"]["tokens"], 24);
    assert_eq!(report["statistics"]["finish"], "length");
    let end: String = plain.chars().skip(3).take(2).collect();
    let stopped = json(&greedy(&["--json", "--stop", &end]));
    assert_eq!(stopped["text"], plain[..plain.find(&end).unwrap()]);
    assert_eq!(stopped["statistics"]["finish"], "stop");
}

#[test]
fn seeds_repeat_and_differ() {
    let run = |seed: &str| {
        text(with_tiny(
            "run",
            &["The", "-n", "40", "--temp", "1.5", "--seed", seed],
        ))
    };
    assert_eq!(run("7"), run("7"));
    assert_ne!(run("7"), run("8"));
}

#[test]
fn statistics_go_to_standard_error() {
    let output = with_tiny("run", &["The", "-n", "3", "--stats"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    for word in ["tokens/s", "position", "anonymous", "arena"] {
        assert!(errors.contains(word), "{word} in {errors}");
    }
    assert!(with_tiny("run", &["The", "-n", "3"]).stderr.is_empty());
    // Choices are logged for -v, and more for -vv.
    let logged = |verbose: &str| {
        let output = with_tiny("run", &["The", "-n", "3", verbose]);
        String::from_utf8_lossy(&output.stderr).lines().count()
    };
    assert!(0 < logged("-v") && logged("-v") < logged("-vv"));
    assert_eq!(text(with_tiny("run", &["The", "-n", "0"])), "");
}

#[test]
fn smollm2_speaks_within_its_budget() {
    let Some(path) = pulled("smollm2-135m") else {
        return;
    };
    let arguments = [
        "run",
        "-m",
        path.to_str().unwrap(),
        "The sea was",
        "-n",
        "40",
        "--temp",
        "0",
        "--ram",
        "64MiB",
        "--json",
    ];
    let report = json(&text(brooklet(&arguments)));
    assert!(
        report["text"].as_str().unwrap().starts_with(" a "),
        "{report}"
    );
    let statistics = &report["statistics"];
    assert!(statistics["arena_bytes"].as_u64().unwrap() <= 64 << 20);
    if let Some(anonymous) = statistics["memory"]["anonymous_kib"].as_u64() {
        assert!(anonymous < (64 + 24) << 10, "{anonymous} KiB");
    }
}

/// The program can run a model even without a model file, a home folder or a network.
#[test]
fn the_program_has_a_model_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let own = |arguments: &[&str]| {
        let mut run = command(arguments);
        run.env("HOME", folder.path())
            .env("BROOKLET_MODELS", folder.path().join("models"));
        text(run.output().unwrap())
    };
    let said = own(&["run", "-n", "40", "--seed", "7"]);
    assert!(said.split_whitespace().count() > 8, "{said}");
    assert_eq!(
        said,
        own(&[
            "run",
            "-m",
            "small",
            "\n\n",
            "-n",
            "40",
            "--seed",
            "7",
            "--ignore-eos"
        ])
    );
    assert_eq!(
        own(&["run", "Tom had", "-n", "40", "--seed", "7"]),
        own(&[
            "run",
            "-m",
            "small",
            "Tom had",
            "-n",
            "40",
            "--seed",
            "7",
            "--ignore-eos"
        ])
    );
    assert_ne!(said, own(&["run", "-m", "tiny", "-n", "40", "--seed", "7"]));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// The run continues until its output is no longer read.
#[test]
fn the_program_s_own_model_streams_for_ever() {
    let mut child = command(&["run", "--ram", "2MiB"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut start = vec![0; 20_000];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(str::from_utf8(&start).is_ok());
}

//! The command as people meet it: output, exit codes, errors, signals, pipes.

mod common;
mod hub;
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{pulled, tiny};
use program::program;

/// The command, away from the user's settings.
fn command(arguments: &[&str]) -> Command {
    let mut command = program();
    command
        .args(arguments)
        .env_remove("BROOKLET_ISA")
        .env_remove("COLUMNS")
        .stdin(std::process::Stdio::null());
    command
}

/// Runs the command.
fn brooklet(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the command starts")
}

/// Runs `brooklet SUBCOMMAND -m TINY REST...`.
fn with_tiny(subcommand: &str, rest: &[&str]) -> Output {
    let tiny = tiny();
    brooklet(&[&[subcommand, "-m", tiny.to_str().unwrap()], rest].concat())
}

/// What a run that must succeed has written to standard output.
#[track_caller]
fn text(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one sentence of a run that must fail with `code` and no output.
#[track_caller]
fn failure(output: Output, code: i32) -> String {
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(output.stdout.is_empty());
    assert!(!errors.contains("panicked"), "{errors}");
    if code == 1 {
        assert!(
            errors.starts_with("brooklet: ") && errors.lines().count() == 1,
            "not one sentence: {errors}"
        );
    }
    errors
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

const GREEDY: [&str; 4] = ["-n", "24", "--temp", "0"];

fn greedy(rest: &[&str]) -> String {
    text(with_tiny("run", &[&["The sea"], &GREEDY[..], rest].concat()))
}

#[test]
fn the_same_text_whatever_the_threads_the_map_and_the_instruction_set() {
    let expected = greedy(&["-t", "1"]);
    assert!(!expected.is_empty());
    assert_eq!(greedy(&["-t", "2"]), expected);
    assert_eq!(greedy(&["-t", "5", "--no-mmap"]), expected);
    let tiny = tiny();
    let arguments = [&["run", "-m", tiny.to_str().unwrap(), "The sea"], &GREEDY[..]].concat();
    for isa in brooklet::pool::available_isas() {
        let output = command(&arguments)
            .env("BROOKLET_ISA", isa.name())
            .output()
            .unwrap();
        assert_eq!(text(output), expected, "{}", isa.name());
    }
}

#[test]
fn an_unknown_instruction_set_is_named_with_those_there_are() {
    let tiny = tiny();
    let arguments = ["run", "-m", tiny.to_str().unwrap(), "x", "-n", "1"];
    let error = failure(
        command(&arguments).env("BROOKLET_ISA", "mmx").output().unwrap(),
        1,
    );
    assert!(error.contains("\"mmx\"") && error.contains("scalar"), "{error}");
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
    for word in [
        "tokens/s",
        "position",
        "anonymous",
        "cache: keys and values",
        "arena",
    ] {
        assert!(errors.contains(word), "{word} in {errors}");
    }
    assert!(with_tiny("run", &["The", "-n", "3"]).stderr.is_empty());
    assert_eq!(text(with_tiny("run", &["The", "-n", "0"])), "");
}

#[test]
fn wrong_command_lines_exit_with_two() {
    let wrong: [&[&str]; 10] = [
        &[],
        &["fly"],
        &["run"],
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
        assert!(error.contains(zero[1]) || error.contains("at least 1"), "{error}");
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
    // Flips are densest in the header, where they do most.
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

#[test]
fn a_budget_that_is_too_small_says_what_is_missing_and_what_would_fit() {
    let error = failure(with_tiny("run", &["x", "--ram", "1KiB"]), 1);
    assert!(
        error.contains("1024") && error.contains("missing") && error.contains("smallest window"),
        "{error}"
    );
    let error = failure(with_tiny("run", &["x", "--ram", "120kB", "--window", "250"]), 1);
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

#[test]
fn a_dense_cache_ends_when_it_is_full() {
    let arguments = ["The", "--policy", "dense", "--window", "16", "-n", "-1", "--json"];
    let report = json(&text(with_tiny("run", &arguments)));
    assert_eq!(report["statistics"]["finish"], "full");
    assert_eq!(report["statistics"]["position"], 16);
}

#[test]
fn an_endless_stream_ends_when_its_reader_has_gone() {
    let tiny = tiny();
    let mut child = command(&["run", "-m", tiny.to_str().unwrap(), "The", "-n", "-1", "-t", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 64];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_cleanly_with_the_statistics() {
    let tiny = tiny();
    let mut child = command(&["run", "-m", tiny.to_str().unwrap(), "The", "-n", "-1", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut bytes = vec![0; 64];
    stdout.read_exact(&mut bytes).unwrap();
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -INT {}", child.id())])
        .status()
        .unwrap();
    assert!(sent.success());
    stdout.read_to_end(&mut bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("tokens/s") && errors.contains("position"),
        "{errors}"
    );
    let report = json(&String::from_utf8(bytes).unwrap());
    assert_eq!(report["statistics"]["finish"], "interrupted");
}

#[test]
fn perplexity_has_the_promised_keys_and_meaning() {
    let folder = tempfile::tempdir().unwrap();
    let ids = folder.path().join("ids");
    let numbers: Vec<String> = (0..61).map(|i| (i * 37 % 290).to_string()).collect();
    fs::write(&ids, numbers.join(" ")).unwrap();
    let ppl = |rest: &[&str]| {
        json(&text(with_tiny(
            "ppl",
            &[&["--ids", ids.to_str().unwrap(), "--json"], rest].concat(),
        )))
    };
    let dense = ppl(&["--policy", "dense"]);
    for key in [
        "tokens",
        "nll",
        "ppl",
        "policy",
        "sinks",
        "window",
        "cache_type",
        "arena_bytes",
        "seconds",
    ] {
        assert!(!dense[key].is_null(), "{key}");
    }
    assert_eq!(
        (&dense["tokens"], &dense["window"], &dense["sinks"]),
        (&60.into(), &60.into(), &0.into())
    );
    assert!((dense["nll"].as_f64().unwrap().exp() - dense["ppl"].as_f64().unwrap()).abs() < 1e-6);
    // Everything that holds all tokens agrees, one row of logits or sixteen, one thread or three.
    let close = |a: &serde_json::Value, b: &serde_json::Value| {
        assert!(
            (a["nll"].as_f64().unwrap() - b["nll"].as_f64().unwrap()).abs() < 1e-5,
            "{a} {b}"
        );
    };
    close(&ppl(&["--policy", "sink", "--window", "100"]), &dense);
    close(&ppl(&["--policy", "window", "--window", "60", "-t", "3"]), &dense);
    close(&ppl(&["--policy", "recompute", "--window", "60"]), &dense);
    let narrow = ppl(&["--policy", "window", "--window", "8"]);
    assert_ne!(narrow["nll"], dense["nll"]);
    // With as many sinks as tokens, all attention is on them.
    let mass = ppl(&[
        "--policy",
        "sink",
        "--sinks",
        "60",
        "--window",
        "4",
        "--sink-mass",
    ]);
    let heads: Vec<f64> = mass["sink_mass"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|layer| layer.as_array().unwrap())
        .map(|head| head.as_f64().unwrap())
        .collect();
    assert!(
        !heads.is_empty() && heads.iter().all(|mass| (mass - 1.0).abs() < 1e-4),
        "{heads:?}"
    );
    failure(
        with_tiny(
            "ppl",
            &[
                "--ids",
                ids.to_str().unwrap(),
                "--policy",
                "window",
                "--sink-mass",
            ],
        ),
        2,
    );
    // Excerpts, strides and what is written on the way.
    let (dump, scores) = (folder.path().join("dump"), folder.path().join("scores"));
    let part = ppl(&[
        "--start",
        "5",
        "--count",
        "20",
        "--stride",
        "7",
        "--policy",
        "recompute",
        "--window",
        "8",
        "--dump",
        dump.to_str().unwrap(),
        "--scores",
        scores.to_str().unwrap(),
    ]);
    assert_eq!(part["tokens"], 3);
    assert_eq!(fs::metadata(&dump).unwrap().len() % (3 * 4), 0);
    let lines = fs::read_to_string(&scores).unwrap();
    let positions: Vec<&str> = lines
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(positions, ["0", "7", "14"]);
    let error = failure(
        with_tiny("ppl", &["--ids", ids.to_str().unwrap(), "--count", "61"]),
        1,
    );
    assert!(
        error.contains("61 tokens") && error.contains("60 predictions"),
        "{error}"
    );
    fs::write(&ids, "1 2 1000000").unwrap();
    assert!(failure(with_tiny("ppl", &["--ids", ids.to_str().unwrap()]), 1).contains("1000000"));
}

#[test]
fn token_ids_are_separated_by_blanks() {
    let line = text(with_tiny("tokenize", &["--ids", "The sea"]));
    let ids: Vec<u32> = line.trim_end().split(' ').map(|id| id.parse().unwrap()).collect();
    let without = text(with_tiny("tokenize", &["--ids", "--no-bos", "The sea"]));
    assert_eq!(
        without.trim_end(),
        ids[1..].iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
    );
    let lines = text(with_tiny("tokenize", &["The sea"]));
    assert_eq!(lines.lines().count(), ids.len());
    assert!(lines.contains("sea"));
}

#[test]
fn a_plan_accounts_for_every_byte() {
    let report = json(&text(with_tiny("plan", &["--json", "-t", "2", "--ram", "300kB"])));
    let parts = report["parts"].as_array().unwrap();
    let sum: u64 = parts.iter().map(|part| part["bytes"].as_u64().unwrap()).sum();
    assert_eq!(report["arena_bytes"], sum);
    assert!(sum <= 300_000);
    assert_eq!(
        report["capacity"].as_u64().unwrap(),
        4 + report["window"].as_u64().unwrap()
    );
}

#[test]
fn inspect_shows_what_is_there() {
    let tiny = tiny();
    let path = tiny.to_str().unwrap();
    let report = json(&text(brooklet(&["inspect", path, "--json", "--tensors"])));
    assert_eq!(report["licence"], "MIT OR Apache-2.0");
    assert_eq!(report["runs"], true);
    assert_eq!(report["bytes"], fs::metadata(&tiny).unwrap().len());
    assert_eq!(
        report["tensors"].as_array().unwrap().len() as u64,
        report["tensor_count"].as_u64().unwrap()
    );
    assert!(text(brooklet(&["inspect", path])).contains("general.architecture = \"llama\""));
}

#[test]
fn bench_reports_medians_and_serves() {
    let report = json(&text(with_tiny(
        "bench",
        &["-p", "9", "-n", "3", "-r", "3", "--json"],
    )));
    assert!(report["prefill_tps"].as_f64().unwrap() > 0.0 && report["decode_tps"].as_f64().unwrap() > 0.0);
    assert_eq!(report["decode_tps_runs"].as_array().unwrap().len(), 3);
    let folder = tempfile::tempdir().unwrap();
    let requests = folder.path().join("requests");
    fs::write(&requests, "p 8\nn 4\nm\n").unwrap();
    let tiny = tiny();
    let arguments = ["bench", "-m", tiny.to_str().unwrap(), "--serve"];
    let answers = text(
        command(&arguments)
            .stdin(fs::File::open(&requests).unwrap())
            .output()
            .unwrap(),
    );
    let lines: Vec<&str> = answers.lines().collect();
    assert_eq!((lines.len(), lines[0]), (4, "READY"));
    assert!(lines[1].parse::<f64>().unwrap() > 0.0 && lines[2].parse::<f64>().unwrap() > 0.0);
    assert_eq!(lines[3].split(' ').count(), 2);
}

#[test]
fn a_pull_without_a_network_leaves_nothing_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = "http://127.0.0.1:9";
    let started = Instant::now();
    let output = command(&["pull", "smollm2-135m"])
        .env("BROOKLET_MODELS", folder.path())
        .env("PIP_CONFIG_FILE", "/dev/null")
        .env("PIP_INDEX_URL", nowhere)
        .env("PIP_NO_CACHE_DIR", "1")
        .env("PIP_RETRIES", "0")
        .env_remove("PIP_FIND_LINKS")
        .env_remove("PIP_EXTRA_INDEX_URL")
        .env("HF_ENDPOINT", nowhere)
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let last = errors.lines().last().unwrap();
    // Where Python or pip is missing, that is what is said.
    assert!(
        last.starts_with("brooklet: ") && (last.contains("cannot be reached") || last.contains("install")),
        "{errors}"
    );
    assert!(errors.contains("Apache-2.0") && !errors.contains("panicked"));
    assert!(output.stdout.is_empty());
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, [".partial"]);
    assert!(started.elapsed() < Duration::from_secs(120));
    assert!(failure(brooklet(&["pull", "gpt-9"]), 1).contains("smollm2-135m"));
}

#[test]
fn models_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let list = |arguments: &[&str]| {
        text(
            command(arguments)
                .env("BROOKLET_MODELS", folder.path())
                .output()
                .unwrap(),
        )
    };
    let rows = json(&list(&["models", "--json"]));
    assert_eq!(rows[1]["name"], "smollm2-135m");
    assert_eq!(
        (&rows[1]["pulled"], &rows[1]["tried"]),
        (&false.into(), &true.into())
    );
    let folder = folder.path().to_str().unwrap();
    insta::assert_snapshot!(list(&["models"]).replace(folder, "FOLDER"));
}

/// The subcommands, as the program's help names them.
fn subcommands() -> Vec<String> {
    let help = text(brooklet(&["-h"]));
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().next().unwrap().to_owned());
    let names: Vec<String> = names.collect();
    assert!(names.len() >= 10, "{names:?}");
    names
}

#[test]
fn help_fits_a_narrow_terminal() {
    let help = |arguments: &[&str]| text(command(arguments).env("COLUMNS", "40").output().unwrap());
    let mut texts = vec![help(&["-h"]), help(&["--help"])];
    for name in subcommands() {
        texts.extend([help(&[&name, "-h"]), help(&[&name, "--help"])]);
    }
    for text in texts {
        let wide: Vec<&str> = text.lines().filter(|line| line.chars().count() > 40).collect();
        assert!(wide.is_empty(), "{wide:#?}");
    }
}

#[test]
fn shells_complete_every_subcommand() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = text(brooklet(&["completions", shell]));
        for name in subcommands() {
            assert!(script.contains(&name), "{name} for {shell}");
        }
        assert!(script.contains("cache-type"), "{shell}");
    }
    failure(brooklet(&["completions", "dos"]), 2);
}

#[test]
fn manual_pages_are_written_for_every_subcommand() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man/man1");
    text(brooklet(&["man", "--out", pages.to_str().unwrap()]));
    let own = text(brooklet(&["man"]));
    for name in subcommands() {
        assert!(own.contains(&format!("brooklet\\-{name}(1)")), "{name} in {own}");
        let page = fs::read_to_string(pages.join(format!("brooklet-{name}.1"))).unwrap();
        assert!(
            page.contains(".SH OPTIONS") && page.contains(&format!("brooklet {name}")),
            "{page}"
        );
        assert_eq!(text(brooklet(&["man", &name])), page);
    }
    assert_eq!(fs::read_to_string(pages.join("brooklet.1")).unwrap(), own);
    assert!(failure(brooklet(&["man", "fly"]), 2).contains("fly"));
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(failure(brooklet(&["man", "--out", file.to_str().unwrap()]), 1).contains("cannot write"));
}

#[test]
fn quantising_again_warns_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.gguf");
    let tiny = tiny();
    let arguments = [
        "quantize",
        tiny.to_str().unwrap(),
        output.to_str().unwrap(),
        "Q8_0",
    ];
    let done = brooklet(&arguments);
    let warning = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        warning.contains("quantised already (14 of 20 tensors)") && warning.lines().count() == 1,
        "{warning}"
    );
    assert!(text(done).contains("Q8_0"));
    assert!(failure(brooklet(&arguments), 1).contains("--force"));
    let from_floats = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/data/random-gqa-f16.gguf");
    let done = brooklet(&[
        "quantize",
        from_floats.to_str().unwrap(),
        output.to_str().unwrap(),
        "Q8_0",
        "--force",
    ]);
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
}

#[test]
fn help_is_stable() {
    for subcommand in subcommands() {
        insta::assert_snapshot!(format!("help-{subcommand}"), text(brooklet(&[&subcommand, "-h"])));
    }
    insta::assert_snapshot!("help", text(brooklet(&["-h"])));
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
    assert!(report["text"].as_str().unwrap().starts_with(" a "), "{report}");
    let statistics = &report["statistics"];
    assert!(statistics["arena_bytes"].as_u64().unwrap() <= 64 << 20);
    if let Some(anonymous) = statistics["memory"]["anonymous_kib"].as_u64() {
        assert!(anonymous < (64 + 24) << 10, "{anonymous} KiB");
    }
}

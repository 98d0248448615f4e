//! Commands that measure and show: `ppl`, `tokenize`, `plan`, `inspect`, `bench`.

use super::*;

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
    // All runs that hold all tokens agree, with one row of logits or sixteen, and with one thread
    // or three.
    let close = |a: &serde_json::Value, b: &serde_json::Value| {
        assert!(
            (a["nll"].as_f64().unwrap() - b["nll"].as_f64().unwrap()).abs() < 1e-5,
            "{a} {b}"
        );
    };
    close(&ppl(&["--policy", "sink", "--window", "100"]), &dense);
    close(
        &ppl(&["--policy", "window", "--window", "60", "-t", "3"]),
        &dense,
    );
    close(&ppl(&["--policy", "recompute", "--window", "60"]), &dense);
    let narrow = ppl(&["--policy", "window", "--window", "8"]);
    assert_ne!(narrow["nll"], dense["nll"]);
    // With as many sinks as tokens, all attention is on the sinks.
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
    // Excerpts, strides, and the files written during a run.
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
    let ids: Vec<u32> = line
        .trim_end()
        .split(' ')
        .map(|id| id.parse().unwrap())
        .collect();
    let without = text(with_tiny("tokenize", &["--ids", "--no-bos", "The sea"]));
    assert_eq!(
        without.trim_end(),
        ids[1..]
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    );
    let lines = text(with_tiny("tokenize", &["The sea"]));
    assert_eq!(lines.lines().count(), ids.len());
    assert!(lines.contains("sea"));
}

#[test]
fn a_plan_accounts_for_every_byte() {
    let report = json(&text(with_tiny(
        "plan",
        &["--json", "-t", "2", "--ram", "300kB"],
    )));
    let parts = report["parts"].as_array().unwrap();
    let sum: u64 = parts
        .iter()
        .map(|part| part["bytes"].as_u64().unwrap())
        .sum();
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
fn plan_says_what_a_token_reads_and_how_fast_that_could_be() {
    let options = ["--window", "252", "--sinks", "4", "--json"];
    let plan = json(&text(with_tiny(
        "plan",
        &[&options[..], &["--bandwidth", "2GB"]].concat(),
    )));
    let bytes = [0, 1].map(|i| plan["token"]["bytes"][i].as_u64().unwrap());
    let cache = plan["bytes_per_token"].as_u64().unwrap() * plan["capacity"].as_u64().unwrap();
    assert_eq!(bytes[1] - bytes[0], cache);
    for (i, bytes) in bytes.into_iter().enumerate() {
        let most = plan["token"]["most_tps"][i].as_f64().unwrap();
        assert!((most * bytes as f64 / 2e9 - 1.0).abs() < 1e-9);
    }
    let output = brooklet(&[
        "plan",
        "-m",
        crate::caption::MODEL,
        "--policy",
        "dense",
        "--bandwidth",
        "2GB",
    ]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--bandwidth has no effect"));
    assert!(failure(with_tiny("plan", &["--bandwidth", "0"]), 2).contains("0 bytes a second"));
}

#[test]
fn threads_are_chosen_by_trying_and_change_no_word() {
    let words = ["The sea", "-n", "8", "--temp", "0"];
    let expected = text(with_tiny("run", &words));
    let output = with_tiny("run", &[&words[..], &["-t", "auto"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(" chosen: tokens a second with 1: "), "{said}");
    assert_eq!(text(output), expected);
    let report = json(&text(with_tiny("plan", &["-t", "auto", "--json"])));
    let notice = &report["notices"][0];
    assert_eq!(notice["kind"], "threads");
    assert_eq!(notice["chosen"], report["threads"]);
    assert!(notice["tried"][0]["tokens_per_second"].as_f64().unwrap() > 0.0);
    let wrong = failure(with_tiny("plan", &["-t", "many"]), 2);
    assert!(wrong.contains("must be auto, or from 1 to"), "{wrong}");
}

#[test]
fn bench_reports_medians_and_serves() {
    let report = json(&text(with_tiny(
        "bench",
        &["-p", "9", "-n", "3", "-r", "3", "--json"],
    )));
    assert!(
        report["prefill_tps"].as_f64().unwrap() > 0.0
            && report["decode_tps"].as_f64().unwrap() > 0.0
    );
    assert_eq!(report["decode_tps_runs"].as_array().unwrap().len(), 3);
    // What a token reads: the cache at depth 0 holds two tokens on average, after 7 tokens nine.
    let deep = json(&text(with_tiny(
        "bench",
        &["-p", "9", "-n", "3", "-r", "1", "-d", "7", "--json"],
    )));
    assert_eq!(deep["weight_bytes"], report["weight_bytes"]);
    let cache = |report: &serde_json::Value| report["cache_bytes"].as_u64().unwrap();
    assert_eq!(2 * cache(&deep), 9 * cache(&report));
    let read = (report["weight_bytes"].as_u64().unwrap() + cache(&report)) as f64;
    let rate = |name: &str| report[name].as_f64().unwrap();
    let relative = rate("decode_bytes_per_second") / (read * rate("decode_tps"));
    assert!((relative - 1.0).abs() < 1e-9, "{relative}");
    assert!(rate("reading_bytes_per_second") > 0.0 && rate("first_token_seconds") > 0.0);
    let folder = tempfile::tempdir().unwrap();
    let requests = folder.path().join("requests");
    fs::write(&requests, "p 8\nn 4\nd 4\nm\n").unwrap();
    let tiny = tiny();
    let arguments = ["bench", "-m", tiny.to_str().unwrap(), "--serve"];
    let answers = text(
        command(&arguments)
            .stdin(fs::File::open(&requests).unwrap())
            .output()
            .unwrap(),
    );
    let lines: Vec<&str> = answers.lines().collect();
    assert_eq!((lines.len(), lines[0]), (5, "READY"));
    for seconds in &lines[1..4] {
        assert!(seconds.parse::<f64>().unwrap() > 0.0);
    }
    assert_eq!(lines[4].split(' ').count(), 2);
}

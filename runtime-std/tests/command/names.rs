//! Names and habits that people bring from other programs, and what is said once.

use std::io::Write;

use super::*;

/// Runs the command with bytes on its standard input.
fn piped(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program may end before it has read everything, or anything.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_first_word_of_run_may_be_a_model() {
    let run = |words: &[&str]| text(brooklet(&[words, &["-n", "12", "--seed", "3"]].concat()));
    let expected = run(&["run", "-m", "tiny", "Tom had"]);
    assert_eq!(run(&["run", "tiny", "Tom had"]), expected);
    assert_eq!(run(&["run", "tiny", "-p", "Tom had"]), expected);
    assert_ne!(
        run(&["run", "Tom had"]),
        expected,
        "a text alone, for the program's own model"
    );
    let file = tiny();
    let file = file.to_str().unwrap();
    assert_eq!(
        run(&["run", file, "The sea"]),
        run(&["run", "-m", file, "The sea"])
    );
    for (words, part) in [
        (&["run", "smollm2-135M"][..], "did you mean smollm2-135m?"),
        (&["run", "Tom", "had"], "quotes"),
        (&["run", "-m", "tiny", "Tom", "had"], "quotes"),
        (&["run", "-m", "tiny", "Tom", "-p", "had"], "more than once"),
        (&["run", "-m", "tiny", "Tom", "-f", "had"], "more than once"),
        (&["chat", "smollm2-135n"], "did you mean smollm2-135m?"),
    ] {
        let error = failure(brooklet(words), 2);
        assert!(error.contains(part), "{words:?}: {error}");
    }
    for words in [
        &["run", "-m", "smollm2-135mm", "x"][..],
        &["pull", "smollm2-135mm"],
        &["rm", "smollm2-135mm"],
    ] {
        let error = failure(brooklet(words), 1);
        assert!(error.contains("did you mean smollm2-135m?"), "{error}");
    }
}

#[test]
fn other_programs_names_of_options_and_commands_work() {
    let run = |rest: &[&str]| text(with_tiny("run", &[&["--seed", "3"], rest].concat()));
    let expected = run(&["The sea", "-n", "8", "--temp", "0.5"]);
    assert_eq!(
        run(&["-p", "The sea", "--n-predict", "8", "--temperature", "0.5"]),
        expected
    );
    let window = |rest: &[&str]| {
        json(&text(with_tiny("plan", &[rest, &["--json"]].concat())))["window"].clone()
    };
    assert_eq!(window(&["-c", "30"]), 26);
    assert_eq!(window(&["--ctx-size", "30", "--sinks", "0"]), 30);
    assert_eq!(window(&["-c", "0"]), 252);
    assert_eq!(window(&["--window", "max"]), 252);
    assert!(failure(with_tiny("plan", &["-c", "4"]), 2).contains("must be 5 or more"));
    let seeds = |rest: &[&str]| {
        json(&run(&[&["The", "-n", "1", "--json"], rest].concat()))["statistics"]["seed"].clone()
    };
    assert_eq!(seeds(&[]), 3);
    let random = json(&text(with_tiny(
        "run",
        &["The", "-n", "1", "--json", "-s", "-1"],
    )));
    assert_ne!(random["statistics"]["seed"], 3);
    for name in ["list", "ls"] {
        assert_eq!(text(brooklet(&[name])), text(brooklet(&["models"])));
    }
    let file = tiny();
    let file = file.to_str().unwrap();
    assert_eq!(
        text(brooklet(&["show", file])),
        text(brooklet(&["inspect", file]))
    );
    assert_eq!(
        text(brooklet(&["help", "run"])),
        text(brooklet(&["run", "--help"]))
    );
    assert_eq!(text(brooklet(&["help"])), text(brooklet(&["--help"])));
    failure(brooklet(&["help", "fly"]), 2);
}

#[test]
fn a_prompt_that_is_longer_than_the_cache_is_said() {
    let long = "The sea was calm. ".repeat(40);
    let output = with_tiny("run", &[&long, "-n", "2", "--window", "20", "--json"]);
    let said = errors(&output);
    let report = json(&text(output));
    let notice = &report["notices"][0];
    assert_eq!(notice["kind"], "prompt_cut");
    assert_eq!(
        (notice["first"].as_u64(), notice["last"].as_u64()),
        (Some(4), Some(20))
    );
    let message = notice["message"].as_str().unwrap();
    assert_eq!(said, format!("brooklet: note: {message}\n"));
    let tokens = report["statistics"]["prompt_tokens"].as_u64().unwrap();
    assert!(message.contains(&format!("{tokens} tokens")), "{message}");
    let short = with_tiny("run", &["The sea", "-n", "2", "--window", "20", "--json"]);
    assert!(short.stderr.is_empty());
    assert_eq!(json(&text(short))["notices"], serde_json::json!([]));
}

#[test]
fn a_text_that_a_dense_cache_cannot_hold_is_scored_in_part_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    fs::write(&path, "The sea was calm. ".repeat(40)).unwrap();
    let dense = ["-f", path.to_str().unwrap(), "--policy", "dense", "--json"];
    let output = with_tiny("ppl", &dense);
    assert!(
        errors(&output).contains("the first 256 of"),
        "{}",
        errors(&output)
    );
    let report = json(&text(output));
    assert_eq!(report["tokens"], 256);
    assert_eq!(report["notices"][0]["kind"], "text_cut");
    let error = failure(
        with_tiny("ppl", &[&dense[..], &["--count", "300"]].concat()),
        2,
    );
    assert!(error.contains("256"), "{error}");
    fs::write(&path, "").unwrap();
    let error = failure(with_tiny("ppl", &["-f", path.to_str().unwrap()]), 1);
    assert!(
        error.contains("the text has 1 token: from token 0 on there is nothing to predict"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn text_on_standard_input_that_is_not_used_is_said() {
    let tiny = tiny();
    let words = [
        "run",
        "-m",
        tiny.to_str().unwrap(),
        "The sea",
        "-n",
        "4",
        "--seed",
        "3",
    ];
    let expected = text(brooklet(&words));
    let output = piped(&words, b"The hills");
    assert!(
        errors(&output).contains("standard input has 9 bytes that are not used"),
        "{}",
        errors(&output)
    );
    assert_eq!(text(output), expected);
    assert!(piped(&words, b"").stderr.is_empty());
    let words = ["tokenize", "-m", tiny.to_str().unwrap(), "The sea"];
    assert!(errors(&piped(&words, b"The hills")).contains("9 bytes"));
}

#[test]
fn one_line_break_at_the_end_of_a_piped_text_is_left_out() {
    let tiny = tiny();
    let words = ["tokenize", "-m", tiny.to_str().unwrap(), "--ids"];
    let ids = |input: &[u8]| text(piped(&words, input));
    assert_eq!(ids(b"The sea\n"), ids(b"The sea"));
    assert_eq!(ids(b"The sea\r\n"), ids(b"The sea"));
    assert_ne!(ids(b"The sea\n\n"), ids(b"The sea"));
    let word = text(brooklet(&[&words[..], &["The sea\n"]].concat()));
    assert_ne!(word, ids(b"The sea"), "a word is taken as it is");
}

#[test]
fn control_tokens_are_read_where_that_is_asked_for() {
    let ids = |rest: &[&str]| text(with_tiny("tokenize", &[&["--ids"], rest].concat()));
    let plain = ids(&["a<s>b", "--no-bos"]);
    let special = ids(&["a<s>b", "--no-bos", "--special"]);
    assert!(special.split_whitespace().any(|id| id == "1"), "{special}");
    assert!(plain.split_whitespace().count() > special.split_whitespace().count());
    // A token of a start that the text names is not doubled.
    let output = with_tiny("run", &["<s>a", "--special", "-n", "1", "--json"]);
    assert!(
        errors(&output).contains("token of a start itself"),
        "{}",
        errors(&output)
    );
    let named = json(&text(output));
    let plain = json(&text(with_tiny("run", &["a", "-n", "1", "--json"])));
    assert_eq!(
        named["statistics"]["prompt_tokens"],
        plain["statistics"]["prompt_tokens"]
    );
}

/// A control token has no text, so that its name as a stop text matches by its id.
#[test]
fn a_control_token_stops_a_text() {
    // Nothing else is ever chosen.
    let run = |rest: &[&str]| {
        json(&text(with_tiny(
            "run",
            &[
                &[
                    "The",
                    "-n",
                    "6",
                    "--temp",
                    "0",
                    "--json",
                    "--ignore-eos",
                    "--logit-bias",
                    "1+999",
                ],
                rest,
            ]
            .concat(),
        )))
    };
    let all = run(&[]);
    assert_eq!(all["text"], "");
    assert_eq!(all["statistics"]["tokens"], 6);
    let stopped = run(&["--stop", "<s>"]);
    assert_eq!(stopped["statistics"]["finish"], "stop");
    assert_eq!(stopped["statistics"]["tokens"], 0);
}

#[test]
fn ids_become_the_text_that_they_came_from() {
    let tiny = tiny();
    let model = tiny.to_str().unwrap();
    let words = "The sea was calm.";
    let ids = text(brooklet(&[
        "tokenize", "-m", model, "--ids", "--no-bos", words,
    ]));
    let back = text(piped(&["detokenize", "-m", model], ids.as_bytes()));
    assert_eq!(back.trim_start(), words);
    let listed: Vec<&str> = ids.split_whitespace().collect();
    assert_eq!(
        text(brooklet(
            &[&["detokenize", "-m", model][..], &listed].concat()
        )),
        back
    );
    let names = |rest: &[&str]| {
        text(brooklet(
            &[&["detokenize", "-m", model, "1"], rest].concat(),
        ))
    };
    assert_eq!((&*names(&[]), &*names(&["--special"])), ("", "<s>"));
    failure(brooklet(&["detokenize", "-m", model, "99999999"]), 1);
    let tokens = json(&text(brooklet(&["tokenize", "-m", model, "--json", words])));
    assert_eq!(tokens[0]["id"], 1);
}

#[test]
fn a_text_is_echoed_and_penalties_change_it() {
    let run = |rest: &[&str]| {
        text(with_tiny(
            "run",
            &[&["The sea", "-n", "24", "--temp", "0"], rest].concat(),
        ))
    };
    let plain = run(&[]);
    assert_eq!(run(&["--echo"]), format!("The sea{plain}"));
    let repeated = |text: &str| {
        let letters: Vec<char> = text.chars().collect();
        letters.len()
            - letters
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len()
    };
    let varied = run(&["--presence-penalty", "99"]);
    assert!(
        repeated(&varied) < repeated(&plain) || plain != varied,
        "{plain} {varied}"
    );
    assert_eq!(run(&["--frequency-penalty", "0"]), plain);
}

#[test]
fn a_chat_has_a_template_by_name_and_a_first_message() {
    let tiny = tiny();
    let model = tiny.to_str().unwrap();
    let chat =
        |rest: &[&str]| brooklet(&[&["chat", model, "-n", "4", "--seed", "1"], rest].concat());
    let error = failure(chat(&["Hello"]), 1);
    assert!(
        error.contains("--chat-template") && error.contains("vicuna"),
        "{error}"
    );
    let answer = text(chat(&["Hello", "--chat-template", "vicuna"]));
    assert!(!answer.is_empty());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.jinja");
    let own = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}";
    fs::write(&path, own).unwrap();
    text(chat(&["Hello", "--chat-template", path.to_str().unwrap()]));
    fs::write(&path, "{{ raise_exception('not this one') }}").unwrap();
    let error = failure(
        chat(&["Hello", "--chat-template", path.to_str().unwrap()]),
        1,
    );
    assert!(error.contains("not this one"), "{error}");
    let error = failure(chat(&["Hello", "--chat-template", "fly"]), 2);
    assert!(error.contains("chatml"), "{error}");
}

#[test]
fn a_program_reads_a_chat_as_lines_of_json() {
    use std::io::Write;
    let tiny = tiny();
    let words = [
        "chat",
        tiny.to_str().unwrap(),
        "-n",
        "4",
        "--temp",
        "0",
        "--chat-template",
        "chatml",
    ];
    let chat = |rest: &[&str]| {
        let mut chat = command(&[&words[..], rest].concat());
        let mut chat = chat
            .args(["--top-k", "3"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut typed = chat.stdin.take().unwrap();
        typed.write_all(b"The sea\nThe \"hills\"\n").unwrap();
        drop(typed);
        text(chat.wait_with_output().unwrap())
    };
    let said = chat(&["--json"]);
    let answers: Vec<_> = said.lines().map(json).collect();
    assert_eq!(answers.len(), 2, "{said}");
    for (turn, answer) in answers.iter().enumerate() {
        assert_eq!(answer["turn"], turn + 1, "{answer}");
        assert_eq!(
            (&answer["finish"], &answer["tokens"]),
            (&json("\"length\""), &json("4"))
        );
        assert_eq!(answer["cut"]["left_out"], 0);
    }
    // What had no effect is said once.
    assert_eq!(answers[0]["notices"][0]["kind"], "option_ignored", "{said}");
    assert_eq!(answers[1]["notices"], json("[]"));
    let texts = answers
        .iter()
        .map(|answer| answer["text"].as_str().unwrap());
    let plain: String = texts.map(|text| format!("{text}\n")).collect();
    assert_eq!(plain, chat(&[]));
}

#[test]
fn a_recommendation_fetches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("models");
    let output = command(&["models", "--recommend", "--json"])
        .env("BROOKLET_MODELS", &store)
        .output()
        .unwrap();
    let report = json(&text(output));
    assert!(
        report["memory_bytes"].as_u64() > Some(0) && report["disk_bytes"].is_u64(),
        "{report}"
    );
    assert_eq!(report["pulled"], false);
    assert!(!store.exists());
}

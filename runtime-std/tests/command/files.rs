//! Commands that fetch, list and write files: `pull`, `models`, `quantize`.

use super::*;

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
    // If Python or pip is missing, the message says so.
    assert!(
        last.starts_with("brooklet: ")
            && (last.contains("cannot be reached") || last.contains("install")),
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
fn terms_are_shown_and_want_a_yes_before_anything_is_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = command(arguments);
        command
            .env("BROOKLET_MODELS", folder.path())
            .env("PIP_CONFIG_FILE", "/dev/null")
            .env("PIP_INDEX_URL", "http://127.0.0.1:9")
            .env("PIP_RETRIES", "0")
            .env_remove("PIP_FIND_LINKS")
            .env_remove("PIP_EXTRA_INDEX_URL")
            .env("HF_ENDPOINT", "http://127.0.0.1:9");
        command.output().unwrap()
    };
    // Nobody can answer in a pipe, and a model that is pulled on first use does not avoid the
    // question.
    for arguments in [
        &["pull", "gemma3-270m"][..],
        &["run", "-m", "gemma3-270m", "x"],
    ] {
        let output = run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(
            errors.contains("subject to the Gemma Terms of Use"),
            "{errors}"
        );
        let last = errors.lines().last().unwrap();
        assert!(
            last.contains("must be agreed to")
                && last.contains("`brooklet pull gemma3-270m --accept-terms`"),
            "{errors}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    let errors = String::from_utf8(run(&["pull", "gemma3-270m", "--accept-terms"]).stderr).unwrap();
    assert!(
        errors.contains("downloading") || errors.contains("install"),
        "{errors}"
    );
    assert!(!errors.contains("agreed"), "{errors}");
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
    let row = |name: &str| {
        rows.as_array()
            .unwrap()
            .iter()
            .find(|row| row["name"] == name)
            .unwrap()
    };
    let is =
        |name: &str| ["embedded", "pulled", "tried"].map(|key| row(name)[key].as_bool().unwrap());
    assert_eq!(is("smollm2-135m"), [false, false, true]);
    assert_eq!(is("small"), [true, false, true]);
    assert_eq!(is("tinyllama-1.1b"), [false, false, false]);
    assert!(failure(brooklet(&["pull", "small"]), 1).contains("nothing to pull"));
    assert!(failure(brooklet(&["models", "--rm", "tiny"]), 1).contains("stays"));
    let folder = folder.path().to_str().unwrap();
    insta::assert_snapshot!(list(&["models"]).replace(folder, "FOLDER"));
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
    let from_floats =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/data/random-gqa-f16.gguf");
    let done = brooklet(&[
        "quantize",
        from_floats.to_str().unwrap(),
        output.to_str().unwrap(),
        "Q8_0",
        "--force",
    ]);
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
}

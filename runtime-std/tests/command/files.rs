//! Commands that fetch, list and write files: `pull`, `models`, `quantize`, `convert`.

use super::*;
use crate::ctranslate2::{Kind, floats, package};

/// The files of another program's model.
pub(crate) const WEIGHTS: &str = "model.bin";
pub(crate) const TOKENS: &str = "vocabulary.txt";

/// Writes a model of another program into a folder.
pub(crate) fn other_model(folder: &Path) {
    let (weights, tokens) = package(Kind::F32, 0.0);
    fs::write(folder.join(WEIGHTS), weights).unwrap();
    fs::write(folder.join(TOKENS), tokens).unwrap();
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
        warning.contains("note: 14 of 20 tensors are quantised already")
            && warning.lines().count() == 1,
        "{warning}"
    );
    assert!(text(done).contains("Q8_0"));
    assert!(failure(brooklet(&arguments), 1).contains("--force"));
    let report = text(brooklet(&[&arguments[..], &["--force", "--json"]].concat()));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let notice = &report["notices"][0];
    assert_eq!(
        (&notice["kind"], &notice["quantized"], &notice["tensors"]),
        (&"quantized_twice".into(), &14.into(), &20.into())
    );
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

/// A store with a program called `python3` that says and does what `script` does, and the command
/// in a folder of its own: `run` pulls a model there.
#[cfg(unix)]
struct Pull {
    folder: tempfile::TempDir,
}

#[cfg(unix)]
impl Pull {
    fn new(script: &str) -> Pull {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "work", "store"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let pull = Pull { folder };
        pull.program("bin/python3", script);
        pull
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The sentences of a pull that fails, in a working folder that comes first in the search path.
    fn fail(&self) -> String {
        let path = std::env::join_paths([
            Path::new("."),
            Path::new(""),
            &self.path("bin"),
            Path::new("/usr/bin"),
            Path::new("/bin"),
        ]);
        let output = command(&["run", "-m", "smollm2-135m", "Hi"])
            .current_dir(self.path("work"))
            .env("BROOKLET_MODELS", self.path("store"))
            .env("PATH", path.unwrap())
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .env("PYTHONPATH", self.path("work"))
            .env("SECRET", "of another program")
            .env("PIP_INDEX_URL", "http://127.0.0.1:9")
            .env("PIP_RETRIES", "0")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    }
}

#[cfg(unix)]
#[test]
fn nothing_in_the_working_directory_is_run() {
    let pull = Pull::new("exec >&2; pwd; echo \"$0\" \"$@\"; env | cut -d= -f1; exit 1");
    let seen = pull.path("seen");
    for name in ["python3", "pip", "curl"] {
        pull.program(
            &format!("work/{name}"),
            &format!("touch '{}'", seen.display()),
        );
    }
    // With the machine's own Python, if it has one: these would be imported.
    let code = format!("open({:?}, 'w')", seen.to_str().unwrap());
    for name in ["pip.py", "sitecustomize.py", "encodings.py", "ssl.py"] {
        fs::write(pull.path("work").join(name), &code).unwrap();
    }
    pull.fail();
    pull.program(
        "bin/python3",
        &format!(
            "echo \"$0 $@\" >'{0}/words'; pwd >'{0}/folder'; env >'{0}/environment'; exit 1",
            pull.folder.path().display()
        ),
    );
    pull.fail();
    let said = |name: &str| fs::read_to_string(pull.path(name)).unwrap();
    let (words, environment) = (said("words"), said("environment"));
    let program = pull.path("bin/python3");
    assert!(
        words.starts_with(&format!("{} -I -m pip download ", program.display()))
            && words.contains("--only-binary :all:"),
        "{words}"
    );
    assert!(
        Path::new(said("folder").trim()).starts_with(fs::canonicalize(pull.path("store")).unwrap())
    );
    for name in ["PYTHONPATH", "SECRET", "BROOKLET_MODELS"] {
        assert!(!environment.contains(&format!("{name}=")), "{environment}");
    }
    assert!(environment.contains("PIP_INDEX_URL=") && environment.contains("TMPDIR="));
    assert!(
        !environment.contains("PATH=.") && !environment.contains("::"),
        "{environment}"
    );
    fs::remove_file(pull.path("bin/python3")).unwrap();
    pull.fail();
    assert!(!seen.exists());
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_said_and_no_second_source_is_tried() {
    for says in [
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
        "ERROR: Could not install packages due to an OSError: [Errno 122] Disk quota exceeded",
    ] {
        let pull = Pull::new(&format!("echo \"{says}\" >&2; exit 1"));
        let said = pull.fail();
        let last = said.lines().last().unwrap();
        assert!(
            last.contains("the disk that holds") && last.contains("is full: it lacks"),
            "{said}"
        );
        assert!(!said.contains("next source"), "{said}");
    }
    // What else pip says is passed on, however much it says.
    let pull = Pull::new("echo ERROR: it rains >&2; head -c 3000000 /dev/zero >&2; exit 1");
    let said = pull.fail();
    assert!(
        said.contains("pip could not fetch") && said.contains("it rains"),
        "{said}"
    );
}

#[test]
fn a_name_is_a_models_name_first_and_the_default_never_looks_at_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        command(&[words, &["-n", "4", "--temp", "0"]].concat())
            .current_dir(folder.path())
            .env("BROOKLET_MODELS", folder.path().join("store"))
            .output()
            .unwrap()
    };
    let plain = ["run", "Hi"];
    let (own, named) = (["run", "Hi"], ["run", "Hi", "-m", "tiny"]);
    let expected = [text(run(&own)), text(run(&named))];
    let quiet = |words: &[&str], expected: &str| {
        let output = run(words);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(text(output), expected);
    };
    for name in ["small", "tiny", "smollm2-135m"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    quiet(&own, &expected[0]);
    quiet(&named, &expected[1]);
    for name in ["small", "tiny"] {
        fs::remove_dir(folder.path().join(name)).unwrap();
        fs::copy(tiny(), folder.path().join(name)).unwrap();
    }
    quiet(&plain, &expected[0]);
    // A file that could be meant is named.
    let output = run(&named);
    let note = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        note.contains("./tiny") && note.lines().count() == 1,
        "{note}"
    );
    assert_eq!(text(output), expected[1]);
    let tiny = tiny();
    let of_file = text(run(&["run", "Hi", "-m", tiny.to_str().unwrap()]));
    quiet(&["run", "Hi", "-m", "./tiny"], &of_file);
    assert_ne!(of_file, expected[1]);
}

#[test]
fn what_models_lists_is_found_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path();
    for name in ["mine.gguf", "sub/other.GGUF", "hf/owner/repo/Third.GGUF"] {
        let path = store.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(tiny(), path).unwrap();
    }
    let run = |words: &[&str]| {
        let output = command(words).env("BROOKLET_MODELS", store).output();
        text(output.unwrap())
    };
    let rows = json(&run(&["models", "--json"]));
    let rows = rows.as_array().unwrap().iter();
    let pulled = rows.filter(|row| row["pulled"] == true && row["embedded"] == false);
    let names: Vec<&str> = pulled.map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["hf:owner/repo/Third.GGUF", "mine.gguf", "sub/other.GGUF"]
    );
    for name in names.into_iter().chain(["mine"]) {
        let said = json(&run(&["inspect", name, "--json"]));
        assert!(
            Path::new(said["path"].as_str().unwrap()).starts_with(store),
            "{said}"
        );
    }
}

#[test]
fn a_model_of_another_program_is_converted_and_heard_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    other_model(folder.path());
    let captions = |model: &str| {
        let sound = caption::sound("tone.flac");
        text(brooklet(&[
            "caption", "-m", model, &sound, "--format", "jsonl",
        ]))
    };
    let said = text(brooklet(&["convert", &path(""), &path("a.gguf"), "f32"]));
    assert!(
        said.contains("a.gguf: Whisper, CTranslate2, F32, "),
        "{said}"
    );
    // The folder, or its model.
    text(brooklet(&[
        "convert",
        &path(WEIGHTS),
        &path("b.gguf"),
        "F32",
    ]));
    let bytes = fs::read(path("a.gguf")).unwrap();
    assert!(bytes == fs::read(path("b.gguf")).unwrap());
    let of = floats(&bytes);
    assert_eq!(of.len(), floats(ctranslate2::GOLDEN).len());
    assert!(!captions(&path("a.gguf")).is_empty());
    // Whatever the type of its numbers; they are a little different then, and so may the words be.
    for kind in [Kind::F16, Kind::Bf16, Kind::Int8] {
        let (weights, _) = package(kind, 0.0);
        fs::write(path(WEIGHTS), weights).unwrap();
        text(brooklet(&[
            "convert",
            &path(""),
            &path("d.gguf"),
            "F16",
            "--force",
        ]));
        assert!(!captions(&path("d.gguf")).is_empty());
        let output = brooklet(&["convert", &path(""), &path("e.gguf"), "--force"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            said.contains("are quantised already"),
            kind == Kind::Int8,
            "{said}"
        );
        text(output);
    }
    let smaller = text(brooklet(&["convert", &path(""), &path("c.gguf")]));
    assert!(smaller.contains(", Q8_0, "), "{smaller}");
    let report = text(brooklet(&[
        "convert",
        &path(""),
        &path("c.gguf"),
        "--force",
        "--json",
    ]));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["bytes"], fs::metadata(path("c.gguf")).unwrap().len());
}

#[test]
fn what_cannot_be_converted_is_said_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let refused = |input: &str| {
        let said = failure(brooklet(&["convert", input, &path("new.gguf")]), 1);
        assert!(!folder.path().join("new.gguf").exists());
        said
    };
    assert!(refused(&path("none")).contains("cannot read"));
    assert!(refused(&path("")).contains("is no ggml-*.bin of whisper.cpp"));
    let gguf = tiny();
    assert!(refused(gguf.to_str().unwrap()).contains("is no ggml-*.bin of whisper.cpp"));
    let (weights, _) = package(Kind::F32, 0.0);
    fs::write(path(WEIGHTS), &weights[..weights.len() / 2]).unwrap();
    assert!(refused(&path("")).contains("vocabulary.txt or vocabulary.json beside model.bin"));
    fs::write(path(TOKENS), "a\nb").unwrap();
    assert!(refused(&path(WEIGHTS)).contains("model.bin is damaged"));
    fs::write(path("ggml.bin"), b"lmgg and no more").unwrap();
    assert!(refused(&path("ggml.bin")).contains("the ggml file is damaged"));
}

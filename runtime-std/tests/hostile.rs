//! The hostile set through the library and through the command, which gets little memory and time.
//! Each file gives one sentence, kept in `snapshots/`, where a person can check that it is clear.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use brooklet::chat::Template;
use brooklet::system::isa::available_isas;
use hostile_templates::hostile_templates;

#[path = "../../core/tests/common/gguf_edit.rs"]
#[expect(dead_code, reason = "core's tests use the rest")]
mod gguf_edit;
#[path = "../../core/tests/common/hostile.rs"]
mod hostile;
#[path = "common/hostile_templates.rs"]
mod hostile_templates;
#[path = "../../core/tests/common/load_walk.rs"]
mod load_walk;
#[path = "common/program.rs"]
mod program;

/// Address space that the command may take, in KiB: the program, its threads' stacks and a small
/// model's arena.
const MEMORY: usize = 512 << 10;
/// Limit of processor time in seconds: it ends endless runs and measures nothing.
const SECONDS: usize = 60;

fn good() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/data/other.gguf");
    fs::read(path).unwrap()
}

/// Checks that the hostile set of every model of the core's tests gives the same bits on every
/// instruction set of the machine.
#[test]
fn instruction_sets_agree_on_hostile_files() {
    let isas = available_isas();
    let works = |bytes: &[u8]| load_walk::walk(bytes, &isas).is_ok();
    let mut models = hostile::models();
    models.retain(|(_, bytes)| works(bytes));
    let hostile = models.iter().flat_map(|(_, bytes)| hostile::hostile(bytes));
    let loaded = hostile.filter(|(_, bytes)| works(bytes)).count();
    assert!(loaded > 100, "{loaded} of them work");
}

/// Runs the command within [`MEMORY`]. (An emulator needs more for itself than that.)
fn limited(arguments: &[&str]) -> Output {
    let program = program::program();
    let words = std::iter::once(program.get_program()).chain(program.get_args());
    let script = if program::runner().is_empty() {
        format!("ulimit -v {MEMORY}; ulimit -t {SECONDS}; exec \"$@\"")
    } else {
        "exec \"$@\"".to_owned()
    };
    let mut command = Command::new("sh");
    command
        .args(["-c", &script, "sh"])
        .args(words)
        .args(arguments);
    command
        .env_remove("BROOKLET_ISA")
        .stdin(std::process::Stdio::null());
    command.output().expect("a shell")
}

/// Returns the end of a run: its one sentence without the file's name, or `works`.
fn ending(name: &str, output: &Output, file: &Path) -> String {
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    match output.status.code() {
        Some(0) => "works".to_owned(),
        Some(1) => {
            let sentence = errors.strip_prefix("brooklet: ").expect(name).trim_end();
            assert!(
                !sentence.contains('\n') && !sentence.contains("panicked"),
                "{name}: {errors}"
            );
            let path = format!("{}: ", file.display());
            sentence.strip_prefix(&path).unwrap_or(sentence).to_owned()
        }
        _ => panic!("{name}: {:?} {errors}", output.status),
    }
}

/// Returns the judgement of `inspect` on a file, as [`ending`] gives it.
fn judgement(name: &str, path: &Path) -> String {
    let output = limited(&["inspect", path.to_str().unwrap(), "--json"]);
    let ended = ending(name, &output, path);
    if ended != "works" {
        return ended;
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let problem = report["problem"].as_str();
    assert_eq!(report["runs"], problem.is_none(), "{name}");
    problem.unwrap_or("works").to_owned()
}

/// A change of a file.
type Change = fn(&mut gguf_edit::Edit);

/// Files that cannot run, for every kind of reason: `inspect` gives the sentence of `run`.
#[test]
fn inspect_judges_as_run_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("refused.gguf");
    let cannot_run: [(&str, &str, Change); 13] = [
        ("a part", "one of 3 parts of a model", |e| {
            e.set_u64("split.count", 3)
        }),
        ("a second part", "one of 3 parts of a model", |e| {
            e.entries.clear();
            e.set_u64("split.count", 3);
        }),
        ("no metadata", "lacks a usable general.architecture", |e| {
            e.entries.clear()
        }),
        ("falcon", "architecture \"falcon\"", |e| {
            e.set_text("general.architecture", "falcon")
        }),
        ("an escape", "architecture \"\\x1b[31m\"", |e| {
            e.set_text("general.architecture", "\x1b[31m")
        }),
        (
            "pre of falcon",
            "pre-tokenizer \"falcon\" is unknown",
            |e| {
                e.set_text("tokenizer.ggml.model", "gpt2");
                e.set_text("tokenizer.ggml.pre", "falcon");
            },
        ),
        ("no pre", "no tokenizer.ggml.pre", |e| {
            e.set_text("tokenizer.ggml.model", "gpt2");
            e.entries.retain(|entry| entry.key != b"tokenizer.ggml.pre");
        }),
        ("no merges", "no tokenizer.ggml.merges", |e| {
            e.set_text("tokenizer.ggml.model", "gpt2");
            e.set_text("tokenizer.ggml.pre", "gpt-2");
            e.entries
                .retain(|entry| entry.key != b"tokenizer.ggml.merges");
        }),
        ("no tokens", "no tokenizer.ggml.tokens", |e| {
            e.entries
                .retain(|entry| entry.key != b"tokenizer.ggml.tokens");
        }),
        ("t5", "tokenizer model \"t5\" is unknown", |e| {
            e.set_text("tokenizer.ggml.model", "t5")
        }),
        (
            "no output norm",
            "lacks the tensor output_norm.weight",
            |e| {
                e.tensors
                    .retain(|tensor| tensor.name != b"output_norm.weight")
            },
        ),
        (
            "integers",
            "has the format I8, which is not supported",
            |e| e.tensor("ffn_norm.weight").kind = 24,
        ),
        ("a format of tomorrow", "has the format number 77", |e| {
            e.tensor("ffn_norm.weight").kind = 77
        }),
    ];
    for (name, sentence, fault) in cannot_run {
        let mut edit = gguf_edit::Edit::new(&good());
        fault(&mut edit);
        fs::write(&path, edit.bytes().0).unwrap();
        let run = [
            "run",
            "-m",
            path.to_str().unwrap(),
            "x",
            "-n",
            "1",
            "-t",
            "1",
        ];
        let ended = ending(name, &limited(&run), &path);
        assert!(ended.contains(sentence), "{name}: {ended}");
        assert_eq!(judgement(name, &path), ended, "{name}");
    }
}

/// A file of a vocabulary alone is enough for its tokens.
#[test]
fn a_vocabulary_is_enough_to_tokenize() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let output = limited(&["tokenize", "-m", path.to_str().unwrap(), "--ids", "The sea"]);
        assert_eq!(ending(name, &output, &path), "works");
        String::from_utf8(output.stdout).unwrap()
    };
    let mut vocabulary = gguf_edit::Edit::new(&good());
    vocabulary.tensors.clear();
    vocabulary.data.clear();
    vocabulary
        .entries
        .retain(|entry| entry.key.starts_with(b"tokenizer."));
    let of_vocabulary = tokens("vocabulary.gguf", &vocabulary.bytes().0);
    assert_eq!(tokens("model.gguf", &good()), of_vocabulary);
    assert!(of_vocabulary.split(' ').count() > 1);
}

#[test]
fn every_hostile_file_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.gguf");
    let file = path.to_str().unwrap();
    let isas = available_isas();
    let mut table = String::new();
    for (name, bytes) in hostile::hostile(&good()) {
        let said = load_walk::walk(&bytes, &isas).err();
        fs::write(&path, &bytes).unwrap();
        let run = [
            "run", "-m", file, "The sea", "-n", "4", "-t", "2", "--window", "16",
        ];
        let ended = ending(&name, &limited(&run), &path);
        // The library has said the same, unless the command asked for less.
        let agree = |said: String| said == ended || said.contains("trained") || ended == "works";
        assert!(said.is_none_or(agree), "{name}: {ended}");
        ending(&name, &limited(&["tokenize", "-m", file, "The sea"]), &path);
        let judged = judgement(&name, &path);
        // Too small a context for what is asked for, and numbers that come out, are no facts of the
        // file.
        let agree = judged == ended
            || (judged == "works"
                && (ended.contains("NaN or infinity") || ended.contains("trained")));
        assert!(agree, "{name}: inspect: {judged}, run: {ended}");
        table += &format!("{name}: {ended}\n");
    }
    insta::assert_snapshot!(table);
}

#[test]
fn every_hostile_template_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.gguf");
    let mut table = String::new();
    for (name, source) in hostile_templates() {
        let said = Template::new(&source, "<s>", "</s>").err();
        let said = said.map_or("works".to_owned(), |error| error.to_string());
        let mut edit = gguf_edit::Edit::new(&good());
        edit.set_text("tokenizer.chat_template", &source);
        fs::write(&path, edit.bytes().0).unwrap();
        let chat = ["chat", "-m", path.to_str().unwrap(), "-t", "1"];
        let ended = ending(name, &limited(&chat), &path);
        assert_eq!(said, ended, "{name}");
        table += &format!("{name}: {ended}\n");
    }
    insta::assert_snapshot!(table);
}

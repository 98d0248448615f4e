//! System calls that fail, one at a time, by strace: one sentence, nothing lost, nothing left.

use super::*;

/// The command under strace with this fault; `None`, with a line, where strace cannot be used.
fn with_fault(faults: &[&str], only: Option<&Path>, arguments: &[&str]) -> Option<Command> {
    let can = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !can || !program::runner().is_empty() {
        println!("skipped: strace is missing here or may trace nothing");
        return None;
    }
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null"]);
    if let Some(path) = only {
        strace.arg("-P").arg(path);
    }
    for fault in faults {
        strace.args(["-e", &format!("inject={fault}")]);
    }
    let inner = command(arguments);
    strace
        .arg(inner.get_program())
        .args(inner.get_args())
        .stdin(Stdio::null());
    Some(strace)
}

/// Its output.
fn output_with_fault(faults: &[&str], only: Option<&Path>, arguments: &[&str]) -> Option<Output> {
    with_fault(faults, only, arguments).map(|mut command| command.output().unwrap())
}

/// A model to quantise without a warning.
const FLOATS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../core/tests/data/random-gqa-f16.gguf"
);

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_call_that_fails_while_a_file_is_written_loses_nothing_and_leaves_nothing() {
    // Without links the unfinished file has a name.
    const NAMED: &str = "linkat,link:error=EPERM";
    let cases: [(&[&str], &str); 11] = [
        (&["write:error=ENOSPC:when=1"], "No space left"),
        (&["write:error=EDQUOT:when=1"], "uota"),
        (&["write:error=EIO:when=1"], "error"),
        (&["fsync:error=EIO:when=1"], "error"),
        (
            &["rename,renameat,renameat2:error=EACCES"],
            "ermission denied",
        ),
        // The first link is the trial.
        (&["linkat:error=EIO:when=2"], "error"),
        (&[NAMED, "write:error=ENOSPC:when=1"], "No space left"),
        (&[NAMED, "fsync:error=EIO:when=1"], "error"),
        (&[NAMED, "rename,renameat,renameat2:error=EIO"], "error"),
        (&[NAMED, "fsync:error=EINTR:when=1"], ""),
        (&["fsync:error=EINTR:when=1"], ""),
    ];
    for (faults, part) in cases {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out.gguf");
        fs::write(&out, "old").unwrap();
        let words = ["quantize", FLOATS, out.to_str().unwrap(), "Q8_0", "--force"];
        let Some(output) = output_with_fault(faults, None, &words) else {
            return;
        };
        assert_eq!(names(folder.path()), ["out.gguf"], "{faults:?}");
        if part.is_empty() {
            text(output);
            assert!(fs::read(&out).unwrap().starts_with(b"GGUF"));
            continue;
        }
        let said = failure(output, 1);
        assert!(
            said.contains("cannot write") && said.contains(part),
            "{faults:?}: {said}"
        );
        assert_eq!(fs::read(&out).unwrap(), b"old", "{faults:?}");
    }
}

#[test]
fn a_place_that_cannot_be_looked_at_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let out = fs::canonicalize(folder.path()).unwrap().join("out.gguf");
    fs::write(&out, "old").unwrap();
    let words = ["quantize", FLOATS, out.to_str().unwrap(), "Q8_0", "--force"];
    for fault in [
        "statx:error=EIO",
        "statx:error=EACCES",
        "readlink:error=EIO",
    ] {
        let Some(output) = output_with_fault(&[fault], Some(&out), &words) else {
            return;
        };
        // The last may not be asked for at all.
        if output.status.success() && fault.starts_with("readlink") {
            fs::write(&out, "old").unwrap();
            continue;
        }
        assert!(failure(output, 1).contains("cannot write"), "{fault}");
        assert_eq!(names(folder.path()), ["out.gguf"]);
        assert_eq!(fs::read(&out).unwrap(), b"old");
    }
}

#[test]
fn a_file_system_that_lacks_something_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let plain = path("plain.gguf");
    text(brooklet(&[
        "quantize",
        FLOATS,
        plain.to_str().unwrap(),
        "Q8_0",
    ]));
    for (index, faults) in [
        // Files without a name, links, locks, synchronised folders.
        &["linkat,link:error=EPERM"][..],
        &["linkat,link:error=EPERM", "flock:error=ENOLCK"],
        &["linkat,link:error=ENOSYS", "flock:error=ENOSYS"],
        &["fsync:error=EINVAL:when=2"],
        &["fchown:error=EPERM", "fchmod:error=EPERM"],
    ]
    .into_iter()
    .enumerate()
    {
        let out = path(&format!("{index}.gguf"));
        for force in [&[][..], &["--force"]] {
            let words = ["quantize", FLOATS, out.to_str().unwrap(), "Q8_0"];
            let Some(output) = output_with_fault(faults, None, &[&words, force].concat()) else {
                return;
            };
            text(output);
            assert!(
                fs::read(&out).unwrap() == fs::read(&plain).unwrap(),
                "{faults:?}"
            );
        }
        fs::remove_file(out).unwrap();
        assert_eq!(names(folder.path()), ["plain.gguf"], "{faults:?}");
    }
}

#[test]
fn a_model_that_cannot_be_read_is_one_sentence() {
    // As strace knows it.
    let model = fs::canonicalize(tiny()).unwrap();
    let words = [
        "run",
        "-m",
        model.to_str().unwrap(),
        "The sea",
        "-n",
        "4",
        "--temp",
        "0",
    ];
    let expected = text(brooklet(&words));
    for (fault, more, part) in [
        ("openat:error=EACCES", None, "ermission denied"),
        ("openat:error=EMFILE", None, "oo many open files"),
        ("statx,fstat,newfstatat:error=EIO", None, "error"),
        ("read:error=EIO", Some("--no-mmap"), "error"),
        ("mmap:error=ENOMEM", Some("--no-mmap"), ""),
        ("madvise:error=EINVAL", None, ""),
    ] {
        let words: Vec<&str> = words.iter().copied().chain(more).collect();
        let Some(output) = output_with_fault(&[fault], Some(&model), &words) else {
            return;
        };
        if part.is_empty() {
            assert_eq!(text(output), expected, "{fault}");
        } else {
            let said = failure(output, 1);
            assert!(said.contains(part), "{fault}: {said}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_mapped_is_read_and_it_is_said() {
    // As strace knows it.
    let model = fs::canonicalize(tiny()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.gguf");
    let (model_word, out) = (model.to_str().unwrap(), out.to_str().unwrap());
    let fault = "mmap:error=ENODEV";
    for words in [
        &["run", "-m", model_word, "The sea", "-n", "4", "--temp", "0"][..],
        &["inspect", model_word],
        &["quantize", model_word, out, "F16", "--force"],
        &["ppl", "-m", model_word, "--ids", "/dev/null"],
    ] {
        let usual = brooklet(words);
        let Some(output) = output_with_fault(&[fault], Some(&model), words) else {
            return;
        };
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), usual.status.code(), "{said}");
        assert_eq!(output.stdout, usual.stdout, "{words:?}");
        let note = said.lines().next().unwrap_or_default();
        assert!(
            note.contains("cannot be mapped (No such device") && note.contains("read into memory"),
            "{words:?}: {said}"
        );
        let rest = said.lines().skip(1).collect::<Vec<_>>();
        assert_eq!(
            rest.len(),
            String::from_utf8_lossy(&usual.stderr).lines().count()
        );
        // Whoever asks for it beforehand is told nothing.
        let asked = [words, &["--no-mmap"]].concat();
        let quiet = output_with_fault(&[fault], Some(&model), &asked).unwrap();
        assert_eq!(quiet.stderr, usual.stderr, "{words:?}");
    }
}

#[test]
fn a_store_without_locks_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = with_fault(&["flock:error=ENOLCK"], None, arguments)?;
        command
            .env("BROOKLET_MODELS", folder.path())
            .env("HF_ENDPOINT", "http://127.0.0.1:9");
        Some(command.output().unwrap())
    };
    let Some(output) = run(&["pull", "hf:owner/repo/model.gguf"]) else {
        return;
    };
    // Nobody is there to fetch it from, but that is tried.
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said.matches("has no locks (No locks available").count(),
        1,
        "{said}"
    );
    let last = said.lines().last().unwrap();
    assert!(
        last.contains("cannot be reached") || last.contains("install curl"),
        "{said}"
    );
    fs::write(folder.path().join("smollm2-135m.gguf"), "ten bytes.").unwrap();
    let said = text(run(&["models", "--rm", "smollm2-135m"]).unwrap());
    assert_eq!(said, "removed smollm2-135m: 10 B\n");
    assert!(!folder.path().join("smollm2-135m.gguf").exists());
}

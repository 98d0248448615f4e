//! Every output of every command beside everything that may lie at its place: what is said, and
//! what lies on the disk afterwards.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Child;

use super::*;
use crate::files::{TOKENS, WEIGHTS};
use crate::talking::talking_model;

const TEXT: &str = "The sea was calm, and the boat went out.";

/// A command with one output under test.
struct Case {
    name: &'static str,
    /// Its arguments; INPUT, TEXT and OUT stand for paths.
    words: &'static [&'static str],
    /// Files that it reads.
    inputs: &'static [&'static str],
    /// Lines for its standard input; OUT stands for the path, and FORCE for what lets it replace.
    talk: &'static str,
    force: &'static str,
}

const FLOATS: &str = "floats.gguf";
const SLIM: &str = "mha.gguf";
const MODEL: &str = "talking.gguf";
const WORDS: &str = "text.txt";

const CASES: [Case; 9] = [
    Case {
        name: "quantize",
        words: &["quantize", FLOATS, "OUT", "Q8_0"],
        inputs: &[FLOATS],
        talk: "",
        force: "--force",
    },
    Case {
        name: "convert",
        words: &["convert", WEIGHTS, "OUT", "F16"],
        inputs: &[WEIGHTS, TOKENS],
        talk: "",
        force: "--force",
    },
    Case {
        name: "slim",
        words: &[
            "slim",
            SLIM,
            "-o",
            "OUT",
            "--bound",
            "1",
            "--calib-tokens",
            "32",
        ],
        inputs: &[SLIM],
        talk: "",
        force: "--force",
    },
    Case {
        name: "slim --report",
        words: &[
            "slim",
            SLIM,
            "-o",
            "copy.gguf",
            "--bound",
            "1",
            "--calib-tokens",
            "32",
            "--report",
            "OUT",
        ],
        inputs: &[SLIM],
        talk: "",
        force: "--force",
    },
    Case {
        name: "ppl --dump",
        words: &["ppl", "-m", MODEL, "-f", WORDS, "--dump", "OUT"],
        inputs: &[MODEL, WORDS],
        talk: "",
        force: "--force",
    },
    Case {
        name: "ppl --scores",
        words: &["ppl", "-m", MODEL, "-f", WORDS, "--scores", "OUT"],
        inputs: &[MODEL, WORDS],
        talk: "",
        force: "--force",
    },
    Case {
        name: "ppl --attention",
        words: &["ppl", "-m", MODEL, "-f", WORDS, "--attention", "OUT"],
        inputs: &[MODEL, WORDS],
        talk: "",
        force: "--force",
    },
    Case {
        name: "chat --ctx-dump",
        words: &["chat", "-m", MODEL, "-n", "4", "--ctx-dump", "OUT"],
        inputs: &[MODEL],
        talk: "Hello\n",
        force: "--force",
    },
    Case {
        name: "/save",
        words: &["chat", "-m", MODEL, "-n", "4"],
        inputs: &[MODEL],
        talk: "Hello\n/save FORCE OUT\n",
        force: "-f",
    },
];

/// All that lies in a folder, by name: the bytes of files, the kinds of the rest.
type Disk = BTreeMap<PathBuf, Vec<u8>>;

fn disk(folder: &Path) -> Disk {
    let mut disk = Disk::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        let what = if kind.is_dir() {
            disk.extend(self::disk(&path));
            b"a folder".to_vec()
        } else if kind.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else if kind.is_fifo() {
            b"a pipe".to_vec()
        } else {
            fs::read(&path).unwrap()
        };
        disk.insert(path, what);
    }
    disk
}

/// A folder with everything that commands read.
fn desk() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    talking_model(folder.path());
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/data");
    for (file, name) in [
        ("random-mha-f32.gguf", SLIM),
        ("random-gqa-f16.gguf", FLOATS),
    ] {
        fs::copy(data.join(file), folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join(WORDS), TEXT).unwrap();
    other_model(folder.path());
    folder
}

impl Case {
    /// Runs the command in `folder`, by `shell` if that is not empty.
    fn run(&self, folder: &Path, out: &str, force: bool, shell: &str) -> Output {
        let own = self.talk.contains("/save");
        let mut words: Vec<&str> = self.words.to_vec();
        words
            .iter_mut()
            .filter(|word| **word == "OUT")
            .for_each(|word| *word = out);
        if force && !own {
            words.push(self.force);
        }
        let talk = self
            .talk
            .replace("FORCE", if force { self.force } else { "" })
            .replace("OUT", out);
        let mut command = command(&words);
        if !shell.is_empty() {
            let inner = command;
            command = Command::new("sh");
            command
                .args(["-c", &format!("{shell}; exec \"$0\" \"$@\"")])
                .arg(inner.get_program())
                .args(inner.get_args());
        }
        let mut child = command
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that refuses does not read it.
        let _ = child.stdin.take().unwrap().write_all(talk.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// The sentence of a command that refuses; in a chat that goes on, all that was said.
    #[track_caller]
    fn refusal(&self, output: Output, of: &str) -> String {
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("panicked"), "{} {of}: {said}", self.name);
        if self.talk.contains("/save") {
            assert_eq!(output.status.code(), Some(0), "{of}: {said}");
            assert!(!said.contains("saved"), "{of}: {said}");
            return said;
        }
        assert_eq!(output.status.code(), Some(1), "{} {of}: {said}", self.name);
        assert_eq!(said.lines().count(), 1, "{} {of}: {said}", self.name);
        said
    }

    #[track_caller]
    fn works(&self, output: Output, of: &str) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{} {of}: {said}", self.name);
        if self.talk.contains("/save") {
            assert!(said.contains("saved 2 messages"), "{of}: {said}");
        }
    }

    /// Nothing but `out`, and what the command writes besides, is new or other than before.
    #[track_caller]
    fn only(&self, before: Disk, folder: &Path, out: &Path, of: &str) {
        let mut after = disk(folder);
        let bytes = after.remove(out).expect("the output is there");
        assert!(!bytes.is_empty(), "{} {of}", self.name);
        after.remove(&folder.join("copy.gguf"));
        let mut before = before;
        before.remove(out);
        assert_eq!(before, after, "{} {of}", self.name);
    }
}

#[test]
fn an_output_never_touches_what_is_not_its_own() {
    for case in &CASES {
        let desk = desk();
        let folder = desk.path();
        let at = |name: &str| folder.join(name);
        for input in case.inputs {
            fs::hard_link(at(input), at(&format!("hard-{input}"))).unwrap();
            symlink(input, at(&format!("soft-{input}"))).unwrap();
        }
        symlink("/dev/null", at("to-device")).unwrap();
        symlink("/proc/self/fd/1", at("to-stdout")).unwrap();
        symlink("round", at("round")).unwrap();
        symlink("folder/none/x", at("to-nowhere")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        let made = Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(made.success());
        fs::write(at("old"), "old").unwrap();
        let before = disk(folder);

        let mut refused = vec![
            ("/dev/null".to_owned(), "a device"),
            ("to-device".into(), "a device"),
            // The commands of this test write to a pipe.
            ("to-stdout".into(), "a pipe"),
            ("pipe".into(), "a pipe"),
            ("folder".into(), "a folder"),
            ("folder/".into(), "a folder"),
            ("none/x".into(), "there is no folder none"),
            ("to-nowhere".into(), "there is no folder"),
            ("old/x".into(), "ot a directory"),
            ("round".into(), "cannot write"),
        ];
        for input in case.inputs {
            for name in [
                input.to_string(),
                format!("hard-{input}"),
                format!("soft-{input}"),
            ] {
                refused.push((name, "is the input"));
            }
        }
        for (out, part) in refused {
            for force in [false, true] {
                let said = case.refusal(case.run(folder, &out, force, ""), &out);
                assert!(said.contains(part), "{} {out}: {said}", case.name);
                assert_eq!(disk(folder), before, "{} {out}", case.name);
            }
        }
        let said = case.refusal(case.run(folder, "old", false, ""), "an existing file");
        assert!(
            said.contains("old exists") && said.contains(case.force),
            "{}: {said}",
            case.name
        );
        assert_eq!(disk(folder), before);
    }
}

#[test]
fn an_output_appears_where_it_should_and_nothing_else_does() {
    for case in &CASES {
        let desk = desk();
        let folder = desk.path();
        let at = |name: &str| folder.join(name);
        fs::create_dir(at("folder")).unwrap();
        symlink("folder/new", at("to-new")).unwrap();
        fs::write(at("folder/old"), "old").unwrap();
        symlink("folder/old", at("to-old")).unwrap();
        fs::hard_link(at("folder/old"), at("hard")).unwrap();
        // (path as given, path of the file, replaces it)
        for (out, file, force) in [
            ("new", "new", false),
            ("./folder/newer", "folder/newer", true),
            ("to-new", "folder/new", false),
            ("to-old", "folder/old", true),
            ("new", "new", true),
        ] {
            let before = disk(folder);
            case.works(case.run(folder, out, force, ""), out);
            case.only(before, folder, &at(file), out);
            let _ = fs::remove_file(at("copy.gguf"));
        }
        // Another name of a file that was replaced keeps the old one.
        assert_eq!(fs::read(at("hard")).unwrap(), b"old");
    }
}

#[test]
fn a_disk_without_room_and_a_folder_without_rights_lose_nothing() {
    for case in &CASES {
        let desk = desk();
        let folder = desk.path();
        fs::write(folder.join("old"), "old").unwrap();
        let closed = folder.join("closed");
        fs::create_dir(&closed).unwrap();
        let before = disk(folder);
        // No file may have any bytes: the signal of that must not end the program either.
        for (out, force) in [("new", false), ("old", true)] {
            let output = case.run(folder, out, force, "ulimit -f 0");
            if case.name == "chat --ctx-dump" {
                // It grows in its place, from nothing.
                let said = case.refusal_after_an_answer(output);
                assert!(said.contains("File too large"), "{said}");
                assert_eq!(fs::read(folder.join(out)).unwrap(), b"");
                fs::remove_file(folder.join("new")).unwrap_or_default();
                fs::write(folder.join("old"), "old").unwrap();
                continue;
            }
            let said = case.refusal(output, "a limit");
            assert!(
                said.contains("cannot write") && said.contains("File too large"),
                "{}: {said}",
                case.name
            );
            assert_eq!(disk(folder), before, "{}", case.name);
        }
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
        if fs::write(closed.join("try"), "").is_ok() {
            println!("skipped: this user may write to every folder");
            fs::remove_file(closed.join("try")).unwrap();
        } else {
            let said = case.refusal(case.run(folder, "closed/x", false, ""), "a folder");
            assert!(said.contains("ermission denied"), "{said}");
            assert_eq!(disk(folder), before, "{}", case.name);
        }
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

impl Case {
    #[track_caller]
    fn refusal_after_an_answer(&self, output: Output) -> String {
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    }
}

#[test]
fn two_outputs_of_one_name_are_refused() {
    let desk = desk();
    let before = disk(desk.path());
    let words = [
        "ppl", "-m", MODEL, "-f", WORDS, "--dump", "x", "--scores", "./x",
    ];
    let output = command(&words).current_dir(desk.path()).output().unwrap();
    assert!(failure(output, 1).contains("written twice"));
    let words = ["slim", SLIM, "-o", "x", "--report", "x"];
    let output = command(&words).current_dir(desk.path()).output().unwrap();
    assert!(failure(output, 1).contains("written twice"));
    // A text that comes by standard input is known, too.
    let words = ["ppl", "-m", MODEL, "-f", "-", "--scores", WORDS, "--force"];
    let output = command(&words)
        .current_dir(desk.path())
        .stdin(fs::File::open(desk.path().join(WORDS)).unwrap())
        .output()
        .unwrap();
    assert!(failure(output, 1).contains("is the input"));
    assert_eq!(disk(desk.path()), before);
}

#[test]
fn a_command_that_fails_later_has_touched_nothing() {
    let desk = desk();
    fs::write(desk.path().join("old"), "old").unwrap();
    let before = disk(desk.path());
    for (words, part) in [
        (
            &["chat", "-m", MODEL, "--ram", "1KiB", "--ctx-dump", "old"][..],
            "missing",
        ),
        (
            &[
                "ppl", "-m", MODEL, "-f", WORDS, "--ram", "1KiB", "--dump", "old",
            ],
            "missing",
        ),
        (&["quantize", WORDS, "old", "Q8_0"], "not a GGUF file"),
        (&["slim", MODEL, "-o", "old"], ""),
    ] {
        let words = [words, &["--force"]].concat();
        let output = command(&words).current_dir(desk.path()).output().unwrap();
        let said = failure(output, 1);
        assert!(said.contains(part), "{words:?}: {said}");
        assert_eq!(disk(desk.path()), before, "{words:?}");
    }
}

#[test]
fn manual_pages_are_replaced_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let out = ["man", "--out", folder.path().to_str().unwrap()];
    text(brooklet(&out));
    let pages = disk(folder.path());
    let said = failure(brooklet(&out), 1);
    assert!(said.contains("exists: --force"), "{said}");
    text(brooklet(&[&out[..], &["--force"]].concat()));
    assert_eq!(disk(folder.path()), pages);
    failure(brooklet(&["man", "--force"]), 2);
}

/// A command that writes for minutes, and waits until it has begun.
fn long_run(folder: &Path) -> Child {
    let ids = "1 2 3 4 5 6 7 8 ".repeat(1 << 18);
    fs::write(folder.join("ids"), ids).unwrap();
    let words = [
        "ppl", "-m", MODEL, "--ids", "ids", "--dump", "out", "-t", "1",
    ];
    let child = command(&words)
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Its output is open, with or without a name.
    let began = Instant::now();
    let descriptors = PathBuf::from(format!("/proc/{}/fd", child.id()));
    let is_output = |path: PathBuf| {
        path.starts_with(folder) && !path.ends_with("ids") && !path.ends_with(MODEL)
    };
    while descriptors.exists() && began.elapsed() < Duration::from_secs(60) {
        let open = fs::read_dir(&descriptors).into_iter().flatten().flatten();
        if open
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(is_output)
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(100));
    child
}

#[test]
fn whatever_ends_a_command_nothing_unfinished_stays() {
    for signal in ["HUP", "INT", "TERM", "KILL", "XFSZ"] {
        let desk = desk();
        let folder = desk.path();
        let mut child = long_run(folder);
        let before = disk(folder);
        let send = |signal: &str| {
            let kill = format!("kill -{signal} {}", child.id());
            assert!(
                Command::new("sh")
                    .args(["-c", &kill])
                    .status()
                    .unwrap()
                    .success()
            );
        };
        send(signal);
        // This one only tells that a write has failed.
        if signal == "XFSZ" {
            std::thread::sleep(Duration::from_millis(200));
            send("KILL");
        }
        assert!(!child.wait().unwrap().success(), "{signal}");
        assert_eq!(disk(folder), before, "{signal}");
        assert!(!before.contains_key(&folder.join("out")), "{signal}");
    }
}

#[test]
fn an_input_that_is_cut_short_leaves_no_output() {
    if !program::runner().is_empty() {
        return;
    }
    let desk = desk();
    let folder = desk.path();
    let child = long_run(folder);
    let model = fs::OpenOptions::new()
        .write(true)
        .open(folder.join(MODEL))
        .unwrap();
    model.set_len(4096).unwrap();
    let before = disk(folder);
    let output = child.wait_with_output().unwrap();
    assert!(failure(output, 1).contains("was cut short"));
    assert_eq!(disk(folder), before);
}

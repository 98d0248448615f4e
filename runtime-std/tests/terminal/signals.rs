//! Every state of the commands, and SIGINT, SIGTERM and SIGHUP: the command ends soon, by the
//! signal, with the terminal as it was, and leaves no unfinished file and no child process.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use brooklet::convert::gguf_writer::Header;
use brooklet::core::gguf::Value;
use brooklet::core::quant::Format;
use rustix::process::Signal;

use crate::common::tiny;
use crate::pty::{PATIENCE, Terminal, end, has_terminals, send, shell_status};
use crate::talking::talking_model;

const SIGNALS: [(Signal, i32); 3] = [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)];

/// Longest time from a signal to the end, with room for a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Starts the command with nothing of the user's.
fn start(arguments: &[&str], stdin: Stdio) -> Child {
    let mut command = crate::program::program();
    command
        .args(arguments)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Sends the signal, and checks the end.
#[track_caller]
fn ends(child: &mut Child, signal: Signal, status: i32) {
    let sent = Instant::now();
    send(child, signal);
    let ended = end(child);
    assert_eq!(shell_status(ended), status, "{ended:?}");
    assert!(sent.elapsed() < SOON, "{:?}", sent.elapsed());
}

/// Waits for the first bytes of the output, and reads on beside the test, so that nothing is held
/// up.
fn first_bytes(child: &mut Child) {
    let mut out: ChildStdout = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 64]).unwrap();
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
}

/// Waits until a program has started to wait for something: it sleeps, and goes on sleeping.
fn until_it_waits(child: &Child) {
    let time = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        let rest = stat.rsplit_once(')').map(|(_, rest)| rest.to_owned());
        let rest = rest.unwrap_or_default();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Its state, and its time in user and kernel mode.
        let of = |i: usize| fields.get(i).copied().unwrap_or_default().to_owned();
        (of(0), of(11), of(12))
    };
    let deadline = Instant::now() + PATIENCE;
    let mut before = time();
    let mut calm = 0;
    while calm < 10 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
        let now = time();
        calm = if now.0 == "S" && now == before {
            calm + 1
        } else {
            0
        };
        before = now;
    }
}

/// Waits until the process of that number is gone, or only waits for its new parent to take note of
/// that.
#[track_caller]
fn until_it_is_gone(process: &str) {
    let deadline = Instant::now() + PATIENCE;
    let is_alive = || {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    while is_alive() {
        assert!(Instant::now() < deadline, "{process} goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn idle_on_a_terminal() {
    if !has_terminals() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = talking_model(folder.path());
    for (signal, status) in SIGNALS {
        let mut terminal = Terminal::start(&["chat", "-m", model.to_str().unwrap()], 80, |_| {});
        terminal.expect("> ");
        // A half-written line changes nothing.
        terminal.keys("half");
        terminal.expect("half");
        terminal.signal(signal);
        let (ended, same) = terminal.end();
        assert_eq!(shell_status(ended), status, "{}", terminal.text);
        assert!(same, "the terminal's modes");
        // Bracketed paste is off again.
        let last = |mode: &str| terminal.text.rfind(mode);
        assert!(
            last("\x1b[?2004l") > last("\x1b[?2004h"),
            "{:?}",
            terminal.text
        );
    }
}

#[test]
fn idle_on_a_pipe_and_on_a_fifo_that_has_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let model = talking_model(folder.path());
    let arguments = ["chat", "-m", model.to_str().unwrap(), "-n", "3"];
    let fifo = folder.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    for (signal, status) in SIGNALS {
        let mut child = start(&arguments, Stdio::piped());
        until_it_waits(&child);
        ends(&mut child, signal, status);
        // As systemd opens it: for both directions, so that it never ends.
        let mut options = fs::OpenOptions::new();
        let both = options.read(true).write(true).open(&fifo).unwrap();
        let mut child = start(&arguments, both.try_clone().unwrap().into());
        until_it_waits(&child);
        ends(&mut child, signal, status);
        // After an answer as well.
        let mut child = start(&arguments, both.try_clone().unwrap().into());
        let mut writer = both;
        writer.write_all(b"hello\n").unwrap();
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut [0; 1])
            .unwrap();
        until_it_waits(&child);
        ends(&mut child, signal, status);
    }
}

#[test]
fn answering_without_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let model = talking_model(folder.path());
    let arguments = ["chat", "-m", model.to_str().unwrap()];
    for (signal, status) in SIGNALS {
        let mut child = start(&arguments, Stdio::piped());
        let mut stdin = child.stdin.take().unwrap();
        // Ends with the chat.
        std::thread::spawn(move || while stdin.write_all(b"tell me more\n").is_ok() {});
        let mut errors = child.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        first_bytes(&mut child);
        ends(&mut child, signal, status);
    }
}

#[test]
fn ctrl_c_ends_an_answer_and_not_the_chat() {
    if !has_terminals() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = talking_model(folder.path());
    let model = model.to_str().unwrap();
    let mut terminal = Terminal::start(&["chat", "-m", model], 80, |_| {});
    terminal.expect("> ");
    for _ in 0..5 {
        // At some moment of the answer, or just before or after it. It takes what was typed after
        // it along.
        terminal.keys("tell me\r\x03");
        std::thread::sleep(Duration::from_millis(300));
        terminal.keys("/stats\r");
        terminal.expect("tokens seen");
        terminal.expect("> ");
    }
    terminal.keys("/bye\r");
    let (ended, same) = terminal.end();
    assert_eq!(shell_status(ended), 0, "{}", terminal.text);
    assert!(same);
}

#[test]
fn writing_a_text() {
    let tiny = tiny();
    let tiny = tiny.to_str().unwrap();
    for (signal, status) in SIGNALS {
        // With an end far away, and without one; nothing but Ctrl-C ends the latter.
        for tokens in ["999999999999", "-1"] {
            let arguments = ["run", "-m", tiny, "The", "--ignore-eos", "-n", tokens];
            let mut child = start(&arguments, Stdio::null());
            first_bytes(&mut child);
            let done = tokens == "-1" && status == 130;
            ends(&mut child, signal, if done { 0 } else { status });
        }
    }
}

#[test]
fn reading_a_prompt() {
    let tiny = tiny();
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("long");
    fs::write(&long, "all day long ".repeat(1 << 20)).unwrap();
    let (tiny, long) = (tiny.to_str().unwrap(), long.to_str().unwrap());
    for (signal, status) in SIGNALS {
        // From a pipe that does not end, and of a text that is long.
        let mut child = start(&["run", "-m", tiny], Stdio::piped());
        until_it_waits(&child);
        ends(&mut child, signal, status);
        let mut child = start(&["run", "-m", tiny, "-f", long, "-n", "5"], Stdio::null());
        std::thread::sleep(Duration::from_millis(300));
        ends(&mut child, signal, status);
    }
}

#[test]
fn waiting_for_sound() {
    let model = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../core/tests/data/random-whisper-f32.gguf"
    );
    for (signal, status) in SIGNALS {
        let arguments = ["caption", "-m", model, "-", "--raw", "s16le"];
        let mut child = start(&arguments, Stdio::piped());
        until_it_waits(&child);
        ends(&mut child, signal, status);
    }
}

#[test]
fn calibrating_leaves_no_file() {
    let model = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/models/stories/small-q8_0.gguf"
    );
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("slim.gguf");
    for (signal, status) in SIGNALS {
        let copy = copy.to_str().unwrap();
        let arguments = ["slim", model, "-o", copy, "--calib-tokens", "1000000"];
        let mut child = start(&arguments, Stdio::null());
        std::thread::sleep(Duration::from_millis(500));
        assert!(child.try_wait().unwrap().is_none());
        ends(&mut child, signal, status);
        assert!(
            names(folder.path()).is_empty(),
            "{:?}",
            names(folder.path())
        );
    }
}

#[test]
fn quantising_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large.gguf");
    // Two gigabytes of zeros, which take no disk: many seconds of work.
    let (columns, rows) = (4096, 1 << 17);
    let mut header = Header::default();
    header.set("general.architecture", Value::Str(b"llama"));
    header
        .tensor("blk.0.ffn_up.weight", &[columns, rows], Format::F32)
        .unwrap();
    let mut bytes = Vec::new();
    header.write(&mut bytes).unwrap();
    fs::write(&large, &bytes).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&large).unwrap();
    file.set_len((bytes.len() + columns * rows * 4) as u64)
        .unwrap();
    let copy = folder.path().join("copy.gguf");
    for (signal, status) in SIGNALS {
        let arguments = [
            "quantize",
            large.to_str().unwrap(),
            copy.to_str().unwrap(),
            "Q3_K_M",
        ];
        let mut child = start(&arguments, Stdio::null());
        std::thread::sleep(Duration::from_millis(500));
        assert!(child.try_wait().unwrap().is_none(), "it is done already");
        ends(&mut child, signal, status);
        assert_eq!(names(folder.path()), ["large.gguf"]);
    }
}

/// Starts to fetch a model from a hub, with the programs of `path`.
fn pull(path: &str, store: &Path) -> Child {
    let mut command = crate::program::program();
    command
        .args(["pull", "hf:somebody/something/model.gguf"])
        .env("PATH", path)
        .env("BROOKLET_MODELS", store)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

/// The signal comes at once when the process is there, whatever the command was doing.
#[cfg(target_os = "linux")]
#[test]
fn a_child_process_is_never_without_somebody_who_ends_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let curl = folder.path().join("curl");
    fs::write(&curl, "#!/bin/sh\nexec sleep 600\n").unwrap();
    fs::set_permissions(&curl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    for _ in 0..40 {
        let mut child = pull(&path, &folder.path().join("store"));
        // Of any of its threads.
        let children = || {
            let threads = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
            let lists = threads.map(|thread| thread.unwrap().path().join("children"));
            let all: String = lists.flat_map(fs::read_to_string).collect();
            all.split_whitespace().next().map(str::to_owned)
        };
        let deadline = Instant::now() + PATIENCE;
        let process = loop {
            if let Some(process) = children() {
                break process;
            }
            assert!(Instant::now() < deadline, "curl was not started");
        };
        ends(&mut child, Signal::TERM, 143);
        until_it_is_gone(&process);
    }
}

#[test]
fn fetching_leaves_no_child_process() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (programs, store) = (folder.path().join("bin"), folder.path().join("store"));
    fs::create_dir(&programs).unwrap();
    let noted = folder.path().join("noted");
    // A network that never answers.
    let curl = programs.join("curl");
    let script = format!(
        "#!/bin/sh\necho $$ > {0}.new; mv {0}.new {0}; exec sleep 600\n",
        noted.display()
    );
    fs::write(&curl, script).unwrap();
    fs::set_permissions(&curl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    for (signal, status) in SIGNALS {
        let mut child = pull(&path, &store);
        let deadline = Instant::now() + PATIENCE;
        while !noted.exists() {
            assert!(Instant::now() < deadline, "curl was not started");
            std::thread::sleep(Duration::from_millis(10));
        }
        let process = fs::read_to_string(&noted).unwrap();
        ends(&mut child, signal, status);
        until_it_is_gone(process.trim());
        fs::remove_file(&noted).unwrap();
    }
}

/// A program started with SIGHUP ignored, as by `nohup`, outlives its terminal.
#[test]
fn nohup_is_obeyed() {
    let tiny = tiny();
    let program = env!("CARGO_BIN_EXE_brooklet");
    let mut child = Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$0\" run -m \"$1\" The -n -1"])
        .args([program, tiny.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    first_bytes(&mut child);
    send(&child, Signal::HUP);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(child.try_wait().unwrap().is_none());
    ends(&mut child, Signal::TERM, 143);
}

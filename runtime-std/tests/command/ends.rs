//! Ends of a run: a full cache, a reader that went away, Ctrl-C.

use super::*;

#[test]
fn a_dense_cache_ends_when_it_is_full() {
    let arguments = [
        "The", "--policy", "dense", "--window", "16", "-n", "-1", "--json",
    ];
    let report = json(&text(with_tiny("run", &arguments)));
    assert_eq!(report["statistics"]["finish"], "full");
    assert_eq!(report["statistics"]["position"], 16);
}

#[test]
fn an_endless_stream_ends_when_its_reader_has_gone() {
    let tiny = tiny();
    let mut child = command(&[
        "run",
        "-m",
        tiny.to_str().unwrap(),
        "The",
        "-n",
        "-1",
        "-t",
        "2",
    ])
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
    let mut child = command(&[
        "run",
        "-m",
        tiny.to_str().unwrap(),
        "The",
        "-n",
        "-1",
        "--json",
    ])
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

/// Starts an endless run of a copy of a model, calls `shorten` on the copy once words come, and
/// returns the run's output and exit status.
#[cfg(unix)]
fn shortened(arguments: &[&str], shorten: impl FnOnce(&Path)) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.gguf");
    fs::copy(tiny(), &path).unwrap();
    let start = ["run", "-m", path.to_str().unwrap(), "The"];
    let mut child = command(&[&start, arguments].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 64]).unwrap();
    shorten(&path);
    // Until it ends, or has gone on for long enough.
    let mut rest = [0; 1 << 14];
    let mut more = 0;
    while more < rest.len() {
        match stdout.read(&mut rest).unwrap() {
            0 => break,
            read => more += read,
        }
    }
    drop(stdout);
    child.wait_with_output().unwrap()
}

#[cfg(unix)]
fn cut(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(4096).unwrap();
}

#[cfg(unix)]
#[test]
fn a_file_that_is_cut_short_while_it_is_mapped_ends_in_one_sentence() {
    // An emulator has a signal's address in another form.
    if !program::runner().is_empty() {
        return;
    }
    for workers in ["1", "2"] {
        let output = shortened(&["-n", "-1", "-t", workers], cut);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.starts_with("brooklet: the model's file was cut short")
                && error.contains("--no-mmap"),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_was_read_may_be_cut_short_and_one_that_is_mapped_may_be_replaced() {
    let output = shortened(&["-n", "-1", "--no-mmap"], cut);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let replace = |path: &Path| {
        let other = path.with_extension("new");
        fs::write(&other, b"short").unwrap();
        fs::rename(&other, path).unwrap();
    };
    let output = shortened(&["-n", "-1"], replace);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

//! How a run ends: a full cache, a reader that went away, Ctrl-C.

use super::*;

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

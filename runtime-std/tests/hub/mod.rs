//! Tests of hub models, from name to removal, with a hub on this machine.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use super::common::tiny;
use super::{command, failure, json, program, text};

const NAME: &str = "hf:owner/repo@v1/deep/tiny model.gguf";
const PATH: &str = "hf/owner/repo@v1/deep/tiny model.gguf";

/// A hub that serves one file and counts the requests.
struct Hub {
    address: String,
    requests: Arc<AtomicUsize>,
}

impl Hub {
    fn start(body: Vec<u8>) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                // A client that disconnects ends only its own connection.
                let _ = answer(stream, &body);
            }
        });
        Hub { address, requests }
    }
}

fn answer(mut stream: TcpStream, body: &[u8]) -> std::io::Result<()> {
    let lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let lines: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let has_token = lines
        .iter()
        .any(|line| line.eq_ignore_ascii_case("authorization: bearer hf_Secret"));
    let is_private = lines[0].contains(" /owner/private/");
    if is_private && !has_token {
        return write!(
            stream,
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    if lines[0].contains(" /api/models/owner/private/revision/main ") {
        let list = r#"{"id": "x", "siblings": [{"rfilename": "README.md"}, {"rfilename": "tiny-Q8_0.gguf"}, {"rfilename": "tiny-F32.gguf"}]}"#;
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{list}",
            list.len()
        );
    }
    if !is_private && !lines[0].contains(" /owner/repo/resolve/v1/deep/tiny%20model.gguf ") {
        return write!(
            stream,
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let range = lines.iter().find_map(|line| {
        Some(
            line.to_lowercase()
                .strip_prefix("range: bytes=")?
                .to_owned(),
        )
    });
    let from = range.map(|range| range.trim_end_matches('-').parse().unwrap());
    let start: usize = from.unwrap_or(0);
    let status = match from {
        Some(from) => format!(
            "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}",
            body.len() - 1,
            body.len()
        ),
        None => "200 OK".into(),
    };
    let digest: String = Sha256::digest(body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nX-Linked-ETag: \"{digest}\"\r\nX-Linked-Size: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len(),
        body.len() - start
    )?;
    if lines[0].starts_with("GET") {
        stream.write_all(&body[start..])
    } else {
        Ok(())
    }
}

/// Returns true if `curl`, which downloads, is installed; if not, prints that the test is skipped.
fn has_curl() -> bool {
    let found = Command::new("curl")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !found {
        println!("skipped: no curl");
    }
    found
}

fn run(store: &Path, hub: &str, arguments: &[&str]) -> Output {
    command(arguments)
        .env("BROOKLET_MODELS", store)
        .env("HF_ENDPOINT", hub)
        .output()
        .unwrap()
}

/// A private repository opens to a token, which nobody else sees: not in the arguments of curl, and
/// not if it could be something else.
#[test]
fn a_token_opens_a_private_repository() {
    if !has_curl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(fs::read(tiny()).unwrap());
    let pull = |token: &str| {
        command(&["pull", "hf:owner/private/tiny.gguf", "--json"])
            .env("BROOKLET_MODELS", folder.path().join("models"))
            .env("HF_ENDPOINT", &hub.address)
            .env("HF_TOKEN", token)
            .output()
            .unwrap()
    };
    for token in ["", "wrong", "hf_Secret\"\nurl = \"file:///etc/passwd"] {
        assert_eq!(pull(token).status.code(), Some(1), "{token:?}");
    }
    let report = json(&text(pull("hf_Secret")));
    assert_eq!(report["name"], "hf:owner/private/tiny.gguf");
    assert_eq!(report["bytes"], fs::metadata(tiny()).unwrap().len());
    assert!(Path::new(report["path"].as_str().unwrap()).exists());
}

/// A repository alone is a model's name, where one of its files can be chosen; what is pulled is
/// used without the network.
#[test]
fn a_repository_and_a_format_name_a_file() {
    if !has_curl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(fs::read(tiny()).unwrap());
    let run = |hub: &str, arguments: &[&str]| {
        command(arguments)
            .env("BROOKLET_MODELS", folder.path().join("models"))
            .env("HF_ENDPOINT", hub)
            .env("HF_TOKEN", "hf_Secret")
            .output()
            .unwrap()
    };
    let report = json(&text(run(
        &hub.address,
        &["pull", "hf:owner/private:q8_0", "--json"],
    )));
    assert_eq!(report["name"], "hf:owner/private/tiny-Q8_0.gguf");
    let words = [
        "run",
        "hf:owner/private:Q8_0",
        "The sea",
        "-n",
        "4",
        "--seed",
        "1",
    ];
    text(run("http://127.0.0.1:9", &words));
    let refused = failure(run(&hub.address, &["pull", "hf:owner/private:Q2_K"]), 1);
    assert!(refused.contains("tiny-F32.gguf"), "{refused}");
    let words = ["rm", "hf:owner/private"];
    text(run("http://127.0.0.1:9", &words));
}

#[test]
fn a_file_of_the_hub_is_pulled_used_offline_listed_and_removed() {
    if !has_curl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("models");
    let hub = Hub::start(fs::read(tiny()).unwrap());
    let sentence = ["run", "-m", NAME, "The sea", "-n", "8", "--temp", "0"];
    let first = run(&store, &hub.address, &sentence);
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    assert!(said.contains("https://huggingface.co/owner/repo"), "{said}");
    assert!(said.contains("the licence MIT OR Apache-2.0"), "{said}");
    let first = text(first);
    assert_eq!(
        fs::read(store.join(PATH)).unwrap(),
        fs::read(tiny()).unwrap()
    );
    let requests = hub.requests.load(Ordering::Relaxed);
    let offline = run(&store, "http://127.0.0.1:9", &sentence);
    assert!(offline.stderr.is_empty());
    assert_eq!(text(offline), first);
    // A pull hashes the file again and makes no request.
    let pulled = text(run(&store, "http://127.0.0.1:9", &["pull", NAME]));
    assert_eq!(Path::new(pulled.trim_end()), store.join(PATH));
    assert_eq!(hub.requests.load(Ordering::Relaxed), requests);

    let rows = json(&text(run(&store, &hub.address, &["models", "--json"])));
    let row = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == NAME)
        .unwrap();
    assert_eq!(
        (&row["pulled"], &row["tried"], &row["partial_bytes"]),
        (&true.into(), &false.into(), &0.into())
    );
    assert_eq!(row["bytes"], fs::metadata(tiny()).unwrap().len());
    assert_eq!(row["licence"], "MIT OR Apache-2.0");
    let list = text(run(&store, &hub.address, &["models"]));
    assert!(
        list.contains(NAME) && list.lines().last().unwrap().starts_with("1 pulled, "),
        "{list}"
    );

    let removed = text(run(&store, &hub.address, &["models", "--rm", NAME]));
    assert!(
        removed.starts_with(&format!("removed {NAME}: ")),
        "{removed}"
    );
    assert!(!store.join("hf").exists());
    let error = failure(run(&store, &hub.address, &["models", "--rm", NAME]), 1);
    assert!(error.contains("has not been pulled"), "{error}");
}

#[test]
fn names_that_are_none_and_files_that_are_not_there_are_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    for (name, what) in [
        ("hf:owner/repo/../../../etc/passwd.gguf", "\"..\""),
        ("hf:owner", "hf:OWNER/REPOSITORY/FILE.gguf"),
        ("hf:owner/repo/a\n.gguf", "a\\n.gguf"),
        ("hf:owner/repo/weights.bin", "weights.bin"),
    ] {
        for arguments in [
            &["pull", name][..],
            &["run", "-m", name, "x"],
            &["models", "--rm", name],
        ] {
            let error = failure(run(folder.path(), "http://127.0.0.1:9", arguments), 1);
            assert!(error.contains(what), "{error}");
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    if !has_curl() {
        return;
    }
    let hub = Hub::start(Vec::new());
    let output = run(
        folder.path(),
        &hub.address,
        &["pull", "hf:owner/repo/absent.gguf"],
    );
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let last = errors.lines().last().unwrap();
    assert!(
        last.starts_with("brooklet: ") && last.contains("owner/repo/absent.gguf (404)"),
        "{errors}"
    );
}

#[test]
fn other_files_and_unfinished_downloads_are_listed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let brooklet = |arguments: &[&str]| run(folder.path(), "http://127.0.0.1:9", arguments);
    fs::copy(tiny(), folder.path().join("my.gguf")).unwrap();
    for (name, bytes) in [("smollm2-135m", 3), ("hf/owner/repo/half.gguf", 5)] {
        let staging = folder.path().join(".partial").join(name);
        fs::create_dir_all(&staging).unwrap();
        fs::write(staging.join("model.part"), vec![0; bytes]).unwrap();
        fs::write(staging.join("hub-digest"), "").unwrap();
    }
    let list = text(brooklet(&["models"]));
    let line = |name: &str| {
        list.lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name} in {list}"))
    };
    assert!(line("my.gguf").contains("pulled") && line("my.gguf").contains("MIT OR Apache-2.0"));
    assert!(
        line("smollm2-135m").contains("partial")
            && line("hf:owner/repo/half.gguf").contains("partial")
    );
    assert!(
        list.lines().last().unwrap().contains("unfinished 8 B"),
        "{list}"
    );
    for name in ["my.gguf", "smollm2-135m", "hf:owner/repo/half.gguf"] {
        text(brooklet(&["models", "--rm", name]));
        failure(brooklet(&["models", "--rm", name]), 1);
    }
    let rows = json(&text(brooklet(&["models", "--json"])));
    let nothing = |row: &serde_json::Value| row["pulled"] == false && row["partial_bytes"] == 0;
    assert!(rows.as_array().unwrap().iter().all(nothing), "{rows}");
    assert!(failure(brooklet(&["models", "--rm", "../my.gguf"]), 1).contains("../my.gguf"));
}

/// The store is on a file system of its own, which is too small at first. The test needs the right
/// to mount one in a namespace.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_what_has_arrived() {
    let mount = ["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"];
    let mounted = Command::new("unshare")
        .args(mount)
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) || !has_curl() {
        return println!("skipped: no file system can be mounted here, or no curl");
    }
    let folder = tempfile::tempdir().unwrap();
    // A pull does not interpret the contents.
    let body: Vec<u8> = (0..1_000_000u64).map(|i| ((i * i) >> 7) as u8).collect();
    let hub = Hub::start(body.clone());
    let script = r#"mount -t tmpfs -o size=512k tmpfs "$0" || exit 9
        "$@"; first=$?
        find "$0" -name model.part -size +256k | grep -q . || exit 8
        find "$0" -name "*.gguf" -type f | grep -q . && exit 7
        mount -o remount,size=2m "$0" && "$@" && cat "$0/$PULLED" && exit $((40 + first))"#;
    let inner = program();
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", script])
        .arg(folder.path())
        .arg(inner.get_program())
        .args(inner.get_args())
        .args(["pull", NAME])
        .env("PULLED", PATH)
        .env("BROOKLET_MODELS", folder.path())
        .env("HF_ENDPOINT", &hub.address)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(41), "{errors}");
    let complaints: Vec<&str> = errors
        .lines()
        .filter(|line| line.starts_with("brooklet: "))
        .collect();
    assert_eq!(complaints.len(), 1, "{errors}");
    assert!(
        complaints[0].contains("is full: it lacks ") && complaints[0].contains("KiB"),
        "{errors}"
    );
    assert!(
        output.stdout.ends_with(&body),
        "{} bytes",
        output.stdout.len()
    );
}

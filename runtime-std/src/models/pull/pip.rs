//! Models that lie in Python packages: `python3 -I -m pip download --no-deps`, then the members are
//! unpacked and joined. Packages that would have to be built, which runs their code, are refused.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use zip::ZipArchive;
use zip::result::ZipError;

use super::{Context, Event, Hashing, PullError, Watch, child, copy};
use crate::models::manifest::{Maker, PipPart};
use crate::models::store::folder_size;
use crate::system::running::Running;

/// Interval at which the size of a running download is measured.
const LOOK: Duration = Duration::from_millis(100);

/// Most bytes of what pip says that are kept.
const LOG: u64 = 1 << 18;

/// Largest file that is held in memory to be converted.
const LARGEST: u64 = 1 << 30;

/// Messages that pip and the libraries below it print when there is no network. The last is all
/// that is left with `PIP_RETRIES=0`; the manifests name packages that exist.
const NO_NETWORK: [&str; 7] = [
    "NewConnectionError",
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "Max retries exceeded",
    "ConnectTimeoutError",
    "ProxyError",
    "(from versions: none)",
];

/// Fetches the packages and joins their members to the unfinished file, or makes it of them,
/// checked.
pub(super) fn fetch(
    context: &Context<'_>,
    parts: &[PipPart],
    convert: Option<Maker>,
    watch: Watch<'_>,
) -> Result<String, PullError> {
    // Several members may be in one package, which then has a size at the first of them only.
    if convert.is_some() && !cfg!(feature = "convert") {
        // Not after the download.
        return Err(PullError::Package {
            what: context.manifest.name.clone(),
            reason: "it has to be converted, which needs the feature convert of this library"
                .into(),
        });
    }
    context
        .packages
        .set(parts.iter().map(|part| part.size).sum());
    let wheels: Vec<PathBuf> = parts
        .iter()
        .enumerate()
        .map(|(number, part)| {
            let is_same =
                |other: &PipPart| other.package == part.package && other.version == part.version;
            let first = parts.iter().position(is_same);
            wheel(context, first.unwrap_or(number), part, watch)
        })
        .collect::<Result<_, _>>()?;
    let path = context.part();
    let file = File::create(&path).map_err(context.io("create", &path))?;
    let mut out = Hashing::new(file);
    let members = parts.iter().zip(&wheels);
    match convert {
        None => {
            watch(Event::Stage("unpacking", context.shown_size()));
            for (part, wheel) in members {
                let limit = context.manifest.size.unwrap_or(u64::MAX);
                unpack(context, part, wheel, (&mut out, limit), watch)?;
            }
        }
        Some(maker) => {
            watch(Event::Stage("unpacking", 0));
            let mut files = Vec::new();
            for (part, wheel) in members {
                let mut member = Hashing::new(Vec::new());
                unpack(context, part, wheel, (&mut member, LARGEST), watch)?;
                files.push(member.into_inner());
            }
            make(context, maker, files, &mut out).inspect_err(|error| {
                if matches!(error, PullError::Package { .. }) {
                    wheels.iter().for_each(|wheel| _ = fs::remove_file(wheel));
                }
            })?;
        }
    }
    out.inner.sync_all().map_err(context.io("write", &path))?;
    let (size, digest) = out.finish();
    context.check(size, &digest, None).inspect_err(|_| {
        wheels.iter().for_each(|wheel| _ = fs::remove_file(wheel));
    })?;
    Ok(digest)
}

/// Makes the model's file of other programs' files.
#[cfg(feature = "convert")]
fn make(
    context: &Context<'_>,
    maker: Maker,
    mut files: Vec<Vec<u8>>,
    out: &mut Hashing<File>,
) -> Result<(), PullError> {
    use crate::convert::speech::{ConvertError, ctranslate2, moonshine};
    use brooklet_core::quant::Format::Q8_0;
    let of_members = |reason: String| PullError::Package {
        what: context.manifest.name.clone(),
        reason,
    };
    if maker == Maker::Whisper && files.len() > 2 {
        // One after the other, so that the model is in memory once.
        for piece in files.split_off(2) {
            files[1].extend(piece);
        }
    }
    let written = match (maker, &files[..]) {
        (Maker::Moonshine, [encoder, decoder, tokenizer]) => {
            let files = moonshine::Files {
                encoder,
                decoder,
                tokenizer,
            };
            moonshine::write(&files, Q8_0, out)
        }
        (Maker::Whisper, [vocabulary, model]) => {
            let files = ctranslate2::Files {
                model,
                vocabulary,
                config: None,
            };
            ctranslate2::write(&files, Q8_0, out)
        }
        (Maker::Moonshine | Maker::Whisper, _) => {
            return Err(of_members("it needs other files".into()));
        }
    };
    written.map(|_| ()).map_err(|error| match error {
        ConvertError::Write(error) => context.io("write", &context.part())(error),
        error => of_members(error.to_string()),
    })
}

/// Never called: [`fetch`] has refused before.
#[cfg(not(feature = "convert"))]
fn make(
    _context: &Context<'_>,
    _maker: Maker,
    _files: Vec<Vec<u8>>,
    _out: &mut Hashing<File>,
) -> Result<(), PullError> {
    unreachable!("this build converts nothing")
}

/// Returns the package of a part: from an earlier attempt, or downloaded.
fn wheel(
    context: &Context<'_>,
    number: usize,
    part: &PipPart,
    watch: Watch<'_>,
) -> Result<PathBuf, PullError> {
    let folder = context.staging.join(format!("package-{number}"));
    fs::create_dir_all(&folder).map_err(context.io("create the folder", &folder))?;
    // pip moves a package there when it is whole.
    if let Some(wheel) = find_wheel(&folder) {
        return Ok(wheel);
    }
    download(context, &folder, part, watch)?;
    find_wheel(&folder).ok_or_else(|| PullError::Package {
        what: format!("{}=={}", part.package, part.version),
        reason: "pip has downloaded no wheel".into(),
    })
}

fn find_wheel(folder: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    entries.find(|path| path.extension().is_some_and(|extension| extension == "whl"))
}

fn download(
    context: &Context<'_>,
    folder: &Path,
    part: &PipPart,
    watch: Watch<'_>,
) -> Result<(), PullError> {
    let wanted = format!("{}=={}", part.package, part.version);
    // pip's own unfinished file is kept beside the rest: its growth is the progress, and no second
    // disk fills up.
    let temporary = context.staging.join("pip");
    let _ = fs::remove_dir_all(&temporary);
    fs::create_dir_all(&temporary).map_err(context.io("create the folder", &temporary))?;
    let folder = fs::canonicalize(folder).map_err(context.io("open", folder))?;
    let temporary = fs::canonicalize(&temporary).map_err(context.io("open", &temporary))?;
    watch(Event::Stage("downloading", part.size));
    let no_python = || PullError::NoProgram {
        program: "python3",
        why: "this model comes from a Python package: install Python with pip",
    };
    let mut python = child::command("python3", &temporary).ok_or_else(no_python)?;
    python
        // Isolated: no code of the user's or of the working directory's.
        .args(["-I", "-m", "pip", "download", "--no-deps", "--no-input"])
        .args(["--disable-pip-version-check", "--only-binary", ":all:"])
        .args(["--progress-bar", "off", "-d"])
        .arg(folder)
        .arg(&wanted)
        .env("TMPDIR", &temporary)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut pip = Running::start(&mut python).map_err(|_| no_python())?;
    // Not in a file, which a full disk would leave empty.
    let log = pip
        .stderr()
        .map(|stderr| thread::spawn(move || beginning(stderr)));
    let status = loop {
        if let Some(status) = pip
            .poll()
            .map_err(context.io("wait for", Path::new("python3")))?
        {
            break status;
        }
        watch(Event::Bytes(folder_size(&temporary)));
        std::thread::sleep(LOOK);
    };
    let _ = fs::remove_dir_all(&temporary);
    if status.success() {
        return Ok(());
    }
    let log = log.and_then(|log| log.join().ok()).unwrap_or_default();
    Err(explain(context, wanted, &String::from_utf8_lossy(&log)))
}

/// The beginning of what a program says, which is read to its end.
fn beginning(mut from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What cannot be read was not said.
    let _ = from.by_ref().take(LOG).read_to_end(&mut bytes);
    let _ = io::copy(&mut from, &mut io::sink());
    bytes
}

/// The error that pip's log of a failure means.
fn explain(context: &Context<'_>, what: String, log: &str) -> PullError {
    if log.contains("No space left on device") || log.contains("Disk quota exceeded") {
        return context.disk_full();
    }
    if log.contains("No module named pip") {
        return PullError::NoProgram {
            program: "pip",
            why: "this model comes from a Python package: install pip for python3",
        };
    }
    if NO_NETWORK.iter().any(|sign| log.contains(sign)) {
        return PullError::Unreachable {
            place: "the Python package index".into(),
        };
    }
    // With a full disk, Python may not even get as far as to say so.
    if context.lacking().is_some_and(|bytes| bytes > 0) {
        return context.disk_full();
    }
    // pip's last message often only repeats the first error.
    let reason = log
        .lines()
        .find_map(|line| line.strip_prefix("ERROR: "))
        .or(log.lines().last());
    PullError::Download {
        program: "pip",
        what,
        reason: reason.unwrap_or("it gave no reason").trim().to_owned(),
    }
}

/// Appends the part's member to `out`, of at most `limit` bytes. A damaged package is removed: it
/// would be used again by the next attempt.
fn unpack<W: Write>(
    context: &Context<'_>,
    part: &PipPart,
    wheel: &Path,
    (out, limit): (&mut Hashing<W>, u64),
    watch: Watch<'_>,
) -> Result<(), PullError> {
    append(context, part, wheel, (out, limit), watch).inspect_err(|error| {
        if matches!(error, PullError::Package { .. }) {
            let _ = fs::remove_file(wheel);
        }
    })
}

fn append<W: Write>(
    context: &Context<'_>,
    part: &PipPart,
    wheel: &Path,
    (out, limit): (&mut Hashing<W>, u64),
    watch: Watch<'_>,
) -> Result<(), PullError> {
    let damaged = |error: &dyn std::fmt::Display| PullError::Package {
        what: format!("{} of {}=={}", part.member, part.package, part.version),
        reason: error.to_string(),
    };
    let file = File::open(wheel).map_err(context.io("open", wheel))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(&error))?;
    let mut member = archive.by_name(&part.member).map_err(|error| match error {
        ZipError::FileNotFound => damaged(&"there is no such member"),
        error => damaged(&error),
    })?;
    let limit = limit.saturating_sub(out.bytes);
    copy(&mut member, out, limit, watch).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData
        | std::io::ErrorKind::UnexpectedEof
        | std::io::ErrorKind::Other
        | std::io::ErrorKind::InvalidInput => damaged(&error),
        _ => context.io("write", &context.part())(error),
    })
}

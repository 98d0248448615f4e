//! Models on the Hugging Face hub: fetched by `curl`, which resumes, and checked against the digest that the hub itself states.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Context, Event, Hashing, PullError, Watch, copy};

/// How often the size of a running download is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Fetches the file to the unfinished file, checked.
pub(super) fn fetch(
    context: &Context<'_>,
    repository: &str,
    revision: &str,
    file: &str,
    watch: Watch<'_>,
) -> Result<(), PullError> {
    let hub = context.hub.trim_end_matches('/');
    let url = format!("{hub}/{repository}/resolve/{revision}/{file}");
    let what = format!("{repository}/{file}");
    watch(Event::Stage("asking the hub", 0));
    let headers = curl(
        context,
        &what,
        &["--silent", "--show-error", "--fail", "--head", &url],
        &mut || (),
    )?;
    let digest = linked_digest(&headers).ok_or_else(|| PullError::Package {
        what: what.clone(),
        reason: "the hub states no SHA-256 for it".into(),
    })?;
    let path = context.part();
    let target = path.to_string_lossy().into_owned();
    // What an interrupted download has left must be of the same file: its name says of which.
    let mark = context.staging.join("hub-digest");
    if fs::read_to_string(&mark).ok().as_deref() != Some(&digest) {
        let _ = fs::remove_file(&path);
        fs::write(&mark, &digest).map_err(context.io("write", &mark))?;
    }
    let size = || fs::metadata(&path).map_or(0, |file| file.len());
    // A server refuses to go on after the end.
    if size() < context.manifest.size {
        watch(Event::Stage("downloading", context.manifest.size));
        let arguments = [
            "--silent",
            "--show-error",
            "--fail",
            "--location",
            "--continue-at",
            "-",
            "--output",
            &target,
            &url,
        ];
        curl(context, &what, &arguments, &mut || watch(Event::Bytes(size())))?;
    }
    let mut done = File::open(&path).map_err(context.io("open", &path))?;
    watch(Event::Stage("checking", context.manifest.size));
    let mut sink = Hashing::new(std::io::sink());
    copy(&mut done, &mut sink, u64::MAX, watch).map_err(context.io("read", &path))?;
    done.sync_all().map_err(context.io("write", &path))?;
    let (size, found) = sink.finish();
    context.check(size, &found, Some(&digest))
}

/// The SHA-256 in the `X-Linked-ETag` header, which the hub sends for files in its large-file storage.
fn linked_digest(headers: &str) -> Option<String> {
    let value = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-linked-etag").then_some(value)
    })?;
    let digest = value.trim().trim_matches('"');
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| digest.to_ascii_lowercase())
}

/// Runs curl, calling `meanwhile` now and then until it ends; returns what it wrote.
fn curl(
    context: &Context<'_>,
    what: &str,
    arguments: &[&str],
    meanwhile: &mut dyn FnMut(),
) -> Result<String, PullError> {
    let missing = |_| PullError::NoProgram {
        program: "curl",
        why: "downloads from the hub need it: install curl",
    };
    let mut child = Command::new("curl")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    while let Ok(None) = child.try_wait() {
        meanwhile();
        std::thread::sleep(LOOK);
    }
    let output = child.wait_with_output().map_err(missing)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(match output.status.code() {
        // curl's manual: 5 to 7 could not resolve or connect, 28 timed out, 23 could not write.
        Some(5 | 6 | 7 | 28) => PullError::Unreachable {
            place: "the Hugging Face hub".into(),
        },
        Some(23) => PullError::DiskFull {
            folder: context.folder.to_path_buf(),
            needed: context.manifest.size,
        },
        _ => PullError::Download {
            program: "curl",
            what: what.to_owned(),
            reason: said
                .lines()
                .last()
                .unwrap_or("it gave no reason")
                .trim()
                .to_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hubs_digest_is_read_from_its_header() {
        let digest = "AB".repeat(32);
        let headers = format!("HTTP/2 302\r\netag: \"x\"\r\nX-Linked-ETag: \"{digest}\"\r\n\r\n");
        assert_eq!(linked_digest(&headers), Some("ab".repeat(32)));
        assert_eq!(linked_digest("x-linked-etag: \"d41d8cd9\"\r\n"), None);
        assert_eq!(linked_digest("HTTP/2 200\r\n"), None);
    }
}

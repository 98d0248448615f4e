//! Models on the Hugging Face hub: fetched by `curl`, hashed as they arrive, and checked against
//! the digest that the hub itself states.
//!
//! The hub answers `HEAD` for a large file with its SHA-256 in `X-Linked-ETag` and its size in
//! `X-Linked-Size`, and `GET` with a redirection to the bytes. A repository that was renamed is a
//! redirection to another path of the hub.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::{Context, Event, Hashing, PullError, Watch, child, copy};
use crate::models::store::DIGEST_MARK;
use crate::system::running::Running;

/// Names a token that the hub knows.
const TOKEN_VARIABLE: &str = "HF_TOKEN";

/// Most redirections of a renamed repository.
const REDIRECTIONS: usize = 5;

/// Delay before a broken connection is made again.
const PAUSE: Duration = Duration::from_millis(500);

/// A connection that brings less than a byte a second for a minute is dead.
const PATIENCE: [&str; 6] = [
    "--connect-timeout",
    "30",
    "--speed-limit",
    "1",
    "--speed-time",
    "60",
];

/// The hub's facts about a file.
struct Stated {
    digest: String,
    size: Option<u64>,
}

/// Fetches the file to the unfinished file, checked; returns its digest.
pub(super) fn fetch(
    context: &Context<'_>,
    repository: &str,
    revision: &str,
    file: &str,
    watch: Watch<'_>,
) -> Result<String, PullError> {
    let hub = context.hub.trim_end_matches('/');
    let path = escaped(&format!("/{repository}/resolve/{revision}/{file}"));
    let download = Download {
        context,
        url: format!("{hub}{path}"),
        what: format!("{repository}/{file}"),
    };
    watch(Event::Stage("asking the hub", 0));
    let stated = download.ask(hub)?;
    context.size.set(stated.size.or(context.manifest.size));
    context.packages.set(0);
    let mut out = download.resume(&stated, watch)?;
    if context.size.get().is_none_or(|size| out.bytes < size) {
        watch(Event::Stage("downloading", context.shown_size()));
        download.get_all(&mut out, watch)?;
    }
    out.inner
        .sync_all()
        .map_err(context.io("write", &context.part()))?;
    let (size, found) = out.finish();
    context.check(size, &found, Some(&stated.digest))?;
    Ok(found)
}

/// Most bytes of a repository's list of files.
const LONGEST_LIST: u64 = 4 << 20;

/// The hub's list of a repository's files: a JSON object whose `siblings` have an `rfilename` each.
pub(super) fn list(hub: &str, repository: &str, revision: &str) -> Result<Vec<u8>, PullError> {
    let path = escaped(&format!("/api/models/{repository}/revision/{revision}"));
    let url = format!("{}{path}", hub.trim_end_matches('/'));
    let mut arguments = PATIENCE.to_vec();
    arguments.extend(["--location", &url]);
    // There is no model's folder yet, and curl writes no file.
    let mut curl = curl(Path::new("/"), &arguments)?;
    let mut list = Vec::new();
    if let Some(out) = curl.stdout() {
        // A broken answer shows in curl's exit code.
        let _ = out.take(LONGEST_LIST).read_to_end(&mut list);
    }
    end(curl, repository)?;
    Ok(list)
}

/// One file of the hub.
struct Download<'a> {
    context: &'a Context<'a>,
    url: String,
    /// Its name in errors.
    what: String,
}

impl Download<'_> {
    /// Asks for the file's digest and size.
    fn ask(&self, hub: &str) -> Result<Stated, PullError> {
        let mut url = self.url.clone();
        for _ in 0..REDIRECTIONS {
            let mut curl = self.curl(&["--head", &url])?;
            let mut headers = Vec::new();
            // A broken answer shows in curl's exit code.
            let _ = curl.stdout().map(|mut out| out.read_to_end(&mut headers));
            end(curl, &self.what)?;
            let headers = String::from_utf8_lossy(&headers);
            if let Some(digest) = linked_digest(&headers) {
                let size = header(&headers, "x-linked-size").and_then(|size| size.parse().ok());
                return Ok(Stated { digest, size });
            }
            match header(&headers, "location")
                .filter(|path| path.starts_with('/') && !path.starts_with("//"))
            {
                Some(path) => url = format!("{hub}{path}"),
                None => break,
            }
        }
        Err(PullError::Package {
            what: self.what.clone(),
            reason: "the hub states no SHA-256 for it".into(),
        })
    }

    /// The unfinished file, open at its end, what is there already hashed. What an interrupted
    /// download has left must be of the same file: the mark beside it says of which it is.
    fn resume(&self, stated: &Stated, watch: Watch<'_>) -> Result<Hashing<File>, PullError> {
        let (context, path) = (self.context, self.context.part());
        let mark = context.staging.join(DIGEST_MARK);
        let have = fs::metadata(&path).map_or(0, |file| file.len());
        let is_same = fs::read_to_string(&mark).is_ok_and(|digest| digest == stated.digest);
        // Without a size, the end of the file cannot be recognised.
        if !is_same || stated.size.is_none_or(|size| have > size) {
            let _ = fs::remove_file(&path);
            fs::write(&mark, &stated.digest).map_err(context.io("write", &mark))?;
        }
        let options = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(&path);
        let mut file = options.map_err(context.io("open", &path))?;
        let mut hashed = Hashing::new(io::sink());
        if file.metadata().is_ok_and(|file| file.len() > 0) {
            watch(Event::Stage("checking the unfinished file", have));
            copy(&mut file, &mut hashed, u64::MAX, watch).map_err(context.io("read", &path))?;
        }
        Ok(hashed.onto(file))
    }

    /// Gets the rest of the file, however often the connection breaks, as long as every new one
    /// brings something. From a server that only sends whole files, such as some mirrors, it is got
    /// from the start, once.
    fn get_all(&self, out: &mut Hashing<File>, watch: Watch<'_>) -> Result<(), PullError> {
        let mut restarted = false;
        loop {
            let before = out.bytes;
            match self.get(out, watch) {
                Err(PullError::Interrupted { .. } | PullError::Unreachable { .. })
                    if out.bytes > before =>
                {
                    std::thread::sleep(PAUSE);
                }
                Err(PullError::NoRanges { .. }) if !restarted => {
                    restarted = true;
                    out.restart()
                        .map_err(self.context.io("write", &self.context.part()))?;
                }
                result => return result,
            }
        }
    }

    /// Appends the rest of the file, over one connection.
    fn get(&self, out: &mut Hashing<File>, watch: Watch<'_>) -> Result<(), PullError> {
        let from = out.bytes.to_string();
        let mut arguments = PATIENCE.to_vec();
        arguments.extend(["--location", &self.url]);
        if out.bytes > 0 {
            arguments.extend(["--continue-at", &from]);
        }
        let mut curl = self.curl(&arguments)?;
        let limit = self
            .context
            .size
            .get()
            .map_or(u64::MAX, |size| size - out.bytes);
        curl.stdout()
            .map_or(Ok(()), |mut bytes| copy(&mut bytes, out, limit, watch))
            .map_err(self.context.io("write", &self.context.part()))?;
        end(curl, &self.what)
    }

    fn curl(&self, arguments: &[&str]) -> Result<Running, PullError> {
        curl(self.context.staging, arguments)
    }
}

/// Percent-encodes the bytes that a path of a URL cannot hold (RFC 3986, section 2.3 and the
/// slash).
fn escaped(path: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    path.bytes().map(escape).collect()
}

/// The value of the first header of that name, which is in lower case.
fn header<'a>(headers: &'a str, wanted: &str) -> Option<&'a str> {
    headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then_some(value.trim())
    })
}

/// The SHA-256 in the `X-Linked-ETag` header, which the hub sends for files in its large-file
/// storage.
fn linked_digest(headers: &str) -> Option<String> {
    let digest = header(headers, "x-linked-etag")?.trim_matches('"');
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| digest.to_ascii_lowercase())
}

fn no_curl() -> PullError {
    PullError::NoProgram {
        program: "curl",
        why: "downloads from the hub need it: install curl",
    }
}

/// Starts curl in `folder`; it writes what it gets to its standard output.
fn curl(folder: &Path, arguments: &[&str]) -> Result<Running, PullError> {
    let token = token(std::env::var(TOKEN_VARIABLE).ok())?;
    let mut command = child::command("curl", folder).ok_or_else(no_curl)?;
    command.args(["--silent", "--show-error", "--fail"]);
    // Not as an argument, which other users of the machine could read. curl sends it to no other
    // host that it is redirected to.
    let config = token.map(|token| format!("header = \"Authorization: Bearer {token}\"\n"));
    if config.is_some() {
        command.args(["--config", "-"]).stdin(Stdio::piped());
    }
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut curl = Running::start(&mut command).map_err(|_| no_curl())?;
    if let (Some(config), Some(mut input)) = (config, curl.stdin()) {
        // If curl has ended already, its exit code says why.
        let _ = input.write_all(config.as_bytes());
    }
    Ok(curl)
}

/// The token of a person on the hub, for repositories that are private or ask for agreement.
fn token(variable: Option<String>) -> Result<Option<String>, PullError> {
    let Some(token) = variable.filter(|token| !token.trim().is_empty()) else {
        return Ok(None);
    };
    let token = token.trim();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~+/=".contains(&byte);
    if token.bytes().all(is_plain) {
        Ok(Some(token.to_owned()))
    } else {
        Err(PullError::Download {
            program: "curl",
            what: "from the hub".into(),
            reason: format!(
                "{TOKEN_VARIABLE} has other characters than letters, digits and -_.~+/="
            ),
        })
    }
}

/// Waits for curl and translates its exit code. The numbers are those of its manual.
fn end(curl: Running, what: &str) -> Result<(), PullError> {
    let (ended, said) = curl.finish().map_err(|_| no_curl())?;
    if ended.success() {
        return Ok(());
    }
    let what = what.to_owned();
    let said = String::from_utf8_lossy(&said);
    let reason = said.lines().last().unwrap_or("it gave no reason").trim();
    let status = reason
        .rsplit(' ')
        .next()
        .and_then(|status| status.parse().ok());
    Err(match (ended.code(), status) {
        // Name not resolved, or not connected.
        (Some(5..=7), _) => PullError::Unreachable {
            place: "the Hugging Face hub".into(),
        },
        // Less than was announced, time is up, nothing, sending, receiving, a broken stream of
        // HTTP/2 or of TLS.
        (Some(16 | 18 | 28 | 35 | 52 | 55 | 56 | 92), _) => PullError::Interrupted { what },
        (Some(33), _) => PullError::NoRanges { what },
        (Some(22), Some(404)) => PullError::NotThere { what },
        (Some(22), Some(status @ (401 | 403))) => PullError::Forbidden { what, status },
        _ => PullError::Download {
            program: "curl",
            what,
            reason: reason.to_owned(),
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

    #[test]
    fn paths_are_escaped() {
        assert_eq!(
            escaped("/a/b-_.~0/c d+ü(1).gguf"),
            "/a/b-_.~0/c%20d%2B%C3%BC%281%29.gguf"
        );
    }
}

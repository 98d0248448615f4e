//! Programs that download: found by whole paths only, started in a folder of ours, with the part of
//! the environment that they need.
//!
//! So nothing that lies in the working directory is ever run, whatever its name, and no variable
//! that is meant for another program changes what these do.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Variables that are passed on: who and where the user is, which language messages have, which
/// certificates are trusted, which Python is chosen. Those of Windows are what its programs cannot
/// start without.
const NEEDED: &[&str] = &[
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "NETRC",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_DIRS",
    "XDG_CONFIG_HOME",
    "CURL_CA_BUNDLE",
    "NIX_SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "PYENV_ROOT",
    "PYENV_VERSION",
    "APPDATA",
    "LOCALAPPDATA",
    "PATHEXT",
    "SYSTEMROOT",
    "USERPROFILE",
];

/// True for the variables above, pip's own, and proxies.
fn is_needed(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        NEEDED.contains(&name)
            || name.starts_with("PIP_")
            || name.to_ascii_lowercase().ends_with("_proxy")
    })
}

/// The command of `program`, to be started in `folder`; `None` if no folder of the path has it.
pub(super) fn command(program: &str, folder: &Path) -> Option<Command> {
    let folders = folders(&env::var_os("PATH")?);
    let found = find(program, &folders)?;
    let path = env::join_paths(folders).ok()?;
    let mut command = Command::new(found);
    command
        .current_dir(folder)
        .env_clear()
        .envs(env::vars_os().filter(|(name, _)| is_needed(name)))
        .env("PATH", path)
        .stdin(Stdio::null());
    Some(command)
}

/// Folders of the search path that are the same wherever one is.
fn folders(path: &OsString) -> Vec<PathBuf> {
    env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .collect()
}

fn find(program: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let name = format!("{program}{}", env::consts::EXE_SUFFIX);
    folders
        .iter()
        .map(|folder| folder.join(&name))
        .find(|path| is_program(path))
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_what_downloads_need() {
        for name in ["HOME", "PIP_INDEX_URL", "https_proxy", "NO_PROXY", "LANG"] {
            assert!(is_needed(OsStr::new(name)), "{name}");
        }
        for name in [
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "LD_PRELOAD",
            "TMPDIR",
            "TOKEN",
            "PROXY",
        ] {
            assert!(!is_needed(OsStr::new(name)), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn programs_are_found_by_whole_paths_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let [plain, program] = ["plain", "bin"].map(|name| {
            let folder = folder.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("fetch"), "").unwrap();
            folder
        });
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(program.join("fetch"), mode).unwrap();
        let path = env::join_paths([Path::new("."), Path::new("bin"), &plain, &program]).unwrap();
        let folders = folders(&path);
        assert_eq!(folders, [plain, program.clone()]);
        assert_eq!(find("fetch", &folders), Some(program.join("fetch")));
        assert_eq!(find("fetcher", &folders), None);
    }
}

//! Free disk, and rights of folders.

use std::path::Path;

/// Bytes that this user may still write to the disk of `folder`; `None` where the system does not
/// say.
#[cfg(unix)]
pub fn free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    // Some file systems know nothing about themselves.
    (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// True if this user may make files in `folder`.
#[cfg(unix)]
pub fn is_writable(folder: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// The number of this user.
#[cfg(unix)]
pub fn user() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw())
}

/// Bytes that this user may still write to the disk of `folder`; not known here.
#[cfg(not(unix))]
pub fn free(_: &Path) -> Option<u64> {
    None
}

/// True if this user may make files in `folder`; tried by making them here.
#[cfg(not(unix))]
pub fn is_writable(_: &Path) -> bool {
    true
}

/// The number of this user; there is none here.
#[cfg(not(unix))]
pub fn user() -> Option<u32> {
    None
}

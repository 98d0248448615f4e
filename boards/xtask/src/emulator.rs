//! Boots an image in QEMU and collects what it says over semihosting, with a deadline.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;

/// How QEMU stands in for a board: its arguments but for the image.
pub const MPS2_AN386: &[&str] = &[
    "-M",
    "mps2-an386",
    "-cpu",
    "cortex-m4",
    "-nographic",
    "-semihosting-config",
    "enable=on,target=native",
];

/// Runs `image` until it exits and returns its output.
///
/// # Errors
/// If QEMU cannot be started, the image does not exit before `deadline`, or exits with a failure; the message holds what it said.
pub fn run(image: &Path, board: &[&str], deadline: Duration) -> Result<String, Error> {
    let mut child = Command::new("qemu-system-arm")
        .args(board)
        .arg("-kernel")
        .arg(image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start qemu-system-arm: {e}"))?;
    let mut pipe = child.stdout.take().ok_or("no pipe to the emulator")?;
    let reader = thread::spawn(move || {
        let mut output = Vec::new();
        pipe.read_to_end(&mut output).map(|_| output)
    });
    let status = wait(&mut child, deadline)?;
    let output = reader
        .join()
        .map_err(|_| "the reader of the emulator's output panicked")??;
    let output = String::from_utf8_lossy(&output).into_owned();
    match status {
        Some(status) if status.success() => Ok(output),
        Some(status) => Err(format!("the firmware failed ({status}); it said:\n{output}").into()),
        None => Err(format!("the firmware did not exit within {deadline:?}; it said:\n{output}").into()),
    }
}

/// The exit status, or `None` after killing a child that was still running at the deadline.
fn wait(child: &mut Child, deadline: Duration) -> Result<Option<ExitStatus>, Error> {
    let end = Instant::now() + deadline;
    while Instant::now() < end {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

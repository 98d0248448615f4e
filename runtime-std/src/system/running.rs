//! A program that this process has started, and that does not outlive it: neither when a signal
//! ends this process, nor when whoever waits for the program gives up.

use std::io::{self, Read};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::at_end::Duty;

/// Time between two looks at a program that has closed its streams and is about to end.
const LOOK: Duration = Duration::from_millis(1);

/// A child process; dropping it ends it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Its number, until the system may give that to another process.
    number: Arc<Mutex<Option<u32>>>,
    _duty: Duty,
}

impl Running {
    /// Starts the program. A signal that comes at that moment ends it too: it is never without
    /// somebody who answers for it.
    ///
    /// # Errors
    /// The system's, if the program cannot be started.
    pub fn start(command: &mut Command) -> io::Result<Running> {
        let ((child, number), duty) = Duty::made(|| {
            let child = command.spawn()?;
            let number = Arc::new(Mutex::new(Some(child.id())));
            let of_signal = Arc::clone(&number);
            let work = move || {
                if let Some(number) = *of_signal.lock().unwrap_or_else(PoisonError::into_inner) {
                    end(number);
                }
            };
            io::Result::Ok(((child, number), work))
        })?;
        Ok(Running {
            child,
            number,
            _duty: duty,
        })
    }

    /// Its standard input, once, if that is a pipe.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its standard output, once, if that is a pipe.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its standard error, once, if that is a pipe.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Returns how it has ended, if it has.
    ///
    /// # Errors
    /// The system's.
    pub fn poll(&mut self) -> io::Result<Option<ExitStatus>> {
        let mut number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
        let status = self.child.try_wait()?;
        if status.is_some() {
            *number = None;
        }
        Ok(status)
    }

    /// Waits for its end; returns how it ended, and what it wrote to a standard error that is a
    /// pipe which nobody has taken.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(mut self) -> io::Result<(ExitStatus, Vec<u8>)> {
        drop(self.stdin());
        let mut said = Vec::new();
        if let Some(mut stderr) = self.stderr() {
            stderr.read_to_end(&mut said)?;
        }
        loop {
            if let Some(status) = self.poll()? {
                return Ok((status, said));
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
        if number.take().is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(unix)]
fn end(number: u32) {
    use rustix::process::{Pid, Signal, kill_process};
    let process = i32::try_from(number).ok().and_then(Pid::from_raw);
    // It may have ended by itself.
    let _ = process.map(|process| kill_process(process, Signal::TERM));
}

#[cfg(not(unix))]
fn end(_: u32) {}

#[cfg(all(test, unix))]
mod tests {
    use std::process::Stdio;
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    #[test]
    fn how_it_ended_and_what_it_said_is_returned() {
        let running = Running::start(&mut shell("echo lost; echo kept >&2; exit 7")).unwrap();
        let (status, said) = running.finish().unwrap();
        assert_eq!((status.code(), said), (Some(7), b"kept\n".to_vec()));
    }

    #[test]
    fn giving_up_ends_it() {
        let started = Instant::now();
        let mut running = Running::start(&mut shell("exec sleep 600")).unwrap();
        assert!(running.poll().unwrap().is_none());
        let mut stdout = running.stdout().unwrap();
        drop(running);
        // Nobody holds the other end any longer.
        stdout.read_to_end(&mut Vec::new()).unwrap();
        assert!(started.elapsed() < Duration::from_secs(300));
    }

    #[test]
    fn what_cannot_be_started_is_an_error() {
        // An emulator of processes may hear of it only when the child has ended.
        if let Ok(running) = Running::start(&mut Command::new("/nowhere/at/all")) {
            assert_eq!(running.finish().unwrap().0.code(), Some(127));
        }
    }
}

//! Work that is to be done even if a signal ends the process: removing an unfinished file, ending a
//! child process, giving a terminal back as it was.
//!
//! Whoever starts such a thing keeps a [`Duty`]. While it lives, [`do_all`] does the work; whoever
//! ends the process before its time calls that first. Dropping the duty takes the work back, since
//! it was done in the ordinary way or is no longer needed.

use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Work = Box<dyn FnOnce() + Send>;

/// Work by number, in the order of its registration.
static WORK: Mutex<Vec<(u64, Work)>> = Mutex::new(Vec::new());

fn registered() -> MutexGuard<'static, Vec<(u64, Work)>> {
    // Nobody leaves the list half changed.
    WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registered work, until it is dropped.
#[derive(Debug)]
#[must_use = "the work is taken back when this is dropped"]
pub struct Duty(u64);

impl Duty {
    /// Registers `work`, which must neither wait for long nor register anything.
    pub fn new(work: impl FnOnce() + Send + 'static) -> Duty {
        let mut all = registered();
        let number = all.last().map_or(0, |(number, _)| number + 1);
        all.push((number, Box::new(work)));
        Duty(number)
    }

    /// Registers the end of a child process, which must not have been waited for while this lives.
    pub fn ends(child: &Child) -> Duty {
        let process = child.id();
        Duty::new(move || end(process))
    }
}

#[cfg(unix)]
fn end(process: u32) {
    use rustix::process::{Pid, Signal, kill_process};
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    // It may have ended by itself.
    let _ = process.map(|process| kill_process(process, Signal::TERM));
}

#[cfg(not(unix))]
fn end(_: u32) {}

impl Drop for Duty {
    fn drop(&mut self) {
        registered().retain(|(number, _)| *number != self.0);
    }
}

/// Does all registered work, the newest first. Nobody else can register or take back any from now
/// on, so that the process must end: the lock is kept.
pub fn do_all() {
    let mut all = registered();
    while let Some((_, work)) = all.pop() {
        work();
    }
    std::mem::forget(all);
}

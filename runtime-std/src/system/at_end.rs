//! Work that is to be done even if a signal ends the process: removing an unfinished file, ending a
//! child process, giving a terminal back as it was.
//!
//! Whoever starts such a thing keeps a [`Duty`]. While it lives, [`do_all`] does the work; whoever
//! ends the process before its time calls that first. Dropping the duty takes the work back, since
//! it was done in the ordinary way or is no longer needed.

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
        Duty::among(&mut registered(), Box::new(work))
    }

    /// Makes a thing and registers how it is undone, with no moment between the two at which a
    /// signal could end the process and leave the thing. `make`, which must register nothing,
    /// returns the thing and that work.
    ///
    /// # Errors
    /// Those of `make`; then nothing is registered.
    pub fn made<T, W, E>(make: impl FnOnce() -> Result<(T, W), E>) -> Result<(T, Duty), E>
    where
        W: FnOnce() + Send + 'static,
    {
        let mut all = registered();
        let (thing, work) = make()?;
        Ok((thing, Duty::among(&mut all, Box::new(work))))
    }

    fn among(all: &mut Vec<(u64, Work)>, work: Work) -> Duty {
        let number = all.last().map_or(0, |(number, _)| number + 1);
        all.push((number, work));
        Duty(number)
    }
}

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

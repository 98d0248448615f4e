//! How the engine asks for threads.
//!
//! Core has no threads of its own: it divides its work into numbered jobs and hands them to whatever the caller brings. A board
//! brings [`SingleThread`]; the host runtime brings a spin-then-park pool. Results never depend on which worker does which job,
//! so any implementation gives the same bits.

/// Workers that do numbered jobs together.
pub trait Threads: Sync {
    /// How many workers there are, the calling thread included: at least 1, and the same for the value's whole life. The engine
    /// keeps scratch for each.
    fn workers(&self) -> usize;

    /// Calls `job(worker, index)` exactly once for every `index < jobs`, on any worker and in any order, and returns when all calls
    /// have returned. What the jobs wrote is then visible to the caller. `worker` is less than [`Threads::workers`], and no two
    /// calls that run at the same time are given the same one.
    ///
    /// # Panics
    /// If a job panics, after every started job has ended; which of the other jobs ran is then not specified. A job that calls
    /// `run` of the same workers may panic or never return.
    fn run(&self, jobs: usize, job: &(dyn Fn(usize, usize) + Sync));
}

/// The calling thread alone, doing the jobs in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleThread;

impl Threads for SingleThread {
    fn workers(&self) -> usize {
        1
    }

    fn run(&self, jobs: usize, job: &(dyn Fn(usize, usize) + Sync)) {
        for index in 0..jobs {
            job(0, index);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_thread_does_every_job_in_order() {
        let next = AtomicUsize::new(0);
        SingleThread.run(5, &|worker, index| {
            assert_eq!(worker, 0);
            assert_eq!(next.fetch_add(1, Ordering::Relaxed), index);
        });
        assert_eq!(next.into_inner(), 5);
        assert_eq!(SingleThread.workers(), 1);
    }
}

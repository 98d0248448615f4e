//! The interface through which the engine uses threads.
//!
//! Core has no threads of its own: it divides its work into numbered jobs and hands them to the
//! caller's implementation of [`Threads`]. A board passes [`SingleThread`]; the host runtime passes
//! a spin-then-park pool. Results never depend on which worker does which job, so any
//! implementation gives the same bits.

/// Workers that run numbered jobs together.
pub trait Threads: Sync {
    /// Number of workers, including the calling thread: at least 1, and the same for the value's
    /// whole life. The engine keeps scratch for each worker.
    fn workers(&self) -> usize;

    /// Calls `job(worker, index)` exactly once for every `index < jobs`, on any worker and in any
    /// order, and returns when all calls have returned. Everything that the jobs wrote is then
    /// visible to the caller. `worker` is less than [`Threads::workers`], and no two calls that run
    /// at the same time get the same `worker`.
    ///
    /// # Panics
    /// If a job panics, after every started job has ended; it is not specified which of the other
    /// jobs ran. A job that calls `run` of the same workers may panic or never return.
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

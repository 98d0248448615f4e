//! Threads for the kernels.
//!
//! A token of a small model is some two hundred short parallel sections, microseconds each, so
//! waking threads through the operating system for every one would cost more than the work. Workers
//! therefore spin for about [`SPIN`] after their last job and only then park. Jobs are claimed one
//! at a time from an atomic counter, so that a worker that the system has preempted delays nothing
//! but the job it holds: a worker that does not show up at all is not waited for.
//!
//! Another program that computes on a worker's processor preempts it for milliseconds, as a rule
//! while it holds a job, and all others wait for that. If a worker costs more time by this than it
//! brings, it rests for a while: the others are faster alone. It then tries again; if it still
//! costs too much, its next rest is twice as long ([`REST`], [`LONGEST_REST`]).
//!
//! # Why it is sound
//!
//! `ticket` packs the number of jobs and the next index into one word. A worker claims index `i` by
//! adding one to it, and holds a claim only if `i` is below the number of jobs *in the same word*;
//! only then does it read `job`. `run` writes `job` before it publishes a ticket with jobs in it,
//! and returns only after every claimed index was counted in `done`. So whoever reads `job` holds a
//! claim that `run` still waits for: the closure is alive and `job` is not being written.
#![allow(
    unsafe_code,
    reason = "lends a closure's borrow to threads that outlive it"
)]

mod rests;

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use brooklet_core::threads::Threads;

use super::cores;
use rests::Rests;
pub use rests::{LATE, LONGEST_REST, REST};

/// Time that an idle worker spins before it parks, where there is a processor for every worker.
pub const SPIN: Duration = Duration::from_micros(100);

/// Most workers of a pool.
pub const MAX_WORKERS: usize = 64;

/// Bytes of its stack that a worker makes resident when it starts, so that the first deep call or
/// the first sleep, whenever it comes, takes no memory: 12 KiB were seen in use.
const STACK: usize = 16 << 10;

/// Most jobs of one run: the ticket's fields have 32 bits, and every worker may overshoot the count
/// once.
const MAX_JOBS: usize = u32::MAX as usize - MAX_WORKERS;

type Job = dyn Fn(usize, usize) + Sync;

/// A value on a cache line of its own (two, as processors fetch lines in pairs).
#[repr(align(128))]
#[derive(Default)]
struct Line<T>(T);

/// The state that the threads of a pool share.
struct Shared {
    /// Jobs in the upper half, next index in the lower.
    ticket: Line<AtomicU64>,
    /// Jobs of the current run that have ended; before the first run, workers that have started.
    done: Line<AtomicUsize>,
    /// The current run's closure; the module's text states who may access it, and when.
    job: UnsafeCell<*const Job>,
    /// A job of the current run has panicked.
    panicked: AtomicBool,
    /// The pool is being dropped.
    stop: AtomicBool,
    /// Workers that are parked or about to be.
    parked: AtomicUsize,
    /// The caller is parked, or about to be, until `done` reaches the number of jobs.
    caller_waits: AtomicBool,
    /// Guards the three conditions below; holds nothing.
    lock: Mutex<()>,
    work: Condvar,
    finished: Condvar,
    /// Ends a rest early, when the pool is dropped.
    end_of_rest: Condvar,
    spin: Duration,
    rests: Rests,
}

// SAFETY: every field but `job` is `Sync`. `job` is written by `run`, of which only one is active
// at a time (`Pool::turn`), while no claim is held, and read only by holders of a claim (module
// text). What it points to is a `Sync` closure.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is only followed under the rules above, on any thread.
unsafe impl Send for Shared {}

/// Threads that spin, then park: core's [`Threads`] for a machine with an operating system.
///
/// Worker 0 is the thread that calls [`Threads::run`]. Nothing is allocated after [`Pool::new`],
/// unless a job panics.
///
/// ```
/// use brooklet::core::threads::Threads;
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// let pool = brooklet::system::pool::Pool::new(2)?;
/// let sum = AtomicUsize::new(0);
/// pool.run(10, &|_worker, index| {
///     sum.fetch_add(index, Ordering::Relaxed);
/// });
/// assert_eq!(sum.into_inner(), 45);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Held during a run: callers on several threads take turns.
    turn: Mutex<()>,
}

impl Pool {
    /// A pool of `workers` workers, the calling thread included: at least 1, at most
    /// [`MAX_WORKERS`] (more are not started).
    ///
    /// # Errors
    /// If the system starts no more threads.
    pub fn new(workers: usize) -> std::io::Result<Pool> {
        let workers = workers.clamp(1, MAX_WORKERS);
        let processors = thread::available_parallelism().map_or(1, |n| n.get());
        let shared = Arc::new(Shared {
            ticket: Line::default(),
            done: Line::default(),
            job: UnsafeCell::new(&|_: usize, _: usize| {}),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            parked: AtomicUsize::new(0),
            caller_waits: AtomicBool::new(false),
            lock: Mutex::new(()),
            work: Condvar::new(),
            finished: Condvar::new(),
            end_of_rest: Condvar::new(),
            rests: Rests::new(workers),
            // A worker that spins on a processor that another one needs only delays it.
            spin: if workers <= processors {
                SPIN
            } else {
                SPIN / 50
            },
        });
        let mut pool = Pool {
            shared,
            threads: Vec::with_capacity(workers - 1),
            turn: Mutex::new(()),
        };
        for worker in 1..workers {
            let shared = Arc::clone(&pool.shared);
            let thread = thread::Builder::new()
                .name(format!("brooklet-{worker}"))
                .spawn(move || shared.serve(worker))?;
            pool.threads.push(thread);
        }
        touch_stack();
        // A thread allocates while it starts: let that be over.
        while pool.shared.done.0.load(Ordering::SeqCst) < pool.threads.len() {
            thread::yield_now();
        }
        Ok(pool)
    }

    /// The number of workers that suits this machine: one for every processor that this process may
    /// use, by its affinity mask and its group's share of time; where cores differ in size, for
    /// every big one, because the last part of the work takes as long as the slowest core.
    pub fn default_workers() -> usize {
        let allowed = thread::available_parallelism().map_or(1, |n| n.get());
        let big = cores::big_cores().unwrap_or(allowed);
        allowed.min(big).clamp(1, MAX_WORKERS)
    }
}

impl Threads for Pool {
    fn workers(&self) -> usize {
        self.threads.len() + 1
    }

    fn run(&self, jobs: usize, job: &(dyn Fn(usize, usize) + Sync)) {
        if jobs <= 1 || self.threads.is_empty() {
            let _turn = lock(&self.turn);
            (0..jobs).for_each(|index| job(0, index));
            return;
        }
        assert!(jobs <= MAX_JOBS, "{jobs} jobs are too many for one run");
        let turn = lock(&self.turn);
        let shared = &*self.shared;
        let job: *const (dyn Fn(usize, usize) + Sync + '_) = job;
        // SAFETY: only the lifetime in the type changes. The pointer is followed by holders of a
        // claim only, and this function returns (or unwinds) only after all claims of this run are
        // given back, while `job`'s borrow lasts.
        let job: *const Job = unsafe { std::mem::transmute(job) };
        // SAFETY: `turn` makes this the only run, and the last run ended with all its claims given
        // back, so nobody reads `job`.
        unsafe { *shared.job.get() = job };
        shared.done.0.store(0, Ordering::Relaxed);
        shared.panicked.store(false, Ordering::Relaxed);
        let began = Instant::now();
        shared.publish(jobs);
        let (own_jobs, own_panic) = shared.work_off(0);
        shared.wait_for_all(jobs, (own_jobs > 0).then_some(began));
        drop(turn);
        if let Some(panic) = own_panic {
            resume_unwind(panic);
        }
        assert!(
            !shared.panicked.load(Ordering::Relaxed),
            "a job panicked on another thread"
        );
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.lock));
        self.shared.work.notify_all();
        self.shared.end_of_rest.notify_all();
        for thread in self.threads.drain(..) {
            // A worker catches the panics of jobs, and has nothing else to panic with.
            let _ = thread.join();
        }
    }
}

type Panic = Box<dyn std::any::Any + Send>;

impl Shared {
    /// Offers indices `0..jobs` to all workers.
    fn publish(&self, jobs: usize) {
        // Sequentially consistent, as are a worker's announcement that it parks and its last look
        // at the ticket: one of the two sees the other, so that no worker sleeps through a run.
        self.ticket.0.store((jobs as u64) << 32, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.lock));
            self.work.notify_all();
        }
    }

    /// An index to work on and the number of jobs of its run, if one is left.
    fn claim(&self) -> Option<(usize, usize)> {
        let left = |ticket: u64| {
            ((ticket as u32 as u64) < ticket >> 32)
                .then_some((ticket as u32 as usize, (ticket >> 32) as usize))
        };
        // Looking first keeps idle workers from writing to the line, and bounds how far the index
        // overshoots.
        left(self.ticket.0.load(Ordering::SeqCst))?;
        left(self.ticket.0.fetch_add(1, Ordering::SeqCst))
    }

    /// Does jobs until none is left. Returns their number, and the panic of one, if there was any.
    fn work_off(&self, worker: usize) -> (usize, Option<Panic>) {
        let (mut done, mut panic) = (0, None);
        while let Some((index, jobs)) = self.claim() {
            self.rests.mark(worker, true);
            done += 1;
            // SAFETY: index `index` is claimed and not yet counted in `done` (module text).
            let job = unsafe { &**self.job.get() };
            // After a panic the rest is only counted: the results are lost anyway.
            if !self.panicked.load(Ordering::Relaxed)
                && let Err(caught) = catch_unwind(AssertUnwindSafe(|| job(worker, index)))
            {
                self.panicked.store(true, Ordering::Relaxed);
                panic = Some(caught);
            }
            self.rests.mark(worker, false);
            // Releases what the job wrote to whoever waits for the count. The caller may start its
            // next run as soon as it has seen the last one: nothing of this run may be touched
            // after it.
            if self.done.0.fetch_add(1, Ordering::SeqCst) + 1 == jobs
                && self.caller_waits.load(Ordering::SeqCst)
            {
                drop(lock(&self.lock));
                self.finished.notify_all();
            }
        }
        (done, panic)
    }

    /// Returns when all jobs of the current run have ended. The caller has worked since `began`;
    /// if it got no job, nothing says how long one takes, and nobody is late.
    fn wait_for_all(&self, jobs: usize, began: Option<Instant>) {
        let all = || self.done.0.load(Ordering::SeqCst) == jobs;
        let wait_began = Instant::now();
        if spin_until(wait_began, self.spin, all) {
            return;
        }
        // The time after which a worker is late; none if that is over or unknown.
        let mut limit = began.map(|began| wait_began.duration_since(began).max(LATE));
        let mut late = 0;
        self.caller_waits.store(true, Ordering::SeqCst);
        let mut guard = lock(&self.lock);
        while !all() {
            let Some(time) = limit else {
                let waited = self.finished.wait(guard);
                guard = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let waited = self.finished.wait_timeout(guard, time);
            let is_over;
            (guard, is_over) = waited.unwrap_or_else(PoisonError::into_inner);
            if is_over.timed_out() {
                late = self.rests.at_work();
                limit = None;
            }
        }
        self.caller_waits.store(false, Ordering::SeqCst);
        drop(guard);
        if late != 0 {
            self.rests.judge(late, wait_began.elapsed());
        }
    }

    /// Waits until the worker's rest is over, or the pool is dropped.
    fn rest(&self, worker: usize) {
        if self.rests.left(worker).is_none() {
            return;
        }
        let mut guard = lock(&self.lock);
        while let (Some(left), false) = (self.rests.left(worker), self.stop.load(Ordering::SeqCst))
        {
            let waited = self.end_of_rest.wait_timeout(guard, left);
            (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Runs a worker until the pool is dropped.
    fn serve(&self, worker: usize) {
        touch_stack();
        self.done.0.fetch_add(1, Ordering::SeqCst);
        loop {
            // The caller reports that a job has panicked; the payload itself was printed by the
            // panic hook.
            let _ = self.work_off(worker);
            self.rest(worker);
            let wanted = || self.open() || self.stop.load(Ordering::SeqCst);
            if !spin_until(Instant::now(), self.spin, wanted) {
                self.parked.fetch_add(1, Ordering::SeqCst);
                let mut guard = lock(&self.lock);
                while !wanted() {
                    guard = self
                        .work
                        .wait(guard)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                drop(guard);
                self.parked.fetch_sub(1, Ordering::SeqCst);
            }
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// True if an index is left to claim.
    fn open(&self) -> bool {
        let ticket = self.ticket.0.load(Ordering::SeqCst);
        (ticket as u32 as u64) < ticket >> 32
    }
}

/// Writes to [`STACK`] bytes of the calling thread's stack.
#[inline(never)]
fn touch_stack() {
    std::hint::black_box([0u8; STACK]);
}

/// Spins until `condition` holds or `limit` has passed since `start`; returns true if it holds.
fn spin_until(start: Instant, limit: Duration, condition: impl Fn() -> bool) -> bool {
    // The clock is read once in a while only.
    const LOOKS: usize = 32;
    loop {
        for _ in 0..LOOKS {
            if condition() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() >= limit {
            return condition();
        }
    }
}

/// Locks a mutex that guards no data, so that poison means nothing.
fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_done_once_whatever_the_workers() {
        for workers in 1..=8 {
            let pool = Pool::new(workers).unwrap();
            assert_eq!(pool.workers(), workers);
            for jobs in [0, 1, 2, workers, 7, 100] {
                for _ in 0..50 {
                    let counts: Vec<AtomicUsize> = (0..jobs).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(jobs, &|worker, index| {
                        assert!(worker < workers);
                        counts[index].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(
                        counts
                            .iter()
                            .all(|count| count.load(Ordering::Relaxed) == 1)
                    );
                }
            }
        }
    }

    #[test]
    fn a_worker_does_one_job_at_a_time() {
        let pool = Pool::new(4).unwrap();
        let busy: Vec<AtomicBool> = (0..4).map(|_| AtomicBool::new(false)).collect();
        for _ in 0..200 {
            pool.run(64, &|worker, _| {
                assert!(!busy[worker].swap(true, Ordering::SeqCst));
                std::hint::spin_loop();
                assert!(busy[worker].swap(false, Ordering::SeqCst));
            });
        }
    }

    #[test]
    fn plain_writes_are_seen_after_the_run_and_in_the_next() {
        use brooklet_core::arena::Shared;
        let pool = Pool::new(3).unwrap();
        let mut data = [0u64; 96];
        for round in 1..=500u64 {
            let shared = Shared::new(&mut data, 96, 8);
            pool.run(shared.parts(), &|_, part| {
                shared
                    .take(part)
                    .row_mut(0)
                    .iter_mut()
                    .for_each(|v| *v += part as u64 + 1)
            });
            assert!(
                data.iter()
                    .enumerate()
                    .all(|(i, &v)| v == round * (i as u64 / 8 + 1))
            );
        }
    }

    #[test]
    fn workers_come_back_after_they_have_parked() {
        let pool = Pool::new(3).unwrap();
        let done = AtomicUsize::new(0);
        for _ in 0..20 {
            thread::sleep(SPIN * 4);
            // The jobs outlast the caller's spinning as well, so that it parks too.
            pool.run(3, &|_, _| {
                thread::sleep(SPIN * 4);
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(done.into_inner(), 60);
    }

    #[test]
    fn a_worker_that_costs_more_than_it_brings_rests_and_comes_back() {
        let pool = Pool::new(2).unwrap();
        let rests = &pool.shared.rests;
        let until_rested = || {
            while rests.left(1).is_some() {
                thread::sleep(LATE);
            }
        };
        // Two jobs, one for each worker, since neither ends before both have begun.
        let both = |late: Duration| {
            let begun = AtomicUsize::new(0);
            pool.run(2, &|worker, _| {
                begun.fetch_add(1, Ordering::SeqCst);
                while begun.load(Ordering::SeqCst) < 2 {
                    thread::yield_now();
                }
                if worker == 1 {
                    thread::sleep(late);
                }
            });
        };
        let mut last = Duration::ZERO;
        while last < LONGEST_REST {
            both(LATE * 20);
            let rest = rests.last(1);
            // On a machine that stands still between two runs it was not worth a rest.
            let longer = (2 * last).clamp(REST, LONGEST_REST);
            assert!(rest == last / 2 || rest == longer);
            last = rest;
            until_rested();
        }
        // It has come back each time, and does so after the last.
        both(Duration::ZERO);
    }

    #[test]
    fn a_caller_without_a_job_finds_nobody_late() {
        let pool = Pool::new(2).unwrap();
        let shared = &pool.shared;
        shared.rests.mark(1, true);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(8 * LATE);
                shared.done.0.store(1, Ordering::SeqCst);
                drop(lock(&shared.lock));
                shared.finished.notify_all();
            });
            shared.done.0.store(0, Ordering::SeqCst);
            shared.wait_for_all(1, None);
        });
        assert_eq!(shared.rests.last(1), Duration::ZERO);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_works_on() {
        for workers in [1, 2, 5] {
            let pool = Pool::new(workers).unwrap();
            for bad in [0, 3, 9] {
                let caught = catch_unwind(AssertUnwindSafe(|| {
                    pool.run(10, &|_, index| {
                        assert!(index != bad, "expected by this test")
                    });
                }));
                assert!(caught.is_err());
                let done = AtomicUsize::new(0);
                pool.run(10, &|_, _| _ = done.fetch_add(1, Ordering::Relaxed));
                assert_eq!(done.into_inner(), 10);
            }
        }
    }

    #[test]
    fn several_callers_take_turns() {
        let pool = Pool::new(2).unwrap();
        let done = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    (0..100)
                        .for_each(|_| pool.run(5, &|_, _| _ = done.fetch_add(1, Ordering::Relaxed)))
                });
            }
        });
        assert_eq!(done.into_inner(), 1500);
    }
}

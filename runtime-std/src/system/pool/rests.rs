//! Rests of workers for which the machine has no processor.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Line;

/// A worker is late if the caller waits for it at least this long, and longer than its own work
/// took: short sections take microseconds, and the system's time slices milliseconds.
pub const LATE: Duration = Duration::from_millis(1);

/// First rest of a worker that costs more than it brings.
pub const REST: Duration = Duration::from_millis(10);

/// Longest rest.
pub const LONGEST_REST: Duration = Duration::from_millis(160);

/// The workers other than the caller, as the caller sees them. The caller is worker 0.
pub(super) struct Rests {
    others: Vec<Line<Worker>>,
    /// The start of the clock that rests go by.
    made: Instant,
}

/// Times in microseconds of [`Rests::now`] and of [`computed`]. The caller writes all but
/// `is_at_work`.
#[derive(Default)]
struct Worker {
    /// It holds a job.
    is_at_work: AtomicBool,
    /// The end of its last rest or, without one, of its last lateness; 0 if it was never late.
    rests_until: AtomicU64,
    /// The moment of that decision, and the caller's [`computed`] then.
    judged: AtomicU64,
    caller_computed: AtomicU64,
    /// The length of its last rest, halved by each lateness that was worth none.
    last: AtomicU64,
}

impl Rests {
    pub(super) fn new(workers: usize) -> Self {
        Rests {
            others: (1..workers).map(|_| Line::default()).collect(),
            made: Instant::now(),
        }
    }

    fn worker(&self, worker: usize) -> Option<&Worker> {
        let Line(worker) = self.others.get(worker.checked_sub(1)?)?;
        Some(worker)
    }

    /// Notes that a worker holds a job, or has ended it.
    pub(super) fn mark(&self, worker: usize, is_at_work: bool) {
        if let Some(worker) = self.worker(worker) {
            worker.is_at_work.store(is_at_work, Ordering::Relaxed);
        }
    }

    /// Returns what is left of a worker's rest.
    pub(super) fn left(&self, worker: usize) -> Option<Duration> {
        let until = self.worker(worker)?.rests_until.load(Ordering::Relaxed);
        // Without a look at the clock for one that was never late.
        let left = until.checked_sub(if until == 0 { 0 } else { self.now() })?;
        (left > 0).then_some(Duration::from_micros(left))
    }

    /// Returns the workers that hold a job: bit `i` stands for worker `i + 1`.
    pub(super) fn at_work(&self) -> u64 {
        let holds = |(i, Line(worker)): (usize, &Line<Worker>)| {
            u64::from(worker.is_at_work.load(Ordering::Relaxed)) << i
        };
        self.others.iter().enumerate().map(holds).sum()
    }

    fn now(&self) -> u64 {
        micros(self.made.elapsed())
    }

    /// Decides by [`next_rest`] whether the workers `late` rest, for which all have waited for
    /// `waited`.
    pub(super) fn judge(&self, late: u64, waited: Duration) {
        let (now, workers) = (self.now(), self.others.len() as u64 + 1);
        let computed = computed();
        for (i, Line(worker)) in self.others.iter().enumerate() {
            if late >> i & 1 == 0 {
                continue;
            }
            let together = now.saturating_sub(worker.rests_until.load(Ordering::Relaxed));
            let time = now.saturating_sub(worker.judged.swap(now, Ordering::Relaxed));
            let before = worker.caller_computed.swap(computed, Ordering::Relaxed);
            let lost = time
                .saturating_sub(computed.saturating_sub(before))
                .max(micros(waited));
            let last = worker.last.load(Ordering::Relaxed);
            let rest = next_rest(lost, together, workers, last);
            let (rest, last) = rest.map_or((0, last / 2), |rest| (rest, rest));
            worker.last.store(last, Ordering::Relaxed);
            worker.rests_until.store(now + rest, Ordering::Relaxed);
        }
    }

    /// Returns the length of a worker's last rest, halved by each lateness that was worth none.
    #[cfg(test)]
    pub(super) fn last(&self, worker: usize) -> Duration {
        let last = |worker: &Worker| worker.last.load(Ordering::Relaxed);
        Duration::from_micros(self.worker(worker).map_or(0, last))
    }
}

/// The length of a late worker's rest, in microseconds; none if it does not rest. For `lost` of the
/// time `together` since its last rest, which was `last` long, the caller had no processor, waiting
/// or preempted itself.
///
/// Of `workers` one brings its share of the work. If about that share of the time is lost, then the
/// machine has no processor for this worker, and without it the others lose less. (Beside one busy
/// process, two threads on two processors lose 0.46 of their time; a process that works for 2 ms in
/// 16 costs them 0.12.)
fn next_rest(lost: u64, together: u64, workers: u64, last: u64) -> Option<u64> {
    (3 * lost * workers > 2 * together)
        .then_some((2 * last).clamp(micros(REST), micros(LONGEST_REST)))
}

/// Time that the calling thread has had a processor, in microseconds; 0 where the system does not
/// tell.
fn computed() -> u64 {
    #[cfg(unix)]
    {
        use rustix::time::{ClockId, clock_gettime};
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
    }
    #[cfg(not(unix))]
    0
}

/// Whole microseconds.
const fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_rests_if_it_costs_more_than_it_brings() {
        let (first, longest) = (micros(REST), micros(LONGEST_REST));
        // A busy process on one of two processors: nearly half of the time is lost.
        assert_eq!(next_rest(40_000, 86_000, 2, 0), Some(first));
        assert_eq!(next_rest(4_000, 8_000, 2, first), Some(2 * first));
        assert_eq!(next_rest(4_000, 8_000, 2, longest), Some(longest));
        // One that works for 2 ms in 16.
        assert_eq!(next_rest(2_000, 16_700, 2, first), None);
        // A worker of four brings less.
        assert_eq!(next_rest(2_000, 8_000, 4, 0), Some(first));
        assert_eq!(next_rest(2_000, 8_000, 2, 0), None);
    }
}

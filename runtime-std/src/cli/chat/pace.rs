//! Time per token, at the start and now.

use std::time::{Duration, Instant};

/// Number of times that are kept, of the first tokens and of the last ones.
const KEPT: usize = 64;

/// Notes when tokens come.
pub struct Pace {
    first: Vec<Duration>,
    last: [Duration; KEPT],
    count: usize,
    before: Option<Instant>,
}

impl Pace {
    pub fn new() -> Pace {
        Pace {
            first: Vec::with_capacity(KEPT),
            last: [Duration::ZERO; KEPT],
            count: 0,
            before: None,
        }
    }

    /// Notes the start of an answer. The time to its first token belongs to the question.
    pub fn begin(&mut self) {
        self.before = None;
    }

    /// Notes a token at `now`.
    pub fn token(&mut self, now: Instant) {
        if let Some(before) = self.before.replace(now) {
            let time = now - before;
            if self.first.len() < KEPT {
                self.first.push(time);
            }
            self.last[self.count % KEPT] = time;
            self.count += 1;
        }
    }

    /// Medians of the first and of the last times; `None` before there are any.
    pub fn medians(&self) -> Option<(Duration, Duration)> {
        let last = &self.last[..self.count.min(KEPT)];
        Some((median(&self.first)?, median(last)?))
    }
}

fn median(times: &[Duration]) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_and_last_times_are_told_apart() {
        let mut pace = Pace::new();
        assert_eq!(pace.medians(), None);
        let mut now = Instant::now();
        pace.token(now);
        for i in 0..200 {
            now += Duration::from_millis(if i < 100 { 3 } else { 5 });
            pace.token(now);
        }
        // The time to the first token of an answer does not count.
        pace.begin();
        pace.token(now + Duration::from_secs(9));
        let (first, last) = pace.medians().unwrap();
        assert_eq!((first.as_millis(), last.as_millis()), (3, 5));
        assert_eq!(pace.count, 200);
    }
}

//! The number of threads with which a model decodes fastest on this machine, by trying.
//!
//! A token waits for the memory more than for the processors: from some number on, more threads
//! make it no faster, and on small machines slower (a Raspberry Pi 5 decodes fastest with two of
//! its four cores). The text does not depend on it.

use std::time::{Duration, Instant};

use brooklet_core::cache::{ElementType, PolicyKind};

use crate::Error;
use crate::engine::{Engine, Resources};
use crate::model::Model;
use crate::notice::Trial;
use crate::planning::Settings;
use crate::system::pool::Pool;

/// Time for a number of threads, and most tokens in it.
const TIME: Duration = Duration::from_millis(60);
const TOKENS: usize = 16;

/// Share of the best rate that a smaller number of threads must reach to be taken instead.
const ENOUGH: f64 = 0.97;

/// Decodes a few tokens with each of some numbers of threads, up to one for every processor that
/// this process may use; returns what was tried, fewest threads first.
///
/// # Errors
/// As [`Engine::new`] and [`Stream::feed`](brooklet_core::stream::Stream::feed).
pub fn try_workers(model: &Model) -> Result<Vec<Trial>, Error> {
    let most = Pool::default_workers();
    numbers(most)
        .map(|workers| {
            Ok(Trial {
                workers,
                tokens_per_second: rate(&model.with_workers(workers))?,
            })
        })
        .collect()
}

/// The fewest threads that are as good as the best.
pub fn fewest(trials: &[Trial]) -> Option<usize> {
    let rates = trials.iter().map(|trial| trial.tokens_per_second);
    let best = rates.fold(0.0, f64::max);
    let good = |trial: &&Trial| trial.tokens_per_second >= ENOUGH * best;
    trials.iter().find(good).map(|trial| trial.workers)
}

/// All numbers to 4, then two for each doubling, and the largest.
fn numbers(most: usize) -> impl Iterator<Item = usize> {
    let doublings = (0..).map(|i| (4 << (i / 2)) * (2 + i % 2) / 2);
    let all = (1..4).chain(doublings);
    all.take_while(move |count| *count < most).chain([most])
}

fn rate(model: &Model) -> Result<f64, Error> {
    let room = (TOKENS + 2).min(model.config().context);
    let settings = Settings {
        // What every model can do: positions that do not move, elements that every layout holds.
        policy: PolicyKind::Dense,
        window: Some(room),
        cache_type: ElementType::F32,
        sampling: false,
        ..Settings::default()
    };
    let mut resources = Resources::new(model, &settings)?;
    let mut engine = Engine::new(model, &mut resources)?;
    let stream = engine.stream();
    // The first token brings in the weights and wakes the threads.
    stream.feed(&[0])?;
    let (begin, mut fastest) = (Instant::now(), Duration::MAX);
    for _ in 1..room {
        let start = Instant::now();
        stream.feed(&[0])?;
        fastest = fastest.min(start.elapsed());
        if begin.elapsed() >= TIME {
            break;
        }
    }
    Ok(fastest.as_secs_f64().max(1e-9).recip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_with_all() {
        let numbers = |most| numbers(most).collect::<Vec<_>>();
        assert_eq!(numbers(1), [1]);
        assert_eq!(numbers(2), [1, 2]);
        assert_eq!(numbers(4), [1, 2, 3, 4]);
        assert_eq!(numbers(10), [1, 2, 3, 4, 6, 8, 10]);
        assert_eq!(numbers(64), [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]);
    }

    #[test]
    fn more_threads_must_be_worth_it() {
        let trials = |rates: &[f64]| {
            let trial = |(i, rate): (usize, &f64)| Trial {
                workers: i + 1,
                tokens_per_second: *rate,
            };
            rates.iter().enumerate().map(trial).collect::<Vec<_>>()
        };
        assert_eq!(fewest(&trials(&[5.0, 9.9, 8.0, 10.0])), Some(2));
        assert_eq!(fewest(&trials(&[5.0, 9.0, 8.0, 10.0])), Some(4));
        assert_eq!(fewest(&trials(&[10.0, 9.0])), Some(1));
        assert_eq!(fewest(&[]), None);
    }

    #[test]
    fn every_number_decodes() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let model = Model::open(format!("{root}/models/stories/tiny-q8_0.gguf")).unwrap();
        let trials = try_workers(&model).unwrap();
        assert_eq!(trials.last().unwrap().workers, Pool::default_workers());
        assert!(trials.iter().all(|trial| trial.tokens_per_second > 0.0));
        assert!(fewest(&trials).is_some());
    }
}

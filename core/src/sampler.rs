//! Choice of a token from logits: greedy, temperature, top-k, top-p, min-p, repetition penalty;
//! seeded.
//!
//! The filters act in the order that llama.cpp uses: repetition penalty, top-k, top-p, min-p,
//! temperature. Top-p and min-p look at the probabilities before temperature.

use crate::nn::math;

/// Logit of a token that must not be chosen. No temperature and no penalty makes it probable.
pub const BANNED: f32 = f32::NEG_INFINITY;

/// Largest number of recent tokens that the repetition penalty covers.
pub const MAX_REPEAT_LAST: usize = 256;

/// Options of the sampler. The default is greedy choice with every filter off.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SamplerOptions {
    /// Divisor of the logits; 0 or less chooses the token with the largest logit.
    pub temperature: f32,
    /// Number of most probable tokens to keep; 0 keeps all (Fan et al., arXiv 1805.04833).
    pub top_k: usize,
    /// Keeps the fewest tokens whose probabilities sum to at least `top_p` (Holtzman et al., arXiv
    /// 1904.09751); 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens that are at least `min_p` times as probable as the most probable one (Nguyen et
    /// al., arXiv 2407.01082); 0 keeps all.
    pub min_p: f32,
    /// Penalty of recent tokens: positive logits are divided by it, negative ones multiplied
    /// (Keskar et al., arXiv 1909.05858); 1 is off.
    pub repeat_penalty: f32,
    /// Number of recent tokens that are penalised, at most [`MAX_REPEAT_LAST`].
    pub repeat_last: usize,
    /// Seed of the random sequence.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        SamplerOptions {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last: 64,
            seed: 0,
        }
    }
}

impl SamplerOptions {
    /// Returns true if the choice is argmax, which needs no scratch.
    pub fn is_greedy(&self) -> bool {
        // NaN also means greedy.
        self.temperature.partial_cmp(&0.0) != Some(core::cmp::Ordering::Greater)
    }
}

/// Chooses tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplerOptions,
    random: Random,
    recent: heapless::HistoryBuf<u32, MAX_REPEAT_LAST>,
}

impl Sampler {
    /// Creates a sampler at the start of its random sequence.
    #[inline]
    pub fn new(options: SamplerOptions) -> Sampler {
        Sampler {
            options,
            random: Random(options.seed),
            recent: heapless::HistoryBuf::new(),
        }
    }

    /// Starts again with other options: forgets the recent tokens and restarts the random sequence.
    pub fn restart(&mut self, options: SamplerOptions) {
        self.options = options;
        self.random = Random(options.seed);
        self.recent.clear();
    }

    /// Number of candidates that [`Sampler::sample`] needs for `logits` logits.
    pub fn candidates_for(&self, logits: usize) -> usize {
        if self.options.is_greedy() { 0 } else { logits }
    }

    /// Records a token that was fed, such as a prompt's, for the repetition penalty.
    pub fn accept(&mut self, token: u32) {
        self.recent.write(token);
    }

    /// Chooses the next token and records it. Changes `logits`; `candidates` is scratch of as many
    /// entries, which greedy choice does not need. A token whose logit is [`BANNED`] is chosen only
    /// if all are.
    ///
    /// # Panics
    /// If there are no logits, or fewer candidates than [`Sampler::candidates_for`] says.
    pub fn sample(&mut self, logits: &mut [f32], candidates: &mut [u32]) -> u32 {
        self.penalize(logits);
        let token = if self.options.is_greedy() {
            argmax(logits)
        } else {
            self.draw(logits, candidates)
        };
        self.accept(token);
        token
    }

    fn penalize(&self, logits: &mut [f32]) {
        let penalty = self.options.repeat_penalty;
        if penalty == 1.0 {
            return;
        }
        let skipped = self.recent.len().saturating_sub(self.options.repeat_last);
        let (older, newer) = self.recent.as_slices();
        let newer = &newer[skipped.saturating_sub(older.len())..];
        let older = &older[skipped.min(older.len())..];
        for (i, token) in older.iter().chain(newer).enumerate() {
            // Each token is penalised once, however often it occurs.
            let earlier = (
                &older[..i.min(older.len())],
                &newer[..i.saturating_sub(older.len())],
            );
            if earlier.0.contains(token) || earlier.1.contains(token) {
                continue;
            }
            if let Some(logit) = logits.get_mut(*token as usize)
                && *logit != BANNED
            {
                *logit = if *logit > 0.0 {
                    *logit / penalty
                } else {
                    *logit * penalty
                };
            }
        }
    }

    /// Draws a token. Its weights are integers: their sums are exact, so that what is drawn always
    /// lies within the weight of a token, however many there are.
    fn draw(&mut self, logits: &[f32], candidates: &mut [u32]) -> u32 {
        let logit = |id: u32| logits[id as usize];
        let candidates = &mut candidates[..logits.len()];
        let mut len = 0;
        for (id, logit) in logits.iter().enumerate() {
            // Without a branch: nearly all tokens are candidates.
            candidates[len] = id as u32;
            len += usize::from(*logit > BANNED);
        }
        let mut kept = &mut candidates[..len];
        if kept.is_empty() {
            return argmax(logits);
        }
        // Most probable first; equal logits in order of id, so that the result does not depend on
        // the sorting algorithm.
        let order = |a: &u32, b: &u32| logit(*b).total_cmp(&logit(*a)).then(a.cmp(b));
        if self.options.top_k > 0 && self.options.top_k < kept.len() {
            kept.select_nth_unstable_by(self.options.top_k - 1, order);
            kept = &mut kept[..self.options.top_k];
        }
        kept.sort_unstable_by(order);
        let max = logit(kept[0]);
        let mut len = kept.len();
        if self.options.top_p < 1.0 {
            let probability = |id: &u32| weight(logit(*id) - max);
            let total: u64 = kept.iter().map(probability).sum();
            let share = u128::from(weight_of(self.options.top_p)) * u128::from(total);
            let mut sum = 0;
            len = 0;
            while len < kept.len() && (len == 0 || u128::from(sum) * u128::from(ONE) < share) {
                sum += probability(&kept[len]);
                len += 1;
            }
        }
        if self.options.min_p > 0.0 {
            let cut = |id: &u32| math::exp(logit(*id) - max) < self.options.min_p;
            len = kept[..len].iter().position(cut).unwrap_or(len).max(1);
        }
        let inverse = 1.0 / self.options.temperature;
        let weights = kept[..len]
            .iter()
            .map(|id| (*id, weight((logit(*id) - max) * inverse)));
        let mut left = self
            .random
            .below(weights.clone().map(|(_, weight)| weight).sum());
        for (id, weight) in weights {
            match left.checked_sub(weight) {
                Some(less) => left = less,
                None => return id,
            }
        }
        // Only logits that are infinite have no weight at all.
        kept[0]
    }
}

/// Weight of the most probable token. As many as a vocabulary may have do not overflow in sum.
const ONE: u64 = 1 << 38;

/// Weight of a token whose logit is `below` (at most 0) from the largest: `e^below`, as a fraction
/// of [`ONE`], and 0 for less than that. It is also 0 for NaN.
fn weight(below: f32) -> u64 {
    // e^-27.1 would be rounded to 0.
    if below > -27.1 {
        weight_of(math::exp(below))
    } else {
        0
    }
}

/// Returns a number from 0 to 1 as a fraction of [`ONE`], rounded to the nearest.
fn weight_of(x: f32) -> u64 {
    (x * ONE as f32 + 0.5) as u64
}

/// Token with the largest logit; the first one if several are equal. They must be
/// numbers, as a stream's are: NaN has no place in an order.
///
/// # Panics
/// If there are no logits.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a counter and a mixer; any seed is good.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to 1, of 24 bits, without 1.
    pub(crate) fn share(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Returns a number less than `end`; 0 if that is 0. Each is as probable as any other, up to a
    /// share of `end`/2^64 (Lemire, arXiv 1805.10941, section 3).
    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn counts(options: SamplerOptions, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(options);
        let mut counts = std::vec![0; logits.len()];
        let mut scratch = std::vec![0; logits.len()];
        for _ in 0..draws {
            counts[sampler.sample(&mut logits.to_vec(), &mut scratch) as usize] += 1;
        }
        counts
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [1.0f32, 0.0, 2.0, -1.0];
        let options = SamplerOptions {
            temperature: 0.7,
            seed: 5,
            ..Default::default()
        };
        let exact: Vec<f64> = logits.iter().map(|l| (f64::from(*l) / 0.7).exp()).collect();
        let total: f64 = exact.iter().sum();
        for (count, e) in counts(options, &logits, 40_000).into_iter().zip(exact) {
            let (p, n) = (e / total, 40_000.0);
            assert!((count as f64 - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt());
        }
    }

    #[test]
    fn a_sampler_that_begins_anew_is_a_new_one() {
        let options = SamplerOptions {
            temperature: 1.0,
            repeat_penalty: 3.0,
            seed: 9,
            ..Default::default()
        };
        let mut sampler = Sampler::new(SamplerOptions::default());
        let draws = |sampler: &mut Sampler| -> Vec<u32> {
            let logits = [1.0f32, 0.5, 2.0, -1.0];
            (0..50)
                .map(|_| sampler.sample(&mut logits.clone(), &mut [0; 4]))
                .collect()
        };
        let first = draws(&mut Sampler::new(options));
        draws(&mut sampler);
        sampler.restart(options);
        assert_eq!(draws(&mut sampler), first);
    }

    #[test]
    fn filters_keep_what_they_say() {
        let logits = [3.0f32, 2.9, 1.0, 0.9, -5.0];
        let base = SamplerOptions {
            temperature: 5.0,
            ..Default::default()
        };
        let kept = |options| {
            counts(options, &logits, 2_000)
                .iter()
                .filter(|c| **c > 0)
                .count()
        };
        assert_eq!(kept(base), 5);
        assert_eq!(kept(SamplerOptions { top_k: 2, ..base }), 2);
        assert_eq!(kept(SamplerOptions { top_p: 0.5, ..base }), 2);
        assert_eq!(kept(SamplerOptions { top_p: 0.0, ..base }), 1);
        assert_eq!(
            kept(SamplerOptions {
                min_p: 0.13,
                ..base
            }),
            3
        );
    }

    #[test]
    fn greedy_takes_the_first_largest_and_penalty_moves_it() {
        let mut logits = [1.0, 3.0, 3.0, 2.9];
        assert_eq!(argmax(&logits), 1);
        let options = SamplerOptions {
            repeat_penalty: 2.0,
            repeat_last: 2,
            ..Default::default()
        };
        let mut sampler = Sampler::new(options);
        let chosen: Vec<u32> = (0..4)
            .map(|_| sampler.sample(&mut logits.clone(), &mut []))
            .collect();
        assert_eq!(chosen, [1, 2, 3, 1]);
        logits[0] = f32::NAN;
        assert!(argmax(&logits) < 4);
    }
}

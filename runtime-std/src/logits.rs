//! Changes of logits that a sampler does not know: biases of single tokens, penalties of tokens
//! that the text has already, and typical sampling.
//!
//! They act in this order, before the sampler's own steps. A feed is wrapped only where there is
//! something to change, so that nothing else pays for it.

use brooklet_core::generate::{Feed, Next};
use brooklet_core::sampler::BANNED;
use brooklet_core::stream::StreamError;

/// Largest bias: more than any model's logits differ by, and finite, so that no arithmetic on it
/// gives NaN. A bias of minus infinity bans its token, whatever the temperature.
const MOST: f32 = 1e30;

/// Changes of the logits. The default changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Adjustments {
    /// Added to the logits of these tokens; what is beyond 1e30 counts as that, but minus infinity
    /// bans the token.
    pub bias: Vec<(u32, f32)>,
    /// Subtracted once from the logit of every token among the last.
    pub presence: f32,
    /// Subtracted from the logit of every token among the last, as often as it is there.
    pub frequency: f32,
    /// Number of tokens that are the last.
    pub last: usize,
    /// Keeps the tokens whose surprise is nearest to the one that is expected, until their
    /// probabilities sum to this (Meister et al., arXiv 2202.00666); 1 keeps all. Without
    /// candidates, as with greedy choice, nothing is left out.
    pub typical: f32,
}

impl Default for Adjustments {
    fn default() -> Self {
        Adjustments {
            bias: Vec::new(),
            presence: 0.0,
            frequency: 0.0,
            last: 0,
            typical: 1.0,
        }
    }
}

impl Adjustments {
    /// True if they change nothing.
    pub fn is_empty(&self) -> bool {
        let has_penalty = self.last > 0 && (self.presence != 0.0 || self.frequency != 0.0);
        self.bias.is_empty() && !has_penalty && self.typical >= 1.0
    }
}

/// A feed whose logits are adjusted. The tokens that it sees count as the text.
pub struct Adjusted<'f> {
    feed: &'f mut dyn Feed,
    adjustments: &'f Adjustments,
    /// The last tokens, as a ring.
    recent: Vec<u32>,
    oldest: usize,
}

impl<'f> Adjusted<'f> {
    /// Wraps a feed. Allocates here, and not later.
    pub fn new(feed: &'f mut dyn Feed, adjustments: &'f Adjustments) -> Adjusted<'f> {
        Adjusted {
            feed,
            recent: Vec::with_capacity(adjustments.last),
            adjustments,
            oldest: 0,
        }
    }

    fn note(&mut self, tokens: &[u32]) {
        for token in tokens {
            if self.recent.len() < self.adjustments.last {
                self.recent.push(*token);
            } else if let Some(oldest) = self.recent.get_mut(self.oldest) {
                *oldest = *token;
                self.oldest = (self.oldest + 1) % self.adjustments.last;
            }
        }
    }
}

impl Feed for Adjusted<'_> {
    fn chunk(&self) -> usize {
        self.feed.chunk()
    }

    fn absorb(&mut self, tokens: &[u32]) -> Result<(), StreamError> {
        self.note(tokens);
        self.feed.absorb(tokens)
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<Next<'_>, StreamError> {
        self.note(tokens);
        let next = self.feed.feed(tokens)?;
        adjust(next.logits, self.adjustments, &self.recent);
        if self.adjustments.typical < 1.0 && next.candidates.len() >= next.logits.len() {
            keep_typical(next.logits, next.candidates, self.adjustments.typical);
        }
        Ok(next)
    }

    fn last(&mut self) -> Next<'_> {
        self.feed.last()
    }
}

fn adjust(logits: &mut [f32], adjustments: &Adjustments, recent: &[u32]) {
    for (token, bias) in &adjustments.bias {
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit += if *bias == BANNED {
                BANNED
            } else {
                bias.clamp(-MOST, MOST)
            };
        }
    }
    for (i, token) in recent.iter().enumerate() {
        if let Some(logit) = logits.get_mut(*token as usize) {
            let is_first = !recent[..i].contains(token);
            let presence = if is_first { adjustments.presence } else { 0.0 };
            *logit -= adjustments.frequency + presence;
        }
    }
}

/// Leaves out all but the tokens whose surprise is nearest to the expected one and whose
/// probabilities sum to `share`; at least one stays.
fn keep_typical(logits: &mut [f32], candidates: &mut [u32], share: f32) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|logit| (logit - max).exp()).sum();
    let top = max + total.ln();
    let surprise = |logit: f32| top - logit;
    let probability = |logit: f32| (logit - max).exp() / total;
    // What is as good as impossible adds nothing to the expectation.
    let expected: f32 = logits
        .iter()
        .map(|&logit| (probability(logit), surprise(logit)))
        .filter(|(probability, _)| *probability > 0.0)
        .map(|(probability, surprise)| probability * surprise)
        .sum();
    let candidates = &mut candidates[..logits.len()];
    for (id, candidate) in candidates.iter_mut().enumerate() {
        *candidate = id as u32;
    }
    let far = |id: u32| (surprise(logits[id as usize]) - expected).abs();
    candidates.sort_unstable_by(|a, b| far(*a).total_cmp(&far(*b)).then(a.cmp(b)));
    let mut sum = 0.0;
    let mut kept = 0;
    while kept < candidates.len() && (kept == 0 || sum < share) {
        sum += probability(logits[candidates[kept] as usize]);
        kept += 1;
    }
    for id in &candidates[kept..] {
        logits[*id as usize] = BANNED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Flat(Vec<f32>);

    impl Feed for Flat {
        fn chunk(&self) -> usize {
            4
        }

        fn absorb(&mut self, _: &[u32]) -> Result<(), StreamError> {
            Ok(())
        }

        fn feed(&mut self, _: &[u32]) -> Result<Next<'_>, StreamError> {
            self.0.fill(1.0);
            Ok(self.last())
        }

        fn last(&mut self) -> Next<'_> {
            Next {
                logits: &mut self.0,
                candidates: &mut [],
            }
        }
    }

    #[test]
    fn logits_change_by_what_the_text_has() {
        let adjustments = Adjustments {
            bias: vec![(0, 2.0), (4, f32::NEG_INFINITY), (99, 1.0)],
            presence: 0.5,
            frequency: 0.25,
            last: 3,
            ..Adjustments::default()
        };
        let mut flat = Flat(vec![0.0; 5]);
        let mut feed = Adjusted::new(&mut flat, &adjustments);
        feed.absorb(&[0, 1]).unwrap();
        assert_eq!(
            feed.feed(&[1]).unwrap().logits,
            [2.25, 0.0, 1.0, 1.0, BANNED]
        );
        // Only once: the logits that are there already are not changed again.
        assert_eq!(feed.last().logits, [2.25, 0.0, 1.0, 1.0, BANNED]);
        // The oldest is no longer among the last three.
        assert_eq!(
            feed.feed(&[2]).unwrap().logits,
            [3.0, 0.0, 0.25, 1.0, BANNED]
        );
        assert!(!adjustments.is_empty() && Adjustments::default().is_empty());
    }

    #[test]
    fn typical_tokens_stay() {
        // Probabilities 0.5, 0.25, 0.125 and 0.125: 1.75 bits are expected, so that the second, of
        // 2 bits, is the most typical, and the first, of 1 bit, is next.
        let logits = [0.5f32, 0.25, 0.125, 0.125].map(f32::ln);
        for (share, kept) in [
            (0.2, &[1][..]),
            (0.6, &[0, 1]),
            (0.8, &[0, 1, 2]),
            (0.9, &[0, 1, 2, 3]),
        ] {
            let (mut changed, mut scratch) = (logits, [0; 4]);
            keep_typical(&mut changed, &mut scratch, share);
            let stay: Vec<usize> = (0..4).filter(|&id| changed[id] == logits[id]).collect();
            assert_eq!(stay, kept, "{share}");
            assert!(
                changed
                    .iter()
                    .all(|logit| logits.contains(logit) || *logit == BANNED)
            );
        }
    }
}

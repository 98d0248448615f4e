//! Rules for the next token of a transcript: what Whisper's decoding leaves out, and the order of
//! text and times (Radford et al., arXiv 2212.04356, section 4.5, and the program of the paper).

use super::SpeechTokens;
use crate::nn::math;
use crate::sampler::{Random, argmax};

/// Latest time of a transcript's first word, in steps: 1 s.
const LATEST_FIRST: u32 = 1000 / SpeechTokens::STEP_MS;

/// Weight of a token that must not be chosen.
const NEVER: f32 = 0.0;

/// Kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Time,
}

/// Order of the tokens so far, and the way of choosing the next.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// True if times are written.
    times: bool,
    /// Kinds of the last token and of the one before it.
    last: [Option<Kind>; 2],
    /// The newest time, in steps.
    newest: Option<u32>,
    /// The end of the newest text after which another one began.
    heard_to: Option<u32>,
    /// 0 for the most probable token.
    temperature: f32,
    random: Random,
}

impl Rules {
    /// Rules for a transcript that begins; of temperature 0 is greedy.
    pub(super) const fn new(times: bool, temperature: f32, seed: u64) -> Rules {
        Rules {
            temperature,
            random: Random(seed),
            times,
            last: [None, None],
            newest: None,
            heard_to: None,
        }
    }

    /// Takes their weight from all tokens that must not come next. `weights` are proportional to
    /// probabilities.
    pub(super) fn mask(&self, tokens: &SpeechTokens<'_>, weights: &mut [f32]) {
        let is_first = self.last[0].is_none();
        tokens.suppressed(is_first, &mut |token| {
            if let Some(weight) = weights.get_mut(token) {
                *weight = NEVER;
            }
        });
        if tokens.times.is_none() {
            return;
        }
        let (first_time, end) = (tokens.texts(weights.len()), tokens.end as usize);
        // The models write none of the tokens between the end and the times, but for prompts.
        weights[end + 1..first_time].fill(NEVER);
        if !self.times {
            weights[first_time..].fill(NEVER);
            return;
        }
        let (text, times) = weights.split_at_mut(first_time);
        match self.last {
            // Text begins with a time.
            [None, _] => {
                text.fill(NEVER);
                let latest = (LATEST_FIRST as usize + 1).min(times.len());
                times[latest..].fill(NEVER);
            }
            // After the end of one text comes the beginning of the next, or the end of all.
            [Some(Kind::Time), Some(Kind::Text)] => text[..end].fill(NEVER),
            // After two times, or the first one, comes text.
            [Some(Kind::Time), _] => times.fill(NEVER),
            [Some(Kind::Text), _] => {}
        }
        // Times rise; only the beginning of a text may be the time of the end of the one before.
        if let Some(newest) = self.newest {
            let ended = matches!(self.last, [Some(Kind::Time), Some(Kind::Text)]);
            let least = newest as usize + usize::from(!ended);
            let len = times.len();
            times[..least.min(len)].fill(NEVER);
        }
    }

    /// Chooses the next token by masked `weights`: a time if all times together are more probable
    /// than any text. Returns the token and its probability among those that may be chosen, at
    /// temperature 1; if none may, the end.
    pub(super) fn choose(&mut self, tokens: &SpeechTokens<'_>, weights: &[f32]) -> (u32, f32) {
        let first_time = tokens.texts(weights.len());
        let (text, times) = weights.split_at(first_time);
        let most = text.iter().fold(0.0f32, |most, weight| most.max(*weight));
        let of_times = times.iter().sum::<f32>();
        let (first, all) = if self.times && of_times > most {
            (first_time, of_times)
        } else {
            (0, of_times + text.iter().sum::<f32>())
        };
        let token = first as u32 + self.draw(&weights[first..]);
        let weight = weights[token as usize];
        if weight > NEVER {
            (token, weight / all)
        } else {
            (tokens.end, 1.0)
        }
    }

    /// The most probable token, or one drawn from the weights to the power of 1 / temperature.
    fn draw(&mut self, weights: &[f32]) -> u32 {
        let best = argmax(weights);
        let most = weights[best as usize];
        if self.temperature <= 0.0 || most <= NEVER {
            return best;
        }
        let scale = core::f32::consts::LN_10 / self.temperature;
        let power = |weight: f32| math::exp(math::log10(weight / most) * scale);
        let probable = || weights.iter().enumerate().filter(|(_, x)| **x > NEVER);
        let all: f32 = probable().map(|(_, weight)| power(*weight)).sum();
        let mut left = self.random.share() * all;
        for (token, weight) in probable() {
            left -= power(*weight);
            if left < 0.0 {
                return token as u32;
            }
        }
        best
    }

    /// Notes that `token` was chosen.
    pub(super) fn note(&mut self, tokens: &SpeechTokens<'_>, token: u32) {
        let kind = match tokens.time(token) {
            Some(step) => {
                if self.last[0] == Some(Kind::Time) {
                    self.heard_to = self.newest;
                }
                self.newest = Some(step);
                Kind::Time
            }
            None => Kind::Text,
        };
        self.last = [Some(kind), self.last[0]];
    }

    /// Time up to which the sound is written down, in steps; `None` if that is all of it. A text
    /// after others that has not ended is not written down: it will be heard again.
    pub(super) fn done(&self) -> Option<u32> {
        match self.last {
            // The last text has ended, and no other has begun.
            [Some(Kind::Time), Some(Kind::Text)] => None,
            _ => self.heard_to,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// Text is 0 to 9, the end 10, then the tokens of prompts, and times from 15 on.
    const TOKENS: SpeechTokens<'static> = SpeechTokens::of_numbers(11, 10, 14);
    const VOCAB: usize = 15 + 100;

    /// Chooses tokens by `weights(step)` until the end.
    fn write(times: bool, weights: impl Fn(usize) -> Vec<f32>) -> (Vec<u32>, Rules) {
        write_at(0.0, times, weights)
    }

    fn write_at(
        temperature: f32,
        times: bool,
        weights: impl Fn(usize) -> Vec<f32>,
    ) -> (Vec<u32>, Rules) {
        let mut rules = Rules::new(times, temperature, 7);
        let mut written = Vec::new();
        for step in 0..40 {
            let mut weights = weights(step);
            rules.mask(&TOKENS, &mut weights);
            let (token, probability) = rules.choose(&TOKENS, &weights);
            assert!(weights[token as usize] > 0.0, "{written:?}, then {token}");
            assert!(probability > 0.0 && probability <= 1.0);
            if token == TOKENS.end {
                break;
            }
            rules.note(&TOKENS, token);
            written.push(token);
        }
        (written, rules)
    }

    /// Weights in which `token` is the most probable.
    fn favour(token: u32) -> Vec<f32> {
        let mut weights = std::vec![1e-6; VOCAB];
        weights[token as usize] = 1.0;
        weights
    }

    fn time(token: u32) -> Option<u32> {
        token.checked_sub(15)
    }

    proptest! {
        /// The promises of the paper's program, whatever the model says.
        #[test]
        fn times_are_in_order_whatever_the_model_says(
            noise in prop::collection::vec(prop::collection::vec(1e-6f32..1.0, VOCAB), 40),
            temperature in prop::sample::select(&[0.0f32, 0.2, 1.0][..]),
        ) {
            let (written, _) = write_at(temperature, true, |step| noise[step].clone());
            prop_assert!(written.iter().all(|token| *token < 10 || *token >= 15));
            let times: Vec<u32> = written.iter().filter_map(|token| time(*token)).collect();
            prop_assert!(times.is_sorted());
            if let Some(first) = written.first() {
                prop_assert!(time(*first).is_some_and(|step| step <= 50));
            }
            // Between the beginning and the end of a text is text, and no time stands alone.
            let kinds: Vec<bool> = written.iter().map(|token| time(*token).is_some()).collect();
            for (i, three) in kinds.windows(3).enumerate() {
                prop_assert_ne!(three, [true, true, true]);
                prop_assert!(three != [false, true, false], "{} in {:?}", i, written);
            }
            let (written, _) = write(false, |step| noise[step].clone());
            prop_assert!(written.iter().all(|token| *token < 10));
        }
    }

    #[test]
    fn a_text_that_has_not_ended_is_heard_again() {
        let done = |script: &'static [u32]| {
            let (written, rules) = write(true, |step| {
                favour(script.get(step).copied().unwrap_or(TOKENS.end))
            });
            assert_eq!(written, script);
            rules.done()
        };
        assert_eq!(done(&[15, 1, 2]), None);
        assert_eq!(done(&[15, 1, 2, 40]), None);
        assert_eq!(done(&[15, 1, 40, 40, 2]), Some(25));
        assert_eq!(done(&[15, 1, 40, 40, 2, 60]), None);
        // Between two texts there may be a pause, in which the model may have missed something.
        assert_eq!(done(&[15, 1, 40, 70, 2]), Some(25));
        assert_eq!(done(&[15, 1, 40, 40, 2, 60, 60]), Some(45));
        assert_eq!(done(&[15, 1, 40, 40, 2, 60, 60, 3]), Some(45));
        assert_eq!(done(&[15]), None);
    }

    /// All times together win against a text that is more probable than each of them.
    #[test]
    fn times_are_chosen_together() {
        let mut weights = std::vec![0.0; VOCAB];
        weights[3] = 0.3;
        weights[20..40].fill(0.02);
        weights[31] = 0.03;
        let (token, probability) = Rules::new(true, 0.0, 0).choose(&TOKENS, &weights);
        assert_eq!(token, 31);
        assert!((probability - 0.03 / 0.41).abs() < 1e-6);
        assert_eq!(Rules::new(false, 0.0, 0).choose(&TOKENS, &weights).0, 3);
        let nothing = std::vec![0.0; VOCAB];
        assert_eq!(
            Rules::new(true, 0.5, 0).choose(&TOKENS, &nothing),
            (TOKENS.end, 1.0)
        );
    }

    /// At temperature `t` a token is drawn as often as its probability to the power of `1/t` says.
    #[test]
    fn draws_follow_the_weights() {
        let mut weights = std::vec![0.0; VOCAB];
        (weights[2], weights[5], weights[10]) = (0.2, 0.1, 0.05);
        for (temperature, all) in [(1.0f32, 0.35f32), (0.5, 0.0525)] {
            let mut rules = Rules::new(false, temperature, 3);
            let mut counts = [0.0f32; 3];
            for _ in 0..20_000 {
                let (token, probability) = rules.choose(&TOKENS, &weights);
                let place = [2, 5, 10].iter().position(|number| *number == token);
                let place = place.expect("only what is possible is drawn");
                assert!((probability - [0.2, 0.1, 0.05][place] / 0.35).abs() < 1e-6);
                counts[place] += 1.0;
            }
            for (count, weight) in counts.into_iter().zip([0.2f32, 0.1, 0.05]) {
                let weight = if temperature == 1.0 {
                    weight
                } else {
                    weight * weight
                };
                let expected = 20_000.0 * weight / all;
                assert!(
                    (count - expected).abs() < 5.0 * expected.sqrt(),
                    "{counts:?}"
                );
            }
        }
        let greedy = Rules::new(false, 0.0, 3).choose(&TOKENS, &weights);
        assert_eq!(greedy.0, 2);
    }
}

//! Rules for the next token of a transcript: what Whisper's decoding leaves out, and the order of
//! text and times (Radford et al., arXiv 2212.04356, section 4.5, and the program of the paper).

use super::SpeechTokens;
use crate::sampler::argmax;

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

/// Order of the tokens so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// True if times are written.
    times: bool,
    /// Kinds of the last token and of the one before it.
    last: [Option<Kind>; 2],
    /// The newest time, in steps.
    newest: Option<u32>,
    /// The newest time at which one text ended and the next began.
    between: Option<u32>,
}

impl Rules {
    /// Rules for a transcript that begins.
    pub(super) const fn new(times: bool) -> Rules {
        Rules {
            times,
            last: [None, None],
            newest: None,
            between: None,
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
        let (first_time, end) = (tokens.first_time() as usize, tokens.end as usize);
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
    /// than any text.
    pub(super) fn choose(&self, tokens: &SpeechTokens<'_>, weights: &[f32]) -> u32 {
        let (text, times) = weights.split_at(tokens.first_time() as usize);
        if self.times {
            let most = text.iter().fold(0.0f32, |most, weight| most.max(*weight));
            if times.iter().sum::<f32>() > most {
                return tokens.first_time() + argmax(times) as u32;
            }
        }
        argmax(weights) as u32
    }

    /// Notes that `token` was chosen.
    pub(super) fn note(&mut self, tokens: &SpeechTokens<'_>, token: u32) {
        let kind = match token.checked_sub(tokens.first_time()) {
            Some(step) => {
                self.newest = Some(step);
                if self.last[0] == Some(Kind::Time) {
                    self.between = Some(step);
                }
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
            _ => self.between,
        }
    }
}

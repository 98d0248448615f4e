//! Notices of what was cut, ignored or replaced: said once, with their numbers.
//!
//! A program that drops a part of what it was given, and goes on, says so by a [`Notice`]: the
//! command on standard error and in its JSON, the library in a list that its caller reads. What
//! cannot go on is an error instead.

use std::fmt;

use brooklet_core::cache::PolicyKind;
use brooklet_core::plan::Plan;

/// Something that a person would not expect, and that is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(tag = "kind", rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Notice {
    /// A prompt is longer than the cache: its middle, or its beginning, was forgotten before the
    /// first new token.
    PromptCut {
        /// Tokens of the prompt.
        tokens: usize,
        /// First tokens that are kept.
        first: usize,
        /// Last tokens that are kept.
        last: usize,
    },
    /// Only the beginning of a text is used.
    TextCut {
        /// The things that are counted: tokens, or predictions.
        what: &'static str,
        /// Number of them in the text.
        there: usize,
        /// Number of them that are used.
        used: usize,
        /// The reason.
        reason: &'static str,
    },
    /// Something on standard input was not read.
    InputIgnored {
        /// Bytes that waited there, as far as the system says.
        bytes: u64,
        /// The source that was used instead.
        used: &'static str,
    },
    /// An option has no effect together with the others.
    OptionIgnored {
        /// The option, as it is written.
        option: String,
        /// The reason.
        reason: &'static str,
    },
    /// A prompt begins with the token of a start that would be put before it.
    StartWritten,
    /// The layers of a slim file err by more than was accepted when it was made.
    SlimError {
        /// Element type of the cache.
        cache_type: &'static str,
        /// The largest error of a layer's attention output, in percent.
        percent: Percent,
        /// The error that was accepted, in percent.
        accepted: Percent,
    },
    /// A slim file does not state the errors of its layers.
    SlimUnstated,
    /// A slim file's errors were measured with more sinks, whose values are kept as they are.
    SlimSinks {
        /// The sinks that it was measured with.
        measured: usize,
        /// The sinks of this cache.
        kept: usize,
    },
    /// A file that is quantised already is quantised again.
    QuantizedTwice {
        /// Tensors that are.
        quantized: usize,
        /// All tensors.
        tensors: usize,
    },
    /// The number of threads was chosen by trying.
    Threads {
        /// The number.
        chosen: usize,
        /// All that were tried.
        tried: Vec<Trial>,
    },
    /// The machine was slowed down, by heat or for want of power, while it was measured.
    Throttled,
    /// A default that depends on the model.
    DefaultModel {
        /// The model's name.
        name: String,
        /// Advice.
        advice: String,
    },
}

/// A relative error in percent, with two digits that count.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Percent(f64);

impl Percent {
    /// The percentage of a relative error.
    pub fn of(error: f32) -> Percent {
        Percent(100.0 * f64::from(error))
    }
}

impl Eq for Percent {}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = match self.0 {
            10.0.. => 0,
            1.0.. => 1,
            0.1.. => 2,
            _ => 3,
        };
        write!(f, "{:.places$}", self.0)
    }
}

/// A number of threads, and how fast a model decoded with it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Trial {
    /// Threads that computed.
    pub workers: usize,
    /// Tokens a second, by the fastest of a few.
    pub tokens_per_second: f64,
}

// A rate is a number: it is measured.
impl Eq for Trial {}

impl Notice {
    /// The notice of a prompt that is longer than the cache of a plan. A dense cache refuses it.
    pub fn of_prompt(plan: &Plan, tokens: usize) -> Option<Notice> {
        let policy = plan.options().policy;
        let is_cut = tokens > plan.capacity() && policy.kind() != PolicyKind::Dense;
        is_cut.then(|| Notice::PromptCut {
            tokens,
            first: policy.sinks(),
            last: policy.window(),
        })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::PromptCut {
                tokens,
                first,
                last,
            } => {
                write!(f, "the prompt has {tokens} tokens, and the cache keeps ")?;
                if *first > 0 {
                    write!(f, "the first {first} and ")?;
                }
                let gone = tokens.saturating_sub(first + last);
                write!(
                    f,
                    "the last {last}: {gone} are forgotten (--window and --ram make room)"
                )
            }
            Notice::TextCut {
                what,
                there,
                used,
                reason,
            } => write!(f, "the first {used} of {there} {what} are used: {reason}"),
            Notice::InputIgnored { bytes, used } => write!(
                f,
                "standard input has {bytes} bytes that are not used: {used}"
            ),
            Notice::OptionIgnored { option, reason } => {
                write!(f, "{option} has no effect: {reason}")
            }
            Notice::StartWritten => write!(
                f,
                "the text begins with the token of a start itself: none is put before it"
            ),
            Notice::SlimError {
                cache_type,
                percent,
                accepted,
            } => write!(
                f,
                "with a cache in {cache_type} a layer of the slim file errs by {percent} %, and {accepted} % was accepted when it was made"
            ),
            Notice::SlimUnstated => write!(
                f,
                "the slim file does not state the errors of its layers: `brooklet slim` of the original writes one that does"
            ),
            Notice::SlimSinks { measured, kept } => write!(
                f,
                "the slim file's errors were measured with {measured} sinks, whose values are exact, and this cache keeps {kept}"
            ),
            Notice::QuantizedTwice { quantized, tensors } => write!(
                f,
                "{quantized} of {tensors} tensors are quantised already, and lose twice: the model's F16 or F32 file makes a better copy"
            ),
            Notice::Threads { chosen, tried } => {
                match chosen {
                    1 => write!(f, "1 thread is chosen: tokens a second with")?,
                    _ => write!(f, "{chosen} threads are chosen: tokens a second with")?,
                }
                for (i, trial) in tried.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    let (workers, rate) = (trial.workers, trial.tokens_per_second);
                    write!(f, "{comma} {workers}: {rate:.1}")?;
                }
                Ok(())
            }
            Notice::Throttled => write!(
                f,
                "the processor was slowed down while it was measured, by heat or for want of power"
            ),
            Notice::DefaultModel { name, advice } => {
                write!(f, "no model is named, so this is {name}, {advice}")
            }
        }
    }
}

/// Notices so far, each of them once.
#[derive(Debug, Default)]
pub struct Notices {
    all: Vec<Notice>,
    say: Option<fn(&Notice)>,
}

impl Notices {
    /// An empty list that is only kept.
    pub fn new() -> Notices {
        Notices::default()
    }

    /// An empty list, each of whose notices is passed to `say` when it comes.
    pub fn said_by(say: fn(&Notice)) -> Notices {
        Notices {
            all: Vec::new(),
            say: Some(say),
        }
    }

    /// Adds a notice, unless it is there already.
    pub fn add(&mut self, notice: Notice) {
        if !self.all.contains(&notice) {
            if let Some(say) = self.say {
                say(&notice);
            }
            self.all.push(notice);
        }
    }

    /// The notices, in their order.
    pub fn all(&self) -> &[Notice] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_kept_once_and_states_its_numbers() {
        let mut notices = Notices::new();
        let cut = Notice::PromptCut {
            tokens: 3842,
            first: 4,
            last: 35,
        };
        notices.add(cut.clone());
        notices.add(cut);
        assert_eq!(notices.all().len(), 1);
        assert_eq!(
            notices.all()[0].to_string(),
            "the prompt has 3842 tokens, and the cache keeps the first 4 and the last 35: \
             3803 are forgotten (--window and --ram make room)"
        );
    }
}

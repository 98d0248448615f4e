//! Options of every command that samples.

use std::time::{SystemTime, UNIX_EPOCH};

use brooklet_core::sampler::{MAX_REPEAT_LAST, SamplerOptions};
use clap::Args;

use super::failure::Failure;
use super::numbers::{Open, real, seed, whole};
use crate::logits::Adjustments;

/// Largest bias or penalty.
const MOST_PENALTY: f32 = 1e6;

/// Options of the sampler.
#[derive(Args)]
pub struct SamplingArguments {
    /// 0 always takes the most probable token; larger is more varied
    #[arg(long, visible_alias = "temperature", value_name = "T", default_value_t = 0.8, value_parser = real(0.0, f32::MAX))]
    temp: f32,
    /// Choose among the K most probable tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 40, value_parser = whole(0, usize::MAX))]
    top_k: usize,
    /// Choose among the fewest tokens whose probabilities sum to P; 1 for all
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = real(0.0, 1.0))]
    top_p: f32,
    /// Choose among tokens at least P times as probable as the first; 0 for all
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = real(0.0, 1.0))]
    min_p: f32,
    /// Choose among the tokens whose surprise is nearest to what is expected, until their
    /// probabilities sum to P; 1 for all. Before the other choices
    #[arg(long, visible_alias = "typical", value_name = "P", default_value_t = 1.0, value_parser = real(0.0, 1.0))]
    typical_p: f32,
    /// Divide the logits of the last tokens by R where they are positive, multiply them where not:
    /// over 1 these tokens become less probable
    #[arg(long, value_name = "R", default_value_t = 1.0, value_parser = real(f32::MIN_POSITIVE, f32::MAX))]
    repeat_penalty: f32,
    /// Subtract P from the logit of every token among the last
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = real(-MOST_PENALTY, MOST_PENALTY))]
    presence_penalty: f32,
    /// Subtract P from the logit of every token among the last, as often as it is there
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = real(-MOST_PENALTY, MOST_PENALTY))]
    frequency_penalty: f32,
    /// Number of last tokens for the three penalties
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = whole(0, MAX_REPEAT_LAST))]
    repeat_last_n: usize,
    /// Add B to the logit of a token, for example 15043+1.5 or 15043-inf; may be given several
    /// times
    #[arg(long, value_name = "ID+B", value_parser = bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Start of the random sequence; -1, and by default, one of the clock
    #[arg(short, long, value_name = "S", value_parser = seed)]
    seed: Option<Open>,
}

/// Reads the bias of a token.
fn bias(text: &str) -> Result<(u32, f32), String> {
    let parsed = text.find(['+', '-']).and_then(|sign| {
        let bias: f32 = text[sign..].parse().ok()?;
        let id = text[..sign].trim().parse().ok()?;
        let is_known = bias == f32::NEG_INFINITY || bias.abs() <= MOST_PENALTY;
        is_known.then_some((id, bias))
    });
    parsed.ok_or_else(|| {
        format!("it must be a token's id, + or -, and a number up to {MOST_PENALTY}, or -inf")
    })
}

impl SamplingArguments {
    /// The sampler's options.
    pub fn options(&self) -> SamplerOptions {
        SamplerOptions {
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            repeat_last: self.repeat_last_n,
            seed: self
                .seed
                .and_then(|seed| seed.0)
                .unwrap_or_else(seed_of_now),
        }
    }

    /// Changes of the logits before the sampler, for a vocabulary of that size.
    pub fn adjustments(&self, vocab: usize) -> Result<Adjustments, Failure> {
        if let Some((id, _)) = self.logit_bias.iter().find(|(id, _)| *id as usize >= vocab) {
            return Err(Failure::Usage(format!(
                "--logit-bias: {id} is not a token's id from 0 to {}",
                vocab.saturating_sub(1)
            )));
        }
        Ok(Adjustments {
            bias: self.logit_bias.clone(),
            presence: self.presence_penalty,
            frequency: self.frequency_penalty,
            last: self.repeat_last_n,
            typical: self.typical_p,
        })
    }
}

/// Nanoseconds of the clock; a clock before its epoch is as good a seed as any.
fn seed_of_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_nanos() as u64)
}

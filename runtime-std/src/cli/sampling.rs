//! Options of every command that samples.

use std::time::{SystemTime, UNIX_EPOCH};

use brooklet_core::sampler::SamplerOptions;
use clap::Args;

use super::failure::Failure;

/// Options of the sampler.
#[derive(Args)]
pub struct SamplingArguments {
    /// 0 always takes the most probable token; larger is more varied
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    temp: f32,
    /// Choose among the K most probable tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 40)]
    top_k: usize,
    /// Choose among the fewest tokens whose probabilities sum to P; 1 for all
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    top_p: f32,
    /// Choose among tokens at least P times as probable as the first; 0 for all
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    min_p: f32,
    /// Make the last 64 tokens less probable by this factor; 1 for not at all
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    repeat_penalty: f32,
    /// Start of the random sequence; from the clock unless given
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

impl SamplingArguments {
    /// The sampler's options.
    pub fn options(&self) -> Result<SamplerOptions, Failure> {
        let wrong = |name: &str, range: &str, value: f32| {
            Err(Failure::Usage(format!(
                "--{name} must be {range}, not {value}"
            )))
        };
        if !(self.temp >= 0.0 && self.temp.is_finite()) {
            return wrong("temp", "0 or more", self.temp);
        }
        if !(0.0..=1.0).contains(&self.top_p) {
            return wrong("top-p", "from 0 to 1", self.top_p);
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return wrong("min-p", "from 0 to 1", self.min_p);
        }
        if !(self.repeat_penalty > 0.0 && self.repeat_penalty.is_finite()) {
            return wrong("repeat-penalty", "more than 0", self.repeat_penalty);
        }
        Ok(SamplerOptions {
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            seed: self.seed.unwrap_or_else(seed_of_now),
            ..SamplerOptions::default()
        })
    }
}

/// Nanoseconds of the clock; a clock before its epoch is as good a seed as any.
fn seed_of_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_nanos() as u64)
}

//! Options of every command that computes: how tokens are kept, and with how many threads.

use std::num::NonZeroU32;

use clap::{Args, ValueEnum};

use brooklet_core::plan::CacheType;

use super::failure::Failure;
use crate::models::manifest::Manifest;
use crate::planning::{CacheLayout, DEFAULT_CACHE, DEFAULT_SINKS, PolicyKind, Settings};
use crate::size::Size;
use crate::system::pool::{MAX_WORKERS, Pool};

/// How tokens are kept.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PolicyName {
    /// The first S and the last W: endless, the default
    Sink,
    /// The last W only: collapses when the first tokens leave; a baseline
    Window,
    /// All, until the cache is full
    Dense,
    /// The last W, computed afresh for every token: slow; a baseline
    Recompute,
}

/// Element type of the cache.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CacheTypeName {
    /// Half precision, the default
    F16,
    /// 8-bit integers, half as large
    #[value(name = "q8_0")]
    Q8_0,
    /// Single precision
    F32,
}

impl CacheTypeName {
    /// The element type.
    pub fn cache_type(self) -> CacheType {
        match self {
            CacheTypeName::F16 => CacheType::F16,
            CacheTypeName::Q8_0 => CacheType::Q8_0,
            CacheTypeName::F32 => CacheType::F32,
        }
    }
}

/// What is kept of a token.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LayoutName {
    /// What the file is made for: keys and values, unless `brooklet slim` wrote it
    Auto,
    /// Keys and values
    Kv,
    /// Keys alone
    K,
    /// Keys and further channels
    #[value(name = "k+r")]
    KR,
    /// The layer's input, for models that do not rotate keys
    X,
}

impl LayoutName {
    fn layout(self) -> CacheLayout {
        match self {
            LayoutName::Auto => CacheLayout::Auto,
            LayoutName::Kv => CacheLayout::Kv,
            LayoutName::K => CacheLayout::K,
            LayoutName::KR => CacheLayout::KR,
            LayoutName::X => CacheLayout::X,
        }
    }
}

/// Threads to start for what `--threads` says.
pub fn workers(threads: Option<usize>) -> Result<usize, Failure> {
    let workers = threads.unwrap_or_else(Pool::default_workers);
    if (1..=MAX_WORKERS).contains(&workers) {
        return Ok(workers);
    }
    Err(Failure::Usage(format!(
        "--threads must be from 1 to {MAX_WORKERS}, not {workers}"
    )))
}

/// Most memory.
#[derive(Args)]
pub struct RamArguments {
    /// Most memory of the arena, for example 64MiB: without --window, the largest window that fits
    #[arg(long, value_name = "BYTES")]
    ram: Option<Size>,
}

impl RamArguments {
    /// The budget of [`Settings`], of which the tokenizer's index is a part.
    pub fn budget(&self) -> Option<usize> {
        self.ram.map(|size| size.0)
    }
}

/// Tokens in the cache, and threads that compute.
#[derive(Args)]
pub struct ComputeArguments {
    /// Tokens kept beside the sinks, the newest included
    #[arg(long, value_name = "W")]
    pub window: Option<usize>,
    /// Element type of the cache
    #[arg(long, value_name = "TYPE", value_enum, default_value = "f16")]
    pub cache_type: CacheTypeName,
    /// What is kept of a token
    #[arg(
        long,
        value_name = "LAYOUT",
        value_enum,
        default_value = "auto",
        hide_possible_values = false
    )]
    pub cache: LayoutName,
    /// Threads that compute; as many as there are processors unless given
    #[arg(short, long)]
    pub threads: Option<usize>,
    /// Leave out values whose softmax weight is under 1/N, an experiment: from 10000 on little is lost, and little gained
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub skip_weights: Option<u32>,
    /// Keep activations in f32 instead of int8: slow, for tests
    #[arg(long, hide = true)]
    pub f32_activations: bool,
}

/// How tokens are kept, and with how many threads to compute.
#[derive(Args)]
pub struct CacheArguments {
    /// How tokens are kept
    #[arg(long, value_enum, default_value = "sink", hide_possible_values = false)]
    pub policy: PolicyName,
    /// First tokens that are kept for ever, with the policy sink; 4 unless the model is known to need another number
    #[arg(long, value_name = "S")]
    pub sinks: Option<usize>,
    #[command(flatten)]
    pub compute: ComputeArguments,
}

impl CacheArguments {
    /// The settings, for a model that may have a manifest with its own defaults.
    pub fn settings(&self, manifest: Option<&Manifest>) -> Result<Settings, Failure> {
        Ok(Settings {
            policy: match self.policy {
                PolicyName::Sink => PolicyKind::Sink,
                PolicyName::Window => PolicyKind::Window,
                PolicyName::Dense => PolicyKind::Dense,
                PolicyName::Recompute => PolicyKind::Recompute,
            },
            sinks: self.sinks.or_else(|| manifest?.sinks).unwrap_or(DEFAULT_SINKS),
            ..self.compute.settings(manifest)?
        })
    }
}

impl ComputeArguments {
    /// Workers to start.
    pub fn workers(&self) -> Result<usize, Failure> {
        workers(self.threads)
    }

    /// The settings with the policy `sink`, for a model that may have a manifest with its own defaults.
    pub fn settings(&self, manifest: Option<&Manifest>) -> Result<Settings, Failure> {
        if self.window == Some(0) {
            return Err(Failure::Usage("--window must be at least 1".into()));
        }
        Ok(Settings {
            window: self.window,
            default_cache: manifest.map_or(DEFAULT_CACHE, |manifest| manifest.window),
            cache_type: self.cache_type.cache_type(),
            layout: self.cache.layout(),
            f32_activations: self.f32_activations,
            skip_under_one_in: self.skip_weights.and_then(NonZeroU32::new),
            ..Settings::default()
        })
    }
}

//! Options of every command that computes: the cache, and the number of threads.

use std::error::Error;
use std::num::NonZeroU32;
use std::str::FromStr;

use brooklet_core::cache::{ElementType, LayoutChoice, PolicyKind};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::failure::Failure;
use super::numbers::{MOST_TOKENS, whole};
use crate::model::Model;
use crate::models::manifest::Manifest;
use crate::notice::{Notice, Notices};
use crate::planning::{DEFAULT_CACHE, DEFAULT_SINKS, Settings};
use crate::size::Size;
use crate::system::pool::{MAX_WORKERS, Pool};
use crate::tuning;

/// Names of the policies, and their help.
pub const POLICIES: Names = &[
    ("sink", "The first S and the last W: endless, the default"),
    (
        "window",
        "The last W only: collapses when the first tokens leave; a baseline",
    ),
    ("dense", "All, until the cache is full"),
    (
        "recompute",
        "The last W, computed afresh for every token: slow; a baseline",
    ),
];

/// Names of the element types, and their help.
pub const ELEMENT_TYPES: Names = &[
    ("f16", "Half precision, the default"),
    ("q8_0", "8-bit integers, half as large"),
    ("f32", "Single precision"),
];

/// Names of the cache layouts, and their help.
pub const LAYOUTS: Names = &[
    (
        "auto",
        "The layout of the file: keys and values, unless `brooklet slim` wrote it",
    ),
    ("kv", "Keys and values"),
    ("k", "Keys alone"),
    ("k+r", "Keys and rank-correction channels"),
    ("x", "The layer's input, for models that do not rotate keys"),
];

/// Names of an option's values, with the help of each.
pub type Names = &'static [(&'static str, &'static str)];

/// Returns a parser of one of `names`.
pub fn one_of<T>(names: Names) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    let values = names
        .iter()
        .map(|(name, help)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(values).try_map(|name| name.parse::<T>())
}

/// Names of an option's values, with the help and the value of each, for values of one command.
pub type Choices<T> = &'static [(&'static str, &'static str, T)];

/// Returns a parser of one of `choices`.
pub fn choice_of<T>(choices: Choices<T>) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let values = choices
        .iter()
        .map(|(name, help, _)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(values).try_map(move |name| {
        let choice = choices.iter().find(|(known, ..)| *known == name);
        choice.map(|(.., value)| *value).ok_or("no such value")
    })
}

/// Returns a parser of `--threads`.
pub fn threads() -> impl TypedValueParser<Value = usize> {
    whole(1, MAX_WORKERS)
}

/// The value of `--threads` where a model decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadsChoice {
    /// As many as decode fastest, by trying.
    Auto,
    /// This number.
    Count(usize),
}

/// Reads a number of threads, or `auto`.
fn threads_choice(text: &str) -> Result<ThreadsChoice, String> {
    let whole = || {
        let count = text.parse().ok()?;
        (1..=MAX_WORKERS).contains(&count).then_some(count)
    };
    match text {
        "auto" => Ok(ThreadsChoice::Auto),
        _ => whole()
            .map(ThreadsChoice::Count)
            .ok_or_else(|| format!("must be auto, or from 1 to {MAX_WORKERS}")),
    }
}

/// Returns the number of threads to start for `--threads`.
pub fn workers(threads: Option<usize>) -> usize {
    threads.unwrap_or_else(Pool::default_workers)
}

/// Most memory.
#[derive(Args)]
pub struct RamArguments {
    /// Most memory of the arena, for example 64MiB: without --window, the largest window that
    /// leaves prefill a fifth of what is spare
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    ram: Option<Size>,
}

impl RamArguments {
    /// The budget of [`Settings`], of which the tokenizer's index is a part.
    pub fn budget(&self) -> Option<usize> {
        self.ram.map(|size| size.0)
    }
}

/// The value of `--window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// That many tokens.
    Tokens(usize),
    /// As many as fit.
    Largest,
}

/// Reads a window.
fn window(text: &str) -> Result<Window, String> {
    match text.trim() {
        "max" => Ok(Window::Largest),
        text => match text.parse() {
            Ok(tokens @ 1..=MOST_TOKENS) => Ok(Window::Tokens(tokens)),
            _ => Err(format!("it must be from 1 to {MOST_TOKENS}, or max")),
        },
    }
}

/// Tokens in the cache, and threads that compute.
#[derive(Args)]
pub struct ComputeArguments {
    /// Tokens kept beside the sinks, the newest included; max for as many as fit --ram, or without
    /// it as many as the model was trained for, however slow that makes prefill
    #[arg(long, value_name = "W", value_parser = window)]
    pub window: Option<Window>,
    /// Tokens kept, sinks included; 0 for as many as the model was trained for
    #[arg(short = 'c', long, value_name = "N", conflicts_with = "window", value_parser = whole(0, MOST_TOKENS))]
    pub ctx_size: Option<usize>,
    /// Element type of the cache
    #[arg(long, value_name = "TYPE", value_parser = one_of::<ElementType>(ELEMENT_TYPES), default_value = "f16")]
    pub cache_type: ElementType,
    /// Cache layout
    #[arg(
        long,
        value_name = "LAYOUT",
        value_parser = one_of::<LayoutChoice>(LAYOUTS),
        default_value = "auto",
        hide_possible_values = false
    )]
    pub cache: LayoutChoice,
    /// Threads that compute; as many as there are big cores unless given; auto for as many as
    /// decode fastest, which takes a moment to try
    #[arg(short, long, value_name = "THREADS", value_parser = threads_choice, allow_hyphen_values = true)]
    pub threads: Option<ThreadsChoice>,
    /// Leave out values whose softmax weight is under 1/N, an experiment: from 10000 on little is
    /// lost, and little gained
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub skip_weights: Option<u32>,
    /// Keep activations in f32 instead of int8: slow, for tests
    #[arg(long, hide = true)]
    pub f32_activations: bool,
}

/// Policy, size and layout of the cache, and number of threads.
#[derive(Args)]
pub struct CacheArguments {
    /// Cache policy
    #[arg(long, value_parser = one_of::<PolicyKind>(POLICIES), default_value = "sink", hide_possible_values = false)]
    pub policy: PolicyKind,
    /// First tokens that are kept for ever, with the policy sink; 4 unless the model is known to
    /// need another number
    #[arg(long, value_name = "S", value_parser = whole(0, MOST_TOKENS))]
    pub sinks: Option<usize>,
    #[command(flatten)]
    pub compute: ComputeArguments,
}

impl CacheArguments {
    /// The settings, for a model that may have a manifest with its own defaults, or state what it
    /// needs itself.
    pub fn settings(
        &self,
        model: &Model,
        manifest: Option<&Manifest>,
    ) -> Result<Settings, Failure> {
        let of_manifest = manifest.and_then(|manifest| manifest.sinks);
        let sinks = self.sinks.or(of_manifest).or_else(|| model.sinks());
        self.compute.with(
            Settings {
                policy: self.policy,
                sinks: sinks.unwrap_or(DEFAULT_SINKS),
                ..Settings::default()
            },
            manifest,
        )
    }
}

impl ComputeArguments {
    /// Workers to start; for `auto` those that there are without it.
    pub fn workers(&self) -> usize {
        match self.threads {
            Some(ThreadsChoice::Count(count)) => count,
            Some(ThreadsChoice::Auto) | None => Pool::default_workers(),
        }
    }

    /// The model with as many threads as decode fastest, if `auto` was asked for; says which.
    pub fn tuned(&self, model: Model, notices: &mut Notices) -> Result<Model, Failure> {
        if self.threads != Some(ThreadsChoice::Auto) {
            return Ok(model);
        }
        if model.config().encoder.get().is_some() {
            notices.add(Notice::OptionIgnored {
                option: "--threads auto".into(),
                reason: "a model that hears does not decode without a sound",
            });
            return Ok(model);
        }
        let tried = tuning::try_workers(&model)?;
        let chosen = tuning::fewest(&tried).unwrap_or(model.workers());
        notices.add(Notice::Threads { chosen, tried });
        Ok(model.with_workers(chosen))
    }

    /// The settings with the policy `sink`, for a model that may have a manifest with its own
    /// defaults.
    pub fn settings(&self, manifest: Option<&Manifest>) -> Result<Settings, Failure> {
        self.with(Settings::default(), manifest)
    }

    /// Completes settings whose policy and sinks are set.
    fn with(&self, settings: Settings, manifest: Option<&Manifest>) -> Result<Settings, Failure> {
        let sinks = match settings.policy {
            PolicyKind::Sink => settings.sinks,
            _ => 0,
        };
        let window = match (self.window, self.ctx_size) {
            (Some(Window::Tokens(tokens)), _) => Some(tokens),
            (_, None | Some(0)) => None,
            (_, Some(tokens)) if tokens > sinks => Some(tokens - sinks),
            (_, Some(tokens)) => {
                return Err(Failure::Usage(format!(
                    "--ctx-size {tokens} holds {sinks} sinks and no other token: it must be {} or more",
                    sinks + 1
                )));
            }
        };
        Ok(Settings {
            window,
            largest_window: self.window == Some(Window::Largest) || self.ctx_size == Some(0),
            default_cache: manifest.map_or(DEFAULT_CACHE, |manifest| manifest.window),
            cache_type: self.cache_type,
            layout: self.cache,
            f32_activations: self.f32_activations,
            skip_under_one_in: self.skip_weights.and_then(NonZeroU32::new),
            ..settings
        })
    }
}

//! From what a person asks for to a plan: defaults, and what would fit where something does not.

use std::num::NonZeroU32;

use brooklet_core::cache::{CrossLayout, ElementType, LayoutChoice, Policy, PolicyKind};
use brooklet_core::model::Config;
use brooklet_core::plan::{Options, Plan, PlanError};

use crate::Error;

/// Tokens in the cache where neither a window nor a budget is given, unless the model's manifest
/// says otherwise.
pub const DEFAULT_CACHE: usize = 2048;

/// Sinks, unless something else is asked for: four are enough for models trained without a
/// dedicated one (StreamingLLM, Xiao et al., arXiv 2309.17453, table 2).
pub const DEFAULT_SINKS: usize = 4;

/// Sizes of prefill chunks that are tried, best first. Products gain little beyond the first.
const CHUNKS: [usize; 16] = [256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1];

/// The chunk that a budget gives up for no window: larger ones gain 2 %, for memory to spare.
const FULL_CHUNK: usize = 128;

/// Of the bytes that a budget has beyond the smallest plan, one in so many is for prefill.
pub const PREFILL_SHARE: usize = 5;

/// Bytes that faster cross-attention may take where no budget is given.
pub const CROSS_MEMORY: usize = 32 << 20;

/// The choice of what cross-attention keeps of an encoder's output, in models that have one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrossChoice {
    /// Keys and values of every layer, with which a token is computed in fewer operations, where
    /// they fit the budget and make no chunk of a prefill smaller; without a budget where they take
    /// at most [`CROSS_MEMORY`] more than the output itself. Else the output itself.
    #[default]
    Auto,
    /// That layout.
    Layout(CrossLayout),
}

/// A session's options for its memory. The default is what suits the model without a budget.
///
/// ```
/// use brooklet::Settings;
///
/// let settings = Settings::new().budget(64 << 20);
/// assert_eq!(settings.sinks, 4);
/// ```
///
/// Other options are: [`ModelOptions`](crate::ModelOptions) of a file and its threads, before there
/// are sessions; [`Text`](crate::Text)'s, of one text; core's [`Options`], from which a plan is
/// computed, and its [`SamplerOptions`](brooklet_core::sampler::SamplerOptions) and
/// [`EncodeOptions`](brooklet_core::tokenizer::EncodeOptions).
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The policy by which tokens are kept.
    pub policy: PolicyKind,
    /// First tokens that are kept for ever, with [`PolicyKind::Sink`].
    pub sinks: usize,
    /// Tokens kept beside them; for [`PolicyKind::Dense`] all tokens. Without it the budget
    /// decides, or `default_cache`.
    pub window: Option<usize>,
    /// Without a window: take the largest that fits, however slow that makes prefill; without a
    /// budget either, all that the model was trained for.
    pub largest_window: bool,
    /// Most bytes of the arena.
    pub budget: Option<usize>,
    /// Tokens in the cache, sinks included, where neither `window` nor `budget` is given.
    pub default_cache: usize,
    /// Element type of the cache.
    pub cache_type: ElementType,
    /// The layout of the cache.
    pub layout: LayoutChoice,
    /// The rows that cross-attention keeps of an encoder's output, in models that have one.
    pub cross: CrossChoice,
    /// Tokens of which logits are computed at once: more than 1 where every token's are wanted.
    pub logits_rows: usize,
    /// True if tokens are drawn at random, which takes scratch for sorting.
    pub sampling: bool,
    /// Keep activations in f32 (slow; for tests).
    pub f32_activations: bool,
    /// Leave out values whose softmax weight is under one in so many.
    pub skip_under_one_in: Option<NonZeroU32>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            policy: PolicyKind::Sink,
            sinks: DEFAULT_SINKS,
            window: None,
            largest_window: false,
            budget: None,
            default_cache: DEFAULT_CACHE,
            cache_type: ElementType::F16,
            layout: LayoutChoice::Auto,
            cross: CrossChoice::Auto,
            logits_rows: 1,
            sampling: true,
            f32_activations: false,
            skip_under_one_in: None,
        }
    }
}

/// The inputs of a plan beside [`Settings`].
#[derive(Clone, Copy, Debug)]
pub struct Needs<'m> {
    /// The facts of the model.
    pub config: &'m Config,
    /// Bytes that the tokenizer takes from the arena.
    pub tokenizer_bytes: usize,
    /// Workers that compute, the calling thread included.
    pub workers: usize,
}

impl Settings {
    /// The default, to begin a chain.
    pub fn new() -> Settings {
        Settings::default()
    }

    /// Settings for captions: all of a transcript is kept, and nothing is drawn at random.
    pub fn of_speech() -> Settings {
        Settings {
            policy: PolicyKind::Dense,
            sinks: 0,
            sampling: false,
            ..Settings::default()
        }
    }

    /// Keeps the arena within `bytes`; if no window is given, by one that leaves prefill its share
    /// ([`Settings::balanced`]).
    pub fn budget(self, bytes: usize) -> Settings {
        Settings {
            budget: Some(bytes),
            ..self
        }
    }

    /// Keeps that many tokens beside the sinks.
    pub fn window(self, tokens: usize) -> Settings {
        Settings {
            window: Some(tokens),
            ..self
        }
    }

    /// Keeps as many tokens as fit the budget, however slow that makes prefill.
    pub fn largest_window(self) -> Settings {
        Settings {
            window: None,
            largest_window: true,
            ..self
        }
    }

    /// Keeps tokens by `policy`.
    pub fn policy(self, policy: PolicyKind) -> Settings {
        Settings { policy, ..self }
    }

    /// Keeps that many first tokens for ever, with the policy [`PolicyKind::Sink`].
    pub fn sinks(self, sinks: usize) -> Settings {
        Settings { sinks, ..self }
    }

    /// Keeps numbers of that type.
    pub fn cache_type(self, cache_type: ElementType) -> Settings {
        Settings { cache_type, ..self }
    }

    /// Keeps that of a token.
    pub fn layout(self, layout: LayoutChoice) -> Settings {
        Settings { layout, ..self }
    }

    /// The policy with `window` tokens.
    fn policy_with(&self, window: usize) -> Policy {
        Policy::new(self.policy, self.sinks, window)
    }

    fn options(&self, needs: &Needs<'_>, window: usize, chunk: usize) -> Options {
        Options {
            policy: self.policy_with(window),
            cache_type: self.cache_type,
            layout: self.layout,
            cross: match self.cross {
                CrossChoice::Layout(layout) => layout,
                CrossChoice::Auto => CrossLayout::E,
            },
            chunk,
            logits_rows: self.logits_rows,
            workers: needs.workers,
            f32_activations: self.f32_activations,
            skip_under_one_in: self.skip_under_one_in,
            tokenizer_bytes: needs.tokenizer_bytes,
            sampling: self.sampling,
        }
    }

    /// The window where nothing else decides.
    fn default_window(&self, config: &Config) -> usize {
        let cache = if self.largest_window {
            config.context
        } else {
            self.default_cache.min(config.context)
        };
        match self.policy {
            PolicyKind::Dense => config.context,
            _ => cache.saturating_sub(self.policy_with(1).sinks()).max(1),
        }
    }

    /// The plan of an arena.
    ///
    /// With a window, exactly that; with a budget, within it, with a window as
    /// [`Settings::balanced`] or [`Settings::largest`] finds it if none is given.
    ///
    /// # Errors
    /// [`Error::Plan`] with what is missing, and what would fit.
    pub fn plan(&self, needs: &Needs<'_>) -> Result<Plan, Error> {
        let config = needs.config;
        if self.cross == CrossChoice::Auto && config.encoder.get().is_some() {
            let plan = |layout| {
                let cross = CrossChoice::Layout(layout);
                let settings = Settings {
                    cross,
                    ..self.clone()
                };
                settings.plan(needs)
            };
            let small = plan(CrossLayout::E)?;
            let fast = plan(CrossLayout::Kv).ok().filter(|fast| {
                let more = fast.bytes().saturating_sub(small.bytes());
                fast.options().chunk >= small.options().chunk
                    && fast.options().policy == small.options().policy
                    && (self.budget.is_some() || more <= CROSS_MEMORY)
            });
            return Ok(fast.unwrap_or(small));
        }
        let result = match (self.window, self.budget) {
            (window, None) => {
                let window = window.unwrap_or_else(|| self.default_window(config));
                Plan::new(config, &self.options(needs, window, CHUNKS[0]))
            }
            (Some(window), Some(budget)) => self.fastest(needs, window, budget),
            (None, Some(budget)) if self.largest_window => self.largest(needs, budget),
            (None, Some(budget)) => self.balanced(needs, budget),
        };
        result.map_err(|error| Error::Plan {
            error,
            hint: self.hint(needs, error),
        })
    }

    /// The plan with the largest window within `budget`, whatever prefill loses by it.
    ///
    /// # Errors
    /// If not even one token fits, or the policy cannot be had at any size.
    pub fn largest(&self, needs: &Needs<'_>, budget: usize) -> Result<Plan, PlanError> {
        self.fastest(needs, self.most(needs, 1, budget)?, budget)
    }

    /// The plan whose window leaves prefill its share of `budget`: one in [`PREFILL_SHARE`] of the
    /// bytes beyond the smallest plan, or what chunks of 128 tokens need, whichever is less. A
    /// larger budget never gives a smaller window.
    ///
    /// # Errors
    /// As [`Settings::largest`].
    pub fn balanced(&self, needs: &Needs<'_>, budget: usize) -> Result<Plan, PlanError> {
        // Both windows grow with the budget, so the larger of them does, too; the chunk then takes
        // what is left, and may shrink where the window has just grown.
        self.most(needs, 1, budget)?;
        let least = Plan::new(needs.config, &self.options(needs, 1, 1))?.bytes();
        let spare = budget.saturating_sub(least);
        let shared = self.most(needs, 1, least + (spare - spare / PREFILL_SHARE))?;
        let at_full_speed = self.most(needs, FULL_CHUNK, budget).unwrap_or(0);
        self.fastest(needs, shared.max(at_full_speed), budget)
    }

    /// The largest window within `budget` with chunks of that many tokens.
    fn most(&self, needs: &Needs<'_>, chunk: usize, budget: usize) -> Result<usize, PlanError> {
        let plan = Plan::largest(needs.config, &self.options(needs, 1, chunk), budget)?;
        Ok(plan.options().policy.window())
    }

    /// The plan with that window and the largest chunk that fits; else the smallest chunk's error.
    fn fastest(&self, needs: &Needs<'_>, window: usize, budget: usize) -> Result<Plan, PlanError> {
        let plan = |chunk| Plan::within(needs.config, &self.options(needs, window, chunk), budget);
        let fits = CHUNKS.into_iter().find_map(|chunk| plan(chunk).ok());
        fits.map_or_else(|| plan(1), Ok)
    }

    /// A plan that would fit instead, as the end of the error's sentence.
    fn hint(&self, needs: &Needs<'_>, error: PlanError) -> String {
        match (error, self.budget) {
            (PlanError::OverBudget { .. }, Some(budget)) => match self.largest(needs, budget) {
                Ok(plan) => format!("; a window of {} would fit", plan.options().policy.window()),
                Err(_) => {
                    let smallest = Plan::new(needs.config, &self.options(needs, 1, 1));
                    smallest.map_or(String::new(), |plan| {
                        format!("; {} bytes hold the smallest window, 1", plan.bytes())
                    })
                }
            },
            (PlanError::BeyondContext { trained, .. }, _) => {
                let most = trained.saturating_sub(self.policy_with(1).sinks());
                format!("; the largest window is {most}")
            }
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use brooklet_core::gguf::Gguf;
    use proptest::prelude::*;

    use super::*;

    /// Metadata of a model like SmolLM2-135M, with an embedding of two tokens.
    fn config() -> Config {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        let numbers = [
            ("llama.block_count", 30),
            ("llama.embedding_length", 576),
            ("llama.attention.head_count", 9),
            ("llama.attention.head_count_kv", 3),
            ("llama.feed_forward_length", 1536),
            ("llama.context_length", 8192),
        ];
        let text = |file: &mut Vec<u8>, text: &str| {
            file.extend((text.len() as u64).to_le_bytes());
            file.extend(text.as_bytes());
        };
        file.extend(1u64.to_le_bytes());
        file.extend((numbers.len() as u64 + 2).to_le_bytes());
        text(&mut file, "general.architecture");
        file.extend(8u32.to_le_bytes());
        text(&mut file, "llama");
        text(&mut file, "llama.attention.layer_norm_rms_epsilon");
        file.extend(6u32.to_le_bytes());
        file.extend(1e-5f32.to_le_bytes());
        for (key, value) in numbers {
            text(&mut file, key);
            file.extend(4u32.to_le_bytes());
            file.extend((value as u32).to_le_bytes());
        }
        text(&mut file, "token_embd.weight");
        file.extend(2u32.to_le_bytes());
        file.extend(576u64.to_le_bytes());
        file.extend(2u64.to_le_bytes());
        file.extend([0; 12]);
        file.resize(file.len().next_multiple_of(32) + 576 * 2 * 4, 0);
        Config::from_gguf(&Gguf::parse(&file).unwrap()).unwrap()
    }

    fn settings(policy: PolicyKind, window: Option<usize>, budget: Option<usize>) -> Settings {
        Settings {
            policy,
            window,
            budget,
            ..Settings::default()
        }
    }

    fn needs(config: &Config, tokenizer_bytes: usize) -> Needs<'_> {
        Needs {
            config,
            tokenizer_bytes,
            workers: 2,
        }
    }

    #[test]
    fn defaults_fill_the_default_cache_or_the_context() {
        let window = |policy| {
            settings(policy, None, None)
                .plan(&needs(&config(), 0))
                .unwrap()
                .options()
                .policy
                .window()
        };
        assert_eq!(window(PolicyKind::Sink), 2044);
        assert_eq!(window(PolicyKind::Window), 2048);
        assert_eq!(window(PolicyKind::Recompute), 2048);
        assert_eq!(window(PolicyKind::Dense), 8192);
    }

    /// The window and the chunk for a budget.
    fn of_budget(settings: &Settings, config: &Config, budget: usize) -> Option<(usize, usize)> {
        let settings = Settings {
            budget: Some(budget),
            ..settings.clone()
        };
        let plan = settings.plan(&needs(config, 1 << 20)).ok()?;
        assert!(plan.bytes() <= budget);
        let options = plan.options();
        Some((options.policy.window(), options.chunk))
    }

    #[test]
    fn the_largest_window_is_the_largest_and_prefill_has_its_share() {
        let config = config();
        let balanced = settings(PolicyKind::Sink, None, None);
        let largest = balanced.clone().largest_window();
        for budget in [2 << 20, 3 << 20, 8 << 20, 64 << 20, 150 << 20] {
            let (most, _) = of_budget(&largest, &config, budget).unwrap();
            let wider = settings(PolicyKind::Sink, Some(most + 1), None);
            assert_eq!(of_budget(&wider, &config, budget), None);
            let (window, chunk) = of_budget(&balanced, &config, budget).unwrap();
            assert!(
                window <= most && window >= most - most / 4,
                "{window} of {most}"
            );
            assert!(chunk > 1 || window == most, "{chunk} in {budget}");
            if budget >= 64 << 20 {
                assert!(chunk >= FULL_CHUNK);
            }
        }
        for settings in [balanced, largest.clone()] {
            assert_eq!(of_budget(&settings, &config, 1 << 30), Some((8188, 256)));
        }
        let plan = largest.plan(&needs(&config, 0)).unwrap();
        assert_eq!(plan.capacity(), 8192);
    }

    proptest! {
        /// More memory never buys less.
        #[test]
        fn windows_grow_with_the_budget(
            policy in prop::sample::select(vec![
                PolicyKind::Sink, PolicyKind::Window, PolicyKind::Dense, PolicyKind::Recompute,
            ]),
            sampling: bool,
            budgets in prop::collection::vec((1usize << 20)..(300 << 20), 2),
            near in prop::option::of(0usize..100_000),
        ) {
            let config = config();
            let settings = Settings { sampling, ..settings(policy, None, None) };
            let low = budgets[0].min(budgets[1]);
            let high = near.map_or(budgets[0].max(budgets[1]), |more| low + more);
            for settings in [settings.clone(), settings.largest_window()] {
                let [low, high] = [low, high].map(|budget| of_budget(&settings, &config, budget));
                prop_assert!(low.map(|(window, _)| window) <= high.map(|(window, _)| window));
            }
        }
    }

    /// Keys and values for cross-attention where there is room, and its source where there is none.
    #[test]
    fn cross_attention_gets_what_the_budget_holds() {
        let bytes = include_bytes!("../../core/tests/data/random-whisper-f32.gguf");
        // With so few layers as the file has, keys and values are the smaller ones.
        let mut config = Config::from_gguf(&Gguf::parse(bytes).unwrap()).unwrap();
        config.layers = 64;
        let settings = Settings {
            window: Some(config.context),
            ..Settings::of_speech()
        };
        let plan = |cross, budget| {
            let settings = Settings {
                cross,
                budget,
                ..settings.clone()
            };
            settings.plan(&needs(&config, 0)).unwrap()
        };
        let [kv, e] = [CrossLayout::Kv, CrossLayout::E].map(CrossChoice::Layout);
        assert!(plan(kv, None).bytes() > plan(e, None).bytes());
        assert_eq!(plan(CrossChoice::Auto, None), plan(kv, None));
        let (large, small) = (plan(kv, None).bytes(), plan(e, None).bytes());
        assert_eq!(plan(CrossChoice::Auto, Some(large)), plan(kv, Some(large)));
        assert_eq!(plan(CrossChoice::Auto, Some(small)), plan(e, Some(small)));
        let tight = Settings {
            budget: Some(1000),
            ..settings
        };
        assert!(tight.plan(&needs(&config, 0)).is_err());
    }

    #[test]
    fn errors_say_what_would_fit() {
        let error = |window, budget| {
            settings(PolicyKind::Sink, window, budget)
                .plan(&needs(&config(), 0))
                .unwrap_err()
                .to_string()
        };
        let large = error(Some(4000), Some(64 << 20));
        let window: usize = large
            .split("; a window of ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(large.contains("missing"), "{large}");
        let fits = |window| {
            let settings = settings(PolicyKind::Sink, Some(window), Some(64 << 20));
            settings.plan(&needs(&config(), 0)).is_ok()
        };
        assert!(fits(window) && !fits(window + 1), "{window} is the largest");
        let tiny = error(None, Some(1000));
        let bytes: usize = tiny
            .split("; ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            settings(PolicyKind::Sink, Some(1), Some(bytes))
                .plan(&needs(&config(), 0))
                .is_ok()
        );
        assert!(
            settings(PolicyKind::Sink, Some(1), Some(bytes - 1))
                .plan(&needs(&config(), 0))
                .is_err()
        );
        assert!(error(Some(8189), None).ends_with("; the largest window is 8188"));
    }
}

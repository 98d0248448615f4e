//! The plan: the purpose of every byte of an arena. It computes the size of every buffer from a
//! model and options, in `const`.
//!
//! On a board [`Plan::within`] in a `const` turns a model that does not fit into a compile error
//! that names needed, given and missing bytes (see [`PlanError::message`]). On a host
//! [`Plan::largest`] turns a budget into the largest window that fits it.
//!
//! `part` holds the one table of the buffers, `sizes` the numbers that the table uses.

mod error;
mod options;
mod part;
mod sizes;

pub use error::PlanError;
pub use options::Options;
pub(crate) use part::Buffers;
pub use part::Part;
pub(crate) use sizes::{ROWS_OF_SAMPLES, stem_hidden_of_samples};

use crate::arena::MAX_PARTS;
use crate::cache::{CacheShape, Layout, LayoutChoice, Policy};
use crate::const_fn::{min, tri};
use crate::features::FAMILIES;
use crate::model::{Config, Positions};
use sizes::{EncoderSizes, LayerSizes, Sizes};

/// Sizes of all parts of an arena, for one model and one set of options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    config: Config,
    options: Options,
    sizes: [usize; Part::ALL.len()],
    /// Floats of all workers' attention scratch.
    scores: usize,
}

impl Plan {
    /// Largest number of tokens in a prefill chunk; [`Plan::new`] lowers a larger number to this
    /// one.
    pub const MOST_CHUNK: usize = MAX_PARTS;

    /// Returns the plan for `config` and `options`.
    ///
    /// # Errors
    /// If the options are out of range or do not suit the model, or sizes overflow.
    pub const fn new(config: &Config, options: &Options) -> Result<Plan, PlanError> {
        tri!(check_numbers(options));
        tri!(check_layout(config, options));
        let capacity = options.capacity();
        if capacity > config.context {
            return Err(PlanError::BeyondContext {
                asked: capacity,
                trained: config.context,
            });
        }
        if matches!(config.design.positions, Positions::Learned)
            && !matches!(
                options.policy,
                Policy::Dense { .. } | Policy::Recompute { .. }
            )
        {
            return Err(PlanError::LearnedPositions {
                trained: config.context,
            });
        }
        let mut options = *options;
        options.chunk = min(
            min(options.chunk, options.policy.window()),
            Plan::MOST_CHUNK,
        );
        if let Some(window) = config.kinds.smallest_window() {
            options.chunk = min(options.chunk, window);
        }
        options.logits_rows = min(options.logits_rows, options.chunk);
        let sizes = Sizes {
            config,
            options: &options,
            layers: LayerSizes::new(config, &options),
            encoder: EncoderSizes::new(config, &options),
        };
        let mut bytes = [0; Part::ALL.len()];
        let mut i = 0;
        while i < bytes.len() {
            bytes[i] = Part::ALL[i].bytes(&sizes);
            i += 1;
        }
        let plan = Plan {
            config: *config,
            options,
            sizes: bytes,
            scores: sizes.scores(),
        };
        if plan.bytes() >= isize::MAX as usize {
            return Err(PlanError::Overflow);
        }
        Ok(plan)
    }

    /// Returns the plan as [`Plan::new`] does, if it fits `budget` bytes.
    ///
    /// # Errors
    /// As [`Plan::new`], and [`PlanError::OverBudget`].
    pub const fn within(
        config: &Config,
        options: &Options,
        budget: usize,
    ) -> Result<Plan, PlanError> {
        match Plan::new(config, options) {
            Ok(plan) if plan.bytes() > budget => Err(PlanError::OverBudget {
                needed: plan.bytes(),
                given: budget,
            }),
            other => other,
        }
    }

    /// Returns the plan with the largest window that fits `budget` bytes and the trained context.
    /// The window in the options' policy is ignored.
    ///
    /// # Errors
    /// As [`Plan::within`] for the smallest window, 1.
    pub const fn largest(
        config: &Config,
        options: &Options,
        budget: usize,
    ) -> Result<Plan, PlanError> {
        let mut options = *options;
        let policy = options.policy;
        options.policy = policy.with_window(1);
        let mut best = match Plan::within(config, &options, budget) {
            Ok(plan) => plan,
            Err(error) => return Err(error),
        };
        let (mut fits, mut too_large) = (1, config.context.saturating_sub(policy.sinks()) + 1);
        while too_large - fits > 1 {
            let middle = fits + (too_large - fits) / 2;
            options.policy = policy.with_window(middle);
            match Plan::within(config, &options, budget) {
                Ok(plan) => {
                    best = plan;
                    fits = middle;
                }
                Err(_) => too_large = middle,
            }
        }
        Ok(best)
    }

    /// Facts of the model that the plan was made for.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Options that the plan was made for; chunk and rows of logits have the values that the plan
    /// uses.
    pub const fn options(&self) -> Options {
        self.options
    }

    /// Slots of the cache: sinks plus window.
    pub const fn capacity(&self) -> usize {
        self.options.capacity()
    }

    /// Bytes of the whole arena.
    pub const fn bytes(&self) -> usize {
        let mut total = 0usize;
        let mut i = 0;
        while i < self.sizes.len() {
            total = total.saturating_add(self.sizes[i]);
            i += 1;
        }
        total
    }

    /// Bytes of the engine's part of the arena: all but the tokenizer's.
    pub(crate) const fn engine_bytes(&self) -> usize {
        self.bytes() - self.part(Part::Tokenizer)
    }

    /// Floats of all workers' attention scratch. The buffer may be longer, but the order of sums
    /// may not depend on by how much.
    pub(crate) const fn scores(&self) -> usize {
        self.scores
    }

    /// Bytes of one part, with its padding.
    pub const fn part(&self, part: Part) -> usize {
        self.sizes[part as usize]
    }

    /// Iterates over the parts that are not empty, with their bytes.
    pub fn parts(&self) -> impl Iterator<Item = (Part, usize)> {
        Part::ALL
            .into_iter()
            .zip(self.sizes)
            .filter(|(_, bytes)| *bytes > 0)
    }

    /// Cuts an arena of [`Plan::bytes`] into the engine's part and the tokenizer's; `None` if the
    /// arena is shorter.
    pub fn split<'a>(&self, arena: &'a mut [u8]) -> Option<(&'a mut [u8], &'a mut [u8])> {
        let arena = arena.get_mut(..self.bytes())?;
        Some(arena.split_at_mut(self.engine_bytes()))
    }

    /// Carves the engine's buffers from its part of the arena; `None` if it is too short, or not
    /// aligned to [`crate::arena::ALIGN`].
    pub(crate) fn carve<'a>(&self, engine: &'a mut [u8]) -> Option<Buffers<'a>> {
        let sizes = Sizes {
            config: &self.config,
            options: &self.options,
            layers: LayerSizes::new(&self.config, &self.options),
            encoder: EncoderSizes::new(&self.config, &self.options),
        };
        Buffers::carve(&sizes, engine)
    }

    /// Everything that the cache of layer `layer` follows from.
    pub(crate) const fn cache_shape(&self, layer: usize) -> CacheShape {
        self.options.cache_shape(&self.config, layer)
    }

    /// Everything that a cache of the encoder's output follows from.
    pub(crate) const fn cross_shape(&self) -> Option<CacheShape> {
        self.options.cross_shape(&self.config)
    }

    /// Everything that the keys and values of the encoder's own layers follow from.
    pub(crate) const fn encoder_shape(&self) -> Option<CacheShape> {
        self.options.encoder_shape(&self.config)
    }
}

/// Refuses numbers that are zero or too large.
const fn check_numbers(options: &Options) -> Result<(), PlanError> {
    if options.policy.window() == 0 {
        return Err(PlanError::Zero("window"));
    }
    if options.chunk == 0 {
        return Err(PlanError::Zero("chunk"));
    }
    if options.logits_rows == 0 {
        return Err(PlanError::Zero("number of rows of logits"));
    }
    if options.workers == 0 {
        return Err(PlanError::Zero("number of workers"));
    }
    if options.workers > MAX_PARTS {
        return Err(PlanError::Workers {
            asked: options.workers,
        });
    }
    Ok(())
}

/// Refuses layouts that do not suit the model, or that this build does not have.
const fn check_layout(config: &Config, options: &Options) -> Result<(), PlanError> {
    match options.layout {
        LayoutChoice::Kv | LayoutChoice::X if config.values_dropped => {
            return Err(PlanError::NoValues);
        }
        LayoutChoice::X if !FAMILIES => return Err(PlanError::NoInputs),
        LayoutChoice::X if !config.may_keep_inputs() => {
            return Err(PlanError::Inputs {
                rotated: config.shape().is_rotated(),
            });
        }
        _ => {}
    }
    let mut others = 0;
    let mut layer = 0;
    while layer < config.layers {
        let rank = match config.layouts.of(layer) {
            Layout::KR { rank } => Some(rank),
            _ => None,
        };
        match (options.layout, rank) {
            (LayoutChoice::K, Some(0)) | (LayoutChoice::KR, Some(_)) => {}
            (LayoutChoice::K | LayoutChoice::KR, _) => others += 1,
            _ => {}
        }
        if let Some(missing) = options.cache_shape(config, layer).not_built() {
            return Err(PlanError::NotBuilt(missing));
        }
        layer += 1;
    }
    if others > 0 {
        return Err(PlanError::NotMadeFor {
            layout: options.layout,
            others,
            layers: config.layers,
        });
    }
    Ok(())
}

//! What every byte of an arena is for: from (model, policy, cache type, chunk) to the size of every buffer, in `const`.
//!
//! On a board [`Plan::within`] in a `const` turns a model that does not fit into a compile error that names needed, given and
//! missing bytes (see [`PlanError::message`]). On a host [`Plan::largest`] turns a budget into the largest window that fits it.

use core::fmt;
use core::num::NonZeroU32;

use crate::arena::{ALIGN, MAX_PARTS};
use crate::attention::{geometry, slim};
use crate::const_fmt::{Message, budget_message};
use crate::kernels::attend::raw::LaneAngles;
use crate::kernels::attend::{MAX_ROWS, scratch_floats};
use crate::kernels::{self, Q8Activation};
use crate::model::Config;
use crate::quant::BLOCK;

/// How tokens are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Policy {
    /// Keep all, stop at `capacity`.
    Dense {
        /// Most tokens.
        capacity: usize,
    },
    /// The last `window` only: collapses once the first tokens leave; a baseline.
    Window {
        /// Tokens kept, the newest included.
        window: usize,
    },
    /// The last `window` computed afresh for every token: right, and slow; a baseline.
    Recompute {
        /// Tokens computed, the newest included.
        window: usize,
    },
    /// The first `sinks` and the last `window` tokens (StreamingLLM, Xiao et al., arXiv 2309.17453, section 3.2): endless and
    /// flat; the product's default.
    Sink {
        /// First tokens kept for ever.
        sinks: usize,
        /// Tokens kept beside them, the newest included.
        window: usize,
    },
}

impl Policy {
    /// First tokens that are kept for ever.
    pub const fn sinks(self) -> usize {
        match self {
            Policy::Sink { sinks, .. } => sinks,
            _ => 0,
        }
    }

    /// Tokens that the ring holds beside the sinks.
    pub const fn window(self) -> usize {
        match self {
            Policy::Dense { capacity } => capacity,
            Policy::Window { window } | Policy::Recompute { window } | Policy::Sink { window, .. } => window,
        }
    }

    /// The same policy with another window (for [`Policy::Dense`]: capacity).
    pub const fn with_window(self, window: usize) -> Policy {
        match self {
            Policy::Dense { .. } => Policy::Dense { capacity: window },
            Policy::Window { .. } => Policy::Window { window },
            Policy::Recompute { .. } => Policy::Recompute { window },
            Policy::Sink { sinks, .. } => Policy::Sink { sinks, window },
        }
    }

    /// `dense`, `window`, `recompute` or `sink`.
    pub const fn name(self) -> &'static str {
        match self {
            Policy::Dense { .. } => "dense",
            Policy::Window { .. } => "window",
            Policy::Recompute { .. } => "recompute",
            Policy::Sink { .. } => "sink",
        }
    }
}

/// Element type of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CacheType {
    /// 4 bytes an element.
    F32,
    /// 2 bytes an element; the default.
    F16,
    /// 8-bit integers with an f16 scale per 32: 1.0625 bytes an element.
    Q8_0,
}

impl CacheType {
    /// `f32`, `f16` or `q8_0`.
    pub const fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Q8_0 => "q8_0",
        }
    }

    /// Whether this build has it: F32 and F16 are the features `cache-f32` and `cache-f16`, which firmware leaves out to save flash.
    pub const fn is_built(self) -> bool {
        match self {
            CacheType::F32 => cfg!(feature = "cache-f32"),
            CacheType::F16 => cfg!(feature = "cache-f16"),
            CacheType::Q8_0 => true,
        }
    }

    /// Bytes of one element, without scales.
    pub const fn element_bytes(self) -> usize {
        match self {
            CacheType::F32 => 4,
            CacheType::F16 => 2,
            CacheType::Q8_0 => 1,
        }
    }

    /// Element type of the further channels of [`Layout::Slim`] beside keys of this type: f16 at least, since values take their
    /// error as it is.
    pub const fn of_channels(self) -> CacheType {
        match self {
            CacheType::F32 => CacheType::F32,
            CacheType::F16 | CacheType::Q8_0 => CacheType::F16,
        }
    }

    /// Scales (two bytes each) of a row of `columns` elements.
    pub const fn row_scales(self, columns: usize) -> usize {
        match self {
            CacheType::Q8_0 => columns.div_ceil(BLOCK),
            _ => 0,
        }
    }
}

/// What is kept of a token in one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Layout {
    /// Keys and values.
    Kv,
    /// Keys, and `rank` further channels: values are computed from them (slim attention, Graef and Wasielewski, arXiv 2503.05840;
    /// with rank 0 its plain form). The values of the policy's sinks are kept in f32.
    Slim {
        /// Further channels.
        rank: u16,
    },
}

impl Layout {
    /// Further channels.
    pub const fn rank(self) -> usize {
        match self {
            Layout::Kv => 0,
            Layout::Slim { rank } => rank as usize,
        }
    }
}

/// Which layouts are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum LayoutChoice {
    /// Those that the file is made for: slim where it says how values are made of keys.
    #[default]
    File,
    /// [`Layout::Kv`] in every layer.
    Kv,
}

/// What a plan is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Options {
    /// How tokens are kept.
    pub policy: Policy,
    /// Element type of the cache.
    pub cache_type: CacheType,
    /// What is kept of a token.
    pub layout: LayoutChoice,
    /// Tokens that a prefill computes at once; at least 1. At most the window is used, and at most 256.
    pub chunk: usize,
    /// Tokens of a chunk whose logits are wanted: 1, or more where every token's are (perplexity).
    pub logits_rows: usize,
    /// Workers that compute ([`crate::threads::Threads::workers`]).
    pub workers: usize,
    /// Keep activations in f32 instead of int8: slow; a switch for tests.
    pub f32_activations: bool,
    /// Leave out values whose softmax weight is under one in so many (slim attention, Graef and Wasielewski, arXiv 2503.05840, appendix
    /// D): faster, and the output errs by what those weights add up to at most, times the largest value. In
    /// a slim layer with a mean the mean's value stands for what is left out. `None` leaves out nothing.
    pub skip_under_one_in: Option<NonZeroU32>,
    /// Bytes that the tokenizer's index takes from the same arena.
    pub tokenizer_bytes: usize,
    /// Whether the sampler may sort the vocabulary (anything but greedy).
    pub sampling: bool,
}

impl Options {
    /// Sinks and a window in f16, one token at a time, one worker, greedy: what a board wants.
    pub const fn sink(sinks: usize, window: usize) -> Options {
        Options {
            policy: Policy::Sink { sinks, window },
            cache_type: CacheType::F16,
            layout: LayoutChoice::File,
            chunk: 1,
            logits_rows: 1,
            workers: 1,
            f32_activations: false,
            skip_under_one_in: None,
            tokenizer_bytes: 0,
            sampling: false,
        }
    }
}

impl Options {
    /// Layer `layer`'s layout.
    pub const fn layout_of(&self, config: &Config, layer: usize) -> Layout {
        match self.layout {
            LayoutChoice::File => config.layouts.of(layer),
            LayoutChoice::Kv => Layout::Kv,
        }
    }

    /// The softmax weight under which values are left out; 0 for none.
    pub(crate) const fn least_weight(&self) -> f32 {
        match self.skip_under_one_in {
            Some(count) => 1.0 / count.get() as f32,
            None => 0.0,
        }
    }

    /// Whether any layer is slim.
    pub const fn any_slim(&self, config: &Config) -> bool {
        matches!(self.layout, LayoutChoice::File) && config.layouts.any_slim()
    }
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum PlanError {
    /// The plan takes more bytes than there are.
    OverBudget {
        /// Bytes that the plan takes.
        needed: usize,
        /// Bytes that there are.
        given: usize,
    },
    /// Sinks and window together are more than the model was trained for.
    BeyondContext {
        /// Sinks plus window.
        asked: usize,
        /// Positions that the model was trained for.
        trained: usize,
    },
    /// The cache's element type, or that of a slim layer's channels, is left out of this build.
    NotBuilt(CacheType),
    /// Keys and values cannot be cached: there are slim layers without what makes values of inputs.
    NoValues,
    /// The window, the chunk, the rows of logits or the workers are zero, or there are more than 256 workers.
    ZeroOrTooMany,
    /// The sizes overflow the address space.
    Overflow,
}

impl PlanError {
    /// The whole sentence, in `const`: what a board's compile error says.
    pub const fn message(&self) -> Message<160> {
        match *self {
            PlanError::OverBudget { needed, given } => budget_message(needed, given),
            PlanError::BeyondContext { asked, trained } => Message::new()
                .text("sinks and window hold ")
                .number(asked)
                .text(" tokens together, but the model was trained for ")
                .number(trained),
            PlanError::NotBuilt(cache_type) => Message::new()
                .text("this build has no cache in ")
                .text(cache_type.name())
                .text(": brooklet-core's feature cache-")
                .text(cache_type.name())
                .text(" brings it"),
            PlanError::NoValues => Message::new().text(
                "keys and values cannot be cached: the file lacks attn_v.weight where it has values computed from keys",
            ),
            PlanError::ZeroOrTooMany => Message::new()
                .text("window, chunk, rows of logits and workers must be at least 1, and workers at most ")
                .number(MAX_PARTS),
            PlanError::Overflow => {
                Message::new().text("the sizes asked for overflow this machine's address space")
            }
        }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message().as_str())
    }
}

impl core::error::Error for PlanError {}

/// A buffer of the arena, in the order in which they lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "`name` says what each is for")]
pub enum Part {
    Cache,
    ChunkCache,
    History,
    Residual,
    Normed,
    Queries,
    SinkQueries,
    Keys,
    Values,
    Channels,
    Attended,
    Gate,
    Up,
    Activations,
    Scores,
    KernelScratch,
    Frequencies,
    Angles,
    SinkAngles,
    LaneAngles,
    TileAngles,
    Logits,
    Candidates,
    Tokenizer,
}

impl Part {
    /// Every part, in the order of the arena.
    pub const ALL: [Part; 24] = [
        Part::Cache,
        Part::ChunkCache,
        Part::History,
        Part::Residual,
        Part::Normed,
        Part::Queries,
        Part::SinkQueries,
        Part::Keys,
        Part::Values,
        Part::Channels,
        Part::Attended,
        Part::Gate,
        Part::Up,
        Part::Activations,
        Part::Scores,
        Part::KernelScratch,
        Part::Frequencies,
        Part::Angles,
        Part::SinkAngles,
        Part::LaneAngles,
        Part::TileAngles,
        Part::Logits,
        Part::Candidates,
        Part::Tokenizer,
    ];

    /// What the bytes are for.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Cache => "cache: keys and values",
            Part::ChunkCache => "keys and values of a prefill chunk",
            Part::History => "token history",
            Part::Residual => "residual stream",
            Part::Normed => "normed activations",
            Part::Queries => "queries",
            Part::SinkQueries => "queries at sink positions",
            Part::Keys => "new keys",
            Part::Values => "new values",
            Part::Channels => "new further channels",
            Part::Attended => "attention output",
            Part::Gate => "feed-forward gate",
            Part::Up => "feed-forward up",
            Part::Activations => "int8 activations",
            Part::Scores => "attention scores",
            Part::KernelScratch => "kernel scratch",
            Part::Frequencies => "rotary frequencies",
            Part::Angles => "rotary angles",
            Part::SinkAngles => "rotary angles at sink positions",
            Part::LaneAngles => "rotary angles within a tile",
            Part::TileAngles => "rotary angles of tiles",
            Part::Logits => "logits",
            Part::Candidates => "sampler candidates",
            Part::Tokenizer => "tokenizer index",
        }
    }
}

/// Sizes of all parts of an arena, for one model and one set of options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    options: Options,
    sizes: [usize; Part::ALL.len()],
}

impl Plan {
    /// The plan for `config` and `options`.
    ///
    /// # Errors
    /// If the options are out of range, or sizes overflow.
    pub const fn new(config: &Config, options: &Options) -> Result<Plan, PlanError> {
        let mut options = *options;
        let window = options.policy.window();
        if window == 0
            || options.chunk == 0
            || options.logits_rows == 0
            || options.workers == 0
            || options.workers > MAX_PARTS
        {
            return Err(PlanError::ZeroOrTooMany);
        }
        if config.values_dropped && matches!(options.layout, LayoutChoice::Kv) {
            return Err(PlanError::NoValues);
        }
        if let Some(missing) = not_built(config, &options) {
            return Err(PlanError::NotBuilt(missing));
        }
        let capacity = window.saturating_add(options.policy.sinks());
        if capacity > config.context {
            return Err(PlanError::BeyondContext {
                asked: capacity,
                trained: config.context,
            });
        }
        options.chunk = min(min(options.chunk, window), MAX_PARTS);
        options.logits_rows = min(options.logits_rows, options.chunk);
        let plan = Plan {
            options,
            sizes: sizes(config, &options, capacity),
        };
        if plan.bytes() >= isize::MAX as usize {
            return Err(PlanError::Overflow);
        }
        Ok(plan)
    }

    /// As [`Plan::new`], within `budget` bytes.
    ///
    /// # Errors
    /// As [`Plan::new`], and [`PlanError::OverBudget`].
    pub const fn within(config: &Config, options: &Options, budget: usize) -> Result<Plan, PlanError> {
        match Plan::new(config, options) {
            Ok(plan) if plan.bytes() > budget => Err(PlanError::OverBudget {
                needed: plan.bytes(),
                given: budget,
            }),
            other => other,
        }
    }

    /// The plan with the largest window of the options' policy (its own window is not looked at) that fits `budget` bytes and the
    /// trained context.
    ///
    /// # Errors
    /// As [`Plan::within`] for the smallest window, 1.
    pub const fn largest(config: &Config, options: &Options, budget: usize) -> Result<Plan, PlanError> {
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

    /// The options that the plan was made for; chunk and rows of logits as they came out.
    pub const fn options(&self) -> Options {
        self.options
    }

    /// Slots of the cache: sinks plus window.
    pub const fn capacity(&self) -> usize {
        self.options.policy.sinks() + self.options.policy.window()
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

    /// Bytes of one part, its padding included.
    pub const fn part(&self, part: Part) -> usize {
        self.sizes[part as usize]
    }

    /// Every part that is not empty: what for, and how many bytes.
    pub fn parts(&self) -> impl Iterator<Item = (Part, usize)> {
        Part::ALL
            .into_iter()
            .zip(self.sizes)
            .filter(|(_, bytes)| *bytes > 0)
    }

    /// Cuts an arena of [`Plan::bytes`] into the engine's part and the tokenizer's; `None` if it is shorter.
    pub fn split<'a>(&self, arena: &'a mut [u8]) -> Option<(&'a mut [u8], &'a mut [u8])> {
        let arena = arena.get_mut(..self.bytes())?;
        Some(arena.split_at_mut(self.bytes() - self.part(Part::Tokenizer)))
    }
}

const fn min(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// Bytes of `count · each` with padding; saturates.
const fn padded(count: usize, each: usize) -> usize {
    match count.saturating_mul(each).checked_next_multiple_of(ALIGN) {
        Some(bytes) => bytes,
        None => usize::MAX,
    }
}

/// Bytes of `slots` slots of one layer in `layout`, as [`crate::cache`] carves them; `exact_sinks` of them with values beside.
pub(crate) const fn layer_bytes(
    config: &Config,
    (layout, cache_type): (Layout, CacheType),
    slots: usize,
    exact_sinks: usize,
) -> usize {
    let columns = config.kv_columns();
    let keys = plane_bytes(cache_type, slots, columns);
    match layout {
        Layout::Kv => keys.saturating_mul(2),
        Layout::Slim { rank } => keys
            .saturating_add(plane_bytes(cache_type.of_channels(), slots, rank as usize))
            .saturating_add(padded(exact_sinks.saturating_mul(columns), size_of::<f32>())),
    }
}

const fn plane_bytes(cache_type: CacheType, slots: usize, columns: usize) -> usize {
    let plane = padded(slots.saturating_mul(columns), cache_type.element_bytes());
    let scales = padded(slots.saturating_mul(cache_type.row_scales(columns)), 2);
    plane.saturating_add(scales)
}

/// Query rows that one attention job works on at a time.
pub(crate) const fn attention_rows(config: &Config, chunk: usize) -> usize {
    min(MAX_ROWS, (config.heads / config.kv_heads).saturating_mul(chunk))
}

const fn sizes(config: &Config, options: &Options, capacity: usize) -> [usize; Part::ALL.len()] {
    let f = size_of::<f32>();
    let chunk = options.chunk;
    let pairs = config.rope_dim / 2;
    let sink_chunk = if options.policy.sinks() > 0 { chunk } else { 0 };
    let widest = max(max(config.d_model, config.query_columns()), config.ff);
    let rows = attention_rows(config, chunk);
    let shadow = if chunk > 1 { chunk } else { 0 };
    let mut scores = scratch_floats(rows, capacity, shadow);
    let exact_sinks = options.policy.sinks();
    let (mut cache, mut chunk_cache, mut rank, mut mapped) = (0usize, 0, 0, 0);
    let mut layer = 0;
    while layer < config.layers {
        let layout = options.layout_of(config, layer);
        let of_layer = (layout, options.cache_type);
        cache = cache.saturating_add(layer_bytes(config, of_layer, capacity, exact_sinks));
        chunk_cache = max(chunk_cache, layer_bytes(config, of_layer, shadow, 0));
        if let Layout::Slim { .. } = layout {
            let of_slim = slim::scratch_floats(
                &slim::Heads::of_keys(config),
                layout.rank(),
                (capacity, chunk, exact_sinks),
            );
            scores = max(scores, of_slim);
            rank = max(rank, layout.rank());
            mapped = config.kv_columns().saturating_add(rank);
        }
        layer += 1;
    }
    let slim_pairs = if mapped > 0 { pairs } else { 0 };
    let scratch_tokens = if options.f32_activations { 1 } else { chunk };
    let mut sizes = [0; Part::ALL.len()];
    sizes[Part::Cache as usize] = cache;
    sizes[Part::ChunkCache as usize] = chunk_cache;
    let history = if let Policy::Recompute { window } = options.policy {
        window
    } else {
        0
    };
    sizes[Part::History as usize] = padded(history, size_of::<u32>());
    sizes[Part::Residual as usize] = padded(chunk.saturating_mul(config.d_model), f);
    sizes[Part::Normed as usize] = padded(chunk.saturating_mul(config.d_model), f);
    sizes[Part::Queries as usize] = padded(chunk.saturating_mul(config.query_columns()), f);
    sizes[Part::SinkQueries as usize] = padded(sink_chunk.saturating_mul(config.query_columns()), f);
    sizes[Part::Keys as usize] = padded(chunk.saturating_mul(config.kv_columns()), f);
    sizes[Part::Values as usize] = padded(chunk.saturating_mul(config.kv_columns()), f);
    sizes[Part::Channels as usize] = padded(chunk.saturating_mul(rank), f);
    sizes[Part::Attended as usize] = padded(chunk.saturating_mul(config.query_columns()), f);
    sizes[Part::Gate as usize] = padded(chunk.saturating_mul(config.ff), f);
    sizes[Part::Up as usize] = padded(chunk.saturating_mul(config.ff), f);
    sizes[Part::Activations as usize] = if options.f32_activations {
        0
    } else {
        padded(chunk.saturating_mul(widest / BLOCK), size_of::<Q8Activation>())
    };
    sizes[Part::Scores as usize] = padded(scores, f).saturating_mul(options.workers);
    sizes[Part::KernelScratch as usize] =
        padded(kernels::scratch_bytes(max(widest, mapped), scratch_tokens), 1)
            .saturating_mul(options.workers);
    sizes[Part::Frequencies as usize] = padded(pairs, size_of::<u64>());
    sizes[Part::Angles as usize] = padded(chunk.saturating_mul(pairs), 2 * f);
    sizes[Part::SinkAngles as usize] = padded(sink_chunk.saturating_mul(pairs), 2 * f);
    sizes[Part::LaneAngles as usize] = padded(slim_pairs, size_of::<LaneAngles>());
    sizes[Part::TileAngles as usize] = padded(
        slim_pairs.saturating_mul(geometry::base_tiles(capacity, chunk)),
        2 * f,
    );
    sizes[Part::Logits as usize] = padded(options.logits_rows.saturating_mul(config.vocab), f);
    sizes[Part::Candidates as usize] = if options.sampling {
        padded(config.vocab, size_of::<u32>())
    } else {
        0
    };
    sizes[Part::Tokenizer as usize] = padded(options.tokenizer_bytes, 1);
    sizes
}

/// The first element type that a cache needs and the build does not have.
const fn not_built(config: &Config, options: &Options) -> Option<CacheType> {
    if !options.cache_type.is_built() {
        return Some(options.cache_type);
    }
    let channels = options.cache_type.of_channels();
    let mut layer = 0;
    while layer < config.layers {
        if options.layout_of(config, layer).rank() > 0 && !channels.is_built() {
            return Some(channels);
        }
        layer += 1;
    }
    None
}

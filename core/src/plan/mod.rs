//! What every byte of an arena is for: from (model, policy, cache type, chunk) to the size of every buffer, in `const`.
//!
//! On a board [`Plan::within`] in a `const` turns a model that does not fit into a compile error that names needed, given and
//! missing bytes (see [`PlanError::message`]). On a host [`Plan::largest`] turns a budget into the largest window that fits it.

mod error;
mod options;
mod part;

pub use crate::kernels::attend::ElementType;
pub use error::PlanError;
pub use options::{Layout, LayoutChoice, Options, Policy};
pub use part::Part;

use crate::arena::{ALIGN, MAX_PARTS};
use crate::attention::{geometry, slim};
use crate::kernels::attend::LaneAngles;
use crate::kernels::attend::{MAX_ROWS, scratch_floats};
use crate::kernels::{self, Q8Activation};
use crate::model::{Config, Positions};
use crate::quant::BLOCK;

/// Another name of [`ElementType`], for callers that have yet to change.
pub type CacheType = ElementType;

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
        if matches!(config.design.positions, Positions::Learned)
            && !matches!(options.policy, Policy::Dense { .. } | Policy::Recompute { .. })
        {
            return Err(PlanError::LearnedPositions {
                trained: config.context,
            });
        }
        options.chunk = min(min(options.chunk, window), MAX_PARTS);
        if let Some(local) = config.local {
            options.chunk = min(options.chunk, local.window);
        }
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

/// Bytes and floats that depend on the layers' layouts.
struct OfLayers {
    cache: usize,
    chunk_cache: usize,
    scores: usize,
    /// Most further channels of a layer.
    rank: usize,
    /// Columns of the widest slim map; 0 if no layer is slim.
    mapped: usize,
}

const fn of_layers(config: &Config, options: &Options, capacity: usize) -> OfLayers {
    let chunk = options.chunk;
    let shadow = if chunk > 1 { chunk } else { 0 };
    let exact_sinks = options.policy.sinks();
    let mut of = OfLayers {
        cache: 0,
        chunk_cache: 0,
        scores: scratch_floats(attention_rows(config, chunk), capacity, shadow),
        rank: 0,
        mapped: 0,
    };
    let mut layer = 0;
    while layer < config.layers {
        let layout = options.layout_of(config, layer);
        let of_layer = (layout, options.cache_type);
        let (sinks, window) = options.policy.slots(config.local_window(layer));
        of.cache = of.cache.saturating_add(layer_bytes(
            config,
            of_layer,
            sinks.saturating_add(window),
            exact_sinks,
        ));
        of.chunk_cache = max(of.chunk_cache, layer_bytes(config, of_layer, shadow, 0));
        if let Layout::Slim { .. } = layout {
            let of_slim = slim::scratch_floats(
                &slim::Heads::of_keys(config),
                layout.rank(),
                (capacity, chunk, exact_sinks),
            );
            of.scores = max(of.scores, of_slim);
            of.rank = max(of.rank, layout.rank());
            of.mapped = config.kv_columns().saturating_add(of.rank);
        }
        layer += 1;
    }
    of
}

const fn sizes(config: &Config, options: &Options, capacity: usize) -> [usize; Part::ALL.len()] {
    let f = size_of::<f32>();
    let chunk = options.chunk;
    let of = of_layers(config, options, capacity);
    let widest = max(max(config.d_model, config.query_columns()), config.ff);
    let mut sizes = [0; Part::ALL.len()];
    sizes[Part::Cache as usize] = of.cache;
    sizes[Part::ChunkCache as usize] = of.chunk_cache;
    if let Policy::Recompute { window } = options.policy {
        sizes[Part::History as usize] = padded(window, size_of::<u32>());
    }
    // Prompts may be pinned as sinks where none were planned.
    let sink_chunk = if let Policy::Sink { .. } = options.policy {
        chunk
    } else {
        0
    };
    let up = if config.design.feed_forward.gated() {
        config.ff
    } else {
        0
    };
    let rows = [
        (Part::Residual, chunk, config.d_model),
        (Part::Normed, chunk, config.d_model),
        (Part::Queries, chunk, config.query_columns()),
        (Part::SinkQueries, sink_chunk, config.query_columns()),
        (Part::Keys, chunk, config.kv_columns()),
        (Part::Values, chunk, config.kv_columns()),
        (Part::Channels, chunk, of.rank),
        (Part::Attended, chunk, config.query_columns()),
        (Part::Gate, chunk, config.ff),
        (Part::Up, chunk, up),
        (Part::Logits, options.logits_rows, config.vocab),
    ];
    let mut i = 0;
    while i < rows.len() {
        let (part, rows, columns) = rows[i];
        sizes[part as usize] = padded(rows.saturating_mul(columns), f);
        i += 1;
    }
    if !options.f32_activations {
        let blocks = chunk.saturating_mul(widest / BLOCK);
        sizes[Part::Activations as usize] = padded(blocks, size_of::<Q8Activation>());
    }
    let scratch_tokens = if options.f32_activations { 1 } else { chunk };
    let scratch = kernels::scratch_bytes(max(widest, of.mapped), scratch_tokens);
    sizes[Part::Scores as usize] = padded(of.scores, f).saturating_mul(options.workers);
    sizes[Part::KernelScratch as usize] = padded(scratch, 1).saturating_mul(options.workers);
    let pairs = config.rope_dim / 2;
    // Layers of either kind have frequencies of their own.
    let kinds = if config.local.is_some() { 2 } else { 1 };
    let slim_pairs = if of.mapped > 0 { pairs } else { 0 };
    let tiles = geometry::base_tiles(capacity, chunk);
    sizes[Part::Frequencies as usize] = padded(pairs, size_of::<u64>()).saturating_mul(kinds);
    sizes[Part::Angles as usize] = padded(chunk.saturating_mul(pairs), 2 * f).saturating_mul(kinds);
    sizes[Part::SinkAngles as usize] = padded(sink_chunk.saturating_mul(pairs), 2 * f).saturating_mul(kinds);
    sizes[Part::LaneAngles as usize] = padded(slim_pairs, size_of::<LaneAngles>());
    sizes[Part::TileAngles as usize] = padded(slim_pairs.saturating_mul(tiles), 2 * f);
    if options.sampling {
        sizes[Part::Candidates as usize] = padded(config.vocab, size_of::<u32>());
    }
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

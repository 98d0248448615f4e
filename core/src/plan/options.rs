//! What a plan is asked for.

use core::num::NonZeroU32;

use super::CacheType;
use crate::model::Config;

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

    /// How many sinks a layer keeps, and how many tokens beside them: the policy's, unless it was trained with a window of `local` tokens. Such a
    /// layer keeps no more than that, and of the sinks only those for which a smaller window leaves room: it never saw the first tokens from
    /// further away.
    pub const fn slots(self, local: Option<usize>) -> (usize, usize) {
        let (sinks, window) = (self.sinks(), self.window());
        match local {
            Some(local) if window >= local => (0, local),
            Some(local) if sinks > local - window => (local - window, window),
            _ => (sinks, window),
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

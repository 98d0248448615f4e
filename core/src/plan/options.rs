//! Options of a plan.

use core::num::NonZeroU32;

use crate::cache::{CacheShape, CrossLayout, ElementType, Layout, LayoutChoice, Policy};
use crate::model::Config;

/// Options of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Options {
    /// Choice of the tokens to keep.
    pub policy: Policy,
    /// Element type of the cache.
    pub cache_type: ElementType,
    /// Choice of the rows that layers keep of each token.
    pub layout: LayoutChoice,
    /// Rows that cross-attention keeps of an encoder's output; without effect in models that have
    /// no encoder.
    pub cross: CrossLayout,
    /// Number of tokens that a prefill computes at once, at least 1.
    /// [`Plan::new`](super::Plan::new) lowers it to the smallest window of any layer and to 256.
    pub chunk: usize,
    /// Number of a chunk's tokens whose logits are computed at once: 1, or more if every token's
    /// logits are needed (perplexity).
    pub logits_rows: usize,
    /// Number of workers that compute ([`crate::threads::Threads::workers`]).
    pub workers: usize,
    /// Keeps activations in f32 instead of int8: slow; a switch for tests.
    pub f32_activations: bool,
    /// Leaves out values whose softmax weight is under one in this number (slim attention, Graef
    /// and Wasielewski, arXiv 2503.05840, appendix D). This is faster, and the error of the output
    /// is at most the sum of the left-out weights times the largest value. In a slim layer with a
    /// mean, the mean's value replaces the left-out values. `None` leaves out nothing.
    pub skip_under_one_in: Option<NonZeroU32>,
    /// Bytes that the tokenizer's index takes from the same arena.
    pub tokenizer_bytes: usize,
    /// True if the sampler may sort the vocabulary (every choice except greedy).
    pub sampling: bool,
}

impl Options {
    /// Options for a board: sinks and a window in f16, one token at a time, one worker, greedy.
    pub const fn sink(sinks: usize, window: usize) -> Options {
        Options {
            policy: Policy::Sink { sinks, window },
            cache_type: ElementType::F16,
            layout: LayoutChoice::Auto,
            cross: CrossLayout::E,
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
    /// Number of the cache's slots: sinks plus window; saturates.
    pub const fn capacity(&self) -> usize {
        self.policy.sinks().saturating_add(self.policy.window())
    }

    /// Layout of layer `layer`.
    pub const fn layout_of(&self, config: &Config, layer: usize) -> Layout {
        self.layout.of_layer(config.layouts.of(layer))
    }

    /// Everything that the cache of layer `layer` follows from.
    pub(crate) const fn cache_shape(&self, config: &Config, layer: usize) -> CacheShape {
        let kind = config.kinds.of(layer);
        let (sinks, window) = self.policy.slots(kind.window);
        CacheShape {
            layout: self.layout_of(config, layer),
            element: self.cache_type,
            columns: config.shape_of(kind).columns(),
            slots: sinks.saturating_add(window),
            exact_sinks: self.policy.sinks(),
        }
    }

    /// Everything that a cache of an encoder's output follows from; `None` in models without one.
    pub(crate) const fn cross_shape(&self, config: &Config) -> Option<CacheShape> {
        match config.encoder.get() {
            Some(encoder) => Some(CacheShape {
                layout: self.cross.caches(config.layers).0,
                element: self.cache_type,
                columns: config.shape_of_source().columns(),
                slots: encoder.positions,
                exact_sinks: 0,
            }),
            None => None,
        }
    }

    /// Everything that the keys and values of an encoder's own layers follow from.
    pub(crate) const fn encoder_shape(&self, config: &Config) -> Option<CacheShape> {
        match self.cross_shape(config) {
            Some(shape) => Some(CacheShape {
                layout: Layout::Kv,
                ..shape
            }),
            None => None,
        }
    }

    /// Softmax weight under which values are left out; 0 for none.
    pub(crate) const fn least_weight(&self) -> f32 {
        match self.skip_under_one_in {
            Some(count) => 1.0 / count.get() as f32,
            None => 0.0,
        }
    }

    /// Returns true if any layer computes values from what it keeps.
    pub(crate) const fn derives_values(&self, config: &Config) -> bool {
        let mut layer = 0;
        while layer < config.layers {
            if self.layout_of(config, layer).derives_values() {
                return true;
            }
            layer += 1;
        }
        false
    }
}

//! Sizes from which the buffers of an arena follow.

use super::Options;
use crate::arena::padded;
use crate::attention::derived::{self, Heads, ScratchSlots};
use crate::attention::{geometry, whole};
use crate::cache::{CacheShape, Layout, Policy};
use crate::const_fn::{max, min};
use crate::kernels;
use crate::kernels::attend::{MAX_ROWS, scratch_floats};
use crate::model::{Config, Convolution, EncoderConfig, EncoderInput, WIDTHS};
use crate::quant::BLOCK;

/// A model, checked options, and sizes that depend on the layers' layouts.
pub(super) struct Sizes<'p> {
    pub(super) config: &'p Config,
    pub(super) options: &'p Options,
    pub(super) layers: LayerSizes,
    pub(super) encoder: EncoderSizes,
}

/// Sizes that depend on the encoder; all are 0 in models without one.
pub(super) struct EncoderSizes {
    /// Rows of its output.
    positions: usize,
    /// Bytes of the keys and values of one of its layers.
    pub(super) own: usize,
    /// Bytes of all caches that cross-attention reads.
    pub(super) cross: usize,
    /// Floats of the features of a whole input.
    pub(super) features: usize,
    /// Sizes of the transform from sound to features.
    pub(super) mel: MelSizes,
    /// Columns of the widest of its convolutions.
    pub(super) stem: usize,
    /// Values between its convolutions, of the part of a sound that is computed at once.
    pub(super) stem_hidden: usize,
    /// Floats of a worker's attention scratch.
    scores: usize,
    /// Bytes of a worker's scratch for attention in 8-bit integers.
    pub(super) whole: usize,
    /// Columns of the widest matrix there.
    whole_columns: usize,
    /// Columns of all queries that are as wide as the encoder's output, if that is kept.
    wide: usize,
    /// Columns of the map from kept rows to values; 0 if values are kept.
    mapped: usize,
}

/// Numbers of elements for the transform from sound to features.
pub(super) struct MelSizes {
    pub(super) twiddles: usize,
    pub(super) spans: usize,
    /// Of one worker.
    pub(super) scratch: usize,
}

impl EncoderSizes {
    const NONE: EncoderSizes = EncoderSizes {
        positions: 0,
        own: 0,
        cross: 0,
        features: 0,
        mel: MelSizes {
            twiddles: 0,
            spans: 0,
            scratch: 0,
        },
        stem: 0,
        stem_hidden: 0,
        scores: 0,
        whole: 0,
        whole_columns: 0,
        wide: 0,
        mapped: 0,
    };

    pub(super) const fn new(config: &Config, options: &Options) -> EncoderSizes {
        let shapes = (options.encoder_shape(config), options.cross_shape(config));
        let (Some(encoder), (Some(own), Some(cross))) = (config.encoder.get(), shapes) else {
            return EncoderSizes::NONE;
        };
        let (layout, caches) = options.cross.caches(config.layers);
        let rows = attention_rows(config, options.chunk);
        let whole = whole::Sizes::new(&config.shape_of_source(), encoder.positions);
        let mut of = EncoderSizes {
            whole: if options.f32_activations {
                0
            } else {
                whole.scratch()
            },
            whole_columns: if options.f32_activations {
                0
            } else {
                whole.widest()
            },
            positions: encoder.positions,
            own: if options.f32_activations {
                own.bytes()
            } else {
                whole.bytes()
            },
            cross: cross.bytes().saturating_mul(caches),
            features: match encoder.input {
                EncoderInput::Features(_) => {
                    encoder.most_frames().saturating_mul(encoder.input_width())
                }
                // A sound that is too short, and the zeros after it.
                EncoderInput::Samples => encoder.least_frames(),
            },
            mel: match &encoder.input {
                EncoderInput::Features(mel) => MelSizes {
                    twiddles: mel.twiddles(),
                    spans: mel.spans(),
                    scratch: mel.scratch(),
                },
                EncoderInput::Samples => EncoderSizes::NONE.mel,
            },
            stem: stem_columns(encoder, config.d_model),
            stem_hidden: stem_hidden(encoder, config.d_model, options.chunk),
            scores: scratch_floats(rows, encoder.positions, 0),
            ..EncoderSizes::NONE
        };
        if layout.derives_values() {
            let heads = Heads::over_inputs(&config.shape_of_source());
            let slots = ScratchSlots {
                capacity: encoder.positions,
                chunk: options.chunk,
                exact_sinks: 0,
            };
            of.scores = max(of.scores, derived::scratch_floats(&heads, 0, slots));
            of.wide = config.heads.saturating_mul(config.d_model);
            of.mapped = heads.cached();
        }
        of
    }
}

/// Columns of the widest convolution.
const fn stem_columns(encoder: &EncoderConfig, d: usize) -> usize {
    match encoder.input {
        EncoderInput::Features(mel) => {
            let [first, second] = Convolution::OF_FEATURES;
            max(
                mel.mels().saturating_mul(first.kernel),
                d.saturating_mul(second.kernel),
            )
        }
        EncoderInput::Samples => {
            let [first, second, third] = Convolution::OF_SAMPLES;
            let others = max(
                d.saturating_mul(second.kernel),
                d.saturating_mul(WIDTHS * third.kernel),
            );
            max(first.kernel, others)
        }
    }
}

/// Most rows that the convolutions of samples compute at a time.
pub(crate) const ROWS_OF_SAMPLES: usize = 32;

/// Numbers of values between the convolutions of samples, of [`ROWS_OF_SAMPLES`] rows of a model of
/// width `d`: after the first one, and after the second one.
pub(crate) const fn stem_hidden_of_samples(d: usize) -> (usize, usize) {
    let [_, second, third] = Convolution::OF_SAMPLES;
    let middle = third.frames(ROWS_OF_SAMPLES);
    (
        second.frames(middle).saturating_mul(d),
        middle.saturating_mul(WIDTHS).saturating_mul(d),
    )
}

/// Values between the convolutions, of a chunk of the encoder's positions.
const fn stem_hidden(encoder: &EncoderConfig, d: usize, chunk: usize) -> usize {
    match encoder.input {
        EncoderInput::Features(_) => {
            let [_, second] = Convolution::OF_FEATURES;
            second.frames(chunk).saturating_mul(d)
        }
        EncoderInput::Samples => {
            let (narrow, wide) = stem_hidden_of_samples(d);
            narrow.saturating_add(wide)
        }
    }
}

/// Sizes that depend on the layers' layouts.
pub(super) struct LayerSizes {
    /// Bytes of all layers' caches.
    pub(super) cache: usize,
    /// Bytes of the largest layer's chunk cache.
    pub(super) chunk_cache: usize,
    /// Floats of a worker's attention scratch.
    scores: usize,
    /// Largest number of rank-correction channels in a layer.
    pub(super) rank: usize,
    /// Columns of the widest map from cached rows to values; 0 if all layers are in layout kv.
    mapped: usize,
    /// Columns of all queries that are as wide as inputs; 0 if no layer keeps inputs.
    wide: usize,
}

/// Number of query rows that one attention job computes at a time.
const fn attention_rows(config: &Config, chunk: usize) -> usize {
    min(MAX_ROWS, config.group().saturating_mul(chunk))
}

impl LayerSizes {
    pub(super) const fn new(config: &Config, options: &Options) -> LayerSizes {
        let (chunk, capacity) = (options.chunk, options.capacity());
        let shadow = if chunk > 1 { chunk } else { 0 };
        let exact_sinks = options.policy.sinks();
        let mut of = LayerSizes {
            cache: 0,
            chunk_cache: 0,
            scores: scratch_floats(attention_rows(config, chunk), capacity, shadow),
            rank: 0,
            mapped: 0,
            wide: 0,
        };
        let mut layer = 0;
        while layer < config.layers {
            let shape = options.cache_shape(config, layer);
            let of_chunk = CacheShape {
                slots: shadow,
                exact_sinks: 0,
                ..shape
            };
            of.cache = of.cache.saturating_add(shape.bytes());
            of.chunk_cache = max(of.chunk_cache, of_chunk.bytes());
            let attention = config.shape_of(config.kinds.of(layer));
            let heads = match shape.layout {
                Layout::Kv => None,
                Layout::KR { .. } => Some(Heads::over_keys(&attention)),
                Layout::X => {
                    of.wide = attention.heads.saturating_mul(attention.d_model);
                    Some(Heads::over_inputs(&attention))
                }
            };
            if let Some(heads) = heads {
                let rank = shape.layout.rank();
                let slots = ScratchSlots {
                    capacity,
                    chunk,
                    exact_sinks,
                };
                of.scores = max(of.scores, derived::scratch_floats(&heads, rank, slots));
                of.rank = max(of.rank, rank);
                of.mapped = max(of.mapped, heads.cached().saturating_add(of.rank));
            }
            layer += 1;
        }
        of
    }
}

impl Sizes<'_> {
    /// Number of values in a chunk's rows of `columns`.
    pub(super) const fn rows(&self, columns: usize) -> usize {
        self.options.chunk.saturating_mul(columns)
    }

    /// Number of values in rows of `columns` for all of the encoder's positions.
    pub(super) const fn source_rows(&self, columns: usize) -> usize {
        self.encoder.positions.saturating_mul(columns)
    }

    /// Columns of all queries that are as wide as inputs; 0 if nothing keeps inputs.
    pub(super) const fn wide(&self) -> usize {
        max(self.layers.wide, self.encoder.wide)
    }

    /// Floats of all workers' attention scratch.
    pub(super) const fn scores(&self) -> usize {
        let of_worker = max(self.layers.scores, self.encoder.scores);
        self.by_worker(of_worker, size_of::<f32>())
    }

    /// Number of values that queries and then the columns beside the feed-forward layer's gate
    /// take, one after the other.
    pub(super) const fn queries(&self) -> usize {
        self.rows(max(self.config.query_columns(), self.gated_ff()))
    }

    /// Number of values that attention's scratch and then the feed-forward layer's gate take, one
    /// after the other.
    pub(super) const fn hidden(&self) -> usize {
        max(self.rows(self.config.ff), self.scores())
    }

    /// Number of values in the same rows at sink positions. A prompt may be pinned as sinks even if
    /// none were planned.
    pub(super) const fn sink_rows(&self, columns: usize) -> usize {
        match self.options.policy {
            Policy::Sink { .. } => self.rows(columns),
            _ => 0,
        }
    }

    /// Number of tokens that are computed again under the policy recompute.
    pub(super) const fn recomputed(&self) -> usize {
        match self.options.policy {
            Policy::Recompute { window } => window,
            _ => 0,
        }
    }

    /// Columns of the feed-forward layer, if it has a gate beside them.
    const fn gated_ff(&self) -> usize {
        if self.config.design.feed_forward.gated() {
            self.config.ff
        } else {
            0
        }
    }

    /// Width of the widest input of a linear layer.
    const fn widest(&self) -> usize {
        let config = self.config;
        max(max(config.d_model, config.query_columns()), config.ff)
    }

    /// Number of blocks of int8 activations.
    pub(super) const fn activations(&self) -> usize {
        if self.options.f32_activations {
            0
        } else {
            self.rows(self.widest() / BLOCK)
        }
    }

    /// Bytes of a worker's kernel scratch.
    pub(super) const fn kernel_scratch(&self) -> usize {
        let tokens = if self.options.f32_activations {
            1
        } else {
            self.options.chunk
        };
        let mapped = max(self.layers.mapped, self.encoder.mapped);
        let encoder = max(self.encoder.stem, self.encoder.whole_columns);
        kernels::scratch_bytes(max(max(self.widest(), mapped), encoder), tokens)
    }

    /// Number of elements, of `each` bytes, for all workers, so that each worker's part starts on a
    /// boundary.
    pub(super) const fn by_worker(&self, count: usize, each: usize) -> usize {
        (padded(count, each) / each).saturating_mul(self.options.workers)
    }

    /// Number of elements for layers of every kind.
    pub(super) const fn by_kind(&self, count: usize) -> usize {
        count.saturating_mul(self.config.kinds.list().len())
    }

    /// Number of rotated pairs in a head.
    pub(super) const fn pairs(&self) -> usize {
        self.config.rope_dim / 2
    }

    /// Number of rotated pairs in a head, if keys are rotated when they are read.
    pub(super) const fn derived_pairs(&self) -> usize {
        if self.layers.mapped > 0 {
            self.pairs()
        } else {
            0
        }
    }

    /// Number of angles of all tiles in a pass.
    pub(super) const fn tile_angles(&self) -> usize {
        let tiles = geometry::base_tiles(self.options.capacity(), self.options.chunk);
        self.derived_pairs().saturating_mul(tiles)
    }

    /// Number of tokens that the sampler sorts.
    pub(super) const fn candidates(&self) -> usize {
        if self.options.sampling {
            self.config.vocab
        } else {
            0
        }
    }
}

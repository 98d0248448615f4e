//! Facts of a model, from its metadata.

use core::fmt;

use super::design::{Design, NormKind, Positions, QueryKeyNorm};
use super::facts::{Facts, MAX_DIMENSION};
use super::families;
use super::names::{EMBEDDING, SLIM_CHANNELS, SLIM_MAP, Stack, VALUE};
use super::tensors::Tensors;
use super::{EncoderConfig, Family, LayerKind, LayerKinds, ModelError};
use crate::arena::MAX_PARTS;
use crate::attention::Shape;
use crate::cache::Layout;
use crate::const_fn::{or, tri};
use crate::features::{FAMILIES, OfFamilies};
use crate::gguf::{Gguf, Name};
use crate::nn::alibi::Slopes;
use crate::nn::rope::Pairs;

/// Number of first layers whose layout may differ from [`Layout::Kv`].
pub const MAX_SLIM_LAYERS: usize = 96;

/// Layout of every layer, as the file is made for it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Layouts {
    /// Rank-correction channels of each layer, or [`Layouts::KV_ONLY`].
    ranks: [u16; MAX_SLIM_LAYERS],
}

impl Layouts {
    /// Mark of a layer in layout kv. It is larger than any rank: see [`Layouts::MOST_RANK`].
    const KV_ONLY: u16 = u16::MAX;

    /// Largest number of rank-correction channels of a layer.
    pub const MOST_RANK: u16 = u16::MAX - 1;

    /// [`Layout::Kv`] in every layer.
    pub const KV: Layouts = Layouts {
        ranks: [Layouts::KV_ONLY; MAX_SLIM_LAYERS],
    };

    /// Returns these layouts with `rank` rank-correction channels in layer `layer`.
    ///
    /// # Panics
    /// If `layer` is not less than [`MAX_SLIM_LAYERS`], or `rank` is over [`Layouts::MOST_RANK`].
    pub const fn with_rank(mut self, layer: usize, rank: u16) -> Layouts {
        assert!(rank <= Layouts::MOST_RANK);
        self.ranks[layer] = rank;
        self
    }

    /// Layout of layer `layer`.
    pub const fn of(&self, layer: usize) -> Layout {
        if layer < MAX_SLIM_LAYERS && self.ranks[layer] != Layouts::KV_ONLY {
            Layout::KR {
                rank: self.ranks[layer],
            }
        } else {
            Layout::Kv
        }
    }

    /// Returns true if any layer is slim.
    pub const fn any_slim(&self) -> bool {
        let mut layer = 0;
        while layer < MAX_SLIM_LAYERS {
            if self.of(layer).derives_values() {
                return true;
            }
            layer += 1;
        }
        false
    }
}

impl fmt::Debug for Layouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layouts = (0..MAX_SLIM_LAYERS).map(|layer| self.of(layer));
        let last = self
            .ranks
            .iter()
            .rposition(|rank| *rank != Layouts::KV_ONLY);
        f.debug_list()
            .entries(layouts.take(last.map_or(0, |last| last + 1)))
            .finish()
    }
}

/// Facts of a model. [`Config::from_gguf`] has checked all of them: dimensions are not zero and fit
/// together, products do not overflow.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Config {
    /// Family of the model.
    pub family: Family,
    /// Structure of the layers.
    pub design: Design,
    /// Settings of attention that differ by layer.
    pub kinds: LayerKinds,
    /// Number of transformer layers; those of an encoder are not counted.
    pub layers: usize,
    /// Facts of the encoder, in a model whose layers have cross-attention.
    pub encoder: OfFamilies<EncoderConfig>,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ff: usize,
    /// Number of tokens in the vocabulary.
    pub vocab: usize,
    /// Number of positions that the model was trained for.
    pub context: usize,
    /// Number of a head's elements that are rotated, in layers that rotate; 0 if positions are
    /// learned or ALiBi's.
    pub rope_dim: usize,
    /// Divisor of positions (linear RoPE scaling), 1 for none; local layers have none.
    pub rope_scale: f32,
    /// Largest cache, in tokens, for which the short frequency factors apply, in a file that has
    /// factors for short and for long contexts.
    pub rope_short_context: usize,
    /// Factor of cosines and sines: 1 unless the file has another one.
    pub rope_magnitude: f32,
    /// Term added to the mean square in norms.
    pub norm_eps: f32,
    /// Number whose square root divides the scores: the width of a head, except for a few models.
    pub query_scale_of: usize,
    /// Scores `s` become `cap·tanh(s/cap)`; 0 for none.
    pub score_cap: f32,
    /// The same cap for logits; 0 for none.
    pub logit_cap: f32,
    /// Slopes by which scores fall with distance, if the design's positions are ALiBi's.
    pub alibi: OfFamilies<Slopes>,
    /// Layouts that the file is made for.
    pub layouts: Layouts,
    /// True if any slim layer lacks `attn_v.weight`: then keys and values cannot be cached.
    pub values_dropped: bool,
}

/// Largest number of layers: each layer looks its tensors up in the whole table.
pub(super) const MAX_LAYERS: usize = 1 << 10;

impl Config {
    /// Reads the facts from the metadata.
    ///
    /// # Errors
    /// The first fact that is missing or out of range, or that needs an unsupported feature.
    pub const fn from_gguf(file: &Gguf<'_>) -> Result<Config, ModelError> {
        if let Some(value) = file.get("split.count")
            && let Some(parts) = value.as_u64()
            && parts > 1
        {
            return Err(ModelError::SplitFile { parts });
        }
        let key = "general.architecture";
        let architecture = match file.get(key) {
            Some(value) => value.as_str(),
            None => None,
        };
        let Some(architecture) = architecture else {
            return Err(ModelError::MissingMetadata(key));
        };
        let Some(family) = Family::named(architecture) else {
            let name = Name::new(architecture.as_bytes());
            return Err(ModelError::UnsupportedArchitecture(name));
        };
        if !FAMILIES && !matches!(family, Family::Llama) {
            return Err(ModelError::UnsupportedFeature(
                "a family other than llama (brooklet-core's feature families)",
            ));
        }
        let facts = Facts { file, architecture };
        match family {
            Family::Whisper => return families::whisper(file),
            Family::Moonshine => return families::moonshine(file),
            _ => {}
        }
        let config = tri!(Config::shared(&facts, family));
        family.complete(&facts, config)
    }

    /// Reads the facts that all families have.
    const fn shared(facts: &Facts<'_>, family: Family) -> Result<Config, ModelError> {
        let design = family.design();
        tri!(facts.refuse_unsupported(family));
        let layers = tri!(facts.dim("block_count"));
        if layers > MAX_LAYERS {
            return Err(ModelError::OutOfRange {
                key: "block_count",
                value: layers as u64,
            });
        }
        let layouts = tri!(layouts(facts.file, layers));
        let heads = tri!(heads(facts));
        let context = tri!(facts.dim("context_length"));
        let base = tri!(facts.float("rope.freq_base", Some(10_000.0), 1.0, 1e12));
        let (rope_dim, rotation) = match design.positions {
            Positions::Learned | Positions::Alibi => (0, None),
            Positions::Rotary(_) => (tri!(rope_dim(facts, heads.width)), Some(base)),
        };
        let eps = match design.norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        Ok(Config {
            family,
            design,
            layers,
            encoder: OfFamilies::NONE,
            values_dropped: values_dropped(facts.file, layers, &design, &layouts),
            layouts,
            d_model: heads.d_model,
            heads: heads.queries,
            kv_heads: heads.keys,
            head_dim: heads.width,
            ff: tri!(facts.dim_of_layers("feed_forward_length")),
            vocab: tri!(vocabulary(facts.file, &design)),
            context,
            rope_dim,
            kinds: LayerKinds::all(LayerKind {
                window: None,
                rotation,
            }),
            rope_scale: tri!(facts.rope_scale(&design)),
            rope_short_context: context,
            rope_magnitude: tri!(facts.rope_magnitude(&design)),
            norm_eps: tri!(facts.float(eps, None, 0.0, 1.0)),
            query_scale_of: heads.width,
            score_cap: 0.0,
            logit_cap: 0.0,
            alibi: OfFamilies::NONE,
        })
    }

    /// Number of entries in the model's table of layers: its own, and then those of its encoder.
    pub const fn layers_in_file(&self) -> usize {
        match self.encoder.get() {
            Some(encoder) => self.layers + encoder.layers,
            None => self.layers,
        }
    }

    /// Columns of all query heads together.
    pub const fn query_columns(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of all KV heads' keys together; values have the same number.
    pub const fn kv_columns(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Pairs of elements that are rotated together in a head.
    pub const fn rope_pairs(&self) -> Pairs {
        match self.design.positions {
            Positions::Rotary(pairs) => pairs,
            Positions::Learned | Positions::Alibi => Pairs::Neighbours,
        }
    }

    /// Numbers of the attention in the layers of kind `kind`.
    pub const fn shape_of(&self, kind: LayerKind) -> Shape {
        Shape {
            d_model: self.d_model,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            rope_dim: match kind.rotation {
                Some(_) => self.rope_dim,
                None => 0,
            },
            rope_pairs: self.rope_pairs(),
        }
    }

    /// Numbers of the attention in the layers that rotate, if any do. They decide which layouts
    /// suit the whole model.
    pub const fn shape(&self) -> Shape {
        let kinds = self.kinds.list();
        let mut kind = kinds[0];
        let mut i = 1;
        while i < kinds.len() {
            if kind.rotation.is_none() {
                kind = kinds[i];
            }
            i += 1;
        }
        self.shape_of(kind)
    }

    /// Numbers of the attention to an encoder's rows: that of the decoder, which rotates nothing,
    /// and the encoder's own, whose queries and keys are rotated before.
    pub const fn shape_of_source(&self) -> Shape {
        Shape {
            rope_dim: 0,
            ..self.shape()
        }
    }

    /// Returns true if values may be computed from keys. Then keys are cached as they come from
    /// their projection, only their bias and their rotation come between that and a score, and all
    /// layers rotate in the same way. No bias is added to scores.
    pub const fn may_be_slim(&self) -> bool {
        matches!(self.design.query_key_norm, QueryKeyNorm::None)
            && self.kinds.smallest_window().is_none()
            && self.kinds.rotate_alike()
            && self.score_cap == 0.0
            && self.alibi.get().is_none()
    }

    /// Returns true if keys and values may be computed from inputs: only a bias comes between a
    /// key's projection and a score.
    pub const fn may_keep_inputs(&self) -> bool {
        self.may_be_slim() && !self.shape().is_rotated()
    }

    /// Local window of layer `layer`, if it has one.
    pub const fn local_window(&self, layer: usize) -> Option<usize> {
        self.kinds.of(layer).window
    }

    /// Number of query heads that share a KV head.
    pub const fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// Reads the layouts that the file's tensors are made for.
const fn layouts(file: &Gguf<'_>, layers: usize) -> Result<Layouts, ModelError> {
    let mut layouts = Layouts::KV;
    let mut layer = 0;
    while layer < layers {
        if file.layer_tensor(layer, SLIM_MAP).is_some() {
            if layer >= MAX_SLIM_LAYERS {
                return Err(ModelError::OutOfRange {
                    key: "number of a layer with attn_slim_map",
                    value: layer as u64,
                });
            }
            let rank = match file.layer_tensor(layer, SLIM_CHANNELS) {
                Some(channels) => channels.rows(),
                None => 0,
            };
            if rank > Layouts::MOST_RANK as usize {
                return Err(ModelError::OutOfRange {
                    key: "number of rows in attn_slim_channels",
                    value: rank as u64,
                });
            }
            layouts = layouts.with_rank(layer, rank as u16);
        }
        layer += 1;
    }
    Ok(layouts)
}

/// Returns true if any slim layer lacks the matrix that maps inputs to values.
const fn values_dropped(
    file: &Gguf<'_>,
    layers: usize,
    design: &Design,
    layouts: &Layouts,
) -> bool {
    let mut layer = 0;
    while layer < layers {
        if layouts.of(layer).derives_values()
            && !design.fuses_qkv(file, layer)
            && file.layer_tensor(layer, VALUE).is_none()
        {
            return true;
        }
        layer += 1;
    }
    false
}

/// Number and width of heads.
pub(super) struct HeadFacts {
    pub(super) d_model: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) width: usize,
}

const fn heads(facts: &Facts<'_>) -> Result<HeadFacts, ModelError> {
    let d_model = tri!(facts.dim("embedding_length"));
    let queries = tri!(facts.dim_of_layers("attention.head_count"));
    let key = "attention.head_count_kv";
    let keys = match facts.get(key) {
        Some(_) => tri!(facts.dim_of_layers(key)),
        None => queries,
    };
    let width = or(
        tri!(facts.optional_dim("attention.key_length")),
        d_model / queries,
    );
    if or(tri!(facts.optional_dim("attention.value_length")), width) != width {
        return Err(ModelError::UnsupportedFeature(
            "values of a different width than keys",
        ));
    }
    HeadFacts {
        d_model,
        queries,
        keys,
        width,
    }
    .checked()
}

impl HeadFacts {
    /// Returns the facts if they fit together.
    pub(super) const fn checked(self) -> Result<HeadFacts, ModelError> {
        let HeadFacts {
            queries,
            keys,
            width,
            ..
        } = self;
        // Attention divides the work by heads.
        if queries > MAX_PARTS {
            return Err(ModelError::OutOfRange {
                key: "attention.head_count",
                value: queries as u64,
            });
        }
        if keys == 0 || !queries.is_multiple_of(keys) {
            return Err(ModelError::HeadsDoNotDivide {
                heads: queries as u64,
                kv_heads: keys as u64,
            });
        }
        // The width may be derived instead of stored in the file.
        if width == 0 || width > 1024 || !width.is_multiple_of(2) {
            return Err(ModelError::OutOfRange {
                key: "width of a head",
                value: width as u64,
            });
        }
        if queries as u64 * width as u64 > MAX_DIMENSION {
            return Err(ModelError::OutOfRange {
                key: "width of all query heads",
                value: queries as u64 * width as u64,
            });
        }
        Ok(self)
    }
}

const fn rope_dim(facts: &Facts<'_>, width: usize) -> Result<usize, ModelError> {
    let key = "rope.dimension_count";
    let rope_dim = or(tri!(facts.optional_dim(key)), width);
    if rope_dim > width || !rope_dim.is_multiple_of(2) {
        return Err(ModelError::OutOfRange {
            key,
            value: rope_dim as u64,
        });
    }
    Ok(rope_dim)
}

/// Reads the size of the vocabulary, which is the number of rows of the embedding.
pub(super) const fn vocabulary(file: &Gguf<'_>, design: &Design) -> Result<usize, ModelError> {
    let of = Tensors::of_model(file, design.naming, Stack::Decoder);
    let rows = tri!(of.find(EMBEDDING)).rows();
    if rows as u64 > MAX_DIMENSION {
        return Err(ModelError::OutOfRange {
            key: "vocabulary size",
            value: rows as u64,
        });
    }
    Ok(rows)
}

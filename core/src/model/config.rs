//! The facts of a model, from its metadata.

use core::fmt;

use super::design::{Design, NormKind, Positions, QueryKeyNorm};
use super::facts::{Facts, MAX_DIMENSION};
use super::weights::{SLIM_CHANNELS, SLIM_MAP, VALUE};
use super::{Family, ModelError};
use crate::const_fn::{or, tri};
use crate::gguf::Gguf;
use crate::layouts::Attention;
use crate::nn::rope::Pairs;
use crate::plan::Layout;

/// Most layers whose layout may differ from [`Layout::Kv`].
pub const MAX_SLIM_LAYERS: usize = 96;

/// The layout of every layer.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Layouts([Layout; MAX_SLIM_LAYERS]);

impl Layouts {
    /// [`Layout::Kv`] in every layer.
    pub const KV: Layouts = Layouts([Layout::Kv; MAX_SLIM_LAYERS]);

    /// The same with layer `layer` in `layout`.
    ///
    /// # Panics
    /// If `layer` is not under [`MAX_SLIM_LAYERS`].
    pub const fn with(mut self, layer: usize, layout: Layout) -> Layouts {
        self.0[layer] = layout;
        self
    }

    /// Layer `layer`'s.
    pub const fn of(&self, layer: usize) -> Layout {
        if layer < MAX_SLIM_LAYERS {
            self.0[layer]
        } else {
            Layout::Kv
        }
    }

    /// Whether any layer is slim.
    pub const fn any_slim(&self) -> bool {
        let mut layer = 0;
        while layer < MAX_SLIM_LAYERS {
            if let Layout::Slim { .. } = self.0[layer] {
                return true;
            }
            layer += 1;
        }
        false
    }
}

impl fmt::Debug for Layouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.0.iter().rposition(|layout| *layout != Layout::Kv);
        f.debug_list()
            .entries(&self.0[..last.map_or(0, |last| last + 1)])
            .finish()
    }
}

/// Layers that attend to a local window only.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LocalLayers {
    /// Tokens that such a layer was trained to see, the newest included.
    pub window: usize,
    /// The last of so many layers attends to all tokens.
    pub period: usize,
    /// Base of their rotary frequencies.
    pub theta: f32,
}

/// The facts of a model. All are checked: dimensions are not zero and fit together, products do not overflow.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Config {
    /// The family.
    pub family: Family,
    /// How its layers are put together.
    pub design: Design,
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ff: usize,
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Positions that the model was trained for.
    pub context: usize,
    /// Elements of a head that are rotated; 0 where positions are not in the keys at all.
    pub rope_dim: usize,
    /// Which elements are rotated together.
    pub rope_pairs: Pairs,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// What positions are divided by (linear RoPE scaling), 1 for none; local layers' are not.
    pub rope_scale: f32,
    /// Where a file has frequency factors for short and for long contexts: how much a cache may hold for the short ones.
    pub rope_short_context: usize,
    /// What the cosines and sines are multiplied with: 1 unless the file asks for more.
    pub rope_magnitude: f32,
    /// Layers that attend to a local window.
    pub local: Option<LocalLayers>,
    /// Added to the mean square in norms.
    pub norm_eps: f32,
    /// Scores are divided by the root of this: the head's width, but for a few.
    pub query_scale_of: usize,
    /// Scores `s` become `cap·tanh(s/cap)`; 0 for none.
    pub score_cap: f32,
    /// The same of logits.
    pub logit_cap: f32,
    /// Whether attention and feed-forward both take what enters the layer.
    pub parallel_residual: bool,
    /// What each layer is made to keep of a token.
    pub layouts: Layouts,
    /// Whether any slim layer lacks `attn_v.weight`: then keys and values cannot be cached.
    pub values_dropped: bool,
}

/// No model has more layers: each looks its tensors up in the whole table.
const MAX_LAYERS: usize = 1 << 10;

impl Config {
    /// Reads the facts from the metadata.
    ///
    /// # Errors
    /// The first fact that is missing, out of range, or asks for what is not implemented.
    pub const fn from_gguf(file: &Gguf<'_>) -> Result<Config, ModelError> {
        let architecture = match file.get("general.architecture") {
            Some(value) => value.as_str(),
            None => None,
        };
        let Some(architecture) = architecture else {
            return Err(ModelError::UnsupportedArchitecture);
        };
        let Some(family) = Family::named(architecture) else {
            return Err(ModelError::UnsupportedArchitecture);
        };
        if !cfg!(feature = "families") && !matches!(family, Family::Llama) {
            return Err(ModelError::UnsupportedFeature(
                "another family than llama (brooklet-core's feature families)",
            ));
        }
        let facts = Facts { file, architecture };
        let config = tri!(Config::shared(&facts, family));
        family.complete(&facts, config)
    }

    /// The facts that all families have.
    const fn shared(facts: &Facts<'_>, family: Family) -> Result<Config, ModelError> {
        let design = family.design();
        if let Some(experts) = tri!(facts.optional_dim("expert_count"))
            && experts > 0
        {
            return Err(ModelError::UnsupportedFeature("a mixture of experts"));
        }
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
        let (rope_dim, rope_pairs) = match design.positions {
            Positions::Learned => (0, Pairs::Neighbours),
            Positions::Rotary(pairs) => (tri!(rope_dim(facts, heads.width)), pairs),
        };
        let eps = match design.norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        Ok(Config {
            family,
            design,
            layers,
            values_dropped: values_dropped(facts.file, layers, &design, &layouts),
            layouts,
            d_model: heads.d_model,
            heads: heads.queries,
            kv_heads: heads.keys,
            head_dim: heads.width,
            ff: tri!(facts.dim("feed_forward_length")),
            vocab: tri!(vocabulary(facts.file)),
            context,
            rope_dim,
            rope_pairs,
            rope_theta: tri!(facts.float("rope.freq_base", Some(10_000.0), 1.0, 1e12)),
            rope_scale: tri!(facts.rope_scale()),
            rope_short_context: context,
            rope_magnitude: 1.0,
            local: None,
            norm_eps: tri!(facts.float(eps, None, 0.0, 1.0)),
            query_scale_of: heads.width,
            score_cap: 0.0,
            logit_cap: 0.0,
            parallel_residual: false,
        })
    }

    /// Columns of all query heads together.
    pub const fn query_columns(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of all key heads together; as many for values.
    pub const fn kv_columns(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// What decides which layouts of a cache are exact.
    pub const fn attention(&self) -> Attention {
        Attention {
            d_model: self.d_model,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            rotated: self.rope_dim > 0,
        }
    }

    /// Whether values may be computed from keys: they are cached as they come from their projection, and nothing but their bias and their
    /// rotation comes between that and a score.
    pub const fn may_be_slim(&self) -> bool {
        matches!(self.design.query_key_norm, QueryKeyNorm::None)
            && self.local.is_none()
            && self.score_cap == 0.0
    }

    /// The local window of layer `layer`, if it has one.
    pub const fn local_window(&self, layer: usize) -> Option<usize> {
        match self.local {
            Some(local) if layer % local.period != local.period - 1 => Some(local.window),
            _ => None,
        }
    }

    /// Query heads that share a KV head.
    pub const fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// The layouts that the file's tensors are made for.
const fn layouts(file: &Gguf<'_>, layers: usize) -> Result<Layouts, ModelError> {
    let mut layouts = Layouts::KV;
    let mut layer = 0;
    while layer < layers && layer < MAX_SLIM_LAYERS {
        if file.layer_tensor(layer, SLIM_MAP).is_some() {
            let rank = match file.layer_tensor(layer, SLIM_CHANNELS) {
                Some(channels) => channels.rows(),
                None => 0,
            };
            if rank > u16::MAX as usize {
                return Err(ModelError::OutOfRange {
                    key: "number of rows in attn_slim_channels",
                    value: rank as u64,
                });
            }
            layouts = layouts.with(layer, Layout::Slim { rank: rank as u16 });
        }
        layer += 1;
    }
    Ok(layouts)
}

/// Whether any slim layer lacks what makes values of inputs.
const fn values_dropped(file: &Gguf<'_>, layers: usize, design: &Design, layouts: &Layouts) -> bool {
    let mut layer = 0;
    while layer < layers && layer < MAX_SLIM_LAYERS {
        if let Layout::Slim { .. } = layouts.of(layer)
            && !design.fuses_qkv(file, layer)
            && file.layer_tensor(layer, VALUE).is_none()
        {
            return true;
        }
        layer += 1;
    }
    false
}

/// How many heads, and how wide.
struct HeadFacts {
    d_model: usize,
    queries: usize,
    keys: usize,
    width: usize,
}

const fn heads(facts: &Facts<'_>) -> Result<HeadFacts, ModelError> {
    let d_model = tri!(facts.dim("embedding_length"));
    let queries = tri!(facts.dim("attention.head_count"));
    let keys = or(tri!(facts.optional_dim("attention.head_count_kv")), queries);
    let width = or(
        tri!(facts.optional_dim("attention.key_length")),
        d_model / queries,
    );
    if or(tri!(facts.optional_dim("attention.value_length")), width) != width {
        return Err(ModelError::UnsupportedFeature(
            "values of another width than keys",
        ));
    }
    if keys == 0 || !queries.is_multiple_of(keys) {
        return Err(ModelError::HeadsDoNotDivide {
            heads: queries as u64,
            kv_heads: keys as u64,
        });
    }
    // The file need not say the width.
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
    Ok(HeadFacts {
        d_model,
        queries,
        keys,
        width,
    })
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

/// The vocabulary is as large as its embedding says.
const fn vocabulary(file: &Gguf<'_>) -> Result<usize, ModelError> {
    let name = "token_embd.weight";
    match file.tensor(name) {
        Some(tensor) if tensor.rows() as u64 > MAX_DIMENSION => Err(ModelError::OutOfRange {
            key: "vocabulary size",
            value: tensor.rows() as u64,
        }),
        Some(tensor) => Ok(tensor.rows()),
        None => Err(ModelError::MissingTensor { name, layer: None }),
    }
}

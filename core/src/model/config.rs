//! The facts of a model, from its metadata.

use core::fmt;

use super::ModelError;
use super::weights::{SLIM_CHANNELS, SLIM_MAP, VALUE};
use crate::gguf::Gguf;
use crate::gguf::reader::tri;
use crate::layouts::Attention;
use crate::nn::rope::Pairs;
use crate::plan::Layout;

/// A model family: how its layers are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Family {
    /// Llama 1 to 3, SmolLM2, TinyLlama and whatever else says `llama`.
    Llama,
}

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

/// The facts of a model. All are checked: dimensions are not zero and fit together, products do not overflow.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Config {
    /// The family.
    pub family: Family,
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
    /// What positions are divided by (linear RoPE scaling), 1 for none.
    pub rope_scale: f32,
    /// Added to the mean square in norms.
    pub rms_eps: f32,
    /// What each layer is made to keep of a token.
    pub layouts: Layouts,
    /// Whether any slim layer lacks `attn_v.weight`: then keys and values cannot be cached.
    pub values_dropped: bool,
}

/// No dimension of a model is larger; products of two then never overflow 64 bits, and are checked where they are made.
const MAX_DIMENSION: u64 = 1 << 24;

impl Config {
    /// Reads the facts from the metadata.
    ///
    /// # Errors
    /// The first fact that is missing, out of range, or asks for what is not implemented.
    pub const fn from_gguf(file: &Gguf<'_>) -> Result<Config, ModelError> {
        let architecture = match file.get("general.architecture") {
            Some(value) => match value.as_str() {
                Some(name) => name,
                None => return Err(ModelError::UnsupportedArchitecture),
            },
            None => return Err(ModelError::UnsupportedArchitecture),
        };
        if !crate::gguf::same(architecture, "llama") {
            return Err(ModelError::UnsupportedArchitecture);
        }
        let facts = Facts { file, architecture };
        if let Some(experts) = tri!(facts.optional_dim("expert_count"))
            && experts > 0
        {
            return Err(ModelError::UnsupportedFeature("a mixture of experts"));
        }
        let d_model = tri!(facts.dim("embedding_length"));
        let heads = tri!(facts.dim("attention.head_count"));
        let kv_heads = or(tri!(facts.optional_dim("attention.head_count_kv")), heads);
        let head_dim = or(tri!(facts.optional_dim("attention.key_length")), d_model / heads);
        if or(tri!(facts.optional_dim("attention.value_length")), head_dim) != head_dim {
            return Err(ModelError::UnsupportedFeature(
                "values of another width than keys",
            ));
        }
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(ModelError::BadMetadata("attention.head_count_kv"));
        }
        if head_dim == 0 || head_dim > 1024 || !head_dim.is_multiple_of(2) {
            return Err(ModelError::BadMetadata("attention.key_length"));
        }
        if heads as u64 * head_dim as u64 > MAX_DIMENSION {
            return Err(ModelError::BadMetadata("attention.head_count"));
        }
        let rope_dim = or(tri!(facts.optional_dim("rope.dimension_count")), head_dim);
        if rope_dim > head_dim || !rope_dim.is_multiple_of(2) {
            return Err(ModelError::BadMetadata("rope.dimension_count"));
        }
        let vocab = match file.tensor("token_embd.weight") {
            Some(tensor) => tensor.rows(),
            None => {
                return Err(ModelError::MissingTensor {
                    name: "token_embd.weight",
                    layer: None,
                });
            }
        };
        if vocab as u64 > MAX_DIMENSION {
            return Err(ModelError::BadMetadata("vocabulary size"));
        }
        let layers = tri!(facts.dim("block_count"));
        let layouts = tri!(layouts(file, layers));
        Ok(Config {
            family: Family::Llama,
            layers,
            values_dropped: values_dropped(file, layers, &layouts),
            layouts,
            d_model,
            heads,
            kv_heads,
            head_dim,
            ff: tri!(facts.dim("feed_forward_length")),
            vocab,
            context: tri!(facts.dim("context_length")),
            rope_dim,
            rope_pairs: Pairs::Neighbours,
            rope_theta: tri!(facts.float("rope.freq_base", Some(10_000.0), 1.0, 1e12)),
            rope_scale: tri!(facts.rope_scale()),
            rms_eps: tri!(facts.float("attention.layer_norm_rms_epsilon", None, 0.0, 1.0)),
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
                return Err(ModelError::BadMetadata("rows of attn_slim_channels"));
            }
            layouts = layouts.with(layer, Layout::Slim { rank: rank as u16 });
        }
        layer += 1;
    }
    Ok(layouts)
}

/// Whether any slim layer lacks what makes values of inputs.
const fn values_dropped(file: &Gguf<'_>, layers: usize, layouts: &Layouts) -> bool {
    let mut layer = 0;
    while layer < layers && layer < MAX_SLIM_LAYERS {
        if let Layout::Slim { .. } = layouts.of(layer)
            && file.layer_tensor(layer, VALUE).is_none()
        {
            return true;
        }
        layer += 1;
    }
    false
}

const fn or(value: Option<usize>, default: usize) -> usize {
    match value {
        Some(value) => value,
        None => default,
    }
}

/// Metadata under an architecture's prefix.
struct Facts<'a> {
    file: &'a Gguf<'a>,
    architecture: &'a str,
}

impl Facts<'_> {
    /// A dimension that may be absent.
    const fn optional_dim(&self, key: &'static str) -> Result<Option<usize>, ModelError> {
        match self.file.get_scoped(self.architecture, key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(dim) if dim <= MAX_DIMENSION => Ok(Some(dim as usize)),
                Some(_) => Err(ModelError::BadMetadata(key)),
                None => Err(ModelError::MissingMetadata(key)),
            },
        }
    }

    /// A dimension that must be there, and not zero.
    const fn dim(&self, key: &'static str) -> Result<usize, ModelError> {
        match tri!(self.optional_dim(key)) {
            None => Err(ModelError::MissingMetadata(key)),
            Some(0) => Err(ModelError::BadMetadata(key)),
            Some(dim) => Ok(dim),
        }
    }

    /// A float from `low` to `high`.
    const fn float(
        &self,
        key: &'static str,
        default: Option<f32>,
        low: f32,
        high: f32,
    ) -> Result<f32, ModelError> {
        let value = match self.file.get_scoped(self.architecture, key) {
            None => match default {
                Some(value) => value,
                None => return Err(ModelError::MissingMetadata(key)),
            },
            Some(value) => match value.as_f32() {
                Some(value) => value,
                None => return Err(ModelError::MissingMetadata(key)),
            },
        };
        // Also refuses NaN.
        if value >= low && value <= high {
            Ok(value)
        } else {
            Err(ModelError::BadMetadata(key))
        }
    }

    const fn rope_scale(&self) -> Result<f32, ModelError> {
        match self.file.get_scoped(self.architecture, "rope.scaling.type") {
            None => Ok(1.0),
            Some(value) => match value.as_str() {
                Some(kind) if crate::gguf::same(kind, "none") => Ok(1.0),
                Some(kind) if crate::gguf::same(kind, "linear") => {
                    self.float("rope.scaling.factor", None, 1e-3, 1e6)
                }
                _ => Err(ModelError::UnsupportedFeature(
                    "a RoPE scaling other than linear or a table",
                )),
            },
        }
    }
}

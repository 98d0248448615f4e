//! The weights of a model, borrowed from the file and checked once.

use super::{Config, ModelError};
use crate::gguf::reader::tri;
use crate::gguf::{Gguf, TensorInfo};
use crate::plan::Layout;
use crate::quant::Format;
use crate::tensor::Matrix;

/// What makes a layer's values of its keys: slim attention with a rank correction. Written by `brooklet slim`.
#[derive(Clone, Copy)]
pub struct SlimWeights<'w> {
    /// `kv_heads·head_dim x (kv_heads·head_dim + rank)`, F16 or F32: values are keys and further channels times its transpose.
    pub map: Matrix<'w>,
    /// `rank x d_model`: the further channels; `None` if there are none.
    pub channels: Option<Matrix<'w>>,
    /// `1 x kv_heads·head_dim`: what is taken off keys before they are rounded, their bias included.
    pub mean: Option<Matrix<'w>>,
    /// `1 x kv_heads·head_dim`: the value of the mean without the bias, which values know nothing of.
    pub offset: Option<Matrix<'w>>,
}

impl<'w> SlimWeights<'w> {
    /// Further channels.
    pub const fn rank(&self) -> usize {
        match &self.channels {
            Some(channels) => channels.rows(),
            None => 0,
        }
    }

    const fn read(
        file: &Gguf<'w>,
        config: &Config,
        layer: usize,
    ) -> Result<Option<SlimWeights<'w>>, ModelError> {
        let (kv, l) = (config.kv_columns(), Some(layer));
        let Layout::Slim { rank } = config.layouts.of(layer) else {
            return Ok(None);
        };
        if file.layer_tensor(layer, "attn_v.bias").is_some() {
            return Err(ModelError::UnsupportedFeature(
                "a value bias beside a slim map, which takes it for part of the output's bias",
            ));
        }
        let rank = rank as usize;
        if rank > kv {
            return Err(ModelError::BadMetadata("rows of attn_slim_channels"));
        }
        let map = tri!(matrix(file, SLIM_MAP, l, kv, kv + rank));
        match map.format() {
            Format::F16 | Format::F32 => {}
            _ => {
                return Err(ModelError::UnsupportedFeature(
                    "a slim map in another format than F16 or F32",
                ));
            }
        }
        let channels = match rank {
            0 => None,
            _ => Some(tri!(matrix(file, SLIM_CHANNELS, l, rank, config.d_model))),
        };
        let (mean, offset) = match file.layer_tensor(layer, SLIM_MEAN) {
            None => (None, None),
            Some(_) => (
                Some(tri!(norm(file, SLIM_MEAN, l, kv))),
                Some(tri!(norm(file, SLIM_OFFSET, l, kv))),
            ),
        };
        Ok(Some(SlimWeights {
            map,
            channels,
            mean,
            offset,
        }))
    }
}

pub(super) const SLIM_MAP: &str = "attn_slim_map.weight";
pub(super) const SLIM_CHANNELS: &str = "attn_slim_channels.weight";
pub(super) const VALUE: &str = "attn_v.weight";
const SLIM_MEAN: &str = "attn_slim_mean.weight";
const SLIM_OFFSET: &str = "attn_slim_offset.weight";

/// The weights of one layer. Linear layers are `outputs x inputs`; norms and biases are one row of F32.
#[derive(Clone, Copy)]
pub struct Layer<'w> {
    /// `1 x d_model`.
    pub attention_norm: Matrix<'w>,
    /// `heads·head_dim x d_model`.
    pub query: Matrix<'w>,
    /// `kv_heads·head_dim x d_model`.
    pub key: Matrix<'w>,
    /// `kv_heads·head_dim x d_model`; a slim layer may lack it.
    pub value: Option<Matrix<'w>>,
    /// `1 x heads·head_dim`: added to queries before they are rotated, if the file has it.
    pub query_bias: Option<Matrix<'w>>,
    /// `1 x kv_heads·head_dim`: added to keys before they are rotated.
    pub key_bias: Option<Matrix<'w>>,
    /// `1 x kv_heads·head_dim`.
    pub value_bias: Option<Matrix<'w>>,
    /// What makes values of keys, if the file says.
    pub slim: Option<SlimWeights<'w>>,
    /// `d_model x heads·head_dim`.
    pub attention_output: Matrix<'w>,
    /// `1 x d_model`.
    pub attention_output_bias: Option<Matrix<'w>>,
    /// `1 x d_model`.
    pub ff_norm: Matrix<'w>,
    /// `ff x d_model`.
    pub gate: Matrix<'w>,
    /// `ff x d_model`.
    pub up: Matrix<'w>,
    /// `d_model x ff`.
    pub down: Matrix<'w>,
}

impl<'w> Layer<'w> {
    /// The weights of layer `layer`.
    ///
    /// # Errors
    /// The first tensor that is missing or does not fit.
    pub const fn read(file: &Gguf<'w>, config: &Config, layer: usize) -> Result<Layer<'w>, ModelError> {
        let (d, ff) = (config.d_model, config.ff);
        let (queries, kv) = (config.query_columns(), config.kv_columns());
        let l = Some(layer);
        let slim = tri!(SlimWeights::read(file, config, layer));
        tri!(refuse(file, layer, "ffn_gate.bias"));
        tri!(refuse(file, layer, "ffn_up.bias"));
        tri!(refuse(file, layer, "ffn_down.bias"));
        Ok(Layer {
            attention_norm: tri!(norm(file, "attn_norm.weight", l, d)),
            query: tri!(matrix(file, "attn_q.weight", l, queries, d)),
            key: tri!(matrix(file, "attn_k.weight", l, kv, d)),
            value: match file.layer_tensor(layer, VALUE) {
                None if slim.is_some() => None,
                _ => Some(tri!(matrix(file, VALUE, l, kv, d))),
            },
            query_bias: tri!(bias(file, "attn_q.bias", l, queries)),
            key_bias: tri!(bias(file, "attn_k.bias", l, kv)),
            value_bias: tri!(bias(file, "attn_v.bias", l, kv)),
            slim,
            attention_output: tri!(matrix(file, "attn_output.weight", l, d, queries)),
            attention_output_bias: tri!(bias(file, "attn_output.bias", l, d)),
            ff_norm: tri!(norm(file, "ffn_norm.weight", l, d)),
            gate: tri!(matrix(file, "ffn_gate.weight", l, ff, d)),
            up: tri!(matrix(file, "ffn_up.weight", l, ff, d)),
            down: tri!(matrix(file, "ffn_down.weight", l, d, ff)),
        })
    }
}

/// The table of all layers, for boards: in a `const` it costs flash and no RAM.
///
/// # Errors
/// As [`Layer::read`]; [`ModelError::LayerCount`] if `N` is not the model's number of layers.
pub const fn layers<'w, const N: usize>(
    file: &Gguf<'w>,
    config: &Config,
) -> Result<[Layer<'w>; N], ModelError> {
    if N != config.layers || N == 0 {
        return Err(ModelError::LayerCount {
            model: config.layers,
            given: N,
        });
    }
    let mut table = [tri!(Layer::read(file, config, 0)); N];
    let mut i = 1;
    while i < N {
        table[i] = tri!(Layer::read(file, config, i));
        i += 1;
    }
    Ok(table)
}

/// A whole model, borrowed.
#[derive(Clone, Copy)]
pub struct Model<'w> {
    /// The facts.
    pub config: Config,
    /// One entry a layer.
    pub layers: &'w [Layer<'w>],
    /// `vocab x d_model`: row `i` is the embedding of token `i`.
    pub embedding: Matrix<'w>,
    /// `1 x d_model`.
    pub output_norm: Matrix<'w>,
    /// `vocab x d_model`: the embedding itself where the model ties them.
    pub output: Matrix<'w>,
    /// What each rotary frequency is divided by (`1 x rope_dim/2`), if the file says so: Llama 3's scaling.
    pub rope_factors: Option<Matrix<'w>>,
}

impl<'w> Model<'w> {
    /// Puts a model together from its file and the table of its layers ([`Layer::read`] for each, or [`layers`]).
    ///
    /// # Errors
    /// As [`Config::from_gguf`] and [`Layer::read`].
    pub const fn new(file: &Gguf<'w>, layers: &'w [Layer<'w>]) -> Result<Model<'w>, ModelError> {
        let config = tri!(Config::from_gguf(file));
        if layers.len() != config.layers {
            return Err(ModelError::LayerCount {
                model: config.layers,
                given: layers.len(),
            });
        }
        let (d, vocab) = (config.d_model, config.vocab);
        let embedding = tri!(matrix(file, "token_embd.weight", None, vocab, d));
        let output = match file.tensor("output.weight") {
            Some(_) => tri!(matrix(file, "output.weight", None, vocab, d)),
            None => embedding,
        };
        let rope_factors = match file.tensor("rope_freqs.weight") {
            Some(_) => Some(tri!(norm(file, "rope_freqs.weight", None, config.rope_dim / 2))),
            None => None,
        };
        let output_norm = tri!(norm(file, "output_norm.weight", None, d));
        Ok(Model {
            config,
            layers,
            embedding,
            output_norm,
            output,
            rope_factors,
        })
    }
}

const fn find<'w>(
    file: &Gguf<'w>,
    name: &'static str,
    layer: Option<usize>,
) -> Result<TensorInfo<'w>, ModelError> {
    let tensor = match layer {
        Some(layer) => file.layer_tensor(layer, name),
        None => file.tensor(name),
    };
    match tensor {
        Some(tensor) => Ok(tensor),
        None => Err(ModelError::MissingTensor { name, layer }),
    }
}

/// A biased feed-forward layer computes something else than this family does: better refused than wrong.
const fn refuse(file: &Gguf<'_>, layer: usize, name: &'static str) -> Result<(), ModelError> {
    match file.layer_tensor(layer, name) {
        Some(_) => Err(ModelError::UnsupportedFeature(
            "biases in its feed-forward layers",
        )),
        None => Ok(()),
    }
}

const fn matrix<'w>(
    file: &Gguf<'w>,
    name: &'static str,
    layer: Option<usize>,
    rows: usize,
    cols: usize,
) -> Result<Matrix<'w>, ModelError> {
    let tensor = tri!(find(file, name, layer));
    let Some(format) = tensor.format() else {
        return Err(ModelError::UnsupportedFormat {
            name,
            layer,
            ggml_type: tensor.ggml_type(),
        });
    };
    let shape_error = ModelError::BadShape {
        name,
        layer,
        expected: (rows, cols),
        found: (tensor.rows(), tensor.cols()),
    };
    if tensor.rows() != rows || tensor.cols() != cols {
        return Err(shape_error);
    }
    match Matrix::new(format, rows, cols, tensor.data()) {
        Ok(matrix) => Ok(matrix),
        Err(_) => Err(shape_error),
    }
}

const fn norm<'w>(
    file: &Gguf<'w>,
    name: &'static str,
    layer: Option<usize>,
    len: usize,
) -> Result<Matrix<'w>, ModelError> {
    let norm = tri!(matrix(file, name, layer, 1, len));
    match norm.format() {
        Format::F32 => Ok(norm),
        _ => Err(ModelError::UnsupportedFeature(
            "norms or biases in another format than F32",
        )),
    }
}

/// A row of F32 that may be absent.
const fn bias<'w>(
    file: &Gguf<'w>,
    name: &'static str,
    layer: Option<usize>,
    len: usize,
) -> Result<Option<Matrix<'w>>, ModelError> {
    match norm(file, name, layer, len) {
        Ok(bias) => Ok(Some(bias)),
        Err(ModelError::MissingTensor { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

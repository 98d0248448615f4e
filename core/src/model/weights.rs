//! The weights of a model, borrowed from the file and checked once.

use super::tensors::Tensors;
use super::{Config, ModelError, Positions, QueryKeyNorm};
use crate::const_fn::tri;
use crate::gguf::Gguf;
use crate::nn::rope;
use crate::plan::Layout;
use crate::quant::{F32, Format};
use crate::tensor::Matrix;

/// What makes a layer's values of its keys: slim attention with a rank correction. Written by `brooklet slim`.
#[derive(Clone, Copy)]
pub struct SlimWeights<'w> {
    /// `kv_heads·head_dim x (kv_heads·head_dim + rank)`, F16 or F32: values are keys and further channels times its transpose.
    pub map: Matrix<'w>,
    /// `rank x d_model`: the further channels; `None` if there are none.
    pub channels: Option<Matrix<'w>>,
    /// `1 x kv_heads·head_dim`: what is taken off keys before they are rounded, their bias included.
    pub mean: Option<&'w [F32]>,
    /// `1 x kv_heads·head_dim`: the value of the mean without the bias, which values know nothing of.
    pub offset: Option<&'w [F32]>,
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
        of: &Tensors<'_, 'w>,
        config: &Config,
        layer: usize,
    ) -> Result<Option<SlimWeights<'w>>, ModelError> {
        let kv = config.kv_columns();
        let Layout::Slim { rank } = config.layouts.of(layer) else {
            return Ok(None);
        };
        if !config.may_be_slim() {
            return Err(ModelError::UnsupportedFeature(
                "values of keys in a family whose keys are normed, whose scores are capped or whose layers are local",
            ));
        }
        let rank = rank as usize;
        if rank > kv {
            return Err(ModelError::OutOfRange {
                key: "number of rows in attn_slim_channels",
                value: rank as u64,
            });
        }
        let map = tri!(of.matrix(SLIM_MAP, kv, kv + rank));
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
            _ => Some(tri!(of.matrix(SLIM_CHANNELS, rank, config.d_model))),
        };
        let (mean, offset) = match of.find(SLIM_MEAN) {
            Err(_) => (None, None),
            Ok(_) => (
                Some(tri!(of.row(SLIM_MEAN, kv))),
                Some(tri!(of.row(SLIM_OFFSET, kv))),
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
pub(super) const QUERY: &str = "attn_q.weight";
pub(super) const VALUE: &str = "attn_v.weight";
const SLIM_MEAN: &str = "attn_slim_mean.weight";
const SLIM_OFFSET: &str = "attn_slim_offset.weight";

/// A norm's weight and, if it has one, bias; one row of F32 each.
#[derive(Clone, Copy)]
pub struct Norm<'w> {
    /// What a normed row is multiplied with.
    pub weight: &'w [F32],
    /// What is added to it then.
    pub bias: Option<&'w [F32]>,
}

/// The weights of one layer. Linear layers are `outputs x inputs`; norms and biases are one row of F32.
#[derive(Clone, Copy)]
pub struct Layer<'w> {
    /// Of what enters attention, `1 x d_model`.
    pub attention_norm: Option<Norm<'w>>,
    /// `heads·head_dim x d_model`.
    pub query: Matrix<'w>,
    /// `kv_heads·head_dim x d_model`.
    pub key: Matrix<'w>,
    /// `kv_heads·head_dim x d_model`; a slim layer may lack it.
    pub value: Option<Matrix<'w>>,
    /// `1 x heads·head_dim`: added to queries before they are normed or rotated, if the file has it.
    pub query_bias: Option<&'w [F32]>,
    /// `1 x kv_heads·head_dim`: added to keys before they are normed or rotated.
    pub key_bias: Option<&'w [F32]>,
    /// `1 x kv_heads·head_dim`.
    pub value_bias: Option<&'w [F32]>,
    /// Weight of the norm of queries before they are rotated: as wide as what is normed together, a head or all of them.
    pub query_norm: Option<&'w [F32]>,
    /// The same of keys.
    pub key_norm: Option<&'w [F32]>,
    /// What makes values of keys, if the file says.
    pub slim: Option<SlimWeights<'w>>,
    /// `d_model x heads·head_dim`.
    pub attention_output: Matrix<'w>,
    /// `1 x d_model`.
    pub attention_output_bias: Option<&'w [F32]>,
    /// Of attention's output, `1 x d_model`.
    pub attention_post_norm: Option<Norm<'w>>,
    /// Of what enters the feed-forward layer, `1 x d_model`.
    pub ff_norm: Option<Norm<'w>>,
    /// `ff x d_model`, if the feed-forward layer is gated.
    pub gate: Option<Matrix<'w>>,
    /// `ff x d_model`.
    pub up: Matrix<'w>,
    /// `1 x ff`, if the feed-forward layer is not gated.
    pub up_bias: Option<&'w [F32]>,
    /// `d_model x ff`.
    pub down: Matrix<'w>,
    /// `1 x d_model`, if the feed-forward layer is not gated.
    pub down_bias: Option<&'w [F32]>,
    /// Of the feed-forward layer's output, `1 x d_model`.
    pub ff_post_norm: Option<Norm<'w>>,
}

impl<'w> Layer<'w> {
    /// The weights of layer `layer`.
    ///
    /// # Errors
    /// The first tensor that is missing or does not fit.
    pub const fn read(file: &Gguf<'w>, config: &Config, layer: usize) -> Result<Layer<'w>, ModelError> {
        let (d, design, of) = (config.d_model, &config.design, Tensors::of_layer(file, layer));
        let slim = tri!(SlimWeights::read(&of, config, layer));
        let qkv = if design.fuses_qkv(file, layer) {
            tri!(Qkv::fused(&of, config))
        } else {
            tri!(Qkv::read(&of, config, slim.is_some()))
        };
        if slim.is_some() && qkv.value_bias.is_some() {
            return Err(ModelError::UnsupportedFeature(
                "a value bias beside a slim map, which takes it for part of the output's bias",
            ));
        }
        let ff = tri!(FfWeights::read(&of, config));
        let (query_norm, key_norm) = match design.query_key_norm {
            QueryKeyNorm::None => (None, None),
            QueryKeyNorm::EachHead => (
                Some(tri!(of.row("attn_q_norm.weight", config.head_dim))),
                Some(tri!(of.row("attn_k_norm.weight", config.head_dim))),
            ),
            QueryKeyNorm::AllHeads => (
                Some(tri!(of.row("attn_q_norm.weight", config.query_columns()))),
                Some(tri!(of.row("attn_k_norm.weight", config.kv_columns()))),
            ),
        };
        let (before, after) = (design.norms.before(), design.norms.after());
        let norm = design.norm;
        Ok(Layer {
            attention_norm: tri!(of.norm(before, norm, ["attn_norm.weight", "attn_norm.bias"], d)),
            query: qkv.query,
            key: qkv.key,
            value: qkv.value,
            query_bias: qkv.query_bias,
            key_bias: qkv.key_bias,
            value_bias: qkv.value_bias,
            query_norm,
            key_norm,
            slim,
            attention_output: tri!(of.matrix("attn_output.weight", d, config.query_columns())),
            attention_output_bias: tri!(of.bias("attn_output.bias", d)),
            attention_post_norm: tri!(of.norm(
                after,
                norm,
                ["post_attention_norm.weight", "post_attention_norm.bias"],
                d
            )),
            ff_norm: tri!(of.norm(before, norm, ["ffn_norm.weight", "ffn_norm.bias"], d)),
            gate: ff.gate,
            up: ff.up,
            up_bias: ff.up_bias,
            down: tri!(of.matrix("ffn_down.weight", d, config.ff)),
            down_bias: ff.down_bias,
            ff_post_norm: tri!(of.norm(after, norm, ["post_ffw_norm.weight", "post_ffw_norm.bias"], d)),
        })
    }
}

/// What makes queries, keys and values.
struct Qkv<'w> {
    query: Matrix<'w>,
    key: Matrix<'w>,
    value: Option<Matrix<'w>>,
    query_bias: Option<&'w [F32]>,
    key_bias: Option<&'w [F32]>,
    value_bias: Option<&'w [F32]>,
}

impl<'w> Qkv<'w> {
    const fn read(of: &Tensors<'_, 'w>, config: &Config, is_slim: bool) -> Result<Qkv<'w>, ModelError> {
        let (d, queries, kv) = (config.d_model, config.query_columns(), config.kv_columns());
        Ok(Qkv {
            query: tri!(of.matrix(QUERY, queries, d)),
            key: tri!(of.matrix("attn_k.weight", kv, d)),
            value: if is_slim && of.find(VALUE).is_err() {
                None
            } else {
                Some(tri!(of.matrix(VALUE, kv, d)))
            },
            query_bias: tri!(of.bias("attn_q.bias", queries)),
            key_bias: tri!(of.bias("attn_k.bias", kv)),
            value_bias: tri!(of.bias("attn_v.bias", kv)),
        })
    }

    const fn fused(of: &Tensors<'_, 'w>, config: &Config) -> Result<Qkv<'w>, ModelError> {
        let (d, queries, kv) = (config.d_model, config.query_columns(), config.kv_columns());
        let weight = tri!(of.matrix("attn_qkv.weight", queries + 2 * kv, d));
        let [query_bias, key_bias, value_bias] = match tri!(of.bias("attn_qkv.bias", queries + 2 * kv)) {
            None => [None; 3],
            Some(bias) => {
                let (of_queries, rest) = bias.split_at(queries);
                let (of_keys, of_values) = rest.split_at(kv);
                [Some(of_queries), Some(of_keys), Some(of_values)]
            }
        };
        Ok(Qkv {
            query: weight.row_range(0, queries),
            key: weight.row_range(queries, kv),
            value: Some(weight.row_range(queries + kv, kv)),
            query_bias,
            key_bias,
            value_bias,
        })
    }
}

/// The first part of a feed-forward layer.
struct FfWeights<'w> {
    gate: Option<Matrix<'w>>,
    up: Matrix<'w>,
    up_bias: Option<&'w [F32]>,
    down_bias: Option<&'w [F32]>,
}

impl<'w> FfWeights<'w> {
    const fn read(of: &Tensors<'_, 'w>, config: &Config) -> Result<FfWeights<'w>, ModelError> {
        let (d, ff) = (config.d_model, config.ff);
        if !config.design.feed_forward.gated() {
            return Ok(FfWeights {
                gate: None,
                up: tri!(of.matrix("ffn_up.weight", ff, d)),
                up_bias: tri!(of.bias("ffn_up.bias", ff)),
                down_bias: tri!(of.bias("ffn_down.bias", d)),
            });
        }
        // A biased layer computes something else than these families do: better refused than wrong.
        if of.find("ffn_gate.bias").is_ok()
            || of.find("ffn_up.bias").is_ok()
            || of.find("ffn_down.bias").is_ok()
        {
            return Err(ModelError::UnsupportedFeature(
                "biases in its feed-forward layers",
            ));
        }
        let (gate, up) = if config.design.fused_gate && of.find("ffn_gate.weight").is_err() {
            let both = tri!(of.matrix("ffn_up.weight", 2 * ff, d));
            (both.row_range(0, ff), both.row_range(ff, ff))
        } else {
            (
                tri!(of.matrix("ffn_gate.weight", ff, d)),
                tri!(of.matrix("ffn_up.weight", ff, d)),
            )
        };
        Ok(FfWeights {
            gate: Some(gate),
            up,
            up_bias: None,
            down_bias: None,
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

/// What rotary frequencies are divided by: `1 x rope_dim/2`.
#[derive(Clone, Copy)]
pub struct RopeFactors<'w> {
    /// For caches that hold no more than [`Config::rope_short_context`].
    pub short: &'w [F32],
    /// For larger ones.
    pub long: &'w [F32],
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
    /// `context x d_model`: row `i` is added to the embedding of the token at position `i`, where positions are learned.
    pub positions: Option<Matrix<'w>>,
    /// `1 x d_model`.
    pub output_norm: Norm<'w>,
    /// `vocab x d_model`: the embedding itself where the model ties them.
    pub output: Matrix<'w>,
    /// If the file says so: Llama 3's scaling, or LongRoPE.
    pub rope_factors: Option<RopeFactors<'w>>,
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
        let (d, vocab, of) = (config.d_model, config.vocab, Tensors::of_model(file));
        let embedding = tri!(of.matrix("token_embd.weight", vocab, d));
        let output = match of.find("output.weight") {
            Ok(_) => tri!(of.matrix("output.weight", vocab, d)),
            Err(_) => embedding,
        };
        // A bias that is not added would change every logit.
        if of.find("output.bias").is_ok() {
            return Err(ModelError::UnsupportedFeature("a bias of its logits"));
        }
        let positions = match config.design.positions {
            Positions::Learned => Some(tri!(of.matrix("position_embd.weight", config.context, d))),
            Positions::Rotary(_) => None,
        };
        let output_norm = tri!(of.norm(
            true,
            config.design.norm,
            ["output_norm.weight", "output_norm.bias"],
            d
        ));
        let Some(output_norm) = output_norm else {
            return Err(ModelError::MissingTensor {
                name: "output_norm.weight",
                layer: None,
            });
        };
        Ok(Model {
            config,
            layers,
            embedding,
            positions,
            output_norm,
            output,
            rope_factors: tri!(RopeFactors::read(&of, &config)),
        })
    }
}

impl Model<'_> {
    /// Rotary frequencies of the layers that are not local, for a cache of `slots` tokens: turns per position of each of the
    /// `rope_dim/2` pairs, as [`rope::frequencies`] gives them.
    ///
    /// # Panics
    /// If `frequencies` has more entries than there are pairs, and the file has factors.
    pub fn rope_frequencies(&self, slots: usize, frequencies: &mut [u64]) {
        let config = &self.config;
        let factors = self.rope_factors.map(|factors| {
            if slots > config.rope_short_context {
                factors.long
            } else {
                factors.short
            }
        });
        let factor = |i: usize| factors.map_or(1.0, |factors| factors[i].to_f32());
        let scale = |i| config.rope_scale * factor(i);
        rope::frequencies(config.rope_theta, scale, frequencies);
    }
}

impl<'w> RopeFactors<'w> {
    const fn read(of: &Tensors<'_, 'w>, config: &Config) -> Result<Option<RopeFactors<'w>>, ModelError> {
        let pairs = config.rope_dim / 2;
        if of.find("rope_freqs.weight").is_ok() {
            let factors = tri!(of.row("rope_freqs.weight", pairs));
            return Ok(Some(RopeFactors {
                short: factors,
                long: factors,
            }));
        }
        if of.find("rope_factors_long.weight").is_err() {
            return Ok(None);
        }
        Ok(Some(RopeFactors {
            short: tri!(of.row("rope_factors_short.weight", pairs)),
            long: tri!(of.row("rope_factors_long.weight", pairs)),
        }))
    }
}

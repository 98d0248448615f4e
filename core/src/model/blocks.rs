//! Blocks of a layer: attention, and the feed-forward layer; their weights are borrowed from the
//! file and checked once.

use super::design::FusedGate;
use super::names::{
    KEY, QKV, QUERY, SLIM_CHANNELS, SLIM_MAP, SLIM_MEAN, SLIM_OFFSET, Stack, VALUE,
};
use super::tensors::Tensors;
use super::{Config, FeedForwardKind, ModelError, QueryKeyNorm};
use crate::cache::Layout;
use crate::const_fn::tri;
use crate::features::OfFamilies;
use crate::gguf::Gguf;
use crate::quant::{F32, Format};
use crate::tensor::Matrix;

/// A norm's weight and, if it has one, bias; one row of F32 each.
#[derive(Clone, Copy)]
pub struct Norm<'w> {
    /// Factor of a normed row.
    pub weight: &'w [F32],
    /// Term that is added after the factor.
    pub bias: Option<&'w [F32]>,
}

/// A linear layer: `y = weight·x + bias`.
#[derive(Clone, Copy)]
pub struct Linear<'w> {
    /// `outputs x inputs`.
    pub weight: Matrix<'w>,
    /// Bias, `1 x outputs`, if the file has it.
    pub bias: Option<&'w [F32]>,
}

impl<'w> Linear<'w> {
    /// Reads a convolution over positions, which the file stores as `outputs x inputs x width`, as
    /// a linear layer of `inputs·width` columns.
    pub(super) const fn read_convolution(
        of: &Tensors<'_, 'w>,
        [weight, bias]: [&'static str; 2],
        outputs: usize,
        inputs: usize,
        width: usize,
    ) -> Result<Linear<'w>, ModelError> {
        let stored = (outputs.saturating_mul(inputs), width);
        Ok(Linear {
            weight: tri!(of.stored(weight, stored, (outputs, inputs.saturating_mul(width)))),
            bias: tri!(of.bias(bias, outputs)),
        })
    }

    const fn read(
        of: &Tensors<'_, 'w>,
        [weight, bias]: [&'static str; 2],
        outputs: usize,
        inputs: usize,
    ) -> Result<Linear<'w>, ModelError> {
        Ok(Linear {
            weight: tri!(of.matrix(weight, outputs, inputs)),
            bias: tri!(of.bias(bias, outputs)),
        })
    }

    /// Returns `outputs` rows from row `start` on, for files that store several layers as one.
    const fn row_range(&self, start: usize, outputs: usize) -> Linear<'w> {
        Linear {
            weight: self.weight.row_range(start, outputs),
            bias: match self.bias {
                Some(bias) => {
                    let (_, rest) = bias.split_at(start);
                    let (bias, _) = rest.split_at(outputs);
                    Some(bias)
                }
                None => None,
            },
        }
    }
}

/// Matrices from which a layer's values are computed: slim attention with a rank correction.
/// Written by `brooklet slim`.
#[derive(Clone, Copy)]
pub struct SlimWeights<'w> {
    /// `kv_heads·head_dim x (kv_heads·head_dim + rank)`, F16 or F32: its transpose maps keys and
    /// rank-correction channels to values.
    pub map: Matrix<'w>,
    /// `rank x d_model`: the projection to the rank-correction channels; `None` if the rank is 0.
    pub channels: Option<Matrix<'w>>,
    /// `1 x kv_heads·head_dim`: mean of the keys with their bias, subtracted before keys are
    /// rounded.
    pub mean: Option<&'w [F32]>,
    /// `1 x kv_heads·head_dim`: value of the mean without the keys' bias, which has no part in
    /// values.
    pub offset: Option<&'w [F32]>,
}

impl<'w> SlimWeights<'w> {
    /// Number of rank-correction channels.
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
        let Layout::KR { rank } = config.layouts.of(layer) else {
            return Ok(None);
        };
        if !config.may_be_slim() {
            return Err(ModelError::UnsupportedFeature(
                "the layout k+r together with key norms, score caps, score biases (ALiBi), local windows or layers of unlike rotation",
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
                    "a slim map in a format other than F16 and F32",
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
                Some(tri!(of.finite_row(SLIM_MEAN, kv, f32::MIN))),
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

/// A layer: attention, cross-attention to an encoder if the stack has it, then a feed-forward
/// layer.
#[derive(Clone, Copy)]
pub struct Layer<'w> {
    /// Self-attention.
    pub attention: Attention<'w>,
    /// Attention to the output of the encoder.
    pub cross: OfFamilies<CrossAttention<'w>>,
    /// The feed-forward layer.
    pub feed_forward: FeedForward<'w>,
}

impl<'w> Layer<'w> {
    /// Reads the weights of entry `index` of the table of layers: the model's layers, and then
    /// those of its encoder ([`Config::layers_in_file`]).
    ///
    /// # Errors
    /// The first tensor that is missing or does not fit the model.
    pub const fn read(
        file: &Gguf<'w>,
        config: &Config,
        index: usize,
    ) -> Result<Layer<'w>, ModelError> {
        let (stack, layer) = if index < config.layers {
            (Stack::Decoder, index)
        } else {
            (Stack::Encoder, index - config.layers)
        };
        let of = Tensors::of_layer(file, config.design.naming, stack, layer);
        Ok(Layer {
            attention: tri!(Attention::read(&of, file, config, layer)),
            cross: match (config.encoder.get(), stack) {
                (Some(_), Stack::Decoder) => {
                    OfFamilies::some(tri!(CrossAttention::read(&of, config)))
                }
                _ => OfFamilies::NONE,
            },
            feed_forward: tri!(FeedForward::read(&of, config, stack)),
        })
    }
}

/// The attention of a layer.
#[derive(Clone, Copy)]
pub struct Attention<'w> {
    /// Norm of the input, over `d_model`.
    pub norm: Option<Norm<'w>>,
    /// `heads·head_dim x d_model`; the bias is added before queries are normed or rotated.
    pub query: Linear<'w>,
    /// `kv_heads·head_dim x d_model`; the bias is added before keys are normed or rotated.
    pub key: Linear<'w>,
    /// `kv_heads·head_dim x d_model`; a slim layer may lack it.
    pub value: Option<Linear<'w>>,
    /// Weight of the norm of queries, which comes before rotation. It is as wide as one head or as
    /// all heads, whichever is normed together.
    pub query_norm: Option<&'w [F32]>,
    /// Weight of the same norm for keys.
    pub key_norm: Option<&'w [F32]>,
    /// Matrices from which values are computed, if the file has them.
    pub slim: Option<SlimWeights<'w>>,
    /// `d_model x heads·head_dim`.
    pub output: Linear<'w>,
    /// Norm of the output, over `d_model`.
    pub post_norm: Option<Norm<'w>>,
}

impl<'w> Attention<'w> {
    const fn read(
        of: &Tensors<'_, 'w>,
        file: &Gguf<'w>,
        config: &Config,
        layer: usize,
    ) -> Result<Attention<'w>, ModelError> {
        let (d, design) = (config.d_model, &config.design);
        let (queries, kv) = (config.query_columns(), config.kv_columns());
        let slim = tri!(SlimWeights::read(of, config, layer));
        let (query, key, value) = if design.fuses_qkv(file, layer) {
            let fused = tri!(Linear::read(
                of,
                [QKV, "attn_qkv.bias"],
                queries + 2 * kv,
                d
            ));
            (
                fused.row_range(0, queries),
                fused.row_range(queries, kv),
                Some(fused.row_range(queries + kv, kv)),
            )
        } else {
            (
                tri!(Linear::read(of, [QUERY, "attn_q.bias"], queries, d)),
                tri!(Linear::read(of, [KEY, "attn_k.bias"], kv, d)),
                if slim.is_some() && of.find(VALUE).is_err() {
                    None
                } else {
                    Some(tri!(Linear::read(of, [VALUE, "attn_v.bias"], kv, d)))
                },
            )
        };
        // Read also if there is no value projection: such a bias is refused below.
        let value_bias = match value {
            Some(value) => value.bias,
            None => tri!(of.bias("attn_v.bias", kv)),
        };
        if slim.is_some() && value_bias.is_some() {
            return Err(ModelError::UnsupportedFeature(
                "a value bias beside a slim map (the output's bias must contain it)",
            ));
        }
        let (query_norm, key_norm) = match design.query_key_norm {
            QueryKeyNorm::None => (None, None),
            QueryKeyNorm::EachHead => (
                Some(tri!(of.row("attn_q_norm.weight", config.head_dim))),
                Some(tri!(of.row("attn_k_norm.weight", config.head_dim))),
            ),
            QueryKeyNorm::AllHeads => (
                Some(tri!(of.row("attn_q_norm.weight", queries))),
                Some(tri!(of.row("attn_k_norm.weight", kv))),
            ),
        };
        let (before, after) = (design.norms.before(), design.norms.after());
        let post_norm = ["post_attention_norm.weight", "post_attention_norm.bias"];
        Ok(Attention {
            norm: tri!(of.norm(
                before,
                design.norm,
                ["attn_norm.weight", "attn_norm.bias"],
                d
            )),
            query,
            key,
            value,
            query_norm,
            key_norm,
            slim,
            output: tri!(Linear::read(
                of,
                ["attn_output.weight", "attn_output.bias"],
                d,
                queries
            )),
            post_norm: tri!(of.norm(after, design.norm, post_norm, d)),
        })
    }
}

/// Attention of a decoder's layer to the output of the encoder (Vaswani et al., arXiv 1706.03762,
/// section 3.2.3). Queries come from the decoder, keys and values from the encoder's rows, which
/// are all seen by every query.
#[derive(Clone, Copy)]
pub struct CrossAttention<'w> {
    /// Norm of the decoder's input, over `d_model`.
    pub norm: Option<Norm<'w>>,
    /// `heads·head_dim x d_model`.
    pub query: Linear<'w>,
    /// `kv_heads·head_dim x d_model`, of the encoder's rows.
    pub key: Linear<'w>,
    /// `kv_heads·head_dim x d_model`, of the encoder's rows.
    pub value: Linear<'w>,
    /// `d_model x heads·head_dim`.
    pub output: Linear<'w>,
}

impl<'w> CrossAttention<'w> {
    const fn read(of: &Tensors<'_, 'w>, config: &Config) -> Result<CrossAttention<'w>, ModelError> {
        let (d, design) = (config.d_model, &config.design);
        let (queries, kv) = (config.query_columns(), config.kv_columns());
        let norm = ["cross_attn_norm.weight", "cross_attn_norm.bias"];
        let query = ["cross_attn_q.weight", "cross_attn_q.bias"];
        let key = ["cross_attn_k.weight", "cross_attn_k.bias"];
        let value = ["cross_attn_v.weight", "cross_attn_v.bias"];
        let output = ["cross_attn_o.weight", "cross_attn_o.bias"];
        Ok(CrossAttention {
            norm: tri!(of.norm(design.norms.before(), design.norm, norm, d)),
            query: tri!(Linear::read(of, query, queries, d)),
            key: tri!(Linear::read(of, key, kv, d)),
            value: tri!(Linear::read(of, value, kv, d)),
            output: tri!(Linear::read(of, output, d, queries)),
        })
    }
}

/// Feed-forward part of a layer.
#[derive(Clone, Copy)]
pub struct FeedForward<'w> {
    /// Its equation.
    pub kind: FeedForwardKind,
    /// Norm of the input, over `d_model`.
    pub norm: Option<Norm<'w>>,
    /// `ff x d_model`, if the equation has a gate.
    pub gate: Option<Linear<'w>>,
    /// `ff x d_model`.
    pub up: Linear<'w>,
    /// `d_model x ff`.
    pub down: Linear<'w>,
    /// Norm of the output, over `d_model`.
    pub post_norm: Option<Norm<'w>>,
}

impl<'w> FeedForward<'w> {
    const fn read(
        of: &Tensors<'_, 'w>,
        config: &Config,
        stack: Stack,
    ) -> Result<FeedForward<'w>, ModelError> {
        let (d, ff, design) = (config.d_model, config.ff, &config.design);
        let kind = match (config.encoder.get(), stack) {
            (Some(encoder), Stack::Encoder) => encoder.feed_forward,
            _ => design.feed_forward,
        };
        let (up, gate) = (
            ["ffn_up.weight", "ffn_up.bias"],
            ["ffn_gate.weight", "ffn_gate.bias"],
        );
        let (gate, up) = if !kind.gated() {
            (None, tri!(Linear::read(of, up, ff, d)))
        } else {
            // The equation of these families has no biases, so a file with biases is refused.
            if !design.gated_biases
                && (of.find("ffn_gate.bias").is_ok()
                    || of.find("ffn_up.bias").is_ok()
                    || of.find("ffn_down.bias").is_ok())
            {
                return Err(ModelError::UnsupportedFeature(
                    "biases in its feed-forward layers",
                ));
            }
            let fused = match design.fused_gate {
                FusedGate::No => None,
                _ if of.find("ffn_gate.weight").is_ok() => None,
                FusedGate::First => Some((0, ff)),
                FusedGate::Last => Some((ff, 0)),
            };
            match fused {
                Some((gate, first_up)) => {
                    let both = tri!(Linear::read(of, up, 2 * ff, d));
                    (Some(both.row_range(gate, ff)), both.row_range(first_up, ff))
                }
                None => (
                    Some(tri!(Linear::read(of, gate, ff, d))),
                    tri!(Linear::read(of, up, ff, d)),
                ),
            }
        };
        let (before, after) = (design.norms.before(), design.norms.after());
        let post_norm = ["post_ffw_norm.weight", "post_ffw_norm.bias"];
        Ok(FeedForward {
            kind,
            norm: tri!(of.norm(before, design.norm, ["ffn_norm.weight", "ffn_norm.bias"], d)),
            gate,
            up,
            down: tri!(Linear::read(
                of,
                ["ffn_down.weight", "ffn_down.bias"],
                d,
                ff
            )),
            post_norm: tri!(of.norm(after, design.norm, post_norm, d)),
        })
    }
}

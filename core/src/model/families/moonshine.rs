//! Moonshine (Jeffries et al., arXiv 2410.15608, section 3.1): an encoder over the samples
//! themselves and a decoder whose layers attend to its output; LayerNorm without bias before each
//! sublayer, RoPE on a part of each head in both stacks but not between them, attention without
//! biases, GELU in the encoder and SwiGLU with biases in the decoder.
//!
//! Files have transcribe.cpp's names and keys.

use super::llama;
use super::speech::{check_output, layers, stated_vocabulary};
use crate::const_fn::tri;
use crate::features::OfFamilies;
use crate::gguf::Gguf;
use crate::model::config::{HeadFacts, Layouts};
use crate::model::design::{Design, FeedForwardKind, FusedGate, LayerKind, LayerKinds, NormKind};
use crate::model::facts::Facts;
use crate::model::{Config, EncoderConfig, EncoderInput, Family, ModelError, Naming};
use crate::speech::SAMPLE_RATE;

pub(super) const DESIGN: Design = Design {
    norm: NormKind::Layer,
    feed_forward: FeedForwardKind::SwiGlu,
    fused_gate: FusedGate::Last,
    gated_biases: true,
    naming: Naming::Speech,
    ..llama::DESIGN
};

/// Term of the variance in the norms; no metadata say so.
const NORM_EPS: f32 = 1e-5;

/// Rows of the encoder's output for 30 s. The models were trained with sounds of at most that
/// (section 3.2) and write words that nobody said of longer ones; no metadata say so.
const POSITIONS: usize = 1248;

/// Reads the facts of a Moonshine model, whose keys are those of no other family.
///
/// # Errors
/// The first fact that is missing or out of range, or that needs an unsupported feature.
pub(in crate::model) const fn config(file: &Gguf<'_>) -> Result<Config, ModelError> {
    let facts = Facts {
        file,
        architecture: "stt.moonshine",
    };
    let d_model = tri!(facts.dim("decoder.d_model"));
    let queries = tri!(facts.dim("decoder.n_heads"));
    let heads = tri!(
        HeadFacts {
            d_model,
            queries,
            keys: tri!(facts.dim("decoder.n_kv_heads")),
            width: d_model / queries,
        }
        .checked()
    );
    let ff = tri!(facts.dim("decoder.ffn_dim"));
    let alike = tri!(facts.dim("encoder.d_model")) == d_model
        && tri!(facts.dim("encoder.n_heads")) == queries
        && tri!(facts.dim("encoder.n_kv_heads")) == heads.keys
        && tri!(facts.dim("encoder.ffn_dim")) == ff;
    if !alike {
        return Err(ModelError::UnsupportedFeature(
            "an encoder of another width, other heads or other feed-forward layers than the decoder",
        ));
    }
    if tri!(facts.flag("attention_bias", false)) {
        return Err(ModelError::UnsupportedFeature(
            "biases in the attention of a speech model of this family",
        ));
    }
    let known =
        facts.says("encoder.activation", "gelu") && facts.says("decoder.activation", "silu");
    if !known {
        return Err(ModelError::UnsupportedFeature(
            "activations other than gelu in the encoder and silu in the decoder",
        ));
    }
    tri!(check_output(&facts));
    tri!(check_input(file));
    let context = tri!(facts.dim("decoder.max_position_embeddings"));
    let part = tri!(facts.float("partial_rotary_factor", None, 0.0, 1.0));
    // As `transformers` rounds it.
    let rope_dim = (heads.width as f32 * part) as usize;
    if rope_dim == 0 || !rope_dim.is_multiple_of(2) {
        return Err(ModelError::OutOfRange {
            key: "rotated elements of a head",
            value: rope_dim as u64,
        });
    }
    let base = tri!(facts.float("rope_theta", Some(10_000.0), 1.0, 1e12));
    let design = DESIGN;
    Ok(Config {
        family: Family::Moonshine,
        design,
        layers: tri!(layers(&facts, "decoder.n_layers")),
        encoder: OfFamilies::some(EncoderConfig {
            layers: tri!(layers(&facts, "encoder.n_layers")),
            positions: POSITIONS,
            input: EncoderInput::Samples,
            feed_forward: FeedForwardKind::Gelu,
        }),
        values_dropped: false,
        layouts: Layouts::KV,
        d_model,
        heads: queries,
        kv_heads: heads.keys,
        head_dim: heads.width,
        ff,
        vocab: tri!(stated_vocabulary(&facts, &design)),
        context,
        rope_dim,
        kinds: LayerKinds::all(LayerKind {
            window: None,
            rotation: Some(base),
        }),
        rope_scale: 1.0,
        rope_short_context: context,
        rope_magnitude: 1.0,
        norm_eps: NORM_EPS,
        query_scale_of: heads.width,
        score_cap: 0.0,
        logit_cap: 0.0,
        alibi: OfFamilies::NONE,
    })
}

/// Refuses an input, or convolutions of it, other than those of the paper.
const fn check_input(file: &Gguf<'_>) -> Result<(), ModelError> {
    let facts = Facts {
        file,
        architecture: "stt.frontend",
    };
    let rate = tri!(facts.dim("sample_rate"));
    if rate != SAMPLE_RATE {
        return Err(ModelError::OutOfRange {
            key: "sample_rate",
            value: rate as u64,
        });
    }
    // Shapes of the tensors say how wide the convolutions are; steps are not to be seen there.
    let facts = Facts {
        file,
        architecture: "stt.moonshine.conv_stem",
    };
    let groups = tri!(facts.optional_dim("groupnorm_num_groups"));
    let eps = tri!(facts.float("groupnorm_eps", Some(NORM_EPS), 0.0, 1.0));
    let known = tri!(facts.says_numbers("strides", &[64, 3, 2]))
        && matches!(groups, None | Some(1))
        && eps == NORM_EPS;
    if known {
        Ok(())
    } else {
        Err(ModelError::UnsupportedFeature(
            "convolutions of sound with other steps or norms than Moonshine's",
        ))
    }
}

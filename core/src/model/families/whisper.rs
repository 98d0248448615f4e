//! Whisper (Radford et al., arXiv 2212.04356, section 2.2): an encoder over log-mel frames and a
//! decoder whose layers attend to its output; LayerNorm before each sublayer, learned positions,
//! GELU, and biases everywhere but in the keys.
//!
//! Files have transcribe.cpp's names and keys. All sizes of the model have encoders and decoders of
//! the same width, heads and feed-forward layers; a file where they differ is refused.

use super::llama;
use super::speech::{check_output, layers, stated_vocabulary};
use crate::const_fn::tri;
use crate::features::OfFamilies;
use crate::gguf::Gguf;
use crate::model::config::{HeadFacts, Layouts};
use crate::model::design::{Design, FeedForwardKind, LayerKind, LayerKinds, NormKind, Positions};
use crate::model::facts::Facts;
use crate::model::{Config, EncoderConfig, EncoderInput, Family, ModelError, Naming};
use crate::speech::SAMPLE_RATE;
use crate::speech::mel::MelShape;

pub(super) const DESIGN: Design = Design {
    norm: NormKind::Layer,
    feed_forward: FeedForwardKind::Gelu,
    positions: Positions::Learned,
    naming: Naming::Speech,
    ..llama::DESIGN
};

/// Term of the variance in the norms; no metadata say so.
const NORM_EPS: f32 = 1e-5;

/// Samples between two frames: 10 ms.
const HOP: usize = 160;

/// Reads the facts of a Whisper model, whose keys are those of no other family.
///
/// # Errors
/// The first fact that is missing or out of range, or that needs an unsupported feature.
pub(in crate::model) const fn config(file: &Gguf<'_>) -> Result<Config, ModelError> {
    let facts = Facts {
        file,
        architecture: "stt.whisper",
    };
    let design = DESIGN;
    // No published model has it, and other programs differ in what it means.
    if tri!(facts.flag("decoder.scale_embedding", false)) {
        return Err(ModelError::UnsupportedFeature(
            "scaled embeddings in a speech model",
        ));
    }
    let decoder_layers = tri!(layers(&facts, "decoder.n_layers"));
    let queries = tri!(facts.dim("decoder.n_heads"));
    let d_model = tri!(facts.dim("decoder.d_model"));
    let heads = tri!(
        HeadFacts {
            d_model,
            queries,
            keys: queries,
            width: d_model / queries,
        }
        .checked()
    );
    let ff = tri!(facts.dim("decoder.ffn_dim"));
    let alike = tri!(facts.dim("encoder.d_model")) == d_model
        && tri!(facts.dim("encoder.n_heads")) == queries
        && tri!(facts.dim("encoder.ffn_dim")) == ff;
    if !alike {
        return Err(ModelError::UnsupportedFeature(
            "an encoder of another width, other heads or other feed-forward layers than the decoder",
        ));
    }
    if heads.width * queries != d_model {
        return Err(ModelError::UnsupportedFeature(
            "a width that its heads do not divide",
        ));
    }
    // The output is the embedding.
    tri!(check_output(&facts));
    if !tri!(facts.flag("decoder.tie_word_embeddings", true)) {
        return Err(ModelError::UnsupportedFeature(
            "an output matrix of its own in a speech model",
        ));
    }
    let vocab = tri!(stated_vocabulary(&facts, &design));
    let gelu = facts.says("decoder.activation", "gelu") && facts.says("encoder.activation", "gelu");
    if !gelu {
        return Err(ModelError::UnsupportedFeature(
            "an activation other than gelu",
        ));
    }
    let context = tri!(facts.dim("decoder.max_target_positions"));
    Ok(Config {
        family: Family::Whisper,
        design,
        layers: decoder_layers,
        encoder: OfFamilies::some(EncoderConfig {
            layers: tri!(layers(&facts, "encoder.n_layers")),
            positions: tri!(facts.dim("encoder.max_source_positions")),
            input: EncoderInput::Features(tri!(frames(
                file,
                tri!(facts.dim("encoder.num_mel_bins"))
            ))),
            feed_forward: design.feed_forward,
        }),
        values_dropped: false,
        layouts: Layouts::KV,
        d_model,
        heads: queries,
        kv_heads: queries,
        head_dim: heads.width,
        ff,
        vocab,
        context,
        rope_dim: 0,
        kinds: LayerKinds::all(LayerKind {
            window: None,
            rotation: None,
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

/// Reads the dimensions of the log-mel features.
const fn frames(file: &Gguf<'_>, mels: usize) -> Result<MelShape, ModelError> {
    let facts = Facts {
        file,
        architecture: "stt.frontend",
    };
    let (n_fft, hop) = (tri!(facts.dim("n_fft")), tri!(facts.dim("hop_length")));
    let rate = tri!(facts.dim("sample_rate"));
    if rate != SAMPLE_RATE {
        return Err(ModelError::OutOfRange {
            key: "sample_rate",
            value: rate as u64,
        });
    }
    if tri!(facts.dim("win_length")) != n_fft {
        return Err(ModelError::UnsupportedFeature(
            "a window that is not as long as a frame",
        ));
    }
    // A time token stands for 20 ms, which a row of the encoder's output must be.
    if hop != HOP {
        return Err(ModelError::OutOfRange {
            key: "hop_length",
            value: hop as u64,
        });
    }
    match tri!(facts.optional_dim("num_mels")) {
        Some(stated) if stated != mels => {
            return Err(ModelError::OutOfRange {
                key: "num_mels",
                value: stated as u64,
            });
        }
        _ => {}
    }
    // Filters and window are tensors of the file; the keys that describe them have no effect.
    let known = facts.says_or_not("type", "mel")
        && facts.says_or_not("normalize", "whisper_logmel")
        && facts.says_or_not("pad_mode", "reflect")
        && tri!(facts.flag("center", true))
        && tri!(facts.float("pre_emphasis", Some(0.0), -1.0, 1.0)) == 0.0
        && tri!(facts.float("dither", Some(0.0), -1.0, 1.0)) == 0.0;
    if !known {
        return Err(ModelError::UnsupportedFeature(
            "features of sound that are computed in another way than Whisper's",
        ));
    }
    match MelShape::new(n_fft, hop, mels) {
        Ok(shape) => Ok(shape),
        Err(error) => Err(ModelError::Mel(error)),
    }
}

//! A whole model: its blocks and the weights outside them, borrowed from the file and checked once.

use super::names::{EMBEDDING, Stack};
use super::tensors::Tensors;
use super::{Config, Encoder, Layer, LayerKind, ModelError, Norm, Positions};
use crate::const_fn::tri;
use crate::features::OfFamilies;
use crate::gguf::Gguf;
use crate::nn::rope;
use crate::quant::F32;
use crate::tensor::Matrix;

/// Returns the table of all layers, for boards: in a `const` it costs flash and no RAM.
///
/// # Errors
/// As [`Layer::read`]; [`ModelError::LayerCount`] if `N` is not the model's number of layers.
pub const fn layers<'w, const N: usize>(
    file: &Gguf<'w>,
    config: &Config,
) -> Result<[Layer<'w>; N], ModelError> {
    if N != config.layers_in_file() || N == 0 {
        return Err(ModelError::LayerCount {
            model: config.layers_in_file(),
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

/// Smallest divisor of a frequency: far below any real one, and large enough that no frequency
/// overflows.
const LEAST_FACTOR: f32 = 1e-6;

/// Divisors of rotary frequencies: `1 x rope_dim/2`.
#[derive(Clone, Copy)]
pub struct RopeFactors<'w> {
    /// For caches of at most [`Config::rope_short_context`] tokens.
    pub short: &'w [F32],
    /// For larger caches.
    pub long: &'w [F32],
}

/// A whole model, borrowed.
#[derive(Clone, Copy)]
pub struct Model<'w> {
    /// Facts of the model.
    pub config: Config,
    /// One entry for each layer.
    pub layers: &'w [Layer<'w>],
    /// The encoder that the layers' cross-attention reads, if the model has one.
    pub encoder: OfFamilies<Encoder<'w>>,
    /// `vocab x d_model`: row `i` is the embedding of token `i`.
    pub embedding: Matrix<'w>,
    /// `context x d_model`, for learned positions: row `i` is added to the embedding of the token
    /// at position `i`.
    pub positions: Option<Matrix<'w>>,
    /// `1 x d_model`.
    pub output_norm: Norm<'w>,
    /// `vocab x d_model`; the embedding itself in models that tie the two.
    pub output: Matrix<'w>,
    /// Factors of Llama 3's scaling or of LongRoPE, if the file has them.
    pub rope_factors: Option<RopeFactors<'w>>,
}

impl<'w> Model<'w> {
    /// Builds a model from its file and the table of its layers ([`Layer::read`] for each, or
    /// [`layers`]).
    ///
    /// # Errors
    /// As [`Config::from_gguf`] and [`Layer::read`].
    pub const fn new(file: &Gguf<'w>, layers: &'w [Layer<'w>]) -> Result<Model<'w>, ModelError> {
        let config = tri!(Config::from_gguf(file));
        Model::with_config(file, config, layers)
    }

    /// As [`Model::new`], with the facts that [`Config::from_gguf`] has read of the file.
    pub(crate) const fn with_config(
        file: &Gguf<'w>,
        config: Config,
        layers: &'w [Layer<'w>],
    ) -> Result<Model<'w>, ModelError> {
        if layers.len() != config.layers_in_file() {
            return Err(ModelError::LayerCount {
                model: config.layers_in_file(),
                given: layers.len(),
            });
        }
        let (layers, of_encoder) = layers.split_at(config.layers);
        let (d, vocab) = (config.d_model, config.vocab);
        let of = Tensors::of_model(file, config.design.naming, Stack::Decoder);
        let embedding = tri!(of.matrix(EMBEDDING, vocab, d));
        let output = match of.find("output.weight") {
            Ok(_) => tri!(of.matrix("output.weight", vocab, d)),
            Err(_) => embedding,
        };
        // Ignoring such a bias would change every logit.
        if of.find("output.bias").is_ok() {
            return Err(ModelError::UnsupportedFeature("a bias of its logits"));
        }
        let positions = match config.design.positions {
            Positions::Learned => Some(tri!(of.matrix("position_embd.weight", config.context, d))),
            Positions::Rotary(_) | Positions::Alibi => None,
        };
        let encoder = match config.encoder.get() {
            Some(facts) => OfFamilies::some(tri!(Encoder::read(file, &config, facts, of_encoder))),
            None => OfFamilies::NONE,
        };
        Ok(Model {
            config,
            layers,
            encoder,
            embedding,
            positions,
            output_norm: tri!(of.output_norm(config.design.norm, d)),
            output,
            rope_factors: tri!(RopeFactors::read(&of, &config)),
        })
    }
}

impl Model<'_> {
    /// Writes the rotary frequencies of the layers of kind `kind`, for a cache of `slots` tokens:
    /// turns per position of each pair, as [`rope::frequencies`] gives them. Positions are scaled
    /// only in layers without a local window.
    ///
    /// # Panics
    /// If `frequencies` has more entries than there are pairs, and the file has factors.
    pub fn rope_frequencies(&self, kind: LayerKind, slots: usize, frequencies: &mut [u64]) {
        let Some(base) = kind.rotation else {
            return;
        };
        if kind.window.is_some() {
            return rope::frequencies(base, |_| 1.0, frequencies);
        }
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
        rope::frequencies(base, scale, frequencies);
    }
}

impl<'w> RopeFactors<'w> {
    const fn read(
        of: &Tensors<'_, 'w>,
        config: &Config,
    ) -> Result<Option<RopeFactors<'w>>, ModelError> {
        let pairs = config.rope_dim / 2;
        if of.find("rope_freqs.weight").is_ok() {
            let factors = tri!(of.finite_row("rope_freqs.weight", pairs, LEAST_FACTOR));
            return Ok(Some(RopeFactors {
                short: factors,
                long: factors,
            }));
        }
        if of.find("rope_factors_long.weight").is_err() {
            return Ok(None);
        }
        Ok(Some(RopeFactors {
            short: tri!(of.finite_row("rope_factors_short.weight", pairs, LEAST_FACTOR)),
            long: tri!(of.finite_row("rope_factors_long.weight", pairs, LEAST_FACTOR)),
        }))
    }
}

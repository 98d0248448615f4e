//! The inputs of a model's layers while it reads a text.

use brooklet_core::generate::{AtEnd, Generation, Step};
use brooklet_core::model::Positions;
use brooklet_core::sampler::{Sampler, SamplerOptions};
use faer::Mat;

use super::SlimError;
use crate::engine::{Engine, Resources};
use crate::model::Model;
use crate::planning::Settings;
use brooklet_core::cache::PolicyKind;

/// Longest piece of a text that is run at once.
const PIECE: usize = 512;

/// Normed inputs of every layer, for pieces of a text.
pub struct Calibration {
    /// By layer, then by piece.
    inputs: Vec<Vec<Mat<f64>>>,
    tokens: usize,
}

impl Calibration {
    /// Runs the first `most` of `tokens`, piece by piece, each from the start of a stream.
    ///
    /// # Errors
    /// If there are fewer tokens than the model has columns, with which nothing can be calibrated;
    /// as [`Engine::new`].
    pub fn new(model: &Model, tokens: &[u32], most: usize) -> Result<Calibration, SlimError> {
        let config = model.config();
        let tokens = &tokens[..tokens.len().min(most)];
        if tokens.len() < config.d_model {
            return Err(SlimError::Text {
                tokens: tokens.len(),
                least: config.d_model,
            });
        }
        let piece = PIECE.min(config.context);
        let settings = Settings {
            policy: PolicyKind::Dense,
            window: Some(piece),
            sampling: false,
            f32_activations: true,
            ..Settings::default()
        };
        let mut all = Vec::new();
        for part in tokens.chunks(piece) {
            let mut resources = Resources::new(model, &settings)?;
            let mut engine = Engine::new(model, &mut resources)?;
            let mut piece: Vec<Vec<f32>> = vec![Vec::new(); config.layers];
            let mut visit = |layer: usize, input: &[f32]| piece[layer].extend_from_slice(input);
            engine.stream().visit_inputs(Some(&mut visit));
            engine.stream().absorb(part)?;
            all.push(piece);
        }
        let d = config.d_model;
        let inputs = (0..config.layers)
            .map(|layer| {
                all.iter()
                    .map(|piece| {
                        let rows = &piece[layer];
                        Mat::from_fn(rows.len() / d, d, |t, j| f64::from(rows[t * d + j]))
                    })
                    .collect()
            })
            .collect();
        Ok(Calibration {
            inputs,
            tokens: tokens.len(),
        })
    }

    /// Tokens that were run.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Takes out a layer's inputs.
    pub fn take(&mut self, layer: usize) -> Vec<Mat<f64>> {
        std::mem::take(&mut self.inputs[layer])
    }
}

/// Text that the model itself writes: `count` tokens at temperature 1, the same every time.
///
/// # Errors
/// As [`Engine::new`].
pub fn own_text(model: &Model, count: usize) -> Result<Vec<u32>, SlimError> {
    let config = model.config();
    // Learned positions cannot go on: then it begins again and again.
    let goes_on = !matches!(config.design.positions, Positions::Learned);
    let piece = config.context.min(PIECE);
    let settings = Settings {
        policy: if goes_on {
            PolicyKind::Sink
        } else {
            PolicyKind::Dense
        },
        window: Some(if goes_on { piece - 1 } else { piece }),
        sinks: usize::from(goes_on),
        ..Settings::default()
    };
    let mut resources = Resources::new(model, &settings)?;
    let mut engine = Engine::new(model, &mut resources)?;
    // A file without a tokenizer has tokens all the same.
    let mut tokens = engine.encode(b"").unwrap_or_default();
    if tokens.is_empty() {
        tokens.push(0);
    }
    let mut sampler = Sampler::new(SamplerOptions {
        temperature: 1.0,
        ..SamplerOptions::default()
    });
    let stream = engine.stream();
    let start = tokens.clone();
    let limit = (!goes_on).then(|| piece.saturating_sub(start.len()).max(1) as u64);
    while tokens.len() < count {
        stream.reset();
        let mut generation = Generation::new(limit, AtEnd::GoOn);
        let mut fed = 0;
        while fed < start.len() {
            fed += generation.prefill(stream, &mut sampler, &start[fed..])?;
        }
        while tokens.len() < count
            && let Step::Token(token) = generation.next_token(stream, &mut sampler, &[])?
        {
            tokens.push(token);
        }
    }
    Ok(tokens)
}

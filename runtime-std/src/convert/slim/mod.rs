//! From a model to one whose values are computed from its keys: `brooklet slim`.
//!
//! Values follow from keys where there are as many key columns as the model has (slim attention,
//! Graef and Wasielewski, arXiv 2503.05840). On paper that is exact; with keys in f16 or q8_0 the
//! error of a key is multiplied by `W_K⁻¹·W_V`, which in trained models is large. So exactness is
//! measured, not assumed: a calibration text is run through the model, and each layer gets the
//! fewest rank-correction channels with which the error of its attention output holds a bound, or
//! stays as it is.

mod calibrate;
mod error;
pub mod file;
pub mod layer;
pub mod solve;

use brooklet_core::cache::{CacheShape, ElementType, Layout, LayoutChoice};
use brooklet_core::model::Config;

pub use calibrate::{Calibration, own_text};
pub use error::SlimError;
use layer::{Analysis, Parts, Sample};

use crate::model::Model;

/// Ranks that are tried, in order.
const RANKS: [usize; 9] = [0, 4, 8, 12, 16, 24, 32, 48, 64];

/// Options of the conversion.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Most relative error of a layer's attention output.
    pub bound: f64,
    /// The cache's element type that the layers are made for.
    pub cache_type: ElementType,
    /// Layouts that may be chosen: with [`LayoutChoice::K`] rank 0, whatever the error; with
    /// [`LayoutChoice::KR`] the fewest rank-correction channels that hold the bound, or an error;
    /// else the smallest layout that holds it.
    pub wanted: LayoutChoice,
    /// Sinks, the first tokens of a stream, whose values are kept as they are.
    pub sinks: usize,
    /// Parts of the construction.
    pub parts: Parts,
}

/// Cache bytes of a token in a layer, without the first sinks' values.
pub fn bytes_per_token(config: &Config, cache_type: ElementType, layout: Layout) -> usize {
    CacheShape::token_bytes(layout, cache_type, config.shape().columns())
}

/// Analyses layer `index` of a model.
///
/// # Errors
/// If the model has fewer key columns than slim attention takes, or a weight is NaN or infinite.
pub fn analyse(
    model: &Model,
    calibration: &mut Calibration,
    index: usize,
    request: &Request,
) -> Result<Analysis, SlimError> {
    let config = model.config();
    let sample = Sample::new(
        &model.weights()?,
        index,
        calibration.take(index),
        request.sinks,
    )
    .ok_or(SlimError::ValuesDropped)?;
    let kv = bytes_per_token(config, request.cache_type, Layout::Kv);
    let smaller = |rank: &usize| {
        let layout = Layout::KR { rank: *rank as u16 };
        *rank <= config.kv_columns() && bytes_per_token(config, request.cache_type, layout) < kv
    };
    let ranks: Vec<usize> = match request.wanted {
        LayoutChoice::K => vec![0],
        _ => RANKS.into_iter().filter(smaller).collect(),
    };
    let bound = if request.wanted == LayoutChoice::K {
        f64::INFINITY
    } else {
        request.bound
    };
    sample
        .analyse(request.parts, &ranks, bound, request.cache_type)
        .map_err(|error| SlimError::Layer {
            layer: index,
            error,
        })
}

/// Refuses a model for which slim attention gains nothing, and one without `W_V`.
///
/// # Errors
/// The reason, with the numbers.
pub fn check(config: &Config) -> Result<(), SlimError> {
    if config.values_dropped {
        return Err(SlimError::ValuesDropped);
    }
    if !config.may_be_slim() {
        return Err(SlimError::Family(config.family.name()));
    }
    let (d, kv) = (config.d_model, config.kv_columns());
    if config.kv_heads < config.heads || kv < d {
        return Err(SlimError::SharedKeys {
            key_columns: kv,
            columns: d,
            heads: config.heads,
            kv_heads: config.kv_heads,
        });
    }
    Ok(())
}

//! Metadata under an architecture's prefix, checked.

use super::{Design, LayerKind, LayerKinds, ModelError, Positions};
use crate::const_fn::{or, same, tri};
use crate::gguf::{Gguf, Value};

/// Largest dimension of a model; the product of two never overflows 64 bits, and products are
/// checked where they are computed.
pub(super) const MAX_DIMENSION: u64 = 1 << 24;

/// A file's facts, under the name of its architecture.
pub(super) struct Facts<'a> {
    pub(super) file: &'a Gguf<'a>,
    pub(super) architecture: &'a str,
}

impl<'a> Facts<'a> {
    pub(super) const fn get(&self, key: &'static str) -> Option<Value<'a>> {
        self.file.get_scoped(self.architecture, key)
    }

    /// Reads a dimension that may be absent.
    pub(super) const fn optional_dim(
        &self,
        key: &'static str,
    ) -> Result<Option<usize>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(dim) if dim <= MAX_DIMENSION => Ok(Some(dim as usize)),
                Some(value) => Err(ModelError::OutOfRange { key, value }),
                None => Err(ModelError::MissingMetadata(key)),
            },
        }
    }

    /// Reads a dimension that must be present and not zero.
    pub(super) const fn dim(&self, key: &'static str) -> Result<usize, ModelError> {
        match tri!(self.optional_dim(key)) {
            None => Err(ModelError::MissingMetadata(key)),
            Some(0) => Err(ModelError::OutOfRange { key, value: 0 }),
            Some(dim) => Ok(dim),
        }
    }

    /// Reads a dimension that must be present and not zero: one number, or an equal one for each
    /// layer.
    pub(super) const fn dim_of_layers(&self, key: &'static str) -> Result<usize, ModelError> {
        let array = match self.get(key) {
            Some(value) => value.as_array(),
            None => None,
        };
        let Some(array) = array else {
            return self.dim(key);
        };
        if array.len() < tri!(self.dim("block_count")) {
            return Err(ModelError::MissingMetadata(key));
        }
        let mut elements = array.elements();
        let mut all = None;
        while let Some(element) = elements.next_value() {
            let value = match element.as_u64() {
                Some(value) if value > 0 && value <= MAX_DIMENSION => value as usize,
                Some(value) => return Err(ModelError::OutOfRange { key, value }),
                None => return Err(ModelError::MissingMetadata(key)),
            };
            match all {
                Some(first) if first != value => {
                    return Err(ModelError::UnsupportedFeature(
                        "layers with different numbers of heads or widths",
                    ));
                }
                _ => all = Some(value),
            }
        }
        match all {
            Some(value) => Ok(value),
            None => Err(ModelError::MissingMetadata(key)),
        }
    }

    /// Reads a float from `low` to `high`.
    pub(super) const fn float(
        &self,
        key: &'static str,
        default: Option<f32>,
        low: f32,
        high: f32,
    ) -> Result<f32, ModelError> {
        let value = match self.get(key) {
            None => match default {
                Some(value) => value,
                None => return Err(ModelError::MissingMetadata(key)),
            },
            Some(value) => match value.as_f32() {
                Some(value) => value,
                None => return Err(ModelError::MissingMetadata(key)),
            },
        };
        // The comparison also refuses NaN.
        if value >= low && value <= high {
            Ok(value)
        } else {
            Err(ModelError::FloatOutOfRange { key, value })
        }
    }

    /// Reads a boolean that may be absent.
    pub(super) const fn flag(&self, key: &'static str, default: bool) -> Result<bool, ModelError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => match value.as_bool() {
                Some(value) => Ok(value),
                None => Err(ModelError::MissingMetadata(key)),
            },
        }
    }

    /// Returns true if the text under `key` is `text`.
    pub(super) const fn says(&self, key: &'static str, text: &str) -> bool {
        match self.get(key) {
            Some(value) => match value.as_str() {
                Some(value) => same(value.as_bytes(), text.as_bytes()),
                None => false,
            },
            None => false,
        }
    }

    /// Returns true if the text under `key` is `text`, or the key is absent.
    pub(super) const fn says_or_not(&self, key: &'static str, text: &str) -> bool {
        self.get(key).is_none() || self.says(key, text)
    }

    /// Returns true if the numbers under `key` are `numbers`, or the key is absent.
    pub(super) const fn says_numbers(
        &self,
        key: &'static str,
        numbers: &[u64],
    ) -> Result<bool, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(true);
        };
        let Some(array) = value.as_array() else {
            return Err(ModelError::MissingMetadata(key));
        };
        if array.len() != numbers.len() {
            return Ok(false);
        }
        let mut elements = array.elements();
        let mut i = 0;
        while let Some(element) = elements.next_value() {
            match element.as_u64() {
                Some(value) if value == numbers[i] => i += 1,
                _ => return Ok(false),
            }
        }
        Ok(i == numbers.len())
    }

    /// Reads a soft cap: `cap·tanh(x/cap)`; 0 for none.
    pub(super) const fn soft_cap(
        &self,
        key: &'static str,
        default: f32,
    ) -> Result<f32, ModelError> {
        self.float(key, Some(default), 0.0, 1e6)
    }

    /// Returns kinds in periods of `period` layers: the last layer is of the only kind of `kinds`,
    /// the others have a local window. The rotary base of the others is `base` (the last layer's if
    /// that is `None`) unless the file has one. Returns `kinds` unchanged if the file has no local
    /// window.
    pub(super) const fn local_layers(
        &self,
        kinds: LayerKinds,
        period: usize,
        base: Option<f32>,
    ) -> Result<LayerKinds, ModelError> {
        let Some(window) = tri!(self.optional_dim("attention.sliding_window")) else {
            return Ok(kinds);
        };
        if window == 0 {
            return Ok(kinds);
        }
        let key = "attention.sliding_window_pattern";
        let period = match self.get(key) {
            // A list of booleans: its period, if it is periodic.
            Some(value) if value.as_array().is_some() => tri!(self.period(key)),
            _ => or(tri!(self.optional_dim(key)), period),
        };
        if period == 0 {
            return Err(ModelError::OutOfRange { key, value: 0 });
        }
        let last = kinds.list()[0];
        let base = if base.is_some() { base } else { last.rotation };
        let local = LayerKind {
            window: Some(window),
            rotation: Some(tri!(self.float("rope.freq_base_swa", base, 1.0, 1e12))),
        };
        Ok(LayerKinds::alternating(last, local, period))
    }

    /// Period of a list that has a boolean for each layer, true for a local one.
    const fn period(&self, key: &'static str) -> Result<usize, ModelError> {
        let array = match self.get(key) {
            Some(value) => value.as_array(),
            None => None,
        };
        let Some(array) = array else {
            return Err(ModelError::MissingMetadata(key));
        };
        let mut period = 0;
        let mut layer = 0;
        let mut elements = array.elements();
        while let Some(value) = elements.next_value() {
            let Some(local) = value.as_bool() else {
                return Err(ModelError::MissingMetadata(key));
            };
            if period == 0 && !local {
                period = layer + 1;
            }
            if period > 0 && local == (layer % period == period - 1) {
                return Err(ModelError::UnsupportedFeature(
                    "an order of local and global layers that is not periodic",
                ));
            }
            layer += 1;
        }
        // Without a global layer, the period is one more than the number of layers.
        Ok(if period == 0 { layer + 1 } else { period })
    }

    /// Divisor of the positions; 1 where nothing is rotated. As in llama.cpp, a factor without a
    /// type is a linear one, and files of 2023 have it under another key.
    pub(super) const fn rope_scale(&self, design: &Design) -> Result<f32, ModelError> {
        let Positions::Rotary(_) = design.positions else {
            return Ok(1.0);
        };
        let key = "rope.scaling.type";
        if self.says(key, "none") {
            return Ok(1.0);
        }
        let has_type = self.get(key).is_some();
        if has_type && !self.says(key, "linear") {
            return Err(ModelError::UnsupportedFeature(
                "a RoPE scaling other than linear or a table",
            ));
        }
        let (key, old_key) = ("rope.scaling.factor", "rope.scale_linear");
        let has_factor = self.get(key).is_some();
        let key = if !has_factor && self.get(old_key).is_some() {
            old_key
        } else {
            key
        };
        let default = if has_type { None } else { Some(0.0) };
        let factor = tri!(self.float(key, default, 0.0, 1e6));
        if factor == 0.0 {
            Ok(1.0)
        } else if factor < 1e-3 {
            Err(ModelError::FloatOutOfRange { key, value: factor })
        } else {
            Ok(factor)
        }
    }

    /// Factor of cosines and sines; 1 where nothing is rotated.
    pub(super) const fn rope_magnitude(&self, design: &Design) -> Result<f32, ModelError> {
        match design.positions {
            Positions::Rotary(_) => self.float("rope.scaling.attn_factor", Some(1.0), 0.1, 10.0),
            Positions::Learned | Positions::Alibi => Ok(1.0),
        }
    }
}

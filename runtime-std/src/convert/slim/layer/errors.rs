//! Errors of a layer: of the values that its keys make, and of its output, beside the exact ones.

use brooklet_core::cache::{ElementType, round};
use brooklet_core::quant::Format;
use faer::Mat;

use super::{Errors, Parts, Sample, SinkValues, TYPES};
use crate::convert::slim::file::{SlimLayer, stored};

impl Sample {
    /// Keys, values and output of a sequence, exact.
    pub(super) fn truth(&self, x: &Mat<f64>) -> Truth {
        let (keys, values) = (x * &self.w_k, x * &self.w_v);
        let output = self.output(&self.weights(x, &keys), &values);
        Truth {
            inputs: x.clone(),
            keys,
            values,
            output,
        }
    }

    /// Softmax weights of every query head, causal: keys by queries, `tokens x tokens` each.
    fn weights(&self, x: &Mat<f64>, keys: &Mat<f64>) -> Vec<Mat<f64>> {
        let (width, tokens) = (self.head_dim(), x.nrows());
        let group = self.heads.heads / self.heads.kv_heads;
        let mut queries = x * &self.w_q;
        let mut keys = keys.clone();
        if let Some((of_queries, of_keys)) = &self.biases {
            for t in 0..tokens {
                (0..queries.ncols()).for_each(|j| queries[(t, j)] += of_queries[j]);
                (0..keys.ncols()).for_each(|j| keys[(t, j)] += of_keys[j]);
            }
        }
        self.rotation.apply(&mut queries, width);
        self.rotation.apply(&mut keys, width);
        (0..self.heads.heads)
            .map(|head| {
                let q = queries.as_ref().subcols(head * width, width);
                let k = keys.as_ref().subcols(head / group * width, width);
                // A query's scores lie in one piece.
                let mut weights = k * q.transpose();
                for t in 0..tokens {
                    let (seen, later) = weights.col_as_slice_mut(t).split_at_mut(t + 1);
                    softmax(seen, 1.0 / (width as f64).sqrt());
                    later.fill(0.0);
                }
                weights
            })
            .collect()
    }

    /// The attention output of some values.
    fn output(&self, weights: &[Mat<f64>], values: &Mat<f64>) -> Mat<f64> {
        let width = self.head_dim();
        let group = self.heads.heads / self.heads.kv_heads;
        let mut attended = Mat::zeros(values.nrows(), self.w_q.ncols());
        for (head, weights) in weights.iter().enumerate() {
            let of_head =
                weights.transpose() * values.as_ref().subcols(head / group * width, width);
            attended
                .as_mut()
                .subcols_mut(head * width, width)
                .copy_from(&of_head);
        }
        attended * &self.w_o
    }

    /// The output's error with keys and values rounded; weights are those of the rounded keys,
    /// whose bias is rounded with them.
    pub(super) fn kv_error(&self, truths: &[Truth], cache_type: ElementType) -> f64 {
        let mut error = Relative::default();
        let no_bias: Option<Vec<f64>> = self
            .biases
            .as_ref()
            .map(|(_, of_keys)| of_keys.iter().map(|bias| -bias).collect());
        for truth in truths {
            let values = rounded(&truth.values, None, cache_type);
            let keys = rounded(&truth.keys, no_bias.as_deref(), cache_type);
            let weights = self.weights(&truth.inputs, &keys);
            error.add(&self.output(&weights, &values), &truth.output);
        }
        error.of_all()
    }

    /// The output's error with a cache of rounded inputs (layout `x`), from which keys and values
    /// are made, by element type; `None` where keys are rotated after their projection.
    pub fn input_errors(&self) -> Option<Errors> {
        let truths: Vec<Truth> = self.test.iter().map(|x| self.truth(x)).collect();
        self.rotation.is_none().then(|| {
            TYPES.map(|cache_type| {
                let mut error = Relative::default();
                for truth in &truths {
                    let inputs = rounded(&truth.inputs, None, cache_type);
                    let weights = self.weights(&truth.inputs, &(&inputs * &self.w_k));
                    error.add(
                        &self.output(&weights, &(&inputs * &self.w_v)),
                        &truth.output,
                    );
                }
                error.of_all()
            })
        })
    }

    /// The error of values that are made of rounded keys and channels, and of the output.
    pub(super) fn slim_error(
        &self,
        truths: &[Truth],
        layer: &SlimLayer,
        parts: Parts,
        cache_type: ElementType,
    ) -> (f64, f64) {
        let (mut of_values, mut of_output) = (Relative::default(), Relative::default());
        let format = match cache_type {
            ElementType::F32 => Format::F32,
            ElementType::F16 | ElementType::Q8_0 => Format::F16,
        };
        let (map, maker) = (stored(&layer.map, format), stored(&layer.channels, format));
        let offset = layer
            .mean
            .as_ref()
            .map_or(&[][..], |(_, offset)| offset.as_slice());
        // Keys have no bias here.
        let mean = layer.mean.as_ref().map(|(mean, _)| -> Vec<f64> {
            let bias = |j: usize| self.key_bias().map_or(0.0, |bias| bias[j]);
            mean.iter()
                .enumerate()
                .map(|(j, mean)| mean - bias(j))
                .collect()
        });
        let mean = mean.as_deref();
        for truth in truths {
            let (tokens, e) = truth.keys.shape();
            let keys = rounded(&truth.keys, mean, cache_type);
            let channels = &truth.inputs * maker.transpose();
            let made = |keys: &Mat<f64>, channels: &Mat<f64>| {
                let both = Mat::from_fn(tokens, e + channels.ncols(), |t, j| {
                    if j >= e {
                        channels[(t, j - e)]
                    } else {
                        keys[(t, j)] - mean.map_or(0.0, |mean| mean[j])
                    }
                });
                let mut values = both * map.transpose();
                for (j, offset) in offset.iter().enumerate() {
                    (0..tokens).for_each(|t| values[(t, j)] += offset);
                }
                values
            };
            let mut values = made(&keys, &rounded(&channels, None, cache_type.of_channels()));
            let sinks = self.heads.sinks.min(tokens);
            let of_sinks = match parts.sinks {
                SinkValues::Cache => None,
                SinkValues::Keys => Some(made(&truth.keys, &channels)),
                SinkValues::Inputs => Some(truth.values.clone()),
            };
            if let Some(of_sinks) = of_sinks {
                let of_sinks = of_sinks.as_ref().subrows(0, sinks);
                values.as_mut().subrows_mut(0, sinks).copy_from(of_sinks);
            }
            of_values.add(&values, &truth.values);
            of_output.add(
                &self.output(&self.weights(&truth.inputs, &keys), &values),
                &truth.output,
            );
        }
        (of_values.of_all(), of_output.of_all())
    }
}

/// Makes weights that add up to one from scores, which are scaled first.
fn softmax(scores: &mut [f64], scale: f64) {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut total = 0.0;
    for score in &mut *scores {
        *score = ((*score - most) * scale).exp();
        total += *score;
    }
    for score in scores {
        *score /= total;
    }
}

/// A sequence, exact.
pub(super) struct Truth {
    inputs: Mat<f64>,
    keys: Mat<f64>,
    values: Mat<f64>,
    output: Mat<f64>,
}

/// Rows less the mean, rounded as a cache rounds them, and the mean again.
pub(super) fn rounded(rows: &Mat<f64>, mean: Option<&[f64]>, cache_type: ElementType) -> Mat<f64> {
    let mut out = Mat::zeros(rows.nrows(), rows.ncols());
    let mut row = vec![0.0f32; rows.ncols()];
    for t in 0..rows.nrows() {
        let mean = |j: usize| mean.map_or(0.0, |mean| mean[j]);
        for (j, x) in row.iter_mut().enumerate() {
            *x = (rows[(t, j)] - mean(j)) as f32;
        }
        round(cache_type, &mut row);
        for (j, x) in row.iter().enumerate() {
            out[(t, j)] = f64::from(*x) + mean(j);
        }
    }
    out
}

/// A relative error, root mean square.
#[derive(Default)]
struct Relative {
    error: f64,
    size: f64,
}

impl Relative {
    fn add(&mut self, got: &Mat<f64>, want: &Mat<f64>) {
        self.error += (got - want).squared_norm_l2();
        self.size += want.squared_norm_l2();
    }

    fn of_all(&self) -> f64 {
        if self.size > 0.0 {
            (self.error / self.size).sqrt()
        } else {
            0.0
        }
    }
}

//! Analysis of one layer: the values that its keys can make, and their errors.

mod errors;

use brooklet_core::cache::{ElementType, Layout};
use brooklet_core::model::Model;
use brooklet_core::nn::rope::{self, Pairs};
use brooklet_core::quant::F32;
use brooklet_core::tensor::Matrix;
use faer::Mat;

use self::errors::{Truth, rounded};
use super::file::{SlimLayer, floats};
use super::solve::{NoConvergence, Problem, Solver, singular_values};

/// The parts of the construction, each of which can be left out to see what it gains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Keys are cached without their mean.
    pub centring: bool,
    /// The source of the first sinks' values.
    pub sinks: SinkValues,
    /// The map and the channels are chosen for the cache's rounding error and the inputs' second
    /// moment, instead of for exactness alone.
    pub noise: bool,
}

impl Parts {
    /// All of them.
    pub const ALL: Parts = Parts {
        centring: true,
        sinks: SinkValues::Inputs,
        noise: true,
    };
}

/// The source of the first sinks' values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkValues {
    /// The cached keys and channels, as for all other tokens.
    Cache,
    /// Their keys and channels before these are rounded, for files without `W_V`.
    Keys,
    /// Their inputs: the values are exact.
    Inputs,
}

/// Relative errors in f32, f16 and q8_0, in that order.
pub type Errors = [f64; 3];

/// The element types that errors are measured in.
pub const TYPES: [ElementType; 3] = [ElementType::F32, ElementType::F16, ElementType::Q8_0];

/// A layer's weights and inputs.
pub struct Sample {
    /// `d_model x key columns`.
    pub w_k: Mat<f64>,
    /// `d_model x value columns`.
    pub w_v: Mat<f64>,
    /// `d_model x query columns`.
    pub w_q: Mat<f64>,
    /// `query columns x d_model`.
    pub w_o: Mat<f64>,
    /// Sequences of normed inputs, `tokens x d_model` each, that the map is made for; the first
    /// token of each is the first of a stream.
    pub calibration: Vec<Mat<f64>>,
    /// Other sequences, on which errors are measured.
    pub test: Vec<Mat<f64>>,
    /// Added to queries and keys before they are rotated, where the model has biases.
    pub biases: Option<(Vec<f64>, Vec<f64>)>,
    /// Numbers of heads.
    pub heads: Heads,
    /// Their rotation.
    pub rotation: Rotation,
}

/// The shape of a layer's attention.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// First tokens that are sinks.
    pub sinks: usize,
}

/// The rotation of queries and keys.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// Turns per position of each pair, as [`rope::frequencies`] gives them; none if heads are not
    /// rotated.
    pub frequencies: Vec<u64>,
    /// The pairing of elements.
    pub pairs: Pairs,
    /// Factor of cosines and sines.
    pub magnitude: f32,
}

impl Rotation {
    /// The first `rope_dim` elements of each head, neighbours together, from frequencies of base
    /// `theta`.
    pub fn plain(rope_dim: usize, theta: f32) -> Rotation {
        let mut frequencies = vec![0; rope_dim / 2];
        rope::frequencies(theta, |_| 1.0, &mut frequencies);
        Rotation {
            frequencies,
            pairs: Pairs::Neighbours,
            magnitude: 1.0,
        }
    }

    /// A model's, for sequences of `tokens` tokens.
    fn of_model(model: &Model<'_>, tokens: usize) -> Rotation {
        let mut frequencies = vec![0; model.config.rope_dim / 2];
        model.rope_frequencies(model.config.kinds.of(0), tokens, &mut frequencies);
        Rotation {
            frequencies,
            pairs: model.config.rope_pairs(),
            magnitude: model.config.rope_magnitude,
        }
    }

    fn is_none(&self) -> bool {
        self.frequencies.is_empty()
    }

    /// Rotates heads of `width` elements, a row a position.
    fn apply(&self, rows: &mut Mat<f64>, width: usize) {
        let pairs = self.frequencies.len();
        let mut angles = vec![[0.0; 2]; pairs];
        for t in 0..rows.nrows() {
            rope::angles(&self.frequencies, t as u64, &mut angles);
            for head in 0..rows.ncols() / width {
                for (pair, angle) in angles.iter().enumerate() {
                    let (first, second) = self.pairs.columns(pair, pairs);
                    let (first, second) = (head * width + first, head * width + second);
                    let (a, b) = (rows[(t, first)], rows[(t, second)]);
                    let [cos, sin] = angle.map(|x| f64::from(x * self.magnitude));
                    rows[(t, first)] = a * cos - b * sin;
                    rows[(t, second)] = a * sin + b * cos;
                }
            }
        }
    }
}

/// Index of a type's error in [`Errors`].
pub const fn type_index(cache_type: ElementType) -> usize {
    match cache_type {
        ElementType::F32 => 0,
        ElementType::F16 => 1,
        ElementType::Q8_0 => 2,
    }
}

/// The result of analysing a layer.
pub struct Analysis {
    /// cond(W_K); infinite if it is singular.
    pub condition: f64,
    /// Singular values of `W_K`, largest first.
    pub singular_values: Vec<f64>,
    /// The error of kv's attention output.
    pub kv: Errors,
    /// The first rank that holds the bound.
    pub chosen: Option<Chosen>,
    /// The smallest output error of a rank that was tried, with a cache of the type that the map is
    /// made for.
    pub smallest_error: f64,
}

/// One rank.
pub struct Chosen {
    /// The layer's tensors.
    pub layer: SlimLayer,
    /// Error of V.
    pub of_values: Errors,
    /// Error of the attention output, after the output projection.
    pub of_output: Errors,
}

impl Chosen {
    /// The layout of its cache.
    pub fn layout(&self) -> Layout {
        Layout::KR {
            rank: self.layer.rank() as u16,
        }
    }
}

/// Returns a matrix of outputs by inputs as one of inputs by outputs.
pub fn transposed(matrix: &Matrix<'_>) -> Mat<f64> {
    let mut row = vec![0.0; matrix.cols()];
    let mut out = Mat::zeros(matrix.cols(), matrix.rows());
    for r in 0..matrix.rows() {
        matrix.dequantize_row(r, &mut row);
        for (c, x) in row.iter().enumerate() {
            out[(c, r)] = f64::from(*x);
        }
    }
    out
}

/// A row of a file, or zeros.
fn row(row: Option<&[F32]>, len: usize) -> Vec<f64> {
    row.map_or_else(|| vec![0.0; len], floats)
}

impl Sample {
    /// Layer `index` of a model, and the inputs that a calibration text gave it. Errors are
    /// measured on every fourth sequence, which has no part in the map, if there are so many.
    /// `None` if the layer lacks what makes values.
    ///
    /// # Panics
    /// If the model has no such layer.
    pub fn new(
        model: &Model<'_>,
        index: usize,
        sequences: Vec<Mat<f64>>,
        sinks: usize,
    ) -> Option<Sample> {
        let (config, layer) = (&model.config, &model.layers[index].attention);
        let value = layer.value?;
        let tokens = sequences.iter().map(Mat::nrows).max().unwrap_or(0);
        let mut calibration = Vec::new();
        let mut test = Vec::new();
        for (index, sequence) in sequences.into_iter().enumerate() {
            if index % 4 == 3 {
                &mut test
            } else {
                &mut calibration
            }
            .push(sequence);
        }
        if test.is_empty() {
            test.clone_from(&calibration);
        }
        Some(Sample {
            w_k: transposed(&layer.key.weight),
            w_v: transposed(&value.weight),
            w_q: transposed(&layer.query.weight),
            w_o: transposed(&layer.output.weight),
            calibration,
            test,
            biases: (layer.query.bias.is_some() || layer.key.bias.is_some()).then(|| {
                (
                    row(layer.query.bias, config.query_columns()),
                    row(layer.key.bias, config.kv_columns()),
                )
            }),
            heads: Heads {
                heads: config.heads,
                kv_heads: config.kv_heads,
                sinks,
            },
            rotation: Rotation::of_model(model, tokens),
        })
    }

    fn head_dim(&self) -> usize {
        self.w_k.ncols() / self.heads.kv_heads
    }

    /// Tries `ranks`, in order, until the output's error with a cache of `tuned_for` is at most
    /// `bound`.
    ///
    /// # Errors
    /// If a weight or an input is NaN or infinite.
    pub fn analyse(
        &self,
        parts: Parts,
        ranks: &[usize],
        bound: f64,
        tuned_for: ElementType,
    ) -> Result<Analysis, NoConvergence> {
        let values = singular_values(self.w_k.as_ref())?;
        let (largest, smallest) = (values.first().copied(), values.last().copied());
        let truths: Vec<Truth> = self.test.iter().map(|x| self.truth(x)).collect();
        let problem = self.problem(parts, tuned_for);
        let solver = Solver::new(&problem.0)?;
        let mut analysis = Analysis {
            condition: match (largest, smallest) {
                (Some(largest), Some(smallest)) if smallest > 0.0 => largest / smallest,
                _ => f64::INFINITY,
            },
            singular_values: values,
            kv: TYPES.map(|cache_type| self.kv_error(&truths, cache_type)),
            chosen: None,
            smallest_error: f64::INFINITY,
        };
        for rank in ranks {
            let layer = SlimLayer::new(
                &solver.with_rank(*rank),
                problem.1.as_deref(),
                self.key_bias(),
            );
            let error = |cache_type| self.slim_error(&truths, &layer, parts, cache_type);
            let of_type = error(tuned_for);
            analysis.smallest_error = analysis.smallest_error.min(of_type.1);
            if of_type.1 <= bound {
                let errors = TYPES.map(|cache_type| match cache_type {
                    cache_type if cache_type == tuned_for => of_type,
                    other => error(other),
                });
                analysis.chosen = Some(Chosen {
                    layer,
                    of_values: errors.map(|(values, _)| values),
                    of_output: errors.map(|(_, output)| output),
                });
                break;
            }
        }
        Ok(analysis)
    }

    /// The key bias of a slim layer: where keys are not rotated it has none, since scores of one
    /// query only move together.
    fn key_bias(&self) -> Option<&[f64]> {
        let (_, of_keys) = self.biases.as_ref()?;
        (!self.rotation.is_none()).then_some(of_keys)
    }

    /// The layer's problem, and the mean of its keys without their bias.
    fn problem(&self, parts: Parts, tuned_for: ElementType) -> (Problem, Option<Vec<f64>>) {
        let (d, e) = self.w_k.shape();
        let tokens: usize = self.calibration.iter().map(Mat::nrows).sum();
        let mean = parts.centring.then(|| {
            let mut mean = vec![0.0; e];
            for x in &self.calibration {
                let keys = x * &self.w_k;
                for j in 0..e {
                    mean[j] += (0..keys.nrows()).map(|t| keys[(t, j)]).sum::<f64>();
                }
            }
            mean.iter()
                .map(|sum| sum / tokens as f64)
                .collect::<Vec<_>>()
        });
        if !parts.noise {
            // Enough to have the worst directions of the exact map come first, and no more: the
            // limit of no noise.
            let size = self.w_k.squared_norm_l2() / e as f64;
            let problem = Problem {
                w_k: self.w_k.clone(),
                w_v: self.w_v.clone(),
                root: Mat::identity(d, d),
                noise: vec![1e-24 * size; e],
            };
            return (problem, mean);
        }
        let mut noise = vec![0.0; e];
        let mut moment = Mat::<f64>::zeros(d, d);
        for x in &self.calibration {
            moment += x.transpose() * x;
            let keys = x * &self.w_k;
            let rounded = rounded(&keys, mean.as_deref(), tuned_for);
            for t in 0..keys.nrows() {
                for j in 0..e {
                    noise[j] += (rounded[(t, j)] - keys[(t, j)]).powi(2);
                }
            }
        }
        for noise in &mut noise {
            *noise /= tokens as f64;
        }
        let mut moment = moment * faer::Scale(1.0 / tokens as f64);
        // Directions that do not occur in the text are possible all the same.
        let identity = (0..d).map(|i| moment[(i, i)]).sum::<f64>() / d as f64;
        for i in 0..d {
            moment[(i, i)] += identity;
        }
        let root = match moment.llt(faer::Side::Lower) {
            Ok(factor) => factor.L().transpose().to_owned(),
            Err(_) => Mat::identity(d, d),
        };
        let problem = Problem {
            w_k: self.w_k.clone(),
            w_v: self.w_v.clone(),
            root,
            noise,
        };
        (problem, mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At position 1 a frequency of a quarter turn takes `(a, b)` to `(-b, a)`; the last two
    /// columns are not rotated.
    #[test]
    fn rotates_the_pairs_of_the_family() {
        let expected = [
            (Pairs::Neighbours, [-4.0, 2.0, -8.0, 6.0, 5.0, 6.0]),
            (Pairs::Halves, [-6.0, -8.0, 2.0, 4.0, 5.0, 6.0]),
        ];
        for (pairs, expected) in expected {
            let rotation = Rotation {
                frequencies: vec![1 << 62; 2],
                pairs,
                magnitude: 2.0,
            };
            let mut rows = Mat::from_fn(2, 12, |_, j| (j % 6 + 1) as f64);
            rotation.apply(&mut rows, 6);
            for (j, expected) in expected.iter().cycle().take(12).enumerate() {
                assert!((rows[(1, j)] - expected).abs() < 1e-6, "{pairs:?} {j}");
            }
            let first = [2.0, 4.0, 6.0, 8.0, 5.0, 6.0];
            assert!((0..12).all(|j| (rows[(0, j)] - first[j % 6]).abs() < 1e-6));
        }
    }
}

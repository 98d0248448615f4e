//! Attention over inputs (the layouts x and e), one layer with random weights, against keys and values computed one by one.

#[path = "oracle/noise.rs"]
mod noise;

use brooklet::core::arena::ALIGN;
use brooklet::core::attention::inputs::{Caches, InputAttention, Work, write_frames};
use brooklet::core::cache::ElementType;
use brooklet::core::cache::{Ring, SlimCache, SlimShape};
use brooklet::core::kernels::{self, Isa};
use brooklet::core::quant::{F32, Format};
use brooklet::core::tensor::Matrix;
use brooklet::system::pool::{Pool, available_isas};
use noise::{Noise, kept};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Outputs may differ from f64 by this much times the largest: f32 arithmetic.
const BUDGET: f64 = 1e-5;

#[derive(Clone, Copy, Debug)]
struct Shape {
    d: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    biases: bool,
    mean: bool,
}

/// Widths 64 to 512, 2 to 16 heads; as many key columns as the model has columns, more, or fewer.
fn shape() -> impl Strategy<Value = Shape> {
    let heads = prop_oneof![
        Just((2, 2)),
        Just((4, 4)),
        Just((8, 8)),
        Just((16, 16)),
        Just((8, 2)),
        Just((6, 6))
    ];
    let width = prop_oneof![Just(64), Just(96), Just(200), Just(512)];
    (
        heads,
        width,
        prop_oneof![Just(1.0), Just(1.5), Just(0.6)],
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|((heads, kv_heads), d, wider, biases, mean)| Shape {
            d,
            heads,
            kv_heads,
            head_dim: (f64::from(d as u32) * wider) as usize / heads,
            biases,
            mean,
        })
}

/// A layer's weights: inputs (as columns of a row) to queries, keys and values.
struct Weights {
    shape: Shape,
    keys: Vec<f32>,
    values: Vec<f32>,
    query_bias: Vec<f32>,
    key_bias: Vec<f32>,
    value_bias: Vec<f32>,
    mean: Vec<f32>,
}

fn normals(noise: &mut Noise, len: usize, size: f32) -> Vec<f32> {
    (0..len).map(|_| noise.normal() * size).collect()
}

impl Weights {
    fn random(shape: Shape, noise: &mut Noise) -> Weights {
        let kv = shape.kv_heads * shape.head_dim;
        let size = 1.0 / (shape.d as f32).sqrt();
        let bias = |noise: &mut Noise, len| normals(noise, len, if shape.biases { 1.0 } else { 0.0 });
        Weights {
            shape,
            keys: normals(noise, kv * shape.d, size),
            values: normals(noise, kv * shape.d, size),
            query_bias: bias(noise, shape.heads * shape.head_dim),
            key_bias: bias(noise, kv),
            value_bias: bias(noise, kv),
            mean: normals(noise, if shape.mean { shape.d } else { 0 }, 2.0),
        }
    }

    /// Row `row` of a projection, times an input, in f64.
    fn product(weights: &[f32], bias: &[f32], row: usize, x: &[f32]) -> f64 {
        let weights = &weights[row * x.len()..][..x.len()];
        f64::from(bias[row])
            + weights
                .iter()
                .zip(x)
                .map(|(w, x)| f64::from(*w) * f64::from(*x))
                .sum::<f64>()
    }

    /// Keys and values of every input.
    fn project(&self, inputs: &[f32]) -> Projected {
        let columns = self.shape.kv_heads * self.shape.head_dim;
        let of = |weights: &[f32], bias: &[f32]| {
            inputs
                .chunks_exact(self.shape.d)
                .map(|x| {
                    (0..columns)
                        .map(|row| Self::product(weights, bias, row, x))
                        .collect()
                })
                .collect()
        };
        Projected {
            keys: of(&self.keys, &self.key_bias),
            values: of(&self.values, &self.value_bias),
        }
    }

    /// The output of a token's heads that attends to `seen`.
    fn attend(&self, query: &[f32], projected: &Projected, seen: &[usize]) -> Vec<f64> {
        let Shape {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.shape;
        let mut out = Vec::new();
        for (head, query) in query.chunks_exact(head_dim).enumerate() {
            let columns = head / (heads / kv_heads) * head_dim..;
            let scores: Vec<f64> = seen
                .iter()
                .map(|i| {
                    let key = &projected.keys[*i][columns.clone()];
                    let product: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * k).sum();
                    product / (head_dim as f64).sqrt()
                })
                .collect();
            let top = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
            let sum: f64 = weights.iter().sum();
            out.extend(columns.take(head_dim).map(|column| {
                let values = seen.iter().map(|i| projected.values[*i][column]);
                values
                    .zip(&weights)
                    .map(|(value, weight)| value * weight)
                    .sum::<f64>()
                    / sum
            }));
        }
        out
    }

    /// The bytes of [`InputAttention`]: transposes of the heads' keys, values, mean, and offset.
    fn converted(&self) -> Converted {
        let Shape {
            d,
            kv_heads,
            head_dim,
            ..
        } = self.shape;
        let mut keys = Vec::new();
        for head in 0..kv_heads {
            for column in 0..d {
                keys.extend((0..head_dim).map(|c| self.keys[(head * head_dim + c) * d + column]));
            }
        }
        let mean = if self.mean.is_empty() {
            vec![0.0; d]
        } else {
            self.mean.clone()
        };
        let offset = (0..kv_heads * head_dim)
            .map(|row| Self::product(&self.values, &self.value_bias, row, &mean) as f32)
            .collect::<Vec<_>>();
        Converted {
            keys: bytes(&keys),
            values: bytes(&self.values),
            mean: fields(&self.mean),
            offset: fields(&offset),
        }
    }
}

struct Projected {
    keys: Vec<Vec<f64>>,
    values: Vec<Vec<f64>>,
}

struct Converted {
    keys: Vec<u8>,
    values: Vec<u8>,
    mean: Vec<F32>,
    offset: Vec<F32>,
}

impl Converted {
    fn layer(&self, shape: Shape) -> InputAttention<'_> {
        let Shape {
            d,
            heads,
            kv_heads,
            head_dim,
            ..
        } = shape;
        InputAttention {
            heads,
            kv_heads,
            keys: Matrix::new(Format::F32, kv_heads * d, head_dim, &self.keys).unwrap(),
            values: Matrix::new(Format::F32, kv_heads * head_dim, d, &self.values).unwrap(),
            mean: &self.mean,
            offset: &self.offset,
            scale: 1.0 / (head_dim as f32).sqrt(),
        }
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn fields(values: &[f32]) -> Vec<F32> {
    values.iter().map(|x| F32(x.to_le_bytes())).collect()
}

/// Aligned memory of `bytes` bytes at least.
struct Memory(Vec<u8>);

impl Memory {
    fn new(bytes: usize) -> Memory {
        Memory(vec![0; bytes + ALIGN])
    }

    fn aligned(&mut self) -> &mut [u8] {
        let start = self.0.as_ptr().align_offset(ALIGN);
        &mut self.0[start..]
    }

    fn of_cache(capacity: usize, shape: Shape, exact_sinks: usize) -> Memory {
        Memory::new(
            4 * (capacity + 1) * (shape.d + 64) + 4 * exact_sinks * shape.kv_heads * shape.head_dim + 256,
        )
    }

    fn cache(
        &mut self,
        cache_type: ElementType,
        shape: Shape,
        capacity: usize,
        exact_sinks: usize,
    ) -> SlimCache<'_> {
        let shape = SlimShape {
            cache_type,
            capacity,
            columns: shape.d,
            value_columns: shape.kv_heads * shape.head_dim,
            rank: 0,
            exact_sinks,
        };
        SlimCache::carve(self.aligned(), shape).unwrap()
    }
}

/// How a layer is run.
#[derive(Clone, Copy, Debug)]
struct How {
    isa: Isa,
    workers: usize,
    cache_type: ElementType,
    /// Most tokens of a pass.
    chunk: usize,
}

/// Calls `job` with what a pass of at most `tokens` tokens computes with.
fn with_work<R>(
    layer: &InputAttention<'_>,
    how: How,
    sizes: (usize, usize, usize),
    job: impl FnOnce(&mut Work<'_>) -> R,
) -> R {
    let pool = Pool::new(how.workers).unwrap();
    let (d, heads) = (layer.values.cols(), layer.heads);
    let mut scratch = vec![f32::NAN; how.workers * layer.scratch_floats(sizes.0, sizes.1, sizes.2)];
    let each = kernels::scratch_bytes(d, 1).next_multiple_of(ALIGN);
    let mut kernel_scratch = Memory::new(how.workers * each);
    job(&mut Work {
        isa: how.isa,
        threads: &pool,
        queries: &mut vec![f32::NAN; how.chunk * heads * d],
        scratch: &mut scratch,
        kernel_scratch: &mut kernel_scratch.aligned()[..how.workers * each],
    })
}

/// All tokens' outputs over a cache of inputs: with sinks, a window, and the oldest tokens evicted before token `evict`.
fn x(
    weights: &Weights,
    how: How,
    (sinks, window): (usize, usize),
    (queries, inputs): (&[f32], &[f32]),
    evict: Option<(usize, usize)>,
) -> (Vec<f32>, Vec<u64>) {
    let shape = weights.shape;
    let (d, columns) = (shape.d, shape.heads * shape.head_dim);
    let converted = weights.converted();
    let layer = converted.layer(shape);
    let capacity = sinks + window;
    let mut ring_memory = Memory::of_cache(capacity, shape, sinks);
    let mut ring = Ring::new(sinks, window);
    let (tokens, mut out, mut starts) = (inputs.len() / d, Vec::new(), Vec::new());
    with_work(&layer, how, (capacity, how.chunk, sinks), |work| {
        while out.len() < tokens * columns {
            let first = out.len() / columns;
            if let Some((at, evicted)) = evict
                && first <= at
                && at < first + how.chunk
            {
                ring.evict(evicted);
            }
            let count = how.chunk.min(tokens - first).min(window);
            let mut inputs = inputs[first * d..][..count * d].to_vec();
            let of_sinks: Vec<f32> = (first..sinks.min(first + count))
                .flat_map(|t| {
                    let x = &inputs[(t - first) * d..][..d];
                    (0..shape.kv_heads * shape.head_dim)
                        .map(|row| Weights::product(&weights.values, &weights.value_bias, row, x) as f32)
                        .collect::<Vec<_>>()
                })
                .collect();
            let mut chunk_memory = Memory::of_cache(how.chunk, shape, 0);
            let mut caches = Caches {
                ring: ring_memory.cache(how.cache_type, shape, capacity, sinks),
                chunk: (count > 1).then(|| chunk_memory.cache(how.cache_type, shape, how.chunk, 0)),
                exact_sinks: sinks,
            };
            let mut attended = vec![f32::NAN; count * columns];
            starts.resize(starts.len() + count, ring.window_start());
            let queries = &queries[first * columns..][..count * columns];
            layer.self_attention(
                work,
                &ring,
                &mut caches,
                (queries, &mut inputs, &of_sinks),
                &mut attended,
            );
            ring.advance(count);
            out.extend(attended);
        }
    });
    (out, starts)
}

/// All tokens' outputs over an encoder's output.
fn e(weights: &Weights, how: How, (queries, frames): (&[f32], &[f32])) -> Vec<f32> {
    let shape = weights.shape;
    let columns = shape.heads * shape.head_dim;
    let converted = weights.converted();
    let layer = converted.layer(shape);
    let count = frames.len() / shape.d;
    let capacity = count + 5;
    let mut memory = Memory::of_cache(capacity, shape, 0);
    let mut frames = frames.to_vec();
    let mut cache = memory.cache(how.cache_type, shape, capacity, 0);
    write_frames(how.isa, &mut frames, layer.mean, shape.d, &mut cache);
    let mut attended = vec![f32::NAN; queries.len()];
    with_work(&layer, how, (capacity, how.chunk, 0), |work| {
        for (queries, attended) in queries
            .chunks(how.chunk * columns)
            .zip(attended.chunks_mut(how.chunk * columns))
        {
            let encoded = memory.cache(how.cache_type, shape, capacity, 0);
            layer.cross_attention(work, encoded, count, queries, attended);
        }
    });
    attended
}

fn size(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// Random queries (with their bias) and inputs (with a mean) of some tokens.
fn activations(weights: &Weights, noise: &mut Noise, queries: usize, inputs: usize) -> (Vec<f32>, Vec<f32>) {
    let shape = weights.shape;
    let columns = shape.heads * shape.head_dim;
    let mut q = normals(noise, queries * columns, 1.0);
    for row in q.chunks_exact_mut(columns) {
        row.iter_mut().zip(&weights.query_bias).for_each(|(q, b)| *q += b);
    }
    let mut x = normals(noise, inputs * shape.d, 1.0);
    for row in x.chunks_exact_mut(shape.d) {
        row.iter_mut().zip(&weights.mean).for_each(|(x, m)| *x += m);
    }
    (q, x)
}

fn config() -> ProptestConfig {
    // A fixed seed: what passed once passes again.
    ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20_240_518),
        ..ProptestConfig::with_cases(10)
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_cache_of_inputs_gives_what_keys_and_values_give(
        shape in shape(), sinks in 0..5usize, window in 1..60usize, chunk in 1..40usize, workers in 1..4usize,
        evict in prop::option::of((10..60usize, 1..20usize)), seed: u64,
    ) {
        let mut noise = Noise(seed | 1);
        let weights = Weights::random(shape, &mut noise);
        let tokens = 70;
        let (queries, inputs) = activations(&weights, &mut noise, tokens, tokens);
        let projected = weights.project(&inputs);
        let columns = shape.heads * shape.head_dim;
        for chunk in [1, chunk] {
            let how = How { isa: Isa::Scalar, workers: 1, cache_type: ElementType::F32, chunk };
            let (want, starts) = x(&weights, how, (sinks, window), (&queries, &inputs), evict);
            for isa in available_isas() {
                let (got, _) = x(&weights, How { isa, workers, ..how }, (sinks, window), (&queries, &inputs), evict);
                prop_assert!(got.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()), "{} differs", isa.name());
            }
            for t in (0..tokens).step_by(3) {
                let from = if t < sinks { 0 } else { starts[t] as usize };
                let seen = kept(t, sinks, window, from);
                let exact = weights.attend(&queries[t * columns..][..columns], &projected, &seen);
                let got = &want[t * columns..][..columns];
                let budget = BUDGET * size(&exact).max(1.0);
                for (got, exact) in got.iter().zip(&exact) {
                    prop_assert!((f64::from(*got) - exact).abs() <= budget, "token {t}: {got} for {exact}");
                }
            }
        }
    }

    #[test]
    fn one_cache_of_frames_gives_what_keys_and_values_give(
        shape in shape(), frames in 1..150usize, tokens in 1..12usize, chunk in 1..8usize, workers in 1..4usize, seed: u64,
    ) {
        let mut noise = Noise(seed | 1);
        let weights = Weights::random(shape, &mut noise);
        let (queries, inputs) = activations(&weights, &mut noise, tokens, frames);
        let projected = weights.project(&inputs);
        let columns = shape.heads * shape.head_dim;
        let how = How { isa: Isa::Scalar, workers: 1, cache_type: ElementType::F32, chunk };
        let want = e(&weights, how, (&queries, &inputs));
        for isa in available_isas() {
            let got = e(&weights, How { isa, workers, ..how }, (&queries, &inputs));
            prop_assert!(got.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()), "{} differs", isa.name());
        }
        let seen: Vec<usize> = (0..frames).collect();
        for (t, got) in want.chunks_exact(columns).enumerate() {
            let exact = weights.attend(&queries[t * columns..][..columns], &projected, &seen);
            let budget = BUDGET * size(&exact).max(1.0);
            for (got, exact) in got.iter().zip(&exact) {
                prop_assert!((f64::from(*got) - exact).abs() <= budget, "token {t}: {got} for {exact}");
            }
        }
    }
}

/// Root mean square errors relative to the output: what rounding inputs gives, beside what the budget of f32 does.
#[test]
fn rounded_inputs_err_as_little_as_rounded_keys_and_values() {
    let shape = Shape {
        d: 256,
        heads: 8,
        kv_heads: 8,
        head_dim: 32,
        biases: true,
        mean: true,
    };
    let mut noise = Noise(5);
    let weights = Weights::random(shape, &mut noise);
    let (queries, inputs) = activations(&weights, &mut noise, 20, 300);
    let projected = weights.project(&inputs);
    let seen: Vec<usize> = (0..300).collect();
    let columns = shape.heads * shape.head_dim;
    for (cache_type, most) in [(ElementType::F16, 1e-3), (ElementType::Q8_0, 2e-2)] {
        let how = How {
            isa: Isa::Scalar,
            workers: 1,
            cache_type,
            chunk: 4,
        };
        let got = e(&weights, how, (&queries, &inputs));
        let (mut error, mut total) = (0.0, 0.0);
        for (t, got) in got.chunks_exact(columns).enumerate() {
            let exact = weights.attend(&queries[t * columns..][..columns], &projected, &seen);
            let offset: Vec<f64> = (0..columns)
                .map(|row| Weights::product(&weights.values, &weights.value_bias, row, &weights.mean))
                .collect();
            for ((got, exact), offset) in got.iter().zip(&exact).zip(&offset) {
                error += (f64::from(*got) - exact).powi(2);
                total += (exact - offset).powi(2);
            }
        }
        let relative = f64::sqrt(error / total);
        assert!(
            relative < most && relative > most / 100.0,
            "{relative} in {}",
            cache_type.name()
        );
    }
}

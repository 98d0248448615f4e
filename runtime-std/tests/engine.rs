//! The engine against a naive forward pass, and against itself: every policy, cache type, chunk
//! size, instruction set and number of workers, across evictions.

mod oracle;

use std::num::NonZeroU32;

use brooklet::convert::slim::file::{self, SlimLayer, Statement, Storage};
use brooklet::convert::slim::solve::{Problem, Solver};
use brooklet::core::arena::{ALIGN, Aligned};
use brooklet::core::cache::{ElementType, LayoutChoice, Policy};
use brooklet::core::gguf::Gguf;
use brooklet::core::kernels::Isa;
use brooklet::core::model::{Config, Layer, Model};
use brooklet::core::plan::{Options, Plan};
use brooklet::core::quant::Format;
use brooklet::core::stream::{Stream, StreamError};
use brooklet::core::tensor::Matrix;
use brooklet::core::threads::SingleThread;
use brooklet::stated::SlimErrors;
use brooklet::system::isa::available_isas;
use brooklet::system::pool::Pool;
use faer::Mat;
use oracle::{Noise, Oracle, Shape, kept, random_model};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Largest difference of logits from f64, relative to the largest logit: f32 arithmetic through a
/// few layers.
const F32_BUDGET: f64 = 1e-5;
/// The same with values computed from keys whose projections are random and therefore badly
/// conditioned.
const SLIM_BUDGET: f64 = 1e-3;
/// The same with keys and values rounded to f16.
const F16_CACHE_BUDGET: f64 = 5e-3;
/// The same with keys and values rounded to q8_0.
const Q8_CACHE_BUDGET: f64 = 1e-1;

fn budget(cache_type: ElementType) -> f64 {
    match cache_type {
        ElementType::F32 => F32_BUDGET,
        ElementType::F16 => F16_CACHE_BUDGET,
        ElementType::Q8_0 => Q8_CACHE_BUDGET,
    }
}

/// Settings of the run of a stream.
#[derive(Clone, Copy, Debug)]
struct Run {
    policy: Policy,
    cache_type: ElementType,
    chunk: usize,
    f32_activations: bool,
    isa: Isa,
    workers: usize,
    /// True if layers are slim for which the file has maps.
    slim: bool,
    /// Values with a weight of less than one in this number are left out.
    skip: Option<NonZeroU32>,
}

/// Options of [`slimmed`]: rank-correction channels beyond those that exact values need, a mean to
/// subtract from keys, and true if the value projections are left out.
#[derive(Clone, Copy, Debug)]
struct Slim {
    more: usize,
    mean: bool,
    drop_values: bool,
}

/// Returns the model with maps that compute values from keys: as many channels as exact values
/// need, and some more.
fn slimmed(file: &[u8], slim: Slim, seed: u64) -> Vec<u8> {
    let gguf = Gguf::parse(file).unwrap();
    let config = Config::from_gguf(&gguf).unwrap();
    let matrix = |m: &Matrix<'_>| {
        let mut row = vec![0.0; m.cols()];
        let rows: Vec<Vec<f64>> = (0..m.rows())
            .map(|r| {
                m.dequantize_row(r, &mut row);
                row.iter().map(|x| f64::from(*x)).collect()
            })
            .collect();
        Mat::from_fn(m.cols(), m.rows(), |i, j| rows[j][i])
    };
    let mut noise = Noise(seed | 1);
    let layers: Vec<_> = (0..config.layers)
        .map(|index| {
            let layer = Layer::read(&gguf, &config, index).unwrap().attention;
            let problem = Problem {
                w_k: matrix(&layer.key.weight),
                w_v: matrix(&layer.value.unwrap().weight),
                root: Mat::identity(config.d_model, config.d_model),
                noise: vec![0.0; config.kv_columns()],
            };
            let lacking = config.d_model.saturating_sub(config.kv_columns());
            let rank = (lacking + slim.more).min(config.kv_columns());
            let mean: Option<Vec<f64>> = slim.mean.then(|| {
                (0..config.kv_columns())
                    .map(|_| f64::from(noise.normal()))
                    .collect()
            });
            // Keys that are not rotated lose their bias.
            let bias = layer.key.bias.filter(|_| config.rope_dim > 0);
            let bias: Option<Vec<f64>> =
                bias.map(|bias| bias.iter().map(|x| f64::from(x.to_f32())).collect());
            let solution = Solver::new(&problem).unwrap().with_rank(rank);
            Some(SlimLayer::new(&solution, mean.as_deref(), bias.as_deref()))
        })
        .collect();
    let mut out = Vec::new();
    let storage = Storage {
        format: Format::F32,
        drop_values: slim.drop_values,
    };
    let statement = Statement {
        report: "",
        errors: SlimErrors {
            by_type: [0.0; 3],
            accepted: 0.0,
        },
        sinks: 0,
    };
    file::write(&gguf, &layers, storage, &statement, &mut out).unwrap();
    out
}

fn slim() -> impl Strategy<Value = Slim> {
    (0..6usize, any::<bool>(), any::<bool>()).prop_map(|(more, mean, drop_values)| Slim {
        more,
        mean,
        drop_values,
    })
}

/// Returns the logits after every token, with `step` tokens fed per call.
fn stream_logits(file: &[u8], run: Run, tokens: &[u32], step: usize) -> Vec<Vec<f32>> {
    with_stream(file, run, |stream| {
        let mut all = Vec::new();
        for part in tokens.chunks(step) {
            stream
                .feed_each(part, &mut |_, logits| all.push(logits.to_vec()))
                .unwrap();
        }
        assert_eq!(stream.position(), tokens.len() as u64);
        all
    })
}

fn with_stream<R>(file: &[u8], run: Run, f: impl FnOnce(&mut Stream<'_>) -> R) -> R {
    let gguf = Gguf::parse(file).unwrap();
    let config = Config::from_gguf(&gguf).unwrap();
    let layers: Vec<Layer<'_>> = (0..config.layers)
        .map(|i| Layer::read(&gguf, &config, i).unwrap())
        .collect();
    let model = Model::new(&gguf, &layers).unwrap();
    let options = Options {
        cache_type: run.cache_type,
        chunk: run.chunk,
        logits_rows: 3,
        workers: run.workers,
        f32_activations: run.f32_activations,
        skip_under_one_in: run.skip,
        layout: if run.slim {
            LayoutChoice::Auto
        } else {
            LayoutChoice::Kv
        },
        ..Options::sink(0, 1)
    };
    let plan = Plan::new(
        &config,
        &Options {
            policy: run.policy,
            ..options
        },
    )
    .unwrap();
    let mut memory = vec![0xA5u8; plan.bytes() + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    let arena = &mut memory[start..start + plan.bytes()];
    let (engine, _) = plan.split(arena).unwrap();
    let pool = Pool::new(run.workers).unwrap();
    f(&mut Stream::new(model, &plan, engine, run.isa, &pool).unwrap())
}

fn shape() -> impl Strategy<Value = Shape> {
    let heads = prop_oneof![
        Just((4, 4)),
        Just((4, 2)),
        Just((6, 2)),
        Just((3, 1)),
        Just((9, 1))
    ];
    let dims = prop_oneof![
        Just((16, 16)),
        Just((20, 12)),
        Just((32, 32)),
        Just((36, 32)),
        Just((16, 0)),
        Just((36, 0)),
        Just((48, 48))
    ];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (heads, dims, flags, 1..3usize).prop_map(
        |((heads, kv_heads), (head_dim, rope_dim), (tied, factors, biases), layers)| Shape {
            layers,
            // This is not heads x head_dim, so that a mix-up of the two shows.
            d_model: 64,
            heads,
            kv_heads,
            head_dim,
            ff: 96,
            vocab: 61,
            rope_dim,
            tied,
            factors,
            biases,
            format: Format::F32,
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(Policy::Dense { capacity: 70 }),
        (1..40usize).prop_map(|window| Policy::Window { window }),
        (1..12usize).prop_map(|window| Policy::Recompute { window }),
        (1..6usize, 1..40usize).prop_map(|(sinks, window)| Policy::Sink { sinks, window }),
        (30..36usize, 30..36usize).prop_map(|(sinks, window)| Policy::Sink { sinks, window }),
    ]
}

fn cache_type() -> impl Strategy<Value = ElementType> {
    prop_oneof![
        Just(ElementType::F32),
        Just(ElementType::F16),
        Just(ElementType::Q8_0)
    ]
}

fn tokens(seed: u64, len: usize) -> Vec<u32> {
    let mut noise = Noise(seed | 1);
    (0..len).map(|_| (noise.next() % 61) as u32).collect()
}

fn bits(logits: &[Vec<f32>]) -> Vec<Vec<u32>> {
    logits
        .iter()
        .map(|row| row.iter().map(|x| x.to_bits()).collect())
        .collect()
}

fn config() -> ProptestConfig {
    // A fixed seed makes the cases the same in every run. The environment can ask for fewer cases.
    let cases = ProptestConfig::default().cases.min(48);
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20_240_517),
        ..ProptestConfig::default()
    }
}

/// A slim copy in a cache of f32, on every instruction set, against the naive pass over the
/// original.
fn agrees_with_the_original(
    shape: Shape,
    slim: Slim,
    (policy, chunk, workers): (Policy, usize, usize),
    count: usize,
    seed: u64,
) -> Result<(), TestCaseError> {
    // The pass over the original knows neither maps nor moved biases.
    let original = random_model(shape, seed);
    let file = slimmed(&original, slim, seed);
    let tokens = tokens(seed, count);
    let gguf = Gguf::parse(&original).unwrap();
    let config = Config::from_gguf(&gguf).unwrap();
    let layers: Vec<Layer<'_>> = (0..config.layers)
        .map(|i| Layer::read(&gguf, &config, i).unwrap())
        .collect();
    let want = Oracle::new(&Model::new(&gguf, &layers).unwrap()).logits(&tokens, policy);
    for isa in available_isas() {
        let run = Run {
            policy,
            cache_type: ElementType::F32,
            chunk,
            f32_activations: true,
            isa,
            workers,
            slim: true,
            skip: None,
        };
        let got = stream_logits(&file, run, &tokens, count);
        for (t, (got, want)) in got.iter().zip(&want).enumerate() {
            let size = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            for (got, want) in got.iter().zip(want) {
                let error = (f64::from(*got) - want).abs();
                prop_assert!(
                    error <= SLIM_BUDGET * size,
                    "token {t}: {got} for {want}, of {size}"
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn agrees_with_the_naive_pass(
        shape in shape(), policy in policy(), cache_type in cache_type(), chunk in 1..20usize, seed: u64,
    ) {
        let file = random_model(shape, seed);
        let tokens = tokens(seed, 70);
        let gguf = Gguf::parse(&file).unwrap();
        let config = Config::from_gguf(&gguf).unwrap();
        let layers: Vec<Layer<'_>> =
            (0..config.layers).map(|i| Layer::read(&gguf, &config, i).unwrap()).collect();
        let want = Oracle::new(&Model::new(&gguf, &layers).unwrap()).logits(&tokens, policy);
        let run = Run { policy, cache_type, chunk, f32_activations: true, isa: Isa::Scalar, workers: 1, slim: false, skip: None };
        let got = stream_logits(&file, run, &tokens, 70);
        for (t, (got, want)) in got.iter().zip(&want).enumerate() {
            let size = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            for (got, want) in got.iter().zip(want) {
                let error = (f64::from(*got) - want).abs();
                prop_assert!(error <= budget(cache_type) * size, "token {t}: {got} for {want}, of {size}");
            }
        }
    }

    /// Values that are computed from keys equal the original values.
    #[test]
    fn slim_layers_agree_with_the_naive_pass(
        shape in shape(), slim in slim(), policy in policy(), chunk in 1..40usize, workers in 1..4usize, seed: u64,
    ) {
        agrees_with_the_original(shape, slim, (policy, chunk, workers), 70, seed)?;
    }

    /// Whole messages are evicted at once, with some tokens pinned; compared with the naive pass,
    /// and in any chunks.
    #[test]
    fn evicted_messages_are_as_if_they_had_not_been(
        shape in shape(), slim in prop::option::of(slim()), sinks in 1..4usize, pinned in 0..20usize, window in 22..40usize,
        cache_type in cache_type(), chunk in 1..20usize, workers in 1..4usize, messages in prop::collection::vec((1..30usize, 0..40usize), 1..7), seed: u64,
    ) {
        let original = random_model(shape, seed);
        let file = slim.map_or_else(|| original.clone(), |slim| slimmed(&original, slim, seed));
        // With random projections, rounded keys give arbitrary values.
        let cache_type = if slim.is_some() { ElementType::F32 } else { cache_type };
        let len = pinned + messages.iter().map(|(len, _)| len).sum::<usize>();
        let tokens = tokens(seed, len);
        let policy = Policy::Sink { sinks, window };
        // Fewer tokens than planned sinks are as good as more; without any, the planned ones stay.
        let really_pinned = if pinned == 0 { sinks } else { pinned };
        let real_window = sinks + window - really_pinned;
        // Feeds messages, each after an eviction; returns the logits, and the oldest token of the
        // window at each.
        let talk = |run: Run, step: usize| with_stream(&file, run, |stream| {
            let (mut all, mut from) = (Vec::new(), Vec::new());
            let (prefix, mut rest) = tokens.split_at(pinned);
            if pinned > 0 {
                stream.feed_each(prefix, &mut |_, logits| all.push(logits.to_vec())).unwrap();
            }
            from.resize(pinned, 0);
            stream.pin().unwrap();
            for (len, evicted) in &messages {
                let live = stream.live();
                let evicted = stream.evict(*evicted).unwrap();
                assert_eq!(stream.live(), live - evicted);
                let (message, later) = rest.split_at(*len);
                from.resize(from.len() + len, stream.ring().window_start() as usize);
                for part in message.chunks(step) {
                    stream.feed_each(part, &mut |_, logits| all.push(logits.to_vec())).unwrap();
                }
                rest = later;
            }
            (all, from)
        });
        let run = Run { policy, cache_type, chunk, f32_activations: true, isa: Isa::Scalar, workers, slim: slim.is_some(), skip: None };
        let (got, from) = talk(run, len);
        let gguf = Gguf::parse(&original).unwrap();
        let config = Config::from_gguf(&gguf).unwrap();
        let layers: Vec<Layer<'_>> =
            (0..config.layers).map(|i| Layer::read(&gguf, &config, i).unwrap()).collect();
        let oracle = Oracle::new(&Model::new(&gguf, &layers).unwrap());
        let want = oracle.logits_of(&tokens, |t| {
            if t < really_pinned { (0..=t).collect() } else { kept(t, really_pinned, real_window, from[t]) }
        });
        for (t, (got, want)) in got.iter().zip(&want).enumerate() {
            let size = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            for (got, want) in got.iter().zip(want) {
                let error = (f64::from(*got) - want).abs();
                let budget = if slim.is_some() { SLIM_BUDGET } else { budget(cache_type) };
                prop_assert!(error <= budget * size, "token {t}: {got} for {want}, of {size}");
            }
        }
        // In chunks, slim layers may use the other order of equation 5.
        for isa in available_isas().into_iter().filter(|_| slim.is_none()) {
            let (one_by_one, _) = talk(Run { isa, workers: 1, chunk: 1, ..run }, 1);
            let (chunked, _) = talk(Run { isa, ..run }, 7);
            prop_assert!(bits(&one_by_one) == bits(&chunked), "{}", isa.name());
        }
    }

    /// Values of small weights are left out, both with keys and values and in slim layers; all
    /// other values count as before.
    #[test]
    fn small_weights_are_left_out(
        shape in shape(), slim in prop::option::of(slim()), policy in policy(), chunk in 1..40usize, workers in 1..4usize,
        skip in 2..200u32, seed: u64,
    ) {
        // In a slim layer a value that is left out counts as the mean key's value or as the value
        // bias, not as zero.
        let slim = slim.map(|slim| Slim { mean: false, ..slim });
        let shape = Shape { biases: shape.biases && slim.is_none(), ..shape };
        let original = random_model(shape, seed);
        let file = slim.map_or_else(|| original.clone(), |slim| slimmed(&original, slim, seed));
        let tokens = tokens(seed, 70);
        let gguf = Gguf::parse(&original).unwrap();
        let config = Config::from_gguf(&gguf).unwrap();
        let layers: Vec<Layer<'_>> =
            (0..config.layers).map(|i| Layer::read(&gguf, &config, i).unwrap()).collect();
        let oracle = Oracle::new(&Model::new(&gguf, &layers).unwrap()).without_weights_under(1.0 / f64::from(skip));
        let want = oracle.logits(&tokens, policy);
        let mut bits_of_scalar = None;
        for isa in available_isas() {
            let run = Run {
                policy, cache_type: ElementType::F32, chunk, f32_activations: true, isa, workers, slim: slim.is_some(),
                skip: NonZeroU32::new(skip),
            };
            let got = stream_logits(&file, run, &tokens, 70);
            let same = bits_of_scalar.get_or_insert_with(|| bits(&got));
            prop_assert!(*same == bits(&got), "{} differs", isa.name());
            // A weight at the limit may fall on either side, and neither is an error.
            let far = got.iter().zip(&want).filter(|(got, want)| {
                let size = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
                got.iter().zip(*want).any(|(got, want)| (f64::from(*got) - want).abs() > SLIM_BUDGET * size)
            });
            let far = far.count();
            prop_assert!(far <= 2, "{far} of 70 tokens differ");
        }
    }

    /// Only the number of tokens per call may decide the order of equation 5 and of sums, and thus
    /// the rounding.
    #[test]
    fn slim_layers_give_the_same_bits_on_any_workers_and_instruction_set(
        shape in shape(), slim in slim(), policy in policy(), cache_type in cache_type(),
        chunk in 1..40usize, step in 1..50usize, workers in 1..4usize, seed: u64,
    ) {
        let file = slimmed(&random_model(shape, seed), slim, seed);
        let tokens = tokens(seed, 70);
        let alone = Run { policy, cache_type, chunk, f32_activations: true, isa: Isa::Scalar, workers: 1, slim: true, skip: None };
        let want = bits(&stream_logits(&file, alone, &tokens, step));
        for isa in available_isas() {
            let got = bits(&stream_logits(&file, Run { workers, isa, ..alone }, &tokens, step));
            prop_assert!(got == want, "{} differs", isa.name());
        }
    }

    #[test]
    fn chunks_workers_and_instruction_sets_give_the_same_bits(
        shape in shape(), quantized: bool, policy in policy(), cache_type in cache_type(),
        chunk in 2..20usize, step in 1..30usize, workers in 1..4usize, seed: u64,
    ) {
        // Rows of quantised weights are whole blocks of 32.
        let head_dim = if quantized { 32 } else { shape.head_dim };
        let format = if quantized { Format::Q8_0 } else { Format::F32 };
        let shape = Shape { format, head_dim, rope_dim: shape.rope_dim.min(head_dim), ..shape };
        let file = random_model(shape, seed);
        let tokens = tokens(seed, 70);
        let alone = Run { policy, cache_type, chunk: 1, f32_activations: false, isa: Isa::Scalar, workers: 1, slim: false, skip: None };
        let want = bits(&stream_logits(&file, alone, &tokens, 1));
        for isa in available_isas() {
            let got = bits(&stream_logits(&file, Run { chunk, workers, isa, ..alone }, &tokens, step));
            prop_assert!(got == want, "{} differs", isa.name());
        }
    }
}

/// Layers with as many key columns as `d_model`, or half as many again, in the paper's form and
/// with channels to spare.
#[test]
fn wide_slim_layers_agree_with_the_naive_pass() {
    let mut noise = Noise(20_240_517);
    // The widest ones are made by f64 algebra that has nothing to do with the instruction set, and
    // takes ten minutes where it is emulated: there few cases are asked for.
    let widths: &[usize] = match config().cases {
        ..16 => &[64, 128],
        _ => &[64, 128, 256, 512],
    };
    for (d_model, square, more) in widths
        .iter()
        .copied()
        .flat_map(|d| [(d, true, 0), (d, true, 4), (d, false, 0), (d, false, 4)])
    {
        let mut coin = || noise.next() >> 40 & 1 == 1;
        let (rotated, biases, mean, drop_values) = (coin(), coin(), coin(), coin());
        let heads: usize = 2 << (noise.next() >> 40 & 3);
        let head_dim = if square {
            d_model / heads
        } else {
            d_model / heads / 2 * 3
        };
        let shape = Shape {
            layers: if d_model < 512 { 2 } else { 1 },
            d_model,
            heads,
            kv_heads: heads,
            head_dim,
            ff: 96,
            vocab: 61,
            rope_dim: if rotated { head_dim } else { 0 },
            tied: true,
            factors: false,
            biases,
            format: Format::F32,
        };
        let slim = Slim {
            more,
            mean,
            drop_values,
        };
        let policy = Policy::Sink {
            sinks: 4,
            window: 30,
        };
        if let Err(error) =
            agrees_with_the_original(shape, slim, (policy, 23, 2), 40, d_model as u64)
        {
            panic!("{shape:?} {slim:?}: {error}");
        }
    }
}

/// Returns the file with a tensor renamed to a name of the same length.
fn renamed(file: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = file
        .windows(from.len())
        .position(|part| part == from.as_bytes());
    let at = at.expect("a tensor of that name");
    [&file[..at], to.as_bytes(), &file[at + from.len()..]].concat()
}

#[test]
fn biases_that_the_family_has_not_are_refused() {
    let shape = Shape {
        layers: 1,
        d_model: 64,
        heads: 2,
        kv_heads: 2,
        head_dim: 32,
        ff: 64,
        vocab: 61,
        rope_dim: 32,
        tied: true,
        factors: false,
        biases: true,
        format: Format::F32,
    };
    let error = |file: &[u8]| {
        let gguf = Gguf::parse(file).unwrap();
        let config = Config::from_gguf(&gguf).unwrap();
        Layer::read(&gguf, &config, 0).err().unwrap().to_string()
    };
    let file = random_model(shape, 1);
    let said = error(&renamed(&file, "blk.0.attn_q.bias", "blk.0.ffn_up.bias"));
    assert!(said.contains("biases in its feed-forward layers"), "{said}");
    // Values that are computed from keys have no bias: a bias that `brooklet slim` moves must not
    // be there twice.
    let slim = Slim {
        more: 0,
        mean: true,
        drop_values: false,
    };
    let slim = slimmed(&file, slim, 1);
    let said = error(&renamed(&slim, "blk.0.attn_q.bias", "blk.0.attn_v.bias"));
    assert!(said.contains("a value bias beside a slim map"), "{said}");
}

#[test]
fn refusals_name_the_number_that_matters() {
    let shape = Shape {
        layers: 1,
        d_model: 64,
        heads: 2,
        kv_heads: 2,
        head_dim: 32,
        ff: 32,
        vocab: 61,
        rope_dim: 32,
        tied: true,
        factors: false,
        biases: false,
        format: Format::Q8_0,
    };
    let file = random_model(shape, 1);
    let run = Run {
        policy: Policy::Dense { capacity: 5 },
        cache_type: ElementType::F16,
        chunk: 4,
        f32_activations: false,
        isa: Isa::Scalar,
        workers: 1,
        slim: false,
        skip: None,
    };
    with_stream(&file, run, |stream| {
        assert_eq!(stream.feed(&[]).err(), Some(StreamError::NoTokens));
        let out_of_range = StreamError::TokenOutOfRange {
            token: 61,
            vocab: 61,
        };
        assert_eq!(stream.feed(&[1, 61]).err(), Some(out_of_range));
        stream.absorb(&[1, 2, 3]).unwrap();
        assert_eq!(
            stream.feed(&[1, 2, 3]).err(),
            Some(StreamError::Full { capacity: 5 })
        );
        assert_eq!(stream.position(), 3);
        let after = stream.feed(&[4]).unwrap().to_vec();
        stream.reset();
        assert_eq!(stream.feed(&[1, 2, 3, 4]).unwrap(), after);
    });
    let gguf = Gguf::parse(&file).unwrap();
    let config = Config::from_gguf(&gguf).unwrap();
    let plan = Plan::new(&config, &Options::sink(2, 30)).unwrap();
    let short = Plan::within(&config, &Options::sink(2, 30), plan.bytes() - 1).unwrap_err();
    assert!(short.to_string().contains("1 byte is missing"), "{short}");
    assert_eq!(
        Plan::largest(&config, &Options::sink(2, 1), plan.bytes())
            .unwrap()
            .capacity(),
        32
    );
    let layers = [Layer::read(&gguf, &config, 0).unwrap()];
    let mut small = Aligned([0u8; 64]);
    let model = Model::new(&gguf, &layers).unwrap();
    assert!(Stream::new(model, &plan, &mut small.0, Isa::Scalar, &SingleThread).is_err());
}

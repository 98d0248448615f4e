//! Scores with a bias by distance (ALiBi) over a cache of keys and values, against sums in f64 over
//! the list of the tokens that are kept.

use std::vec;
use std::vec::Vec;

use super::{ALIGN, BUDGET, How, InTurn, Memory, Noise, normals, size};
use crate::attention::{Attend, Caches, Shape, Step, Values};
use crate::cache::{CacheShape, ElementType, Layout, Ring};
use crate::features::OfFamilies;
use crate::kernels::attend::{MAX_ROWS, scratch_floats};
use crate::kernels::{self, Isa};
use crate::nn::alibi::Slopes;
use crate::nn::rope::Pairs;
use crate::workers::Compute;

const SHAPE: Shape = Shape {
    d_model: 48,
    heads: 6,
    kv_heads: 2,
    head_dim: 8,
    rope_dim: 0,
    rope_pairs: Pairs::Neighbours,
};

/// Exponents of the slopes of six heads: `2^-exponent`.
const EXPONENTS: [i32; SHAPE.heads] = [2, 4, 6, 8, 1, 3];

/// The sizes of a cache, and the events of its stream.
#[derive(Clone, Copy, Debug)]
struct Course {
    sinks: usize,
    window: usize,
    /// Number of tokens after which all of them are made sinks; 0 for none.
    pinned: usize,
    /// Before the token that is first, the oldest tokens are evicted, as many as is second.
    evict: (usize, usize),
}

/// Rows of each token.
struct Tokens {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    len: usize,
}

/// Outputs of all tokens.
fn outputs(tokens: &Tokens, course: Course, how: How) -> Vec<f32> {
    let (columns, kv) = (SHAPE.query_columns(), SHAPE.kv_columns());
    let of_ring = CacheShape {
        layout: Layout::Kv,
        element: how.cache_type,
        columns: SHAPE.columns(),
        slots: course.sinks + course.window,
        exact_sinks: 0,
    };
    let of_chunk = CacheShape {
        slots: how.chunk,
        ..of_ring
    };
    let mut ring_memory = Memory::new(of_ring.bytes());
    let mut chunk_memory = Memory::new(of_chunk.bytes());
    let floats = scratch_floats(MAX_ROWS, of_ring.slots, how.chunk);
    let mut scratch = vec![f32::NAN; how.workers * floats];
    let mut kernel_scratch = vec![0; how.workers * ALIGN];
    let threads = InTurn(how.workers);
    let compute = Compute {
        isa: how.isa,
        threads: &threads,
        f32_activations: true,
    };
    let mut ring = Ring::new(course.sinks, course.window);
    let (mut out, mut first) = (Vec::new(), 0);
    while first < tokens.len {
        if first == course.pinned && first > 0 {
            ring.pin(first);
        }
        if first == course.evict.0 {
            ring.evict(course.evict.1);
        }
        // Chunks end where something happens.
        let next = [course.pinned, course.evict.0, tokens.len];
        let end = next.into_iter().filter(|next| *next > first).min().unwrap();
        let count = how.chunk.min(end - first);
        let rows = |rows: &[f32], width: usize| rows[first * width..][..count * width].to_vec();
        let mut caches = Caches {
            ring: ring_memory.cache(&of_ring),
            chunk: (count > 1).then(|| chunk_memory.cache(&of_chunk)),
            exact_sinks: 0,
        };
        let attend = Attend {
            compute: &compute,
            shape: &SHAPE,
            ring: &ring,
            geometry: None,
            values: Values::Cached,
        };
        let mut attended = vec![f32::NAN; count * columns];
        let sink_rows = if ring.sinks() == 0 { 0 } else { count };
        let mut sink_queries = vec![f32::NAN; sink_rows * columns];
        attend.run(
            &mut caches,
            &mut Step {
                queries: &mut rows(&tokens.queries, columns),
                sink_queries: &mut sink_queries,
                wide_queries: &mut [],
                rows: &mut rows(&tokens.keys, kv),
                beside: &rows(&tokens.values, kv),
                sink_values: &[],
                attended: &mut attended,
                scratch: &mut scratch,
                kernel_scratch: &mut kernel_scratch,
                scale: 1.0 / (SHAPE.head_dim as f32).sqrt(),
                score_cap: 0.0,
                alibi: OfFamilies::some(Slopes::new(SHAPE.heads, 8)),
                least_weight: 0.0,
                angles: &[],
                sink_angles: &[],
                wanted: 0,
                probe: &mut [],
            },
        );
        ring.advance(count);
        out.extend(attended);
        first += count;
    }
    out
}

/// Output of token `of`, which attends to `kept`: tokens in their order in the cache, itself last.
fn exact(tokens: &Tokens, of: usize, kept: &[usize]) -> Vec<f64> {
    let (columns, kv, width) = (SHAPE.query_columns(), SHAPE.kv_columns(), SHAPE.head_dim);
    let query = &tokens.queries[of * columns..][..columns];
    let mut out = Vec::new();
    for (head, query) in query.chunks_exact(width).enumerate() {
        let column = head / SHAPE.group() * width;
        let row = |rows: &[f32], token: usize| -> Vec<f64> {
            let row = &rows[token * kv + column..][..width];
            row.iter().map(|x| f64::from(*x)).collect()
        };
        let scores = kept.iter().enumerate().map(|(index, token)| {
            let key = row(&tokens.keys, *token);
            let product: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * k).sum();
            let distance = (kept.len() - 1 - index) as f64;
            product / (width as f64).sqrt() - 2f64.powi(-EXPONENTS[head]) * distance
        });
        let scores: Vec<f64> = scores.collect();
        let top = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut sums = vec![0.0; width];
        for (token, weight) in kept.iter().zip(&weights) {
            let value = row(&tokens.values, *token);
            sums.iter_mut()
                .zip(value)
                .for_each(|(sum, value)| *sum += weight / total * value);
        }
        out.extend(sums);
    }
    out
}

/// The tokens that each token attends to.
fn kept(course: Course, tokens: usize) -> Vec<Vec<usize>> {
    let (mut now, mut sinks) = (Vec::new(), course.sinks);
    let mut all = Vec::new();
    for token in 0..tokens {
        if token == course.pinned && token > 0 {
            sinks = token;
        }
        if token == course.evict.0 {
            now.drain(sinks..sinks + course.evict.1);
        }
        if now.len() == course.sinks + course.window {
            now.remove(sinks);
        }
        now.push(token);
        all.push(now.clone());
    }
    all
}

#[test]
fn biases_are_of_distances_within_the_cache() {
    let len = 90;
    let mut noise = Noise(31);
    let tokens = Tokens {
        queries: normals(&mut noise, len * SHAPE.query_columns(), 2.0),
        keys: normals(&mut noise, len * SHAPE.kv_columns(), 1.0),
        values: normals(&mut noise, len * SHAPE.kv_columns(), 1.0),
        len,
    };
    let course = |sinks, window, pinned, evict| Course {
        sinks,
        window,
        pinned,
        evict,
    };
    let courses = [
        course(0, 100, 0, (len, 0)),
        course(0, 21, 0, (50, 8)),
        course(3, 40, 0, (55, 17)),
        course(2, 37, 11, (60, 5)),
        course(1, 33, 7, (20, 13)),
    ];
    let columns = SHAPE.query_columns();
    for course in courses {
        let how = How {
            isa: Isa::Scalar,
            workers: 1,
            cache_type: ElementType::F32,
            chunk: 1,
        };
        let want = outputs(&tokens, course, how);
        for (t, kept) in kept(course, len).iter().enumerate() {
            let exact = exact(&tokens, t, kept);
            let budget = BUDGET * size(&exact).max(1.0);
            for (got, exact) in want[t * columns..].iter().zip(&exact) {
                let error = (f64::from(*got) - exact).abs();
                assert!(error <= budget, "{course:?}, token {t}: {got} for {exact}");
            }
        }
        for isa in kernels::isas() {
            for (chunk, workers) in [(1, 2), (5, 1), (16, 3)] {
                let how = How {
                    isa,
                    workers,
                    chunk,
                    ..how
                };
                let got = outputs(&tokens, course, how);
                assert!(
                    got.iter()
                        .zip(&want)
                        .all(|(a, b)| a.to_bits() == b.to_bits()),
                    "{course:?}, {how:?}"
                );
            }
        }
    }
}

//! An encoder's attention in 8-bit integers against attention in f64, on every instruction set.

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::InTurn;
use super::noise::Noise;
use crate::arena::ALIGN;
use crate::attention::Shape;
use crate::attention::whole::{Rows, Sizes, attend, write};
use crate::kernels::{self, Isa, isas};
use crate::nn::rope::Pairs;
use crate::workers::Compute;

/// Largest error of an output, relative to the largest value: queries, keys, weights and values
/// each have an error of up to 1/254 of the largest in a block.
const BUDGET: f64 = 0.02;

/// Bytes that start where an arena does.
struct Memory {
    bytes: Vec<u8>,
    start: usize,
}

impl Memory {
    fn new(len: usize) -> Memory {
        // What an earlier sound has left: NaN as scales.
        let bytes = vec![0xFF; len + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN);
        Memory { bytes, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

struct Case {
    shape: Shape,
    rows: usize,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Case {
    fn new(heads: usize, group: usize, head_dim: usize, rows: usize, seed: u64) -> Case {
        let shape = Shape {
            d_model: heads * head_dim,
            heads,
            kv_heads: heads / group,
            head_dim,
            rope_dim: 0,
            rope_pairs: Pairs::Halves,
        };
        let mut noise = Noise(seed | 1);
        let mut many = |count: usize| (0..count).map(|_| noise.normal()).collect::<Vec<f32>>();
        Case {
            rows,
            queries: many(rows * shape.query_columns()),
            keys: many(rows * shape.kv_columns()),
            values: many(rows * shape.kv_columns()),
            shape,
        }
    }

    /// The outputs, with keys and values written `chunk` rows at a time, and as many that attend.
    fn run(&self, isa: Isa, workers: usize, chunk: usize) -> Vec<f32> {
        let threads = InTurn(workers);
        let compute = Compute {
            isa,
            threads: &threads,
            f32_activations: false,
        };
        let sizes = Sizes::new(&self.shape, self.rows);
        let (columns, kv) = (self.shape.query_columns(), self.shape.kv_columns());
        let mut memory = Memory::new(sizes.bytes());
        for first in (0..self.rows).step_by(chunk) {
            let range = first * kv..self.rows.min(first + chunk) * kv;
            let (keys, values) = (&self.keys[range.clone()], &self.values[range]);
            write(&compute, &sizes, memory.bytes(), first, (keys, values));
        }
        let each = sizes.scratch().next_multiple_of(ALIGN);
        let mut scratch = Memory::new(each * workers);
        let kernel = kernels::scratch_bytes(sizes.widest(), 2).next_multiple_of(ALIGN);
        let mut kernel_scratch = Memory::new(kernel * workers);
        let mut out = vec![f32::NAN; self.queries.len()];
        for (queries, attended) in self
            .queries
            .chunks(chunk * columns)
            .zip(out.chunks_mut(chunk * columns))
        {
            let rows = Rows {
                queries,
                scale: self.scale() as f32,
                attended,
                scratch: &mut scratch.bytes()[..each * workers],
                kernel_scratch: &mut kernel_scratch.bytes()[..kernel * workers],
            };
            attend(
                &compute,
                (&self.shape, &sizes),
                memory.bytes(),
                self.rows,
                rows,
            );
        }
        out
    }

    fn scale(&self) -> f64 {
        1.0 / (self.shape.head_dim as f64).sqrt()
    }

    /// The same in f64, straight from the definition.
    fn expected(&self) -> Vec<f64> {
        let (columns, kv, dim) = (
            self.shape.query_columns(),
            self.shape.kv_columns(),
            self.shape.head_dim,
        );
        let mut out = vec![0.0; self.queries.len()];
        for (row, head) in
            (0..self.rows).flat_map(|row| (0..self.shape.heads).map(move |h| (row, h)))
        {
            let query = &self.queries[row * columns + head * dim..][..dim];
            let of = |all: &[f32], slot: usize, i: usize| {
                f64::from(all[slot * kv + head / self.shape.group() * dim + i])
            };
            let score = |slot| {
                let products = query.iter().enumerate();
                let sum: f64 = products
                    .map(|(i, q)| f64::from(*q) * of(&self.keys, slot, i))
                    .sum();
                sum * self.scale()
            };
            let scores: Vec<f64> = (0..self.rows).map(score).collect();
            let most = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
            let all: f64 = weights.iter().sum();
            for i in 0..dim {
                let weighted = weights.iter().enumerate();
                let sum: f64 = weighted
                    .map(|(slot, w)| w * of(&self.values, slot, i))
                    .sum();
                out[row * columns + head * dim + i] = sum / all;
            }
        }
        out
    }
}

proptest! {
    #[test]
    fn attention_is_that_of_the_definition(
        (kv_heads, group) in (1usize..4, 1usize..3),
        head_dim in prop::sample::select(&[4usize, 32, 36, 52, 64][..]),
        rows in 1usize..100,
        chunk in 1usize..100,
        workers in 1usize..4,
        seed in any::<u64>(),
    ) {
        let case = Case::new(kv_heads * group, group, head_dim, rows, seed);
        let found = case.run(Isa::Scalar, 1, rows);
        let most = case.values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for (found, expected) in found.iter().zip(case.expected()) {
            let error = (f64::from(*found) - expected).abs();
            prop_assert!(error <= BUDGET * f64::from(most), "{found} and {expected}");
        }
        // The same bits whatever computes them, in whatever pieces.
        for isa in isas() {
            prop_assert!(case.run(isa, workers, chunk) == found, "{isa:?}");
        }
    }
}

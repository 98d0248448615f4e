//! brooklet-core's float operators against ggml's on random inputs of many shapes.
//!
//! The comment on each budget names the error that it allows for; where ggml is less accurate, it
//! names ggml's approximation.

use brooklet_core::arena::{Aligned, Columns};
use brooklet_core::kernels::{Input, Isa, Norm, Product, Rotate, Scaling, Softmax, matmul};
use brooklet_core::nn::rope;
use brooklet_core::quant::{F32, Format};
use brooklet_core::tensor::Matrix;
use half::f16;

/// f32 products summed in different orders, relative to Σ|w|·|x|.
const MUL_MAT_F32: f64 = 2e-6;
/// ggml rounds activations to f16: half a unit in the last of 11 bits, plus the summation.
const MUL_MAT_F16: f64 = 4.9e-4 + 2e-6;

/// A sum of squares in f32 against one in f64, then a root and two products, relative.
const RMS_NORM: f32 = 2e-6;
/// Half a unit in the last place of f16, relative: ggml's exponential takes its argument and its
/// result from a table of f16.
const HALF: f32 = 1.0 / 2048.0;

/// Reproducible noise (xorshift64*), roughly normal.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        let mut uniform = || {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / (1u32 << 24) as f32
        };
        (0..12).map(|_| uniform()).sum::<f32>() - 6.0
    }

    fn vector(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }
}

/// Shapes of products: rows, columns, tokens.
const SHAPES: [(usize, usize, usize); 6] = [
    (1, 1, 1),
    (3, 7, 2),
    (64, 64, 1),
    (33, 576, 5),
    (100, 1536, 1),
    (17, 65, 31),
];

fn core_product(format: Format, bytes: &[u8], rows: usize, columns: usize, x: &[f32]) -> Vec<f32> {
    let weights = Matrix::new(format, rows, columns, bytes).expect("the shape fits");
    let mut scratch = Box::new(Aligned([0; 1 << 18]));
    let mut out = vec![f32::NAN; x.len() / columns * rows];
    let (isa, mut part) = (Isa::of_target(), Columns::all(&mut out, rows));
    let product = Product {
        weights: &weights,
        rows: 0..rows,
        activations: Input::F32(x),
        out: &mut part,
        scratch: &mut scratch.0,
    };
    matmul(isa, product);
    drop(part);
    out
}

/// Checks `|ours - theirs| <= budget · Σ|w|·|x|` for every output.
fn check_product(ours: &[f32], theirs: &[f32], weights: &[f32], x: &[f32], columns: usize, budget: f64) {
    let rows = weights.len() / columns;
    assert_eq!(ours.len(), theirs.len());
    for (at, (&a, &b)) in ours.iter().zip(theirs).enumerate() {
        let (x, w) = (
            &x[at / rows * columns..][..columns],
            &weights[at % rows * columns..][..columns],
        );
        let size: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x * w).abs()).sum();
        let error = (f64::from(a) - f64::from(b)).abs();
        assert!(
            error <= budget * size,
            "output {at} of {rows}x{columns}: {a} and {b}, {error:e} over {:e}",
            budget * size
        );
    }
}

#[test]
fn mul_mat_f32_agrees() {
    let mut noise = Noise(1);
    for (rows, columns, tokens) in SHAPES {
        let (weights, x) = (noise.vector(rows * columns), noise.vector(tokens * columns));
        let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        let ours = core_product(Format::F32, &bytes, rows, columns, &x);
        let theirs = ggml_oracle::mul_mat_f32(&weights, &x, columns);
        check_product(&ours, &theirs, &weights, &x, columns, MUL_MAT_F32);
    }
}

#[test]
fn mul_mat_f16_agrees() {
    let mut noise = Noise(2);
    for (rows, columns, tokens) in SHAPES {
        let halves: Vec<f16> = noise
            .vector(rows * columns)
            .into_iter()
            .map(f16::from_f32)
            .collect();
        let (weights, x): (Vec<f32>, _) = (
            halves.iter().map(|w| w.to_f32()).collect(),
            noise.vector(tokens * columns),
        );
        let bytes: Vec<u8> = halves.iter().flat_map(|w| w.to_le_bytes()).collect();
        let ours = core_product(Format::F16, &bytes, rows, columns, &x);
        let theirs = ggml_oracle::mul_mat_f16(&halves, &x, columns);
        check_product(&ours, &theirs, &weights, &x, columns, MUL_MAT_F16);
    }
}

#[test]
fn rms_norm_agrees() {
    let (mut noise, isa) = (Noise(3), Isa::of_target());
    for columns in [1, 15, 16, 64, 576, 2049] {
        let x: Vec<f32> = noise.vector(3 * columns).iter().map(|x| x * 20.0 + 1.0).collect();
        let theirs = ggml_oracle::rms_norm(&x, columns);
        let ones = vec![F32(1.0f32.to_le_bytes()); columns];
        let norm = Scaling {
            centred: false,
            weight: &ones,
            bias: &[],
            eps: ggml_oracle::RMS_EPS,
        };
        let mut ours = vec![f32::NAN; columns];
        for (x, theirs) in x.chunks(columns).zip(theirs.chunks(columns)) {
            isa.run(Norm {
                x,
                scaling: norm,
                out: &mut ours,
            });
            for (a, b) in ours.iter().zip(theirs) {
                assert!(
                    (a - b).abs() <= RMS_NORM * b.abs(),
                    "{columns} columns: {a} and {b}"
                );
            }
        }
    }
}

#[test]
fn soft_max_agrees() {
    let (mut noise, isa) = (Noise(4), Isa::of_target());
    for (columns, width) in [(1, 1.0), (7, 0.1), (16, 3.0), (100, 1.0), (1000, 4.0)] {
        let x: Vec<f32> = noise.vector(2 * columns).iter().map(|x| x * width).collect();
        let theirs = ggml_oracle::soft_max(&x, columns);
        for (x, theirs) in x.chunks(columns).zip(theirs.chunks(columns)) {
            let max = x.iter().copied().fold(f32::MIN, f32::max);
            let mut ours = x.to_vec();
            let inverse = isa.run(Softmax { scores: &mut ours });
            for ((a, b), x) in ours.iter().zip(theirs).zip(x) {
                // The argument's rounding grows with its size; the sum has the error of its largest
                // terms. The smallest f16 is 6e-8.
                let budget = 2.0 * HALF * (1.0 + max - x) * b + 6e-8;
                assert!(
                    (a * inverse - b).abs() <= budget,
                    "{columns} columns: {} and {b}",
                    a * inverse
                );
            }
        }
    }
}

#[test]
fn rope_agrees() {
    let mut noise = Noise(5);
    for (heads, head_dim, dims) in [(1, 2, 2), (3, 8, 8), (9, 64, 64), (2, 64, 32), (1, 256, 256)] {
        for position in [0u16, 1, 77, 1000, 2047] {
            let x = noise.vector(heads * head_dim);
            let theirs = ggml_oracle::rope(
                &x,
                heads,
                head_dim,
                dims,
                position,
                ggml_oracle::Pairs::Neighbours,
            );
            let pairs = dims / 2;
            let (mut frequencies, mut table) = (vec![0; pairs], vec![[0.0; 2]; pairs]);
            rope::frequencies(ggml_oracle::ROPE_BASE, |_| 1.0, &mut frequencies);
            rope::angles(&frequencies, position.into(), &mut table);
            let mut ours = x.clone();
            Isa::Scalar.run(Rotate {
                heads: &mut ours,
                head_dim,
                table: &table,
                pairs: rope::Pairs::Neighbours,
            });
            // ggml computes its angle p·s^i by multiplication from pair to pair: 2i roundings of
            // 2^-24 each, and i·s^i <= pairs / (e·ln 10000).
            let drift = f32::from(position) * 2.0 * 0.04 * pairs as f32 * 6e-8;
            for ((a, b), x) in ours.chunks(2).zip(theirs.chunks(2)).zip(x.chunks(2)) {
                let budget = (1e-6 + drift) * x[0].hypot(x[1]);
                assert!(
                    (a[0] - b[0]).hypot(a[1] - b[1]) <= budget,
                    "{dims} dims at {position}: {a:?} and {b:?}"
                );
            }
        }
    }
}

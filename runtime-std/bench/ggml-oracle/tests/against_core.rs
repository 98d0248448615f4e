//! brooklet-core's float operators against ggml's on random inputs of many shapes.
//!
//! Each budget says whose error it allows for; where ggml is the coarser side the comment names its approximation.

use brooklet_core::arena::{Aligned, Columns};
use brooklet_core::kernels::{Input, Isa, matmul};
use brooklet_core::quant::Format;
use brooklet_core::tensor::Matrix;
use half::f16;

/// f32 products summed in different orders, relative to Σ|w|·|x|.
const MUL_MAT_F32: f64 = 2e-6;
/// ggml rounds activations to f16: half a unit in the last of 11 bits, plus the summation.
const MUL_MAT_F16: f64 = 4.9e-4 + 2e-6;

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
    matmul(isa, &weights, 0..rows, Input::F32(x), &mut part, &mut scratch.0);
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

//! Every kernel on every instruction set that this machine has, against the scalar reference and exact arithmetic.

use std::{vec, vec::Vec};

use super::*;
use crate::arena::{Aligned, Columns};
use crate::quant::Format;
use crate::tensor::Matrix;

/// A small generator of reproducible noise (xorshift64*), so that failures repeat.
pub(crate) struct Noise(pub u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Roughly normal, standard deviation 1.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..12)
            .map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32)
            .sum::<f32>()
            - 6.0
    }
}

/// Random bytes of a matrix with sane scales.
pub(crate) fn random_weights(format: Format, rows: usize, cols: usize, noise: &mut Noise) -> Vec<u8> {
    let mut bytes = vec![0u8; format.row_bytes(cols).unwrap() * rows];
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        block.iter_mut().for_each(|b| *b = noise.next() as u8);
        let d = noise.normal() * 0.02;
        match format {
            Format::F32 => block.copy_from_slice(&d.to_le_bytes()),
            Format::BF16 => block.copy_from_slice(&half::bf16::from_f32(d).to_le_bytes()),
            _ => block[..2].copy_from_slice(&half::f16::from_f32(d).to_le_bytes()),
        }
        if matches!(format, Format::Q4_1 | Format::Q5_1) {
            block[2..4].copy_from_slice(&half::f16::from_f32(-8.0 * d).to_le_bytes());
        }
    }
    bytes
}

fn run(isa: Isa, w: &Matrix<'_>, x: Input<'_>, tokens: usize) -> Vec<f32> {
    let mut scratch = Aligned([0u8; 1 << 17]);
    let mut out = vec![f32::NAN; tokens * w.rows()];
    matmul(
        isa,
        w,
        0..w.rows(),
        x,
        &mut Columns::all(&mut out, w.rows()),
        &mut scratch.0,
    );
    out
}

fn within_budget(w: &Matrix<'_>, x: &[f32], out: &[f32], budget: f64) {
    let mut row = vec![0.0; w.cols()];
    for r in 0..w.rows() {
        w.dequantize_row(r, &mut row);
        for (t, x) in x.chunks_exact(w.cols()).enumerate() {
            let (mut exact, mut size) = (0.0, 0.0);
            for (w, x) in row.iter().zip(x) {
                exact += f64::from(*w) * f64::from(*x);
                size += (f64::from(*w) * f64::from(*x)).abs();
            }
            let error = (f64::from(out[t * w.rows() + r]) - exact).abs();
            assert!(
                error <= budget * size,
                "{} row {r} token {t}: {error} of {size}",
                w.format().name()
            );
        }
    }
}

#[test]
fn scalar_is_exact_within_its_budget() {
    let mut noise = Noise(1);
    let (rows, cols, tokens) = (19, 96, 3);
    for format in Format::ALL {
        let bytes = random_weights(format, rows, cols, &mut noise);
        let w = Matrix::new(format, rows, cols, &bytes).unwrap();
        let x: Vec<f32> = (0..tokens * cols).map(|_| noise.normal()).collect();
        within_budget(
            &w,
            &x,
            &run(Isa::Scalar, &w, Input::F32(&x), tokens),
            budget::F32_VS_EXACT,
        );
        if !format.is_quantized() {
            continue;
        }
        let mut q = vec![
            Q8Activation {
                scale: 0.0,
                scaled_sum: 0.0,
                sum: 0,
                q: [0; 32]
            };
            x.len() / 32
        ];
        quantize_activations(&x, &mut q);
        let rounded: Vec<f32> = q
            .iter()
            .flat_map(|b| b.q.map(|v| (f64::from(b.scale) * f64::from(v)) as f32))
            .collect();
        within_budget(
            &w,
            &rounded,
            &run(Isa::Scalar, &w, Input::Q8(&q), tokens),
            budget::INT8_VS_EXACT,
        );
    }
}

#[test]
fn activations_round_to_nearest_and_never_to_minus_128() {
    let mut x = [0.0f32; 64];
    for (i, x) in x.iter_mut().enumerate() {
        *x = (i as f32 - 32.0) * 0.37;
    }
    let mut q = [Q8Activation {
        scale: 0.0,
        scaled_sum: 0.0,
        sum: 0,
        q: [0; 32],
    }; 2];
    quantize_activations(&x, &mut q);
    for (b, x) in q.iter().zip(x.chunks(32)) {
        assert!(b.q.iter().all(|q| *q >= -127));
        assert_eq!(b.sum, b.q.iter().map(|q| i32::from(*q)).sum::<i32>());
        assert!(
            b.q.iter()
                .zip(x)
                .all(|(q, x)| (b.scale * f32::from(*q) - x).abs() <= 0.5001 * b.scale)
        );
    }
    quantize_activations(&[0.0; 32], &mut q[..1]);
    assert_eq!((q[0].scale, q[0].sum), (0.0, 0));
}

//! Any bytes as weights in any format: dequantised, and multiplied on every given instruction set.
//! This is the body of the fuzz target and of the replay of its corpus.
//!
//! The first bytes choose the format, the blocks in a row, the tokens, the size of the activations
//! and their seed; the rest is weights.

use brooklet_core::arena::{Aligned, Columns};
use brooklet_core::kernels::{Input, Isa, Product, Q8Activation, matmul, quantize, scratch_bytes};
use brooklet_core::quant::{BLOCK, Format};
use brooklet_core::tensor::Matrix;

/// Number of bytes before the weights.
const CHOICES: usize = 5;
/// Largest numbers of elements in a row, of rows, and of tokens.
const MOST: (usize, usize, usize) = (1024, 40, 9);

/// Reads `bytes` as weights.
///
/// # Panics
/// If an instruction set of `isas` gives other bits than the first of them, the scalar reference.
pub fn walk(bytes: &[u8], isas: &[Isa]) {
    let Some((&[format, blocks, tokens, size, seed], weights)) =
        bytes.split_first_chunk::<CHOICES>()
    else {
        return;
    };
    let format = Format::ALL[usize::from(format) % Format::ALL.len()];
    let cols = format.block_len() * (1 + usize::from(blocks) % (MOST.0 / format.block_len()));
    let row_bytes = format.row_bytes(cols).expect("whole blocks");
    let rows = (weights.len() / row_bytes).min(MOST.1);
    if rows == 0 {
        return;
    }
    let weights = &weights[..rows * row_bytes];
    let w = Matrix::new(format, rows, cols, weights).expect("whole rows");
    assert!(Matrix::new(format, rows + 1, cols, weights).is_err());
    let small = dequantize(&w);
    let tokens = 1 + usize::from(tokens) % MOST.2;
    let x = activations(tokens * cols, size, seed);
    multiply(&w, Input::F32(&x), tokens, isas, small);
    if format.is_quantized() {
        let quantized: Vec<_> = isas.iter().map(|&isa| int8(&x, isa)).collect();
        assert!(
            quantized.iter().all(|q| *q == quantized[0]),
            "activations differ"
        );
        multiply(&w, Input::Q8(&quantized[0]), tokens, isas, small);
    }
}

/// Reads every row; returns true if all weights are finite and so small that no sum of products
/// overflows.
fn dequantize(w: &Matrix<'_>) -> bool {
    let mut row = vec![0.0; w.cols()];
    (0..w.rows()).fold(true, |small, r| {
        w.dequantize_row(r, &mut row);
        small && row.iter().all(|value| value.abs() < 1e15)
    })
}

/// Returns finite values around a power of two, with some zeros.
fn activations(len: usize, size: u8, seed: u8) -> Vec<f32> {
    let mut state = u32::from(seed) + 1;
    let scale = 2.0f32.powi(i32::from(size as i8) / 4);
    let next = |_| {
        state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        scale * ((state >> 20) as i32 - 2048) as f32 / 1024.0
    };
    (0..len).map(next).collect()
}

fn int8(x: &[f32], isa: Isa) -> Vec<Q8Activation> {
    let mut q = vec![Q8Activation::ZERO; x.len() / BLOCK];
    quantize(isa, x, &mut q);
    q
}

fn multiply(w: &Matrix<'_>, x: Input<'_>, tokens: usize, isas: &[Isa], small: bool) {
    let mut scratch = Box::new(Aligned([0xA5; 1 << 17]));
    let mut expected: Option<Vec<u32>> = None;
    for isa in isas {
        let mut out = vec![7.0f32; tokens * w.rows()];
        let used = scratch_bytes(w.cols(), tokens);
        let scratch = &mut scratch.0[..used];
        matmul(
            *isa,
            Product {
                weights: w,
                rows: 0..w.rows(),
                activations: x,
                out: &mut Columns::all(&mut out, w.rows()),
                scratch,
            },
        );
        assert!(!small || out.iter().all(|value| value.is_finite()));
        let bits = out
            .iter()
            .map(|v| if v.is_nan() { f32::NAN } else { *v }.to_bits())
            .collect();
        match &expected {
            Some(expected) => assert_eq!(*expected, bits, "{} {}", isa.name(), w.format().name()),
            None => expected = Some(bits),
        }
    }
}

//! Every kernel of this board's instruction set against the scalar reference: the same bits, for
//! random blocks of every format, odd scales among them, for many shapes.
#![no_std]
#![no_main]

use brooklet_core::arena::{Aligned, Columns};
use brooklet_core::kernels::{
    Input, Isa, Product, Q8Activation, matmul, quantize, quantize_activations, scratch_bytes,
};
use brooklet_core::quant::Format;
use brooklet_core::tensor::Matrix;
use brooklet_cortex_m::interrupt::Peripherals;
use brooklet_cortex_m::log;
use cortex_m_rt::entry;

const MAX_ROWS: usize = 13;
const MAX_COLS: usize = 256;
const MAX_TOKENS: usize = 3;

/// A small generator of reproducible noise (xorshift64*).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }

    /// From -1 to 1, now and then far larger or smaller, or zero.
    fn value(&mut self) -> f32 {
        let value = self.next() as i32 as f32 / 2_147_483_648.0;
        match self.next() % 97 {
            0 => 0.0,
            1 => value * 1e30,
            2 => value * 1e-38,
            3 => value * 1e-44,
            _ => value,
        }
    }
}

/// f16 scales: ordinary ones, subnormals, zeros, the largest, infinities.
const SCALES: [u16; 12] = [
    0x2000, 0x1c55, 0xa123, 0x3c00, 0x0001, 0x03ff, 0x83ff, 0x0000, 0x8000, 0x7bff, 0x7c00, 0xfc00,
];

/// Returns true if the bits are equal; all NaNs count as equal.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.iter()
        .zip(b)
        .all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
}

fn weights(format: Format, bytes: &mut [u8], noise: &mut Noise, odd: bool) {
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        block.iter_mut().for_each(|byte| *byte = noise.next() as u8);
        let mut scale =
            || SCALES[noise.next() as usize % if odd { SCALES.len() } else { 4 }].to_le_bytes();
        let scales = match format {
            Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => 0..4,
            Format::Q2_K => 80..84,
            Format::Q3_K => 108..110,
            Format::Q6_K => 208..210,
            _ => 0..2,
        };
        for bytes in block[scales].chunks_exact_mut(2) {
            bytes.copy_from_slice(&scale());
        }
    }
}

fn activations(
    noise: &mut Noise,
    x: &mut [f32],
    scalar: &mut [Q8Activation],
    ours: &mut [Q8Activation],
) -> bool {
    x.iter_mut().for_each(|x| *x = noise.value());
    quantize_activations(x, scalar);
    quantize(Isa::of_target(), x, ours);
    scalar.iter().zip(&*ours).all(|(a, b)| {
        same(&[a.scale, a.scaled_sum], &[b.scale, b.scaled_sum])
            && (a.sum, a.first_sum, a.q) == (b.sum, b.first_sum, b.q)
    })
}

fn run(isa: Isa, w: &Matrix<'_>, x: &[Q8Activation], out: &mut [f32]) {
    let mut scratch = Aligned([0; scratch_bytes(MAX_COLS, 2)]);
    matmul(
        isa,
        Product {
            weights: w,
            rows: 0..w.rows(),
            activations: Input::Q8(x),
            out: &mut Columns::all(out, w.rows()),
            scratch: &mut scratch.0,
        },
    );
}

#[entry]
fn main() -> ! {
    if let Some(peripherals) = Peripherals::take() {
        log::start(peripherals.log);
    }
    let mut noise = Noise(1);
    let mut bytes = [0; MAX_ROWS * MAX_COLS / 32 * 34];
    let mut x = [0.0; MAX_COLS * MAX_TOKENS];
    let mut scalar = [Q8Activation::ZERO; MAX_COLS * MAX_TOKENS / 32];
    let mut ours = scalar;
    let (mut cases, mut failures) = (0, 0);
    let formats = Format::ALL
        .into_iter()
        .filter(|format| format.is_quantized() && format.is_built());
    for format in formats {
        for rows in 1..=MAX_ROWS {
            for cols in (32..=MAX_COLS).step_by(32) {
                for tokens in 1..=MAX_TOKENS {
                    let odd = noise.next().is_multiple_of(2);
                    let Some(row) = format.row_bytes(cols) else {
                        continue;
                    };
                    let bytes = &mut bytes[..row * rows];
                    weights(format, bytes, &mut noise, odd);
                    let Ok(w) = Matrix::new(format, rows, cols, bytes) else {
                        continue;
                    };
                    let (x, blocks) = (&mut x[..cols * tokens], cols * tokens / 32);
                    let good =
                        activations(&mut noise, x, &mut scalar[..blocks], &mut ours[..blocks]);
                    let mut expected = [0.0; MAX_ROWS * MAX_TOKENS];
                    let mut got = expected;
                    run(
                        Isa::Scalar,
                        &w,
                        &scalar[..blocks],
                        &mut expected[..rows * tokens],
                    );
                    run(
                        Isa::of_target(),
                        &w,
                        &scalar[..blocks],
                        &mut got[..rows * tokens],
                    );
                    cases += 1;
                    if !good || !same(&expected, &got) {
                        failures += 1;
                        defmt::error!(
                            "{=str}: {=usize} rows, {=usize} columns, {=usize} tokens",
                            format.name(),
                            rows,
                            cols,
                            tokens
                        );
                    }
                }
            }
        }
    }
    defmt::info!(
        "{=str}: {=u32} cases, {=u32} differ",
        Isa::of_target().name(),
        cases,
        failures
    );
    loop {
        cortex_m::asm::wfi();
    }
}

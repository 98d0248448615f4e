//! Tests of every kernel on every instruction set of this machine, against the scalar reference and
//! exact arithmetic.

use std::{vec, vec::Vec};

use super::dispatch::InstructionSet;
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
pub(crate) fn random_weights(
    format: Format,
    rows: usize,
    cols: usize,
    noise: &mut Noise,
) -> Vec<u8> {
    let mut bytes = vec![0u8; format.row_bytes(cols).unwrap() * rows];
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        block.iter_mut().for_each(|b| *b = noise.next() as u8);
        let d = noise.normal() * 0.02;
        match format {
            Format::F32 => block.copy_from_slice(&d.to_le_bytes()),
            Format::BF16 => block.copy_from_slice(&half::bf16::from_f32(d).to_le_bytes()),
            Format::Q4_1 | Format::Q5_1 => set_scales(format, block, d, -8.0 * d),
            _ => set_scales(format, block, d, 8.0 * d),
        }
    }
    bytes
}

/// Sets the f16 of a block: its scale and its minimum (if any), which are `d` and `dmin` in a
/// super-block.
fn set_scales(format: Format, block: &mut [u8], scale: f32, min: f32) {
    let (scale_at, min_at) = scale_and_min_at(format);
    block[scale_at..scale_at + 2].copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
    if let Some(at) = min_at {
        block[at..at + 2].copy_from_slice(&half::f16::from_f32(min).to_le_bytes());
    }
}

/// Byte offsets of the f16 of a block: scale, then minimum.
fn scale_and_min_at(format: Format) -> (usize, Option<usize>) {
    match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => (0, Some(2)),
        Format::Q2_K => (80, Some(82)),
        Format::Q3_K => (108, None),
        Format::Q6_K => (208, None),
        _ => (0, None),
    }
}

fn run(isa: Isa, w: &Matrix<'_>, x: Input<'_>, tokens: usize) -> Vec<f32> {
    let mut scratch = Aligned([0u8; 1 << 17]);
    let mut out = vec![f32::NAN; tokens * w.rows()];
    matmul(
        isa,
        Product {
            weights: w,
            rows: 0..w.rows(),
            activations: x,
            out: &mut Columns::all(&mut out, w.rows()),
            scratch: &mut scratch.0,
        },
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
    let (rows, tokens) = (19, 3);
    for format in Format::ALL {
        let cols = 96usize.next_multiple_of(format.block_len());
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
        let q = quantized(&x);
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
fn the_document_lists_the_kernels() {
    let document = include_str!("../../docs/numerics.md");
    for isa in isas().into_iter().filter(|isa| *isa != Isa::Scalar) {
        let has_kernel = |format: &Format| {
            let cols = format.block_len();
            let bytes = vec![0; format.block_bytes()];
            let w = Matrix::new(*format, 1, cols, &bytes).unwrap();
            let (mut out, mut scratch) = ([0.0], Aligned([0u8; 1 << 12]));
            let product = Product {
                weights: &w,
                rows: 0..1,
                activations: &quantized(&vec![0.0; cols])[..],
                out: &mut Columns::all(&mut out, 1),
                scratch: &mut scratch.0,
            };
            super::isa::on_isa!(isa, isa => isa.product_q8(product)).is_none()
        };
        let all = Format::ALL
            .into_iter()
            .filter(|format| format.is_quantized());
        let formats = all.filter(has_kernel);
        let names: Vec<_> = formats.map(Format::name).collect();
        let line = std::format!("| {} | {} |\n", isa.name(), names.join(", "));
        assert!(document.contains(&line), "{line}");
    }
}

#[test]
fn activations_round_to_nearest_and_never_to_minus_128() {
    let mut x = [0.0f32; 64];
    for (i, x) in x.iter_mut().enumerate() {
        *x = (i as f32 - 32.0) * 0.37;
    }
    let mut q = [Q8Activation::ZERO; 2];
    quantize_activations(&x, &mut q);
    for (b, x) in q.iter().zip(x.chunks(32)) {
        assert!(b.q.iter().all(|q| *q >= -127));
        assert_eq!(b.sum, b.q.iter().map(|q| i16::from(*q)).sum::<i16>());
        assert_eq!(
            b.first_sum,
            b.q[..16].iter().map(|q| i16::from(*q)).sum::<i16>()
        );
        assert!(
            b.q.iter()
                .zip(x)
                .all(|(q, x)| (b.scale * f32::from(*q) - x).abs() <= 0.5001 * b.scale)
        );
    }
    quantize_activations(&[0.0; 32], &mut q[..1]);
    assert_eq!((q[0].scale, q[0].sum), (0.0, 0));
}

/// Bits of a result; all NaN get the same bits.
fn bits(out: &[f32]) -> Vec<u32> {
    out.iter()
        .map(|v| if v.is_nan() { f32::NAN } else { *v }.to_bits())
        .collect()
}

fn quantized(x: &[f32]) -> Vec<Q8Activation> {
    let mut q = vec![Q8Activation::ZERO; x.len() / 32];
    quantize_activations(x, &mut q);
    q
}

/// The instruction sets, and those whose kernels are chosen by the core, as on one where they
/// differ.
#[cfg(target_arch = "x86_64")]
fn with_tuned(mut isas: Vec<Isa>) -> Vec<Isa> {
    let tuned = isas
        .iter()
        .map(|isa| isa.with_core(crate::kernels::isa::Core::Zen4));
    let tuned: Vec<Isa> = tuned.filter(|isa| !isas.contains(isa)).collect();
    isas.extend(tuned);
    isas
}

#[cfg(not(target_arch = "x86_64"))]
fn with_tuned(isas: Vec<Isa>) -> Vec<Isa> {
    isas
}

/// Checks every instruction set against the reference, with several ranges of rows.
fn agrees(w: &Matrix<'_>, x: Input<'_>, tokens: usize) {
    let mut scratch = Aligned([0xA5u8; 1 << 17]);
    let ranges = [
        0..w.rows(),
        1..w.rows(),
        3..w.rows() - 1,
        5..5,
        7..8,
        2..2 + w.rows() / 2,
    ];
    for rows in ranges {
        let width = rows.len().max(1);
        let results = with_tuned(isas()).into_iter().map(|isa| {
            // The output is wider than the range, so that the stride between tokens is not the
            // range's width.
            let mut out = vec![7.0f32; tokens * (width + 3)];
            let shared = crate::arena::Shared::new(&mut out, width + 3, width);
            if !rows.is_empty() {
                let used = scratch_bytes(w.cols(), tokens);
                let product = Product {
                    weights: w,
                    rows: rows.clone(),
                    activations: x,
                    out: &mut shared.take(0),
                    scratch: &mut scratch.0[..used],
                };
                matmul(isa, product);
            }
            (isa, bits(&out))
        });
        let results: Vec<_> = results.collect();
        for (isa, out) in &results[1..] {
            assert!(
                *out == results[0].1,
                "{} {} rows {rows:?} of {} columns, {tokens} tokens",
                isa.name(),
                w.format().name(),
                w.cols()
            );
        }
    }
}

#[test]
fn every_isa_gives_the_bits_of_the_reference() {
    let mut noise = Noise(2);
    for format in Format::ALL {
        let odd: &[usize] = if format.is_quantized() {
            &[]
        } else {
            &[1, 15, 17, 100]
        };
        let even: &[usize] = match format.block_len() {
            crate::quant::SUPER_BLOCK => &[256, 512, 768],
            _ => &[32, 64, 96, 128, 288, 576],
        };
        for cols in even.iter().chain(odd).copied() {
            let bytes = random_weights(format, 53, cols, &mut noise);
            let w = Matrix::new(format, 53, cols, &bytes).unwrap();
            for tokens in [1, 2, 3, 4, 5, 8, 9, 17] {
                let x: Vec<f32> = (0..tokens * cols).map(|_| noise.normal()).collect();
                agrees(&w, Input::F32(&x), tokens);
                if format.is_quantized() {
                    agrees(&w, Input::Q8(&quantized(&x)), tokens);
                }
            }
        }
    }
}

#[test]
fn every_isa_gives_the_bits_of_the_reference_at_the_extremes() {
    let rows = 35;
    let scales = [
        0x0000, 0x8000, 0x0001, 0x03ff, 0x3c00, 0xfbff, 0x7bff, 0x7c00, 0xfc00, 0x7e01, 0xfd55,
    ];
    for format in Format::ALL.into_iter().filter(|f| f.is_quantized()) {
        let cols = 160usize.next_multiple_of(format.block_len());
        let (scale_at, min_at) = scale_and_min_at(format);
        for fill in [0x00u8, 0x80, 0xff, 0x7f, 0x0f, 0xf0] {
            let mut bytes = vec![fill; format.row_bytes(cols).unwrap() * rows];
            for (i, block) in bytes.chunks_exact_mut(format.block_bytes()).enumerate() {
                block[scale_at..scale_at + 2]
                    .copy_from_slice(&u16::to_le_bytes(scales[i / 3 % scales.len()]));
                if let Some(at) = min_at {
                    block[at..at + 2]
                        .copy_from_slice(&u16::to_le_bytes(scales[i / 5 % scales.len()]));
                }
            }
            let w = Matrix::new(format, rows, cols, &bytes).unwrap();
            for value in [127i8, -127, 0, 1] {
                for scale in [
                    0.0,
                    1.0,
                    f32::MIN_POSITIVE,
                    f32::MAX,
                    f32::INFINITY,
                    f32::NAN,
                ] {
                    let sum = 32 * i16::from(value);
                    let x = Q8Activation {
                        scale,
                        scaled_sum: scale * f32::from(sum),
                        sum,
                        first_sum: sum / 2,
                        q: [value; 32],
                    };
                    for tokens in [1, 4, 9] {
                        agrees(&w, Input::Q8(&vec![x; tokens * cols / 32]), tokens);
                    }
                }
            }
        }
    }
}

#[test]
fn every_isa_quantizes_activations_to_the_same_bits() {
    /// Blocks of each kind of odd values.
    const ODD: usize = 10;
    let mut noise = Noise(3);
    let mut x: Vec<f32> = (0..32 * 64).map(|_| noise.normal()).collect();
    let odd: [f32; ODD] = [
        0.0,
        -0.0,
        1e-45,
        1e-39,
        3e-37,
        1e-30,
        f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    for (i, odd) in odd.into_iter().enumerate() {
        x[32 * i + 5] = odd;
        x[32 * (i + ODD)..][..32].fill(odd);
        x[32 * (i + 2 * ODD)..][..32]
            .iter_mut()
            .for_each(|x| *x *= odd);
        // Ties: halves of the largest value's 127th part.
        for (j, x) in x[32 * (i + 3 * ODD)..][..32].iter_mut().enumerate() {
            *x = if j == 0 {
                127.0
            } else {
                (j as f32 - 16.0) * 7.5
            };
        }
    }
    let clean = |q: &[Q8Activation]| -> Vec<_> {
        q.iter()
            .map(|b| (bits(&[b.scale, b.scaled_sum]), (b.sum, b.first_sum), b.q))
            .collect()
    };
    let expected = quantized(&x);
    assert!(expected.iter().all(|b| !b.q.contains(&-128)));
    for isa in isas() {
        let mut q = quantized(&vec![0.0; x.len()]);
        quantize(isa, &x, &mut q);
        assert_eq!(clean(&q), clean(&expected), "{}", isa.name());
    }
}

#[test]
fn a_matrix_without_columns_gives_zeros() {
    let w = Matrix::new(Format::Q8_0, 40, 0, &[]).unwrap();
    for isa in isas() {
        let mut out = vec![7.0; 2 * 40];
        matmul(
            isa,
            Product {
                weights: &w,
                rows: 0..40,
                activations: Input::Q8(&[]),
                out: &mut Columns::all(&mut out, 40),
                scratch: &mut [],
            },
        );
        assert!(out.iter().all(|v| *v == 0.0));
    }
}

/// The features that functions of an instruction set's folder are compiled with.
#[cfg(target_arch = "x86_64")]
fn features_of_sources(folder: &str) -> std::collections::BTreeSet<std::string::String> {
    let folder = std::format!("{}/src/kernels/arch/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut features = std::collections::BTreeSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for list in source.split("target_feature(enable = \"").skip(1) {
            let (list, _) = list.split_once('"').unwrap();
            features.extend(list.split(',').map(std::string::String::from));
        }
    }
    features
}

#[cfg(target_arch = "x86_64")]
#[test]
fn functions_are_compiled_with_features_of_their_instruction_set() {
    for (folder, stands_for) in [
        ("x86/sse41", Sse41::FEATURES),
        ("x86/avx2", Avx2::FEATURES),
        ("x86/avx_vnni", AvxVnni::FEATURES),
        ("x86/avx512", Avx512::FEATURES),
    ] {
        let used = features_of_sources(folder);
        assert!(!used.is_empty());
        for feature in used {
            assert!(
                stands_for.contains(&feature.as_str()),
                "{folder}: {feature}"
            );
        }
    }
}

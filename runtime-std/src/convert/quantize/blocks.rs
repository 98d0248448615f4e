//! From f32 to blocks: one function a format; those that search for the least error are in
//! `super_blocks.rs` and `iq4_nl.rs`.
//!
//! The rounding of the others is ggml's for files (`quantize_row_*_ref` in `ggml-quants.c`, without
//! an importance matrix), bit for bit: the scale stays f32 while the integers are computed, they
//! are products with its reciprocal, and only the stored scale is rounded to f16.
//!
//! A scale so small that its reciprocal overflows makes every integer 0: such a scale is stored as
//! 0, so the integers mean nothing. (C leaves that conversion undefined; x86-64 makes 0 of it.)

use brooklet_core::quant::{BLOCK, Format};

use super::iq4_nl::iq4_nl;
use super::super_blocks;

/// Quantises whole blocks of `values`, which are finite, to the bytes of `format`. `None` if a
/// value or a scale is larger than f16's largest number.
///
/// # Panics
/// If `out` is not exactly as long as the blocks, or `format` is not written here (F32,
/// BF16).
pub(in crate::convert) fn quantize(format: Format, values: &[f32], out: &mut [u8]) -> Option<()> {
    match format {
        Format::F16 => f16(values, out),
        Format::Q4_0 => blocks(values, out, q4_0),
        Format::Q4_1 => blocks(values, out, q4_1),
        Format::Q5_0 => blocks(values, out, q5_0),
        Format::Q5_1 => blocks(values, out, q5_1),
        Format::Q8_0 => blocks(values, out, q8_0),
        Format::Q2_K => blocks(values, out, super_blocks::q2_k),
        Format::Q3_K => blocks(values, out, super_blocks::q3_k),
        Format::Q4_K => blocks(values, out, super_blocks::q4_k),
        Format::Q5_K => blocks(values, out, super_blocks::q5_k),
        Format::Q6_K => blocks(values, out, super_blocks::q6_k),
        Format::IQ4_NL => blocks(values, out, iq4_nl),
        _ => unreachable!("{} is not written", format.name()),
    }
}

fn f16(values: &[f32], out: &mut [u8]) -> Option<()> {
    let (out, rest) = out.as_chunks_mut();
    assert!(rest.is_empty() && values.len() == out.len());
    for (out, value) in out.iter_mut().zip(values) {
        *out = f16_bytes(*value)?;
    }
    Some(())
}

fn blocks<const LEN: usize, const N: usize>(
    values: &[f32],
    out: &mut [u8],
    block: impl Fn(&[f32; LEN]) -> Option<[u8; N]>,
) -> Option<()> {
    let (values, left) = values.as_chunks();
    let (out, rest) = out.as_chunks_mut();
    assert!(left.is_empty() && rest.is_empty() && values.len() == out.len());
    for (out, values) in out.iter_mut().zip(values) {
        *out = block(values)?;
    }
    Some(())
}

/// Element `i` is `d · (q[i] - 8)`; the value of largest magnitude becomes -8, so d has the other
/// sign.
fn q4_0(x: &[f32; BLOCK]) -> Option<[u8; 18]> {
    let d = extreme(x) / -8.0;
    let id = reciprocal(d);
    let mut out = [0; 18];
    out[..2].copy_from_slice(&f16_bytes(d)?);
    for (i, byte) in out[2..].iter_mut().enumerate() {
        let q = |x: f32| integer(x * id + 8.5).min(15);
        *byte = q(x[i]) | q(x[i + 16]) << 4;
    }
    Some(out)
}

/// Element `i` is `d · q[i] + m`; the smallest value becomes 0, the largest 15.
fn q4_1(x: &[f32; BLOCK]) -> Option<[u8; 20]> {
    let (d, min) = step_and_min(x, 15.0);
    let id = reciprocal(d);
    let mut out = [0; 20];
    out[..2].copy_from_slice(&f16_bytes(d)?);
    out[2..4].copy_from_slice(&f16_bytes(min)?);
    for (i, byte) in out[4..].iter_mut().enumerate() {
        let q = |x: f32| integer((x - min) * id + 0.5).min(15);
        *byte = q(x[i]) | q(x[i + 16]) << 4;
    }
    Some(out)
}

/// Element `i` is `d · (q[i] - 16)`; the value of largest magnitude becomes -16, so d has the other
/// sign.
fn q5_0(x: &[f32; BLOCK]) -> Option<[u8; 22]> {
    let d = extreme(x) / -16.0;
    let id = reciprocal(d);
    let mut out = [0; 22];
    out[..2].copy_from_slice(&f16_bytes(d)?);
    let q = |x: f32| integer(x * id + 16.5).min(31);
    pack_five(&mut out[2..], x.map(q));
    Some(out)
}

/// Element `i` is `d · q[i] + m`; the smallest value becomes 0, the largest 31.
fn q5_1(x: &[f32; BLOCK]) -> Option<[u8; 24]> {
    let (d, min) = step_and_min(x, 31.0);
    let id = reciprocal(d);
    let mut out = [0; 24];
    out[..2].copy_from_slice(&f16_bytes(d)?);
    out[2..4].copy_from_slice(&f16_bytes(min)?);
    let q = |x: f32| integer((x - min) * id + 0.5).min(31);
    pack_five(&mut out[4..], x.map(q));
    Some(out)
}

/// Packs the fifth bits of all elements, then the other four.
fn pack_five(out: &mut [u8], q: [u8; BLOCK]) {
    let mut fifth = 0u32;
    for i in 0..16 {
        let (low, high) = (q[i], q[i + 16]);
        fifth |= u32::from(low >> 4) << i | u32::from(high >> 4) << (i + 16);
        out[4 + i] = low & 15 | high << 4;
    }
    out[..4].copy_from_slice(&fifth.to_le_bytes());
}

/// Element `i` is `d · q[i]`; the largest magnitude becomes 127.
fn q8_0(x: &[f32; BLOCK]) -> Option<[u8; 34]> {
    let d = x.iter().fold(0.0, |most: f32, x| most.max(x.abs())) / 127.0;
    let id = reciprocal(d);
    let mut out = [0; 34];
    out[..2].copy_from_slice(&f16_bytes(d)?);
    for (byte, x) in out[2..].iter_mut().zip(x) {
        // Halves are rounded away from zero.
        *byte = integer((x * id).round());
    }
    Some(out)
}

/// The span of the values divided by `steps`, and the smallest value.
fn step_and_min(x: &[f32; BLOCK], steps: f32) -> (f32, f32) {
    let min = x
        .iter()
        .fold(f32::MAX, |min, &x| if x < min { x } else { min });
    let max = x
        .iter()
        .fold(f32::MIN, |max, &x| if x > max { x } else { max });
    ((max - min) / steps, min)
}

/// The value of largest magnitude, with its sign; the first of several.
fn extreme(x: &[f32; BLOCK]) -> f32 {
    let larger = |most: f32, &x: &f32| if most.abs() < x.abs() { x } else { most };
    x.iter().fold(0.0, larger)
}

fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Rounds `x` towards zero and returns it as a byte: a finite `x` fits an i8.
fn integer(x: f32) -> u8 {
    if x.is_finite() { x as i8 as u8 } else { 0 }
}

/// The nearest f16, ties to even; `None` if that is infinite.
fn f16_bytes(x: f32) -> Option<[u8; 2]> {
    let nearest = half::f16::from_f32(x);
    nearest.is_finite().then(|| nearest.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use brooklet_core::tensor::Matrix;
    use proptest::prelude::*;

    use super::*;

    /// The columns of the golden file after the values.
    const FORMATS: [Format; 6] = [
        Format::F16,
        Format::Q8_0,
        Format::Q5_1,
        Format::Q5_0,
        Format::Q4_1,
        Format::Q4_0,
    ];

    fn quantized(format: Format, values: &[f32]) -> Option<Vec<u8>> {
        let mut out = vec![0xaa; format.row_bytes(values.len()).unwrap()];
        quantize(format, values, &mut out).map(|()| out)
    }

    #[test]
    fn blocks_are_those_of_llama_cpp() {
        let golden = include_str!("../../../tests/golden/quantize.txt");
        let lines: Vec<&str> = golden
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect();
        assert!(lines.len() > 50);
        for (number, line) in lines.iter().enumerate() {
            let mut columns = line.split(' ').map(bytes_of_hex);
            let values: Vec<f32> = columns
                .next()
                .unwrap()
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect();
            assert_eq!(values.len(), BLOCK);
            for (format, expected) in FORMATS.into_iter().zip(&mut columns) {
                assert_eq!(
                    quantized(format, &values),
                    Some(expected),
                    "block {number}, {}",
                    format.name()
                );
            }
            assert_eq!(columns.next(), None);
        }
    }

    fn bytes_of_hex(text: &str) -> Vec<u8> {
        let byte = |i| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    }

    #[test]
    fn what_f16_cannot_hold_is_refused() {
        let mut values = [0.0; BLOCK];
        let largest = [
            (Format::F16, 65519.99),
            (Format::Q8_0, 65519.99 * 127.0),
            (Format::Q5_0, 65519.99 * 16.0),
            (Format::Q4_0, 65519.99 * 8.0),
            (Format::Q4_1, 65519.99 * 15.0),
        ];
        for (format, value) in largest {
            for (value, holds) in [(value, true), (value * 1.000_01, false), (f32::MAX, false)] {
                values[7] = value;
                assert_eq!(
                    quantized(format, &values).is_some(),
                    holds,
                    "{} {value}",
                    format.name()
                );
            }
        }
        // The minimum has its own f16; the distance of the two overflows f32.
        values = [-65530.0; BLOCK];
        assert_eq!(quantized(Format::Q4_1, &values), None);
        values[0] = f32::MAX;
        values[1] = f32::MIN;
        assert_eq!(quantized(Format::Q4_1, &values), None);
    }

    proptest! {
        /// Core reads back a value as near as the format's step allows, whatever the values.
        #[test]
        fn values_come_back_within_a_step(
            values in prop::collection::vec(-1.0f32..1.0, BLOCK * 2),
            exponent in -12i32..12,
        ) {
            let values: Vec<f32> = values.iter().map(|value| value * 2f32.powi(exponent)).collect();
            for (format, steps) in FORMATS.into_iter().zip([4096.0, 254.0, 62.0, 31.0, 30.0, 15.0]) {
                let bytes = quantized(format, &values).unwrap();
                let mut back = vec![0.0; values.len()];
                Matrix::new(format, 1, values.len(), &bytes).unwrap().dequantize_row(0, &mut back);
                for (values, back) in values.chunks(BLOCK).zip(back.chunks(BLOCK)) {
                    let most = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                    // Of the span of twice the magnitude, a step of which half is lost; in Q4_0 and
                    // Q5_0 the end without the extreme value loses a whole one. The stored scale is
                    // off by 2^-11 of itself, or by 2^-25, up to 127 times.
                    let bound = 2.0 * most / steps + most / 1024.0 + 2f32.powi(-18);
                    for (value, back) in values.iter().zip(back) {
                        prop_assert!((value - back).abs() <= bound, "{}: {} became {}", format.name(), value, back);
                    }
                }
            }
        }
    }
}

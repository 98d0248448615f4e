//! From 32 f32 to a block: one function a format.
//!
//! The rounding is ggml's for files (`quantize_row_*_ref` in `ggml-quants.c`, without an importance matrix), bit for bit: the scale
//! stays f32 while the integers are computed, they are products with its reciprocal, and only the stored scale is rounded to f16.
//!
//! A scale so small that its reciprocal overflows makes every integer 0: such a scale is stored as 0, so the integers mean nothing. (C
//! leaves that conversion undefined; x86-64 makes 0 of it.)

use brooklet_core::quant::{BLOCK, Format};

/// Quantises whole blocks of `values`, which are finite, to the bytes of `format`. `None` if a value or a scale is larger than f16's
/// largest number.
///
/// # Panics
/// If `out` is not exactly as long as the blocks, or `format` is none that is written here (F16, Q4_0, Q4_1, Q5_0, Q8_0).
pub(super) fn quantize(format: Format, values: &[f32], out: &mut [u8]) -> Option<()> {
    match format {
        Format::F16 => f16(values, out),
        Format::Q4_0 => blocks(values, out, q4_0),
        Format::Q4_1 => blocks(values, out, q4_1),
        Format::Q5_0 => blocks(values, out, q5_0),
        Format::Q8_0 => blocks(values, out, q8_0),
        Format::F32 | Format::BF16 | Format::Q5_1 | _ => unreachable!("{} is not written", format.name()),
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

fn blocks<const N: usize>(
    values: &[f32],
    out: &mut [u8],
    block: impl Fn(&[f32; BLOCK]) -> Option<[u8; N]>,
) -> Option<()> {
    let (values, left) = values.as_chunks();
    let (out, rest) = out.as_chunks_mut();
    assert!(left.is_empty() && rest.is_empty() && values.len() == out.len());
    for (out, values) in out.iter_mut().zip(values) {
        *out = block(values)?;
    }
    Some(())
}

/// Element `i` is `d · (q[i] - 8)`; the value of largest magnitude becomes -8, so d has the other sign.
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
    let min = x.iter().fold(f32::MAX, |min, &x| if x < min { x } else { min });
    let max = x.iter().fold(f32::MIN, |max, &x| if x > max { x } else { max });
    let d = (max - min) / 15.0;
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

/// Element `i` is `d · (q[i] - 16)`; the value of largest magnitude becomes -16, so d has the other sign.
fn q5_0(x: &[f32; BLOCK]) -> Option<[u8; 22]> {
    let d = extreme(x) / -16.0;
    let id = reciprocal(d);
    let mut out = [0; 22];
    out[..2].copy_from_slice(&f16_bytes(d)?);
    let mut fifth = 0u32;
    for i in 0..16 {
        let q = |x: f32| integer(x * id + 16.5).min(31);
        let (low, high) = (q(x[i]), q(x[i + 16]));
        fifth |= u32::from(low >> 4) << i | u32::from(high >> 4) << (i + 16);
        out[6 + i] = low & 15 | high << 4;
    }
    out[2..6].copy_from_slice(&fifth.to_le_bytes());
    Some(out)
}

/// Element `i` is `d · q[i]`; the largest magnitude becomes 127.
fn q8_0(x: &[f32; BLOCK]) -> Option<[u8; 34]> {
    let d = x.iter().fold(0.0, |most: f32, x| most.max(x.abs())) / 127.0;
    let id = reciprocal(d);
    let mut out = [0; 34];
    out[..2].copy_from_slice(&f16_bytes(d)?);
    for (byte, x) in out[2..].iter_mut().zip(x) {
        // Halves go away from zero.
        *byte = integer((x * id).round());
    }
    Some(out)
}

/// The value of largest magnitude, with its sign; the first of several.
fn extreme(x: &[f32; BLOCK]) -> f32 {
    let larger = |most: f32, &x: &f32| if most.abs() < x.abs() { x } else { most };
    x.iter().fold(0.0, larger)
}

fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The integer towards zero from `x`, as a byte: finite, it fits an i8.
fn integer(x: f32) -> u8 {
    if x.is_finite() { x as i8 as u8 } else { 0 }
}

/// The nearest f16, the even one of two; `None` if that is infinite.
fn f16_bytes(x: f32) -> Option<[u8; 2]> {
    let nearest = half::f16::from_f32(x);
    nearest.is_finite().then(|| nearest.to_le_bytes())
}

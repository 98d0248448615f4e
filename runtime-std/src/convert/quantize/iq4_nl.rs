//! IQ4_NL: element `i` is `d · VALUES[q[i]]`.
//!
//! As in `search.rs`: from several starts the elements are rounded to the table's values and the
//! scale that fits those best is computed; the best is fitted again, and of the f16 around it the
//! one of least error is stored.

use std::sync::LazyLock;

use brooklet_core::quant::{BLOCK, IQ4_NL_VALUES};
use half::f16;

/// Distance of the extreme value from the ends of the table.
const STARTS: std::ops::RangeInclusive<i32> = -10..=10;

/// Times that the scale is fitted anew.
const FITS: usize = 2;

/// The index of the nearest value, by `2 (x + 128)` cut to an integer: halves lie between the
/// values.
static NEAREST: LazyLock<[u8; 512]> = LazyLock::new(|| {
    std::array::from_fn(|i| {
        let x = (i as f32 + 0.5) / 2.0 - 128.0;
        let above = |q: &usize| {
            x > f32::from(i16::from(IQ4_NL_VALUES[*q]) + i16::from(IQ4_NL_VALUES[q + 1])) / 2.0
        };
        (0..15).filter(above).count() as u8
    })
});

pub(super) fn iq4_nl(x: &[f32; BLOCK]) -> Option<[u8; 18]> {
    let larger = |most: f32, &x: &f32| if most.abs() < x.abs() { x } else { most };
    let extreme = x.iter().fold(0.0, larger);
    if extreme.abs() > 2.0 * f16::MAX.to_f32() * 128.0 {
        return None;
    }
    let nearest = &*NEAREST;
    let scale = best_scale(x, extreme, nearest);
    let d = best_f16(x, scale, nearest)?;
    let mut out = [0; 18];
    out[..2].copy_from_slice(&d.to_le_bytes());
    let inverse = inverse(d.to_f32());
    for (i, byte) in out[2..].iter_mut().enumerate() {
        *byte = index(x[i] * inverse, nearest) | index(x[i + 16] * inverse, nearest) << 4;
    }
    Some(out)
}

/// The scale that fits best from any start.
fn best_scale(x: &[f32; BLOCK], extreme: f32, nearest: &[u8; 512]) -> f32 {
    // Below this limit every element is 0.
    if extreme.abs() < 1.0 / (1 << 25) as f32 {
        return 0.0;
    }
    // The scale, and by how much it lowers the sum of squares.
    let mut best = (0.0, 0.0);
    let mut take = |inverse: f32| {
        let (qx, qq) = sums(x, inverse, nearest);
        if qx * qx > best.1 * qq {
            best = (qx / qq, qx * qx / qq);
        }
        best.0
    };
    let mut scale = 0.0;
    for end in [IQ4_NL_VALUES[0], IQ4_NL_VALUES[15]] {
        for beyond in STARTS {
            scale = take((f32::from(end) + beyond as f32) / extreme);
        }
    }
    for _ in 0..FITS {
        scale = take(inverse(scale));
    }
    scale
}

/// Of the nearest f16 and its neighbours the one that leaves the least error. `None` if the nearest
/// is infinite.
fn best_f16(x: &[f32; BLOCK], scale: f32, nearest: &[u8; 512]) -> Option<f16> {
    let middle = f16::from_f32(scale);
    if !middle.is_finite() {
        return None;
    }
    let bits = middle.to_bits();
    let mut best = (f32::INFINITY, middle);
    for d in [bits, bits.wrapping_sub(1), bits + 1].map(f16::from_bits) {
        let error = error(x, d.to_f32(), nearest);
        if d.is_finite() && error < best.0 {
            best = (error, d);
        }
    }
    Some(best.1)
}

/// Sums of value times element, and of squared values.
fn sums(x: &[f32; BLOCK], inverse: f32, nearest: &[u8; 512]) -> (f32, f32) {
    x.iter().fold((0.0, 0.0), |(qx, qq), x| {
        let value = value(x * inverse, nearest);
        (qx + value * x, qq + value * value)
    })
}

fn error(x: &[f32; BLOCK], d: f32, nearest: &[u8; 512]) -> f32 {
    let inverse = inverse(d);
    let square = |x: &f32| (d * value(x * inverse, nearest) - x).powi(2);
    x.iter().map(square).sum()
}

fn value(x: f32, nearest: &[u8; 512]) -> f32 {
    f32::from(IQ4_NL_VALUES[usize::from(index(x, nearest) & 15)])
}

fn index(x: f32, nearest: &[u8; 512]) -> u8 {
    // Out of range and in between, conversion saturates.
    nearest[(((x + 128.0) * 2.0) as u32).min(511) as usize]
}

fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

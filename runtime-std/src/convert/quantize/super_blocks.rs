//! The super-blocks' bytes: one function a format. Layouts as in `brooklet_core::quant`.

use brooklet_core::quant::SUPER_BLOCK;
use half::f16;

use super::search::{Found, Grid, search};

pub(super) const Q2_K: Grid = Grid {
    quants: (0.0, 3.0),
    scales: (0.0, 15.0),
    min: 15.0,
    starts: &[0.0, -0.9, -0.6, -0.3, 0.3],
};

pub(super) const Q3_K: Grid = Grid {
    quants: (-4.0, 3.0),
    scales: (-32.0, 31.0),
    min: 0.0,
    starts: &[0.0, -0.9, -0.6, -0.3, 0.3, 0.6, 0.9],
};

pub(super) const Q4_K: Grid = Grid {
    quants: (0.0, 15.0),
    scales: (0.0, 63.0),
    min: 63.0,
    starts: &[0.0, -1.0, -0.5, 0.3],
};

pub(super) const Q5_K: Grid = Grid {
    quants: (0.0, 31.0),
    scales: (0.0, 63.0),
    min: 63.0,
    starts: &[0.0, -0.8, -0.4, 0.3],
};

pub(super) const Q6_K: Grid = Grid {
    quants: (-32.0, 31.0),
    scales: (-128.0, 127.0),
    min: 0.0,
    starts: &[0.0, -0.8, -0.4, 0.4, 0.8],
};

pub(super) fn q2_k(x: &[f32; SUPER_BLOCK]) -> Option<[u8; 84]> {
    let found: Found<16> = search::<16, 16>(x, &Q2_K)?;
    let q = quants::<16, 16>(x, &found, &Q2_K);
    let mut out = [0; 84];
    for (out, (scale, min)) in out.iter_mut().zip(found.scales.iter().zip(found.mins)) {
        *out = *scale as u8 | (min as u8) << 4;
    }
    for (i, q) in q.into_iter().enumerate() {
        out[16 + i / 128 * 32 + i % 32] |= (q as u8) << (i / 32 % 4 * 2);
    }
    out[80..82].copy_from_slice(&f16_bytes(found.d));
    out[82..].copy_from_slice(&f16_bytes(found.dmin));
    Some(out)
}

pub(super) fn q3_k(x: &[f32; SUPER_BLOCK]) -> Option<[u8; 110]> {
    let found: Found<16> = search::<16, 16>(x, &Q3_K)?;
    let q = quants::<16, 16>(x, &found, &Q3_K);
    let mut out = [0; 110];
    for (i, q) in q.into_iter().enumerate() {
        let q = (q + 4.0) as u8;
        out[i % 32] |= (q >> 2) << (i / 32);
        out[32 + i / 128 * 32 + i % 32] |= (q & 3) << (i / 32 % 4 * 2);
    }
    for (i, scale) in found.scales.into_iter().enumerate() {
        let scale = (scale + 32.0) as u8;
        out[96 + i % 8] |= (scale & 15) << (i / 8 * 4);
        out[104 + i % 4] |= (scale >> 4) << (i / 4 * 2);
    }
    out[108..].copy_from_slice(&f16_bytes(found.d));
    Some(out)
}

pub(super) fn q4_k(x: &[f32; SUPER_BLOCK]) -> Option<[u8; 144]> {
    let found: Found<8> = search::<32, 8>(x, &Q4_K)?;
    let q = quants::<32, 8>(x, &found, &Q4_K);
    let mut out = [0; 144];
    out[..16].copy_from_slice(&scales_and_mins(&found));
    for (i, q) in q.into_iter().enumerate() {
        out[16 + i / 64 * 32 + i % 32] |= (q as u8) << (i / 32 % 2 * 4);
    }
    Some(out)
}

pub(super) fn q5_k(x: &[f32; SUPER_BLOCK]) -> Option<[u8; 176]> {
    let found: Found<8> = search::<32, 8>(x, &Q5_K)?;
    let q = quants::<32, 8>(x, &found, &Q5_K);
    let mut out = [0; 176];
    out[..16].copy_from_slice(&scales_and_mins(&found));
    for (i, q) in q.into_iter().enumerate() {
        let q = q as u8;
        out[16 + i % 32] |= (q >> 4) << (i / 32);
        out[48 + i / 64 * 32 + i % 32] |= (q & 15) << (i / 32 % 2 * 4);
    }
    Some(out)
}

pub(super) fn q6_k(x: &[f32; SUPER_BLOCK]) -> Option<[u8; 210]> {
    let found: Found<16> = search::<16, 16>(x, &Q6_K)?;
    let q = quants::<16, 16>(x, &found, &Q6_K);
    let mut out = [0; 210];
    for (i, q) in q.into_iter().enumerate() {
        let q = (q + 32.0) as u8;
        out[i / 128 * 64 + i % 64] |= (q & 15) << (i / 64 % 2 * 4);
        out[128 + i / 128 * 32 + i % 32] |= (q >> 4) << (i / 32 % 4 * 2);
    }
    for (out, scale) in out[192..208].iter_mut().zip(found.scales) {
        *out = (scale as i8).cast_unsigned();
    }
    out[208..].copy_from_slice(&f16_bytes(found.d));
    Some(out)
}

/// The elements' integers, in their order.
fn quants<const N: usize, const PARTS: usize>(
    x: &[f32; SUPER_BLOCK],
    found: &Found<PARTS>,
    grid: &Grid,
) -> [f32; SUPER_BLOCK] {
    let mut quants = [0.0; SUPER_BLOCK];
    let parts = quants
        .as_chunks_mut::<N>()
        .0
        .iter_mut()
        .zip(x.as_chunks().0);
    for (p, (quants, x)) in parts.enumerate() {
        *quants = found.quants(p, x, grid);
    }
    quants
}

/// The head of Q4_K and Q5_K: two f16, then the 6-bit scales and minima.
fn scales_and_mins(found: &Found<8>) -> [u8; 16] {
    let mut out = [0; 16];
    out[..2].copy_from_slice(&f16_bytes(found.d));
    out[2..4].copy_from_slice(&f16_bytes(found.dmin));
    for i in 0..4 {
        let [scale, min] = [found.scales[i] as u8, found.mins[i] as u8];
        let [scale_after, min_after] = [found.scales[i + 4] as u8, found.mins[i + 4] as u8];
        out[4 + i] = scale | scale_after >> 4 << 6;
        out[8 + i] = min | min_after >> 4 << 6;
        out[12 + i] = scale_after & 15 | min_after << 4;
    }
    out
}

/// Bytes of `d`, which was widened from an f16.
fn f16_bytes(d: f32) -> [u8; 2] {
    f16::from_f32(d).to_le_bytes()
}

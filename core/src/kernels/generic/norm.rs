//! Norms of a row.

use super::{Lanes, Op, fold, load_padded};
use crate::features::FAMILIES;
use crate::quant::F32;

/// Parameters of a norm: `(x - mean) / sqrt(mean((x - mean)²) + eps) · weight + bias`.
#[derive(Clone, Copy)]
pub struct Scaling<'w> {
    /// True if the mean is subtracted (LayerNorm, Ba et al., arXiv 1607.06450, equation 4); if not,
    /// it counts as 0 (RMSNorm, Zhang and Sennrich, arXiv 1910.07467, equation 4).
    pub centred: bool,
    /// Weight, as wide as the row.
    pub weight: &'w [F32],
    /// Bias, as wide as the row, or empty.
    pub bias: &'w [F32],
    /// Number added to the mean square.
    pub eps: f32,
}

impl Scaling<'_> {
    /// Returns the row's mean (or 0) and the factor of the centred row.
    #[inline(always)]
    fn of<L: Lanes>(&self, l: L, x: &[f32]) -> (f32, f32) {
        let mean = if FAMILIES && self.centred {
            let mut sums = l.splat(0.0);
            let mut at = 0;
            while at < x.len() {
                sums = l.add(sums, load_padded(l, x, at));
                at += 16;
            }
            fold(l, sums) / x.len() as f32
        } else {
            0.0
        };
        let mut squares = l.splat(0.0);
        let (chunks, rest) = x.as_chunks::<16>();
        for chunk in chunks {
            let mut v = l.load(chunk);
            if FAMILIES && self.centred {
                v = l.sub(v, l.splat(mean));
            }
            squares = l.add(squares, l.mul(v, v));
        }
        if !rest.is_empty() {
            let mut padded = [mean; 16];
            padded[..rest.len()].copy_from_slice(rest);
            let mut v = l.load(&padded);
            if FAMILIES && self.centred {
                v = l.sub(v, l.splat(mean));
            }
            squares = l.add(squares, l.mul(v, v));
        }
        let mean_square = fold(l, squares) / x.len() as f32;
        (mean, 1.0 / crate::nn::math::sqrt(mean_square + self.eps))
    }

    /// Element `i` of the normed row, without its bias.
    #[inline(always)]
    fn scaled(&self, x: f32, i: usize, (mean, scale): (f32, f32)) -> f32 {
        ((x - mean) * scale) * self.weight[i].to_f32()
    }
}

/// Norms the row `x` into `out`, both as wide as the scaling's weight.
pub struct Norm<'a> {
    /// The row.
    pub x: &'a [f32],
    /// Parameters of the norm.
    pub scaling: Scaling<'a>,
    /// The normed row.
    pub out: &'a mut [f32],
}

impl Op for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<L: Lanes>(self, l: L) {
        let Norm { x, scaling, out } = self;
        assert!(x.len() == scaling.weight.len() && x.len() == out.len());
        let of_row = scaling.of(l, x);
        for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
            *out = scaling.scaled(*x, i, of_row);
        }
        add_bias(out, scaling.bias);
    }
}

/// Norms the row `x`, as wide as the scaling's weight.
pub(crate) struct NormInPlace<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) scaling: Scaling<'a>,
}

impl Op for NormInPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<L: Lanes>(self, l: L) {
        let NormInPlace { x, scaling } = self;
        assert!(x.len() == scaling.weight.len());
        let of_row = scaling.of(l, x);
        for (i, x) in x.iter_mut().enumerate() {
            *x = scaling.scaled(*x, i, of_row);
        }
        add_bias(x, scaling.bias);
    }
}

/// Writes the normed row `x` to `y`, and adds the former values of `y` to `x`. Both are as wide as
/// the scaling's weight.
pub(crate) struct NormThenAdd<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) scaling: Scaling<'a>,
    pub(crate) y: &'a mut [f32],
}

impl Op for NormThenAdd<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<L: Lanes>(self, l: L) {
        let NormThenAdd { x, scaling, y } = self;
        assert!(x.len() == scaling.weight.len() && x.len() == y.len());
        let of_row = scaling.of(l, x);
        for (i, (x, y)) in x.iter_mut().zip(&mut *y).enumerate() {
            let normed = scaling.scaled(*x, i, of_row);
            *x += *y;
            *y = normed;
        }
        add_bias(y, scaling.bias);
    }
}

#[inline(always)]
fn add_bias(x: &mut [f32], bias: &[F32]) {
    for (x, bias) in x.iter_mut().zip(bias) {
        *x += bias.to_f32();
    }
}

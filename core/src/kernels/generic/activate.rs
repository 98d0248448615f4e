//! Activation functions.

use super::exp::exp;
use super::{Lanes, Op, load_padded};
use crate::features::FAMILIES;

/// Activation function of a feed-forward layer, applied to each value between its matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^-x)` (Elfwing et al., arXiv 1702.03118, equation 2).
    Silu,
    /// `x·Φ(x)`, with the normal distribution computed by the error function (Hendrycks and Gimpel,
    /// arXiv 1606.08415, section 2).
    Gelu,
    /// The tanh form of GELU, from the same section: `x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`.
    GeluTanh,
    /// `tanh(x)`.
    Tanh,
}

impl Activation {
    /// Argument of the exponential.
    #[inline(always)]
    fn exponent<L: Lanes>(self, l: L, x: L::V) -> L::V {
        let zero = l.splat(0.0);
        match self {
            Activation::GeluTanh if FAMILIES => {
                // (1 + tanh(z))/2 is 1/(1 + e^-2z).
                let cubic = l.mul(l.mul(x, x), l.mul(x, l.splat(0.044_715)));
                l.sub(zero, l.mul(l.add(x, cubic), l.splat(1.595_769)))
            }
            Activation::Gelu if FAMILIES => {
                let z = l.mul(x, l.splat(core::f32::consts::FRAC_1_SQRT_2));
                l.sub(zero, l.mul(z, z))
            }
            Activation::Tanh if FAMILIES => l.add(x, x),
            _ => l.sub(zero, x),
        }
    }

    /// The function's value, from `x` and the exponential `power` of [`Self::exponent`].
    #[inline(always)]
    fn value<L: Lanes>(self, l: L, x: L::V, power: L::V) -> L::V {
        match self {
            Activation::Gelu if FAMILIES => gelu(l, x, power),
            Activation::Tanh if FAMILIES => {
                // tanh(x) is 1 - 2/(e^2x + 1).
                let part = l.div(l.splat(2.0), l.add(power, l.splat(1.0)));
                l.sub(l.splat(1.0), part)
            }
            _ => l.div(x, l.add(l.splat(1.0), power)),
        }
    }
}

/// `x·Φ(x)` by Abramowitz and Stegun's formula 7.1.26 for the error function of `z = |x|/√2`,
/// `1 - t·P(t)·e^(-z²)` with `t = 1/(1 + p·z)`, with an error of at most 1.5e-7. `power` is
/// `e^(-z²)`.
#[inline(always)]
fn gelu<L: Lanes>(l: L, x: L::V, power: L::V) -> L::V {
    let zero = l.splat(0.0);
    let magnitude = l.max(x, l.sub(zero, x));
    let z = l.mul(magnitude, l.splat(core::f32::consts::FRAC_1_SQRT_2));
    let t = l.div(
        l.splat(1.0),
        l.add(l.splat(1.0), l.mul(l.splat(0.327_591_1), z)),
    );
    let mut p = l.splat(1.061_405_4);
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = l.add(l.mul(p, t), l.splat(coefficient));
    }
    let tail = l.mul(l.mul(p, t), power);
    // x·Φ(x) is max(x, 0) - |x|/2·(1 - erf(|x|/√2)).
    l.sub(l.max(x, zero), l.mul(l.mul(magnitude, l.splat(0.5)), tail))
}

/// Computes `x = f(x)`, times `up` unless that is empty. With [`Activation::Silu`] this is SwiGLU
/// (Shazeer, arXiv 2002.05202, equation 6). `up` is empty or as long as `x`.
pub struct Activate<'a> {
    /// The function.
    pub function: Activation,
    /// The values.
    pub x: &'a mut [f32],
    /// The factors of the gated values, or nothing.
    pub up: &'a [f32],
}

impl Op for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<L: Lanes>(self, l: L) {
        let Activate { function, x, up } = self;
        assert!(up.is_empty() || x.len() == up.len());
        let mut at = 0;
        // One instance of the exponential serves whole vectors and the last one: it is most of the
        // code.
        while at < x.len() {
            let v = load_padded(l, x, at);
            let mut value = function.value(l, v, exp(l, function.exponent(l, v)));
            if !up.is_empty() {
                value = l.mul(value, load_padded(l, up, at));
            }
            match x[at..].first_chunk_mut::<16>() {
                Some(chunk) => l.store(value, chunk),
                None => l.store_part(value, &mut x[at..]),
            }
            at += 16;
        }
    }
}

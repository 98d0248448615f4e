//! The exponential.

use super::Lanes;
use crate::nn::math::ROUNDING;

/// Error budget of the exponential, relative, for arguments from -87 to 87.
#[cfg(test)]
const EXP_BUDGET: f64 = 1.2e-7;

/// e to the `x`, lane by lane; arguments are clamped to ±87 (results to about 1.6e-38 and 6e37),
/// and NaN gives NaN.
///
/// Method: `x = n·ln 2 + r` with `n` the nearest integer (found by the addition of [`ROUNDING`])
/// and `ln 2` split in two so that `r` is exact to the last bit; `e^r` by its Taylor polynomial of
/// degree 7 in Horner's form (|r| <= 0.347, so the first term left out is under 6e-9); then `2^n`
/// in integers.
#[inline(always)]
pub(super) fn exp<L: Lanes>(l: L, x: L::V) -> L::V {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = l.clamp(x, -87.0, 87.0);
    let shifted = l.add(
        l.mul(x, l.splat(core::f32::consts::LOG2_E)),
        l.splat(ROUNDING),
    );
    let n = l.sub(shifted, l.splat(ROUNDING));
    let r = l.sub(
        l.sub(x, l.mul(n, l.splat(LN2_HIGH))),
        l.mul(n, l.splat(LN2_LOW)),
    );
    let mut p = l.splat(1.0 / 5040.0);
    for coefficient in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = l.add(l.mul(p, r), l.splat(coefficient));
    }
    l.mul(p, l.exp2_int(n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::isa::Scalar;

    #[test]
    fn exp_keeps_its_budget() {
        let mut worst = 0.0f64;
        for i in -87_000..=87_000 {
            let x = i as f32 / 1000.0;
            let got = f64::from(exp(Scalar, [x; 16])[0]);
            let want = f64::from(x).exp();
            worst = worst.max(((got - want) / want).abs());
        }
        assert!(worst <= EXP_BUDGET, "{worst}");
        assert!(exp(Scalar, [-1e30; 16])[0] < 2e-38);
        assert!(exp(Scalar, [f32::NAN; 16]).iter().all(|x| x.is_nan()));
    }
}

//! Every transcendental function that is not a vector kernel, routed to one library: `libm` by
//! default, `micromath` by feature.
//!
//! With both features on `libm` wins. Each function has an error budget; one test on a host checks
//! it for both libraries. The exponential of softmax and SiLU, which runs in inner loops, is a
//! polynomial in [`crate::kernels`] that gives the same bits everywhere.

/// Named error budgets of this module, for whichever library is in use.
pub mod budget {
    /// [`super::sqrt`], relative: correctly rounded with libm.
    pub const SQRT_LIBM: f32 = 6.0e-8;
    /// [`super::sqrt`] with micromath after three Newton steps, relative (micromath's own root is
    /// up to 6 % off).
    pub const SQRT_MICROMATH: f32 = 2.4e-7;
    /// [`super::sin_cos_turns`] with libm, absolute.
    pub const SIN_COS_LIBM: f32 = 2.4e-7;
    /// [`super::sin_cos_turns`] with micromath, absolute: a small phase error of RoPE, good enough
    /// for a toy model.
    pub const SIN_COS_MICROMATH: f32 = 2.5e-3;
    /// [`super::exp`] with libm, relative.
    pub const EXP_LIBM: f32 = 1.2e-7;
    /// [`super::exp`] with micromath, relative.
    pub const EXP_MICROMATH: f32 = 2.0e-2;
    /// [`super::log10`] with libm, absolute, of numbers from 1e-12 to 1e12.
    pub const LOG10_LIBM: f32 = 1.2e-6;
    /// [`super::log10`] with micromath, absolute, likewise.
    pub const LOG10_MICROMATH: f32 = 6.0e-5;
}

/// 1.5 · 2^23. The sum of it and a number within ±2^22 has no bits for a fraction: the number is
/// rounded to the nearest integer, ties to even, and that integer stands in the low bits of the
/// sum.
pub(crate) const ROUNDING: f32 = 12_582_912.0;

/// Nearest integer, ties to even, of a number within ±2^22.
#[inline(always)]
pub(crate) fn round_small(x: f32) -> f32 {
    (x + ROUNDING) - ROUNDING
}

#[cfg(feature = "libm")]
use with_libm as library;
#[cfg(all(feature = "micromath", not(feature = "libm")))]
use with_micromath as library;
#[cfg(not(any(feature = "libm", feature = "micromath")))]
compile_error!("brooklet-core needs the feature `libm` (default) or `micromath`");

#[cfg(feature = "libm")]
mod with_libm {
    pub(super) fn sqrt(x: f32) -> f32 {
        libm::sqrtf(x)
    }

    pub(super) fn exp(x: f32) -> f32 {
        libm::expf(x)
    }

    pub(super) fn log10(x: f32) -> f32 {
        libm::log10f(x)
    }

    pub(super) fn sin_cos(x: f32) -> (f32, f32) {
        (libm::sinf(x), libm::cosf(x))
    }
}

// If both features are on, only the tests use this module.
#[cfg(all(feature = "micromath", any(test, not(feature = "libm"))))]
mod with_micromath {
    use micromath::F32Ext;

    pub(super) fn sqrt(x: f32) -> f32 {
        if x <= 0.0 {
            return if x == 0.0 { x } else { f32::NAN };
        }
        let mut y = F32Ext::sqrt(x);
        for _ in 0..3 {
            y = 0.5 * (y + x / y);
        }
        y
    }

    pub(super) fn exp(x: f32) -> f32 {
        F32Ext::exp(x)
    }

    pub(super) fn log10(x: f32) -> f32 {
        if x < 1.0 {
            // micromath would take its own inverse, which costs 5 % of a decade.
            -F32Ext::log10(1.0 / x)
        } else if x.is_finite() {
            F32Ext::log10(x)
        } else {
            // It would read the bits as those of a finite number.
            x
        }
    }

    pub(super) fn sin_cos(x: f32) -> (f32, f32) {
        (F32Ext::sin(x), F32Ext::cos(x))
    }
}

/// Returns true if none of the numbers is NaN or infinite.
// Not inlined, which would cost a board's image more than the calls cost time.
#[inline(never)]
pub(crate) fn all_finite(x: &[f32]) -> bool {
    // The exponent of NaN and of infinity is all ones. Without a branch the loop has vectors.
    const EXPONENT: u32 = f32::INFINITY.to_bits();
    !x.iter()
        .fold(false, |odd, x| odd | (x.to_bits() & EXPONENT == EXPONENT))
}

/// Square root.
pub fn sqrt(x: f32) -> f32 {
    library::sqrt(x)
}

/// e to the `x`.
pub fn exp(x: f32) -> f32 {
    library::exp(x)
}

/// Decimal logarithm of a normal positive number; infinity and NaN stay what they are.
pub fn log10(x: f32) -> f32 {
    library::log10(x)
}

/// Sine and cosine of an angle given as a fraction of a turn: `phase / 2^64` turns.
///
/// The quadrant is subtracted in integers, so that the remaining angle (within an eighth of a turn)
/// has full precision at any position.
pub fn sin_cos_turns(phase: u64) -> (f32, f32) {
    sin_cos_turns_with(phase, library::sin_cos)
}

fn sin_cos_turns_with(phase: u64, sin_cos: fn(f32) -> (f32, f32)) -> (f32, f32) {
    const TURNS_TO_RADIANS: f32 = core::f32::consts::TAU / 4_294_967_296.0;
    let quadrant = phase.wrapping_add(1 << 61) >> 62;
    let rest = phase.wrapping_sub(quadrant << 62) as i64 >> 32;
    let (sin, cos) = sin_cos(rest as i32 as f32 * TURNS_TO_RADIANS);
    match quadrant {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// Sine and cosine of `numerator / denominator` turns, both nearly correctly rounded, for tables.
///
/// The nearest quarter of a turn is subtracted in integers. What remains, at most an eighth of a
/// turn, goes into the Taylor series in f64 (up to the power 15, the next term is below 1e-16). It
/// uses only sums, products and quotients, which give the same bits on every target and with every
/// library, and can run in `const`.
///
/// # Panics
/// If `denominator` is 0.
pub const fn sin_cos_fraction(numerator: u32, denominator: u32) -> (f32, f32) {
    let (n, d) = (4 * numerator as i64, denominator as i64);
    let quarters = (2 * n + d) / (2 * d);
    let x = (n - quarters * d) as f64 / d as f64 * core::f64::consts::FRAC_PI_2;
    let (mut sin, mut cos) = (1.0f64, 1.0f64);
    let mut power = 14;
    while power > 0 {
        cos = 1.0 - x * x / (power * (power - 1)) as f64 * cos;
        sin = 1.0 - x * x / (power * (power + 1)) as f64 * sin;
        power -= 2;
    }
    let (sin, cos) = ((x * sin) as f32, cos as f32);
    match quarters % 4 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// The `n`-th root of `1/a`, for `a >= 1`, by Newton's method on `x^n - 1/a` in f64.
///
/// Starting at 1, above the root of a convex function, the iteration falls monotonically, so it
/// ends when it stops falling. It uses only sums, products and quotients, which give the same bits
/// on every target and can run in `const`.
pub const fn inverse_root(a: f64, n: usize) -> f64 {
    let target = 1.0 / a;
    let mut x = 1.0f64;
    loop {
        let mut power = 1.0f64;
        let mut i = 1;
        while i < n {
            power *= x;
            i += 1;
        }
        let next = x - (power * x - target) / (n as f64 * power);
        // Written this way, NaN ends the loop, too.
        if next < x {
            x = next;
        } else {
            return x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Library = (
        fn(f32) -> f32,
        fn(f32) -> f32,
        fn(f32) -> f32,
        fn(f32) -> (f32, f32),
        [f32; 4],
    );

    fn libraries() -> std::vec::Vec<Library> {
        std::vec![
            #[cfg(feature = "libm")]
            (
                with_libm::sqrt as fn(f32) -> f32,
                with_libm::exp as fn(f32) -> f32,
                with_libm::log10 as fn(f32) -> f32,
                with_libm::sin_cos as fn(f32) -> (f32, f32),
                [
                    budget::SQRT_LIBM,
                    budget::EXP_LIBM,
                    budget::LOG10_LIBM,
                    budget::SIN_COS_LIBM
                ]
            ),
            #[cfg(feature = "micromath")]
            (
                with_micromath::sqrt as fn(f32) -> f32,
                with_micromath::exp as fn(f32) -> f32,
                with_micromath::log10 as fn(f32) -> f32,
                with_micromath::sin_cos as fn(f32) -> (f32, f32),
                [
                    budget::SQRT_MICROMATH,
                    budget::EXP_MICROMATH,
                    budget::LOG10_MICROMATH,
                    budget::SIN_COS_MICROMATH
                ]
            ),
        ]
    }

    #[test]
    fn every_library_keeps_its_budget() {
        for (sqrt, exp, log10, sin_cos, budgets) in libraries() {
            let [sqrt_budget, exp_budget, log10_budget, sin_cos_budget] = budgets;
            assert!(log10(f32::NAN).is_nan() && log10(f32::INFINITY) == f32::INFINITY);
            for i in 1..20_000u32 {
                let x = f32::from_bits(0x2000_0000 + i * 0x8000);
                let exact = f64::from(x).sqrt();
                assert!(
                    ((f64::from(sqrt(x)) - exact) / exact).abs() <= f64::from(sqrt_budget),
                    "sqrt {x}"
                );
                let x = i as f32 * -0.004;
                let exact = f64::from(x).exp();
                assert!(
                    ((f64::from(exp(x)) - exact) / exact).abs() <= f64::from(exp_budget),
                    "exp {x}"
                );
                let x = f32::from_bits(1e-12f32.to_bits() + i * 0x8000);
                let error = (f64::from(log10(x)) - f64::from(x).log10()).abs();
                assert!(error <= f64::from(log10_budget), "log10 {x}: {error}");
                let phase = u64::from(i).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let angle = phase as f64 / 2f64.powi(64) * std::f64::consts::TAU;
                let (sin, cos) = sin_cos_turns_with(phase, sin_cos);
                let error = (f64::from(sin) - angle.sin())
                    .abs()
                    .max((f64::from(cos) - angle.cos()).abs());
                assert!(error <= f64::from(sin_cos_budget), "angle {angle}: {error}");
            }
        }
    }

    #[test]
    fn fractions_of_a_turn_are_within_one_rounding() {
        for denominator in [1, 2, 3, 4, 5, 8, 200, 400, 65_535, u32::MAX] {
            let step = (denominator / 997).max(1) as usize;
            for numerator in (0..=denominator).step_by(step) {
                let (sin, cos) = sin_cos_fraction(numerator, denominator);
                let angle = f64::from(numerator) / f64::from(denominator) * std::f64::consts::TAU;
                let error = (f64::from(sin) - angle.sin())
                    .abs()
                    .max((f64::from(cos) - angle.cos()).abs());
                assert!(error <= 3.1e-8, "{numerator}/{denominator}: {error}");
            }
        }
        const RIGHT_ANGLE: (f32, f32) = sin_cos_fraction(100, 400);
        assert_eq!(RIGHT_ANGLE, (1.0, 0.0));
    }

    #[test]
    fn roots_are_roots() {
        for (a, n) in [
            (1e4, 32),
            (1e5, 32),
            (5e5, 64),
            (1e6, 128),
            (10.0, 1),
            (1.0, 7),
        ] {
            let x = inverse_root(a, n);
            let exact = (-f64::ln(a) / n as f64).exp();
            assert!((x / exact - 1.0).abs() < 1e-14, "{a} {n}: {x} {exact}");
        }
    }
}

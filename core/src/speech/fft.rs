//! The discrete Fourier transform of real samples, planned once: no allocation, and no
//! trigonometry after the plan.
//!
//! `n` samples (`n` even, a product of 2, 3 and 5) are taken as `n/2` complex numbers, whose
//! transform is then split into the `n/2 + 1` bins of the real one. The complex transform is
//! Stockham's: decimation in frequency, by radix 4 as often as it divides, then 2, 3 and 5; each
//! stage reads one buffer and writes the other, in an order that makes a reversal of digits
//! unnecessary (Van Loan, Computational Frameworks for the Fast Fourier Transform, 1992, sections
//! 1.7, 2.2 and 4.3). Frames of 400 samples take the radices 4, 2, 5, 5.
//!
//! Every sum has a fixed order, so a spectrum has the same bits on every target.

use core::array::from_fn;

use crate::nn::math::sin_cos_fraction;

/// Largest number of samples of a transform.
pub const MAX_LENGTH: usize = 1 << 16;

/// Returns true if a transform of `n` samples can be planned: `n` is even, at most [`MAX_LENGTH`],
/// and has no prime factor but 2, 3 and 5.
pub const fn is_supported(n: usize) -> bool {
    if n == 0 || !n.is_multiple_of(2) || n > MAX_LENGTH {
        return false;
    }
    let mut rest = n;
    while let Some(radix) = radix(rest) {
        rest /= radix;
    }
    rest == 1
}

/// Number of bins of the spectrum of `n` real samples: `n/2 + 1`, from frequency 0 to half the
/// sampling rate.
pub const fn bins(n: usize) -> usize {
    n / 2 + 1
}

/// Number of floats of the table of twiddle factors for `n` samples.
///
/// The stages of a complex transform of `n/2` numbers have `n/2 - 1` factors, the split into a real
/// spectrum has `n/4 + 1`; each is two floats.
pub const fn twiddles(n: usize) -> usize {
    2 * (n / 2 + n / 4)
}

/// Number of floats of scratch for `n` samples: two buffers of `n/2` complex numbers.
pub const fn scratch(n: usize) -> usize {
    2 * n
}

/// Radix of the next stage of a complex transform of `n` numbers; `None` at the end, or if none
/// divides it.
const fn radix(n: usize) -> Option<usize> {
    match n {
        0 => None,
        _ if n.is_multiple_of(4) => Some(4),
        _ if n.is_multiple_of(2) => Some(2),
        _ if n.is_multiple_of(3) => Some(3),
        _ if n.is_multiple_of(5) => Some(5),
        _ => None,
    }
}

/// A planned transform of a fixed number of real samples. Copies share the table, so that threads
/// may transform at once, each with its own scratch.
#[derive(Clone, Copy, Debug)]
pub struct RealFft<'a> {
    n: usize,
    /// For each stage of radix `r` over `n = r · m` numbers, and each `k` from 1 to `r - 1`: the
    /// real parts of `ω^(pk)` for `p` below `m`, then the imaginary parts (`ω` is the `n`-th root
    /// of unity `e^(-2πi/n)`).
    stages: &'a [f32],
    /// The real parts of `e^(-2πik/n)` for `k` from 0 to `n/4`, then the imaginary parts.
    split: &'a [f32],
}

impl<'a> RealFft<'a> {
    /// Plans a transform of `n` samples: fills `table`.
    ///
    /// # Panics
    /// If `n` is not supported ([`is_supported`]), or the table does not have [`twiddles`] floats.
    pub fn new(n: usize, table: &'a mut [f32]) -> RealFft<'a> {
        assert!(is_supported(n) && table.len() == twiddles(n));
        let (stages, split) = table.split_at_mut(n - 2);
        let (mut rest, mut remaining) = (&mut *stages, n / 2);
        while let Some(radix) = radix(remaining) {
            let m = remaining / radix;
            let (stage, next) = rest.split_at_mut(2 * (radix - 1) * m);
            for (k, factors) in stage.chunks_exact_mut(2 * m).enumerate() {
                fill_roots(factors, k + 1, remaining);
            }
            (rest, remaining) = (next, m);
        }
        fill_roots(split, 1, n);
        RealFft { n, stages, split }
    }

    /// Writes the spectrum of `samples`: bin `k` is the sum over `j` of
    /// `samples[j] · e^(-2πijk/n)`, its real part in `re[k]` and its imaginary part in `im[k]`.
    ///
    /// Samples that are no numbers give bins that are none.
    ///
    /// # Panics
    /// If there are not `n` samples, [`bins`] numbers in `re` and in `im`, and at least [`scratch`]
    /// floats of scratch.
    pub fn spectrum(&self, samples: &[f32], scratch: &mut [f32], re: &mut [f32], im: &mut [f32]) {
        let half = self.n / 2;
        assert!(samples.len() == self.n && scratch.len() >= self::scratch(self.n));
        assert!(re.len() == half + 1 && im.len() == half + 1);
        let (x_re, scratch) = scratch.split_at_mut(half);
        let (x_im, scratch) = scratch.split_at_mut(half);
        let (y_re, scratch) = scratch.split_at_mut(half);
        let (mut x, mut y) = ((x_re, x_im), (y_re, &mut scratch[..half]));
        let pairs = samples.as_chunks::<2>().0;
        for (([even, odd], re), im) in pairs.iter().zip(&mut *x.0).zip(&mut *x.1) {
            (*re, *im) = (*even, *odd);
        }

        let (mut factors, mut remaining) = (self.stages, half);
        while let Some(radix) = radix(remaining) {
            let (stage, next) = factors.split_at(2 * (radix - 1) * (remaining / radix));
            let (from, to) = ((&*x.0, &*x.1), (&mut *y.0, &mut *y.1));
            match radix {
                4 => run_stage(remaining, stage, from, to, butterfly_4),
                2 => run_stage(remaining, stage, from, to, butterfly_2),
                3 => run_stage(remaining, stage, from, to, butterfly_3),
                _ => run_stage(remaining, stage, from, to, butterfly_5),
            }
            core::mem::swap(&mut x, &mut y);
            (factors, remaining) = (next, remaining / radix);
        }
        self.split(x.0, x.1, re, im);
    }

    /// Writes the spectrum of the real samples from that of the complex numbers
    /// `samples[2j] + i · samples[2j + 1]`.
    ///
    /// With `Z` for the latter, `E(k) = (Z(k) + conj Z(n/2 - k)) / 2` is the spectrum of the even
    /// samples, `O(k) = (Z(k) - conj Z(n/2 - k)) / 2i` of the odd ones, and bin `k` is
    /// `E(k) + e^(-2πik/n) O(k)`; bin `n/2 - k` is the conjugate of their difference.
    fn split(&self, z_re: &[f32], z_im: &[f32], re: &mut [f32], im: &mut [f32]) {
        let half = self.n / 2;
        let (w_re, w_im) = self.split.split_at(half / 2 + 1);
        for (k, (w_re, w_im)) in w_re.iter().zip(w_im).enumerate() {
            let mirror = half - k;
            let (a, b) = (k, if k == 0 { 0 } else { mirror });
            let (a_re, a_im, b_re, b_im) = (z_re[a], z_im[a], z_re[b], z_im[b]);
            let even = Complex(0.5 * (a_re + b_re), 0.5 * (a_im - b_im));
            let odd = Complex(0.5 * (a_im + b_im), 0.5 * (b_re - a_re));
            let odd = odd.times(Complex(*w_re, *w_im));
            (re[k], im[k]) = (even.0 + odd.0, even.1 + odd.1);
            (re[mirror], im[mirror]) = (even.0 - odd.0, odd.1 - even.1);
        }
    }
}

/// Fills `factors` with `e^(-2πi · pk/n)` for every `p`: the real parts, then the imaginary parts.
fn fill_roots(factors: &mut [f32], k: usize, n: usize) {
    let (re, im) = factors.split_at_mut(factors.len() / 2);
    for (p, (re, im)) in re.iter_mut().zip(im).enumerate() {
        // Both are at most `MAX_LENGTH`, and `pk` is less than `n`.
        let (sin, cos) = sin_cos_fraction((p * k) as u32, n as u32);
        (*re, *im) = (cos, -sin);
    }
}

/// Real and imaginary parts of complex numbers.
type Planes<'x> = (&'x [f32], &'x [f32]);
type PlanesMut<'x> = (&'x mut [f32], &'x mut [f32]);

/// One stage of Stockham's transform, of radix `R`, when `n = R · m` numbers of each of the
/// `x.len() / n` interleaved sequences remain to be transformed.
///
/// With `s` sequences, `a(k)` is number `q + s(p + mk)` of `x`, and the factors times the small
/// transform of all `a(k)` go to numbers `q + s(Rp + k)` of `y`.
#[inline(always)]
fn run_stage<const R: usize>(
    n: usize,
    factors: &[f32],
    (x_re, x_im): Planes<'_>,
    (y_re, y_im): PlanesMut<'_>,
    butterfly: impl Fn([Complex; R]) -> [Complex; R],
) {
    let (m, s) = (n / R, x_re.len() / n);
    // Factor 0 would be 1; the slices of factor 1 stand for it and are not used.
    let factors: [Planes<'_>; R] = from_fn(|k| {
        let (_, from_k) = factors.split_at(2 * m * k.saturating_sub(1));
        (&from_k[..m], &from_k[m..2 * m])
    });
    if s == 1 {
        // The first stage: neighbours are found along `p`.
        let inputs: [Planes<'_>; R] = from_fn(|k| (&x_re[m * k..][..m], &x_im[m * k..][..m]));
        let outputs = y_re.as_chunks_mut::<R>().0.iter_mut();
        let outputs = outputs.zip(y_im.as_chunks_mut::<R>().0);
        for (p, (y_re, y_im)) in outputs.take(m).enumerate() {
            let b = butterfly(inputs.map(|(re, im)| Complex(re[p], im[p])));
            for k in 0..R {
                let Complex(re, im) = match k {
                    0 => b[0],
                    _ => b[k].times(Complex(factors[k].0[p], factors[k].1[p])),
                };
                (y_re[k], y_im[k]) = (re, im);
            }
        }
        return;
    }
    let outputs = y_re.chunks_exact_mut(R * s);
    let outputs = outputs.zip(y_im.chunks_exact_mut(R * s));
    for (p, (y_re, y_im)) in outputs.take(m).enumerate() {
        let inputs: [Planes<'_>; R] = from_fn(|k| {
            let start = s * (p + m * k);
            (&x_re[start..][..s], &x_im[start..][..s])
        });
        let factors = factors.map(|(re, im)| Complex(re[p], im[p]));
        let mut y_re = y_re.chunks_exact_mut(s);
        let mut y_im = y_im.chunks_exact_mut(s);
        let outputs: [PlanesMut<'_>; R] = from_fn(|_| {
            // There are `R` chunks of `s`.
            let (re, im) = (y_re.next(), y_im.next());
            (
                &mut re.unwrap_or_default()[..s],
                &mut im.unwrap_or_default()[..s],
            )
        });
        for q in 0..s {
            let b = butterfly(inputs.map(|(re, im)| Complex(re[q], im[q])));
            for k in 0..R {
                let Complex(re, im) = match k {
                    0 => b[0],
                    _ => b[k].times(factors[k]),
                };
                (outputs[k].0[q], outputs[k].1[q]) = (re, im);
            }
        }
    }
}

/// A complex number: real and imaginary part.
#[derive(Clone, Copy)]
struct Complex(f32, f32);

impl Complex {
    #[inline(always)]
    fn plus(self, other: Complex) -> Complex {
        Complex(self.0 + other.0, self.1 + other.1)
    }

    #[inline(always)]
    fn minus(self, other: Complex) -> Complex {
        Complex(self.0 - other.0, self.1 - other.1)
    }

    #[inline(always)]
    fn times(self, other: Complex) -> Complex {
        Complex(
            self.0 * other.0 - self.1 * other.1,
            self.0 * other.1 + self.1 * other.0,
        )
    }

    #[inline(always)]
    fn scaled(self, factor: f32) -> Complex {
        Complex(self.0 * factor, self.1 * factor)
    }

    /// Product with `-i`.
    #[inline(always)]
    fn turned(self) -> Complex {
        Complex(self.1, -self.0)
    }
}

/// Transform of two numbers.
#[inline(always)]
fn butterfly_2([a, b]: [Complex; 2]) -> [Complex; 2] {
    [a.plus(b), a.minus(b)]
}

/// Transform of three numbers: the second and third outputs are
/// `a - (b + c)/2 ∓ i sin(2π/3) (b - c)`.
#[inline(always)]
fn butterfly_3([a, b, c]: [Complex; 3]) -> [Complex; 3] {
    const SIN: f32 = sin_cos_fraction(1, 3).0;
    let sum = b.plus(c);
    let centre = a.minus(sum.scaled(0.5));
    let side = b.minus(c).scaled(SIN).turned();
    [a.plus(sum), centre.plus(side), centre.minus(side)]
}

/// Transform of four numbers, without products.
#[inline(always)]
fn butterfly_4([a, b, c, d]: [Complex; 4]) -> [Complex; 4] {
    let (even, even_side) = (a.plus(c), a.minus(c));
    let (odd, odd_side) = (b.plus(d), b.minus(d).turned());
    [
        even.plus(odd),
        even_side.plus(odd_side),
        even.minus(odd),
        even_side.minus(odd_side),
    ]
}

/// Transform of five numbers: outputs 1 and 4, and 2 and 3, have the same cosines and opposite
/// sines.
#[inline(always)]
fn butterfly_5([a, b, c, d, e]: [Complex; 5]) -> [Complex; 5] {
    const ONE: (f32, f32) = sin_cos_fraction(1, 5);
    const TWO: (f32, f32) = sin_cos_fraction(2, 5);
    let (outer, outer_side) = (b.plus(e), b.minus(e));
    let (inner, inner_side) = (c.plus(d), c.minus(d));
    let centre_1 = a.plus(outer.scaled(ONE.1)).plus(inner.scaled(TWO.1));
    let centre_2 = a.plus(outer.scaled(TWO.1)).plus(inner.scaled(ONE.1));
    let side_1 = outer_side.scaled(ONE.0).plus(inner_side.scaled(TWO.0));
    let side_2 = outer_side.scaled(TWO.0).minus(inner_side.scaled(ONE.0));
    let (side_1, side_2) = (side_1.turned(), side_2.turned());
    [
        a.plus(outer).plus(inner),
        centre_1.plus(side_1),
        centre_2.plus(side_2),
        centre_2.minus(side_2),
        centre_1.minus(side_1),
    ]
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::speech::budget::SPECTRUM_VS_EXACT;

    /// The definition, in f64.
    fn definition(samples: &[f32], k: usize) -> (f64, f64) {
        let n = samples.len();
        let term = |(j, x): (usize, &f32)| {
            let angle = (j * k % n) as f64 / n as f64 * std::f64::consts::TAU;
            (f64::from(*x) * angle.cos(), -f64::from(*x) * angle.sin())
        };
        let terms = samples.iter().enumerate().map(term);
        terms.fold((0.0, 0.0), |sum, term| (sum.0 + term.0, sum.1 + term.1))
    }

    fn transform(samples: &[f32]) -> Vec<(f32, f32)> {
        let n = samples.len();
        let mut table = std::vec![f32::NAN; twiddles(n)];
        let mut scratch = std::vec![f32::NAN; scratch(n)];
        let (mut re, mut im) = (std::vec![f32::NAN; bins(n)], std::vec![f32::NAN; bins(n)]);
        RealFft::new(n, &mut table).spectrum(samples, &mut scratch, &mut re, &mut im);
        re.into_iter().zip(im).collect()
    }

    /// Compares with the definition, relative to the largest magnitude.
    fn check(samples: &[f32]) {
        let exact: Vec<_> = (0..bins(samples.len()))
            .map(|k| definition(samples, k))
            .collect();
        let largest = exact
            .iter()
            .map(|(re, im)| re.hypot(*im))
            .fold(0.0, f64::max);
        for (k, ((re, im), exact)) in transform(samples).into_iter().zip(exact).enumerate() {
            let error = (f64::from(re) - exact.0).hypot(f64::from(im) - exact.1);
            assert!(
                error <= f64::from(SPECTRUM_VS_EXACT) * largest,
                "n {} bin {k}: {error}",
                samples.len()
            );
        }
    }

    fn supported() -> impl Iterator<Item = usize> {
        (0..=512).filter(|n| is_supported(*n))
    }

    #[test]
    fn supported_lengths_are_even_products_of_2_3_5() {
        let by_definition = |n: usize| {
            (0..10).any(|a| {
                (0..6).any(|b| (0..4).any(|c| n == 2usize.pow(a) * 3usize.pow(b) * 5usize.pow(c)))
            }) && n.is_multiple_of(2)
        };
        for n in 0..=512 {
            assert_eq!(is_supported(n), by_definition(n), "{n}");
        }
        assert!(is_supported(MAX_LENGTH) && !is_supported(2 * MAX_LENGTH));
        assert!(!is_supported(usize::MAX) && !is_supported(7 << 10));
    }

    #[test]
    fn an_impulse_anywhere_is_a_turning_unit() {
        for n in supported() {
            let mut samples = std::vec![0.0; n];
            samples[n - 1] = 1.0;
            check(&samples);
            samples[n - 1] = 0.0;
            samples[n / 3] = -1.0;
            check(&samples);
        }
    }

    #[test]
    fn a_sample_that_is_no_number_spreads_to_every_bin() {
        for n in supported() {
            let mut samples = std::vec![1.0; n];
            samples[n / 2] = f32::NAN;
            let spectrum = transform(&samples);
            assert!(
                spectrum.iter().all(|(re, im)| re.is_nan() || im.is_nan()),
                "{n}"
            );
        }
    }

    #[test]
    #[should_panic(expected = "is_supported")]
    fn a_length_with_another_factor_is_refused() {
        RealFft::new(14, &mut [0.0; twiddles(14)]);
    }

    proptest! {
        #[test]
        fn equals_the_definition(
            n in prop::sample::select(supported().collect::<Vec<_>>()),
            samples in prop::collection::vec(-1.0f32..1.0, 512),
        ) {
            check(&samples[..n]);
        }
    }
}

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
            let m = remaining / radix;
            let (here, next) = factors.split_at(2 * (radix - 1) * m);
            let stage = Stage {
                m,
                s: half / remaining,
                factors: here,
                input: (&*x.0, &*x.1),
            };
            let output = (&mut *y.0, &mut *y.1);
            match radix {
                4 => stage.run::<4>(output),
                2 => stage.run::<2>(output),
                3 => stage.run::<3>(output),
                _ => stage.run::<5>(output),
            }
            core::mem::swap(&mut x, &mut y);
            (factors, remaining) = (next, m);
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
            let even = (0.5 * (a_re + b_re), 0.5 * (a_im - b_im));
            let odd = (0.5 * (a_im + b_im), 0.5 * (b_re - a_re));
            let odd = (odd.0 * w_re - odd.1 * w_im, odd.0 * w_im + odd.1 * w_re);
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

/// Numbers that a stage computes at once where it can: enough for a vector of 128 bits, with which
/// every sum stays the sum of the same two numbers.
const LANES: usize = 4;

/// One stage of Stockham's transform, of radix `R`: `s` interleaved sequences of which
/// `n = R · m` numbers each remain to be transformed.
///
/// `a(k)` is number `q + s(p + mk)` of the input; the small transform of all `a(k)`, times the
/// factors `ω^(pk)`, goes to numbers `q + s(Rp + k)` of the output.
#[derive(Clone, Copy)]
struct Stage<'x> {
    m: usize,
    s: usize,
    /// As in [`RealFft`], of this stage.
    factors: &'x [f32],
    input: Planes<'x>,
}

impl Stage<'_> {
    #[inline(always)]
    fn run<const R: usize>(self, (re, im): PlanesMut<'_>)
    where
        [Complex<LANES>; R]: Butterfly,
        [Complex<1>; R]: Butterfly,
    {
        let Stage { m, s, .. } = self;
        let (re, im) = (&mut re[..R * m * s], &mut im[..R * m * s]);
        if s == 1 {
            let whole = m / LANES * LANES;
            for p in (0..whole).step_by(LANES) {
                self.run_neighbours::<R, LANES>(p, re, im);
            }
            for p in whole..m {
                self.run_neighbours::<R, 1>(p, re, im);
            }
            return;
        }
        let whole = s / LANES * LANES;
        for p in 0..m {
            let factors = from_fn(|k| match k {
                0 => (1.0, 0.0),
                _ => {
                    let (re, im) = self.factors(k);
                    (re[p], im[p])
                }
            });
            for q in (0..whole).step_by(LANES) {
                self.run_sequences::<R, LANES>(p, q, &factors, re, im);
            }
            for q in whole..s {
                self.run_sequences::<R, 1>(p, q, &factors, re, im);
            }
        }
    }

    /// `L` small transforms of one sequence, from `p` on: the first stage has no other.
    #[inline(always)]
    fn run_neighbours<const R: usize, const L: usize>(
        &self,
        p: usize,
        re: &mut [f32],
        im: &mut [f32],
    ) where
        [Complex<L>; R]: Butterfly,
    {
        let b = self.small_transforms::<R, L>(p);
        let b: [Complex<L>; R] = from_fn(|k| match k {
            0 => b[0],
            _ => b[k].times(Complex::load(self.factors(k), p)),
        });
        let (re, im) = (&mut re[R * p..][..R * L], &mut im[R * p..][..R * L]);
        for lane in 0..L {
            for k in 0..R {
                re[R * lane + k] = b[k].0[lane];
                im[R * lane + k] = b[k].1[lane];
            }
        }
    }

    /// The small transforms at `p` of `L` sequences, from `q` on; their `factors` are the same.
    #[inline(always)]
    fn run_sequences<const R: usize, const L: usize>(
        &self,
        p: usize,
        q: usize,
        factors: &[(f32, f32); R],
        re: &mut [f32],
        im: &mut [f32],
    ) where
        [Complex<L>; R]: Butterfly,
    {
        let b = self.small_transforms::<R, L>(q + self.s * p);
        for (k, (factor_re, factor_im)) in factors.iter().enumerate() {
            let product = match k {
                0 => b[0],
                _ => b[k].times(Complex([*factor_re; L], [*factor_im; L])),
            };
            let at = q + self.s * (R * p + k);
            re[at..][..L].copy_from_slice(&product.0);
            im[at..][..L].copy_from_slice(&product.1);
        }
    }

    /// `L` small transforms, of which the first begins at number `at`.
    #[inline(always)]
    fn small_transforms<const R: usize, const L: usize>(&self, at: usize) -> [Complex<L>; R]
    where
        [Complex<L>; R]: Butterfly,
    {
        let a: [Complex<L>; R] = from_fn(|k| Complex::load(self.input, at + self.s * self.m * k));
        a.transformed()
    }

    /// The factors of output `k`, which is not 0, for every `p`.
    #[inline(always)]
    fn factors(&self, k: usize) -> Planes<'_> {
        self.factors[2 * self.m * (k - 1)..][..2 * self.m].split_at(self.m)
    }
}

/// Complex numbers side by side: real and imaginary parts.
#[derive(Clone, Copy)]
struct Complex<const L: usize>([f32; L], [f32; L]);

impl<const L: usize> Complex<L> {
    #[inline(always)]
    fn load((re, im): Planes<'_>, at: usize) -> Self {
        let (re, im) = (&re[at..][..L], &im[at..][..L]);
        Complex(from_fn(|i| re[i]), from_fn(|i| im[i]))
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Complex(
            from_fn(|i| self.0[i] + other.0[i]),
            from_fn(|i| self.1[i] + other.1[i]),
        )
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        Complex(
            from_fn(|i| self.0[i] - other.0[i]),
            from_fn(|i| self.1[i] - other.1[i]),
        )
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        Complex(
            from_fn(|i| self.0[i] * other.0[i] - self.1[i] * other.1[i]),
            from_fn(|i| self.0[i] * other.1[i] + self.1[i] * other.0[i]),
        )
    }

    #[inline(always)]
    fn scaled(self, factor: f32) -> Self {
        Complex(self.0.map(|x| x * factor), self.1.map(|x| x * factor))
    }

    /// Product with `-i`.
    #[inline(always)]
    fn turned(self) -> Self {
        Complex(self.1, self.0.map(|x| -x))
    }
}

/// The small transform of a stage, of as many numbers as its radix.
trait Butterfly {
    fn transformed(self) -> Self;
}

impl<const L: usize> Butterfly for [Complex<L>; 2] {
    #[inline(always)]
    fn transformed(self) -> Self {
        let [a, b] = self;
        [a.plus(b), a.minus(b)]
    }
}

/// The second and third outputs are `a - (b + c)/2 ∓ i sin(2π/3) (b - c)`.
impl<const L: usize> Butterfly for [Complex<L>; 3] {
    #[inline(always)]
    fn transformed(self) -> Self {
        let [a, b, c] = self;
        const SIN: f32 = sin_cos_fraction(1, 3).0;
        let sum = b.plus(c);
        let centre = a.minus(sum.scaled(0.5));
        let side = b.minus(c).scaled(SIN).turned();
        [a.plus(sum), centre.plus(side), centre.minus(side)]
    }
}

/// Without products.
impl<const L: usize> Butterfly for [Complex<L>; 4] {
    #[inline(always)]
    fn transformed(self) -> Self {
        let [a, b, c, d] = self;
        let (even, even_side) = (a.plus(c), a.minus(c));
        let (odd, odd_side) = (b.plus(d), b.minus(d).turned());
        [
            even.plus(odd),
            even_side.plus(odd_side),
            even.minus(odd),
            even_side.minus(odd_side),
        ]
    }
}

/// Outputs 1 and 4, and 2 and 3, have the same cosines and opposite sines.
impl<const L: usize> Butterfly for [Complex<L>; 5] {
    #[inline(always)]
    fn transformed(self) -> Self {
        let [a, b, c, d, e] = self;
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

//! The vector algorithms around the matrix products, written once over [`Lanes`]: norm, activation, exponential, sums.

use super::lanes::Lanes;
use crate::nn::rope::Pairs;
use crate::quant::F32;

/// Error budget of the exponential, relative, for arguments from -87 to 87.
#[cfg(test)]
pub(crate) const EXP_BUDGET: f64 = 1.2e-7;

/// e to the `x`, lane by lane; arguments are clamped to ±87 (results to about 1.6e-38 and 6e37).
///
/// Method: `x = n·ln 2 + r` with `n` the nearest integer (found by adding 1.5·2^23, which leaves no fraction bits) and `ln 2`
/// split in two so that `r` is exact to the last bit; `e^r` by its Taylor polynomial of degree 7 in Horner's form (|r| <= 0.347, so
/// the first term left out is under 6e-9); then `2^n` in integers.
#[inline(always)]
pub(crate) fn exp<L: Lanes>(l: L, x: L::V) -> L::V {
    const MAGIC: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = l.max(l.min(x, l.splat(87.0)), l.splat(-87.0));
    let shifted = l.add(l.mul(x, l.splat(core::f32::consts::LOG2_E)), l.splat(MAGIC));
    let n = l.sub(shifted, l.splat(MAGIC));
    let r = l.sub(l.sub(x, l.mul(n, l.splat(LN2_HIGH))), l.mul(n, l.splat(LN2_LOW)));
    let mut p = l.splat(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = l.add(l.mul(p, r), l.splat(coefficient));
    }
    l.mul(p, l.exp2_int(n))
}

/// Sum of the lanes by the fold of halves of [`super::dot`].
#[inline(always)]
pub(crate) fn fold<L: Lanes>(l: L, v: L::V) -> f32 {
    let mut lanes = [0.0; 16];
    l.store(v, &mut lanes);
    super::scalar::fold(lanes)
}

/// Replaces sixteen values of `$x` at a time: `$v` is the vector of those from `$at` on; the last, shorter part is padded with
/// zeros and cut off again. A macro, since the body of a closure would be compiled without the caller's instruction set.
macro_rules! map_in_place {
    ($l:expr, $x:expr, |$v:ident, $at:ident| $body:expr) => {{
        let (chunks, rest) = $x.as_chunks_mut::<16>();
        let whole = chunks.len() * 16;
        for (i, chunk) in chunks.iter_mut().enumerate() {
            let ($v, $at) = ($l.load(chunk), i * 16);
            $l.store($body, chunk);
        }
        if !rest.is_empty() {
            let ($v, $at) = ($l.load_part(rest), whole);
            $l.store_part($body, rest);
        }
    }};
}

/// Sixteen values of `x` from `at` on, zeros past the end.
#[inline(always)]
fn load_padded<L: Lanes>(l: L, x: &[f32], at: usize) -> L::V {
    match x[at..].first_chunk::<16>() {
        Some(chunk) => l.load(chunk),
        None => l.load_part(&x[at..]),
    }
}

/// Root-mean-square norm (Zhang and Sennrich, arXiv 1910.07467, equation 4): `out = x / sqrt(mean(x²) + eps) · weight`.
#[inline(always)]
pub(crate) fn rms_norm<L: Lanes>(l: L, x: &[f32], weight: &[F32], eps: f32, out: &mut [f32]) {
    let mut squares = l.splat(0.0);
    let mut at = 0;
    while at < x.len() {
        let v = load_padded(l, x, at);
        squares = l.add(squares, l.mul(v, v));
        at += 16;
    }
    let mean = fold(l, squares) / x.len() as f32;
    let scale = 1.0 / crate::nn::math::sqrt(mean + eps);
    for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
        *out = (x * scale) * w.to_f32();
    }
}

/// `gate = silu(gate) · up`, with `silu(g) = g / (1 + e^-g)` (SwiGLU, Shazeer, arXiv 2002.05202, equation 6).
#[inline(always)]
pub(crate) fn swiglu<L: Lanes>(l: L, gate: &mut [f32], up: &[f32]) {
    let (one, zero) = (l.splat(1.0), l.splat(0.0));
    map_in_place!(l, gate, |g, at| {
        let denominator = l.add(one, exp(l, l.sub(zero, g)));
        l.mul(l.div(g, denominator), load_padded(l, up, at))
    });
}

/// `x += y`.
#[inline(always)]
pub(crate) fn add<L: Lanes>(l: L, x: &mut [f32], y: &[f32]) {
    map_in_place!(l, x, |v, at| l.add(v, load_padded(l, y, at)));
}

/// Rotates pairs; the compiler's own vectors serve it.
#[inline(always)]
pub(crate) fn rotate(heads: &mut [f32], head_dim: usize, table: &[[f32; 2]], pairs: Pairs) {
    for head in heads.chunks_exact_mut(head_dim) {
        match pairs {
            Pairs::Neighbours => {
                for (pair, [cos, sin]) in head.as_chunks_mut::<2>().0.iter_mut().zip(table) {
                    let [a, b] = *pair;
                    *pair = [a * cos - b * sin, a * sin + b * cos];
                }
            }
            Pairs::Halves => {
                let (first, second) = head.split_at_mut(table.len());
                for ((a, b), [cos, sin]) in first.iter_mut().zip(second).zip(table) {
                    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                }
            }
        }
    }
}

/// Rounds to f16, as bits.
#[inline(always)]
pub(crate) fn narrow<L: Lanes>(l: L, x: &[f32], out: &mut [u16]) {
    let (chunks, rest) = out.as_chunks_mut::<16>();
    let whole = chunks.len() * 16;
    for (i, chunk) in chunks.iter_mut().enumerate() {
        l.store_f16(load_padded(l, x, i * 16), chunk);
    }
    if !rest.is_empty() {
        let mut padded = [0; 16];
        l.store_f16(load_padded(l, x, whole), &mut padded);
        rest.copy_from_slice(&padded[..rest.len()]);
    }
}

/// Turns scores into unnormalised probabilities in place and returns 1 over their sum.
///
/// The sum has the order of [`super::dot`]: value `i` belongs to partial sum `i mod 16`.
#[inline(always)]
pub(crate) fn softmax<L: Lanes>(l: L, scores: &mut [f32]) -> f32 {
    let (chunks, rest) = scores.as_chunks::<16>();
    let mut max = rest.iter().fold(f32::MIN, |a, b| if a > *b { a } else { *b });
    let mut lane_max = l.splat(max);
    for chunk in chunks {
        lane_max = l.max(lane_max, l.load(chunk));
    }
    let mut lanes = [0.0; 16];
    l.store(lane_max, &mut lanes);
    for lane in lanes {
        max = if max > lane { max } else { lane };
    }
    let max = l.splat(max);
    let mut sums = l.splat(0.0);
    let (chunks, rest) = scores.as_chunks_mut::<16>();
    for chunk in chunks {
        let power = exp(l, l.sub(l.load(chunk), max));
        sums = l.add(sums, power);
        l.store(power, chunk);
    }
    if !rest.is_empty() {
        l.store_part(exp(l, l.sub(l.load_part(rest), max)), rest);
        sums = l.add(sums, l.load_part(rest));
    }
    1.0 / fold(l, sums)
}

/// Makes zeros of weights under `least`. What remains is not made to sum to 1 again: the output errs by what was left out.
#[inline(always)]
pub(crate) fn leave_out(weights: &mut [f32], least: f32) {
    for weight in weights {
        *weight = if *weight < least { 0.0 } else { *weight };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::ScalarLanes;

    #[test]
    fn exp_keeps_its_budget() {
        let mut worst = 0.0f64;
        for i in -87_000..=87_000 {
            let x = i as f32 / 1000.0;
            let got = f64::from(exp(ScalarLanes, [x; 16])[0]);
            let want = f64::from(x).exp();
            worst = worst.max(((got - want) / want).abs());
        }
        assert!(worst <= EXP_BUDGET, "{worst}");
        assert!(exp(ScalarLanes, [-1e30; 16])[0] < 2e-38);
    }

    #[test]
    fn softmax_sums_to_one_and_order_is_that_of_dot() {
        let mut x: std::vec::Vec<f32> = (0..45).map(|i| (i * 7 % 13) as f32 * 0.3).collect();
        let exact: std::vec::Vec<f64> = x.iter().map(|x| f64::from(*x).exp()).collect();
        let total: f64 = exact.iter().sum();
        let inverse = softmax(ScalarLanes, &mut x);
        let ones = std::vec![1.0; 45];
        assert_eq!(1.0 / crate::kernels::dot(&x, &ones), inverse);
        for (x, e) in x.iter().zip(exact) {
            assert!((f64::from(x * inverse) - e / total).abs() < 1e-7);
        }
    }
}

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

/// Whether what only other families than llama compute is a part of this build.
const FAMILIES: bool = cfg!(feature = "families");

/// How a row is normed: `(x - mean) / sqrt(mean((x - mean)²) + eps) · weight + bias`.
#[derive(Clone, Copy)]
pub struct Scaling<'w> {
    /// Whether the mean is taken off (LayerNorm, Ba et al., arXiv 1607.06450, equation 4); else it counts as 0 (RMSNorm, Zhang and Sennrich,
    /// arXiv 1910.07467, equation 4).
    pub centred: bool,
    /// As wide as the row.
    pub weight: &'w [F32],
    /// As wide as the row, or empty.
    pub bias: &'w [F32],
    /// Added to the mean square.
    pub eps: f32,
}

impl Scaling<'_> {
    /// The row's mean, or 0, and what the rest is multiplied with.
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

/// Norms `x` into `out`.
#[inline(always)]
pub(crate) fn norm<L: Lanes>(l: L, x: &[f32], norm: Scaling<'_>, out: &mut [f32]) {
    let of_row = norm.of(l, x);
    for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
        *out = norm.scaled(*x, i, of_row);
    }
    add_bias(out, norm.bias);
}

/// Norms `x`.
#[inline(always)]
pub(crate) fn norm_in_place<L: Lanes>(l: L, x: &mut [f32], norm: Scaling<'_>) {
    let of_row = norm.of(l, x);
    for (i, x) in x.iter_mut().enumerate() {
        *x = norm.scaled(*x, i, of_row);
    }
    add_bias(x, norm.bias);
}

/// Norms `x` into `y`, then adds to `x` what `y` held.
#[inline(always)]
pub(crate) fn norm_then_add<L: Lanes>(l: L, x: &mut [f32], norm: Scaling<'_>, y: &mut [f32]) {
    let of_row = norm.of(l, x);
    for (i, (x, y)) in x.iter_mut().zip(&mut *y).enumerate() {
        let normed = norm.scaled(*x, i, of_row);
        *x += *y;
        *y = normed;
    }
    add_bias(y, norm.bias);
}

#[inline(always)]
fn add_bias(x: &mut [f32], bias: &[F32]) {
    for (x, bias) in x.iter_mut().zip(bias) {
        *x += bias.to_f32();
    }
}

/// What a feed-forward layer does with each value between its matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^-x)` (Elfwing et al., arXiv 1702.03118, equation 2).
    Silu,
    /// `x·Φ(x)`, with the normal distribution by the error function (Hendrycks and Gimpel, arXiv 1606.08415, section 2).
    Gelu,
    /// Its tanh form, from the same section: `x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`.
    GeluTanh,
}

impl Activation {
    /// What the exponential is taken of.
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
            _ => l.sub(zero, x),
        }
    }

    /// The value, from `x` and that exponential.
    #[inline(always)]
    fn value<L: Lanes>(self, l: L, x: L::V, power: L::V) -> L::V {
        match self {
            Activation::Gelu if FAMILIES => gelu(l, x, power),
            _ => l.div(x, l.add(l.splat(1.0), power)),
        }
    }
}

/// `x·Φ(x)` by Abramowitz and Stegun's formula 7.1.26 for the error function of `z = |x|/√2`, `1 - t·P(t)·e^(-z²)` with `t = 1/(1 + p·z)`,
/// which errs by 1.5e-7 at most; `power` is that exponential.
#[inline(always)]
fn gelu<L: Lanes>(l: L, x: L::V, power: L::V) -> L::V {
    let zero = l.splat(0.0);
    let magnitude = l.max(x, l.sub(zero, x));
    let z = l.mul(magnitude, l.splat(core::f32::consts::FRAC_1_SQRT_2));
    let t = l.div(l.splat(1.0), l.add(l.splat(1.0), l.mul(l.splat(0.327_591_1), z)));
    let mut p = l.splat(1.061_405_4);
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = l.add(l.mul(p, t), l.splat(coefficient));
    }
    let tail = l.mul(l.mul(p, t), power);
    // x·Φ(x) is max(x, 0) - |x|/2·(1 - erf(|x|/√2)).
    l.sub(l.max(x, zero), l.mul(l.mul(magnitude, l.splat(0.5)), tail))
}

/// `x = f(x)`, times `up` if that is not empty.
#[inline(always)]
pub(crate) fn activate<L: Lanes>(l: L, f: Activation, x: &mut [f32], up: &[f32]) {
    let mut at = 0;
    // One instance of the exponential for whole vectors and the last one: it is most of the code.
    while at < x.len() {
        let v = load_padded(l, x, at);
        let mut value = f.value(l, v, exp(l, f.exponent(l, v)));
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

/// `x = cap·tanh(x/cap)`: soft capping (Gemma Team, arXiv 2408.00118, section 2).
#[inline(always)]
pub(crate) fn soft_cap<L: Lanes>(l: L, x: &mut [f32], cap: f32) {
    let (one, two) = (l.splat(1.0), l.splat(2.0 / cap));
    // tanh(z) is 1 - 2/(e^2z + 1).
    map_in_place!(l, x, |v, _at| {
        let power = l.add(exp(l, l.mul(v, two)), one);
        l.mul(l.splat(cap), l.sub(one, l.div(l.splat(2.0), power)))
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
    // A score that is no number is not the largest.
    let mut max = rest.iter().fold(f32::MIN, |a, b| if *b > a { *b } else { a });
    let mut lane_max = l.splat(max);
    for chunk in chunks {
        lane_max = l.max(l.load(chunk), lane_max);
    }
    let mut lanes = [0.0; 16];
    l.store(lane_max, &mut lanes);
    for lane in lanes {
        max = if lane > max { lane } else { max };
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

//! Softmax, with the operations on scores before and after it.

use super::exp::exp;
use super::{Lanes, Op, fold, map_in_place};

/// Computes `x = cap·tanh(x/cap)`: soft capping (Gemma Team, arXiv 2408.00118, section 2).
pub(crate) struct SoftCap<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) cap: f32,
}

impl Op for SoftCap<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<L: Lanes>(self, l: L) {
        let SoftCap { x, cap } = self;
        let (one, two) = (l.splat(1.0), l.splat(2.0 / cap));
        // tanh(z) is 1 - 2/(e^2z + 1).
        map_in_place!(l, x, |v, _at| {
            let power = l.add(exp(l, l.mul(v, two)), one);
            l.mul(l.splat(cap), l.sub(one, l.div(l.splat(2.0), power)))
        });
    }
}

/// Turns scores into unnormalised probabilities `e^(s - max)` in place and returns 1 over their
/// sum: the softmax is their product. Differences from the maximum are clamped to 87.
///
/// The sum has the order of [`crate::kernels::dot`]: value `i` belongs to partial sum `i mod 16`.
pub struct Softmax<'a> {
    /// The scores.
    pub scores: &'a mut [f32],
}

impl Op for Softmax<'_> {
    type Output = f32;

    #[inline(always)]
    fn eval<L: Lanes>(self, l: L) -> f32 {
        let Softmax { scores } = self;
        let (chunks, rest) = scores.as_chunks::<16>();
        // A NaN is never taken as the largest.
        let mut max = rest
            .iter()
            .fold(f32::MIN, |a, b| if *b > a { *b } else { a });
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
}

/// Sets weights under `least` to zero. The other weights are not rescaled to a sum of 1, so that
/// the output lacks the values that were left out.
pub(crate) struct LeaveOut<'a> {
    pub(crate) weights: &'a mut [f32],
    pub(crate) least: f32,
}

impl Op for LeaveOut<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<L: Lanes>(self, _l: L) {
        for weight in self.weights {
            *weight = if *weight < self.least { 0.0 } else { *weight };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::isa::Scalar;

    #[test]
    fn softmax_sums_to_one_and_order_is_that_of_dot() {
        let mut x: std::vec::Vec<f32> = (0..45).map(|i| (i * 7 % 13) as f32 * 0.3).collect();
        let exact: std::vec::Vec<f64> = x.iter().map(|x| f64::from(*x).exp()).collect();
        let total: f64 = exact.iter().sum();
        let inverse = Softmax { scores: &mut x }.eval(Scalar);
        let ones = std::vec![1.0; 45];
        assert_eq!(1.0 / crate::kernels::dot(&x, &ones), inverse);
        for (x, e) in x.iter().zip(exact) {
            assert!((f64::from(x * inverse) - e / total).abs() < 1e-7);
        }
    }
}

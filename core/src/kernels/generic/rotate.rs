//! Rotation of heads by their position.

use super::{Lanes, Op};
use crate::nn::rope::Pairs;

/// Rotates heads of `head_dim` values in place by the cosines and sines of `table`, one for each of
/// the pairs (RoPE, Su et al., arXiv 2104.09864, equation 34). Values of a head past the pairs stay
/// as they are. The heads are whole, and the table has no more pairs than a head.
pub struct Rotate<'a> {
    /// Head after head.
    pub heads: &'a mut [f32],
    /// Values of a head.
    pub head_dim: usize,
    /// Cosine and sine of each pair's angle.
    pub table: &'a [[f32; 2]],
    /// Pairing of the values of a head.
    pub pairs: Pairs,
}

impl Op for Rotate<'_> {
    type Output = ();

    /// The compiler vectorises this loop well by itself.
    #[inline(always)]
    fn eval<L: Lanes>(self, _l: L) {
        let Rotate {
            heads,
            head_dim,
            table,
            pairs,
        } = self;
        assert!(heads.len().is_multiple_of(head_dim) && table.len() * 2 <= head_dim);
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
}

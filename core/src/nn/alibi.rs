//! Attention with linear biases (ALiBi, Press et al., arXiv 2108.12409, section 3): a score falls
//! with the distance of query and key, by a slope that each head has for itself.

use super::math::inverse_root;

/// Slopes of the heads: the score of a query and a key that are `d` tokens apart is lowered by
/// `slope·d`.
///
/// With `n` heads, a power of two, head `h` (from 0) has the slope `2^(-b·(h + 1)/n)`; the paper's
/// `b` is 8. For another number of heads, `n` is the next power of two; of its slopes the heads
/// take every second one from the second on, and then every second one from the first on, as the
/// paper's authors do in their code.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Slopes {
    heads: usize,
    /// `2^(-b/n)`, of which every slope is a power.
    ratio: f64,
}

impl Slopes {
    /// Largest `b`.
    pub const MOST_BIAS: u32 = 32;

    /// Creates the slopes of `heads` heads with the smallest slope `2^-bias` (`b` above).
    ///
    /// # Panics
    /// If there are no heads, or `bias` is over [`Slopes::MOST_BIAS`].
    pub const fn new(heads: usize, bias: u32) -> Slopes {
        assert!(heads > 0 && bias <= Slopes::MOST_BIAS);
        Slopes {
            heads,
            ratio: inverse_root((1u64 << bias) as f64, heads.next_power_of_two()),
        }
    }

    /// Slope of head `head`. It uses only products in f64, so it has the same bits everywhere.
    pub const fn of(&self, head: usize) -> f32 {
        let n = self.heads.next_power_of_two();
        let mut exponent = if self.heads == n {
            head + 1
        } else if head < n / 2 {
            2 * (head + 1)
        } else {
            2 * (head - n / 2) + 1
        };
        let (mut slope, mut square) = (1.0, self.ratio);
        while exponent > 0 {
            if exponent % 2 == 1 {
                slope *= square;
            }
            square *= square;
            exponent /= 2;
        }
        slope as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_paper() {
        // In `const`, as on a board.
        const EIGHT: Slopes = Slopes::new(8, 8);
        let slopes: std::vec::Vec<f32> = (0..8).map(|head| EIGHT.of(head)).collect();
        let halves: std::vec::Vec<f32> = (1..9).map(|k| 0.5f32.powi(k)).collect();
        assert_eq!(slopes, halves);
        let slopes = Slopes::new(16, 8);
        for head in 0..16 {
            let exact = 2f64.powf(-0.5 * f64::from(head + 1));
            assert_eq!(slopes.of(head as usize), exact as f32, "head {head}");
        }
    }

    #[test]
    fn other_numbers_of_heads_take_every_second_slope() {
        let six = Slopes::new(6, 8);
        let exponents = [2, 4, 6, 8, 1, 3];
        for (head, exponent) in exponents.into_iter().enumerate() {
            assert_eq!(six.of(head), 0.5f32.powi(exponent), "head {head}");
        }
        assert_eq!(Slopes::new(1, 8).of(0), 0.5f32.powi(8));
    }

    #[test]
    fn slopes_are_correctly_rounded_for_any_bias() {
        for heads in [1, 3, 8, 12, 32, 40, 112, 256] {
            let n = f64::from(u32::try_from(heads).unwrap().next_power_of_two());
            for bias in [1, 7, 8, 31, Slopes::MOST_BIAS] {
                let slopes = Slopes::new(heads, bias);
                let mut sorted: std::vec::Vec<f32> = (0..heads).map(|h| slopes.of(h)).collect();
                sorted.sort_by(f32::total_cmp);
                sorted.dedup();
                assert_eq!(sorted.len(), heads, "no two heads are alike");
                for slope in sorted {
                    let exponent = -f64::from(slope).log2() * n / f64::from(bias);
                    let whole = exponent.round();
                    let exact = 2f64.powf(-whole * f64::from(bias) / n);
                    let error = (f64::from(slope) - exact).abs() / exact;
                    assert!(error < 6.1e-8, "{heads} heads, {bias}: {error:e}");
                }
            }
        }
    }
}

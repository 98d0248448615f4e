//! Rotary position embedding by integer phase.
//!
//! RoPE (Su et al., arXiv 2104.09864, equation 34) turns the pair of elements `2i, 2i + 1` of a
//! head by `position · θ^(-2i/d)` radians. Here the frequency is a 64-bit fraction of a turn and
//! the position a `u64`: their product wraps exactly where a turn ends. Position 4,000,000,000 is
//! therefore as precise as position 0, and the difference of two angles depends on the distance
//! alone.
//!
//! The model family determines which columns form a pair: see [`Pairs`].

use super::math::{inverse_root, sin_cos_turns};

/// Pairing of the columns of a head for rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Pairs {
    /// Columns `2i` and `2i + 1`, as in the paper and in the projections of GGUF files of the llama
    /// family.
    Neighbours,
    /// Columns `i` and `i + pairs` (GPT-NeoX).
    Halves,
}

impl Pairs {
    /// The two columns of pair `pair` of `pairs`.
    #[inline(always)]
    pub const fn columns(self, pair: usize, pairs: usize) -> (usize, usize) {
        match self {
            Pairs::Neighbours => (2 * pair, 2 * pair + 1),
            Pairs::Halves => (pair, pair + pairs),
        }
    }
}

/// Fills `frequencies` (one per pair) with turns per position, in units of 2^-64 turn.
///
/// Frequency `i` is divided by `scale(i)`: 1, a linear scaling factor, or an entry of a model's own
/// table (Llama 3's `rope_freqs`).
pub fn frequencies(theta: f32, scale: impl Fn(usize) -> f32, frequencies: &mut [u64]) {
    let step = inverse_root(f64::from(theta), frequencies.len());
    let mut radians = 1.0f64;
    for (i, frequency) in frequencies.iter_mut().enumerate() {
        let turns = radians / f64::from(scale(i)) / core::f64::consts::TAU;
        // 2^64; the cast saturates, so that no hostile factor can make it panic.
        *frequency = (turns * 18_446_744_073_709_551_616.0) as u64;
        radians *= step;
    }
}

/// Writes the cosine and sine of every pair at `position`: `[cos, sin]` per frequency.
///
/// # Panics
/// If `table` does not have one entry per frequency.
pub fn angles(frequencies: &[u64], position: u64, table: &mut [[f32; 2]]) {
    assert!(frequencies.len() == table.len());
    for (frequency, entry) in frequencies.iter().zip(table) {
        let (sin, cos) = sin_cos_turns(frequency.wrapping_mul(position));
        *entry = [cos, sin];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_paper_near_zero_and_keeps_distance_far_away() {
        let mut freq = [0u64; 16];
        frequencies(1e4, |_| 1.0, &mut freq);
        let mut table = [[0.0; 2]; 16];
        angles(&freq, 77, &mut table);
        for (i, [cos, sin]) in table.iter().enumerate() {
            let angle = 77.0 * 1e4f64.powf(-(i as f64) / 16.0);
            assert!(
                (f64::from(*cos) - angle.cos()).abs() < 1e-6
                    && (f64::from(*sin) - angle.sin()).abs() < 1e-6
            );
        }
        // The score of a rotated query and key at a distance of 5, near and 4,000,000,000 tokens
        // on.
        let rotate = |head: &mut [f32; 32], table: &[[f32; 2]; 16]| {
            for (pair, [cos, sin]) in head.as_chunks_mut::<2>().0.iter_mut().zip(table) {
                let [a, b] = *pair;
                *pair = [a * cos - b * sin, a * sin + b * cos];
            }
        };
        let score = |at: u64| {
            let (mut q, mut k) = ([0.3f32; 32], [0.7f32; 32]);
            let mut table = [[0.0; 2]; 16];
            angles(&freq, at + 5, &mut table);
            rotate(&mut q, &table);
            angles(&freq, at, &mut table);
            rotate(&mut k, &table);
            q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>()
        };
        assert!((score(3) - score(4_000_000_000)).abs() < 2e-6);
    }
}

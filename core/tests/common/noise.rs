//! Random numbers, and the choice of kept tokens: for whole models and for one layer.

extern crate std;

use std::vec::Vec;

/// A small reproducible generator (xorshift64*).
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Returns a roughly normal number with standard deviation 1.
    pub fn normal(&mut self) -> f32 {
        (0..12)
            .map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32)
            .sum::<f32>()
            - 6.0
    }
}

/// Returns the tokens that token `t` attends to, itself last: the sinks, and those of the last
/// `window` from `from` on.
pub fn kept(t: usize, sinks: usize, window: usize, from: usize) -> Vec<usize> {
    let first = (t + 1)
        .saturating_sub(window)
        .max(sinks.min(t + 1))
        .max(from);
    (0..sinks.min(first)).chain(first..=t).collect()
}

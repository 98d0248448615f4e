//! Bytes that a token reads, and the rate at which this machine reads them.
//!
//! A decode step reads every weight once, but of a table of rows one row; and the cache once. Where
//! a step takes as long as reading alone, no kernel could be faster.

use std::hint::black_box;
use std::time::Instant;

use brooklet_core::gguf::{Gguf, TensorInfo};
use brooklet_core::model::Config;
use brooklet_core::plan::Plan;
use brooklet_core::threads::Threads;

use crate::convert::slim;
use crate::model::Model;

/// Bytes of a job of reading: many for each worker, and each long enough for prefetchers.
const PIECE: usize = 1 << 20;

/// Weights that a decode step reads whole.
pub struct Weights<'a>(Vec<TensorInfo<'a>>);

impl<'a> Weights<'a> {
    /// Finds them in a file: all tensors, but for the tables of which a token reads a row.
    pub fn of(gguf: &Gguf<'a>) -> Weights<'a> {
        // Without a matrix of its own for the output, the table of tokens is that matrix.
        let is_table = |name: &str| match name {
            "token_embd.weight" => gguf.tensor("output.weight").is_some(),
            "position_embd.weight" => true,
            _ => false,
        };
        let whole = gguf.tensors().filter(|tensor| !is_table(tensor.name()));
        Weights(whole.collect())
    }

    /// Number of bytes.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|tensor| tensor.data().len()).sum()
    }

    /// Multiply-adds of a token: one for each weight, with the few that are only added.
    pub fn products(&self) -> u64 {
        let elements =
            |tensor: &TensorInfo<'_>| tensor.dims().map(|n| n as u64).iter().product::<u64>();
        self.0.iter().map(elements).sum()
    }

    /// Reads all bytes once, with all workers; returns the seconds that it took.
    pub fn read(&self, threads: &dyn Threads) -> f64 {
        let pieces = self.0.iter().flat_map(|tensor| tensor.data().chunks(PIECE));
        let pieces: Vec<&[u8]> = pieces.collect();
        let start = Instant::now();
        threads.run(pieces.len(), &|_, index| {
            black_box(sum(pieces[index]));
        });
        start.elapsed().as_secs_f64()
    }
}

/// Slots of layer `layer`.
pub fn slots(config: &Config, plan: &Plan, layer: usize) -> usize {
    let (sinks, window) = plan.options().policy.slots(config.local_window(layer));
    sinks + window
}

/// Bytes of the cache that a token reads when `tokens` are in it. Sinks' exact values are left out.
pub fn cache_bytes(model: &Model, plan: &Plan, tokens: usize) -> usize {
    let (config, options) = (model.config(), plan.options());
    (0..config.layers)
        .map(|layer| {
            let layout = options.layout_of(config, layer);
            tokens.min(slots(config, plan, layer))
                * slim::bytes_per_token(config, options.cache_type, layout)
        })
        .sum()
}

/// Sum of the words, in as many parts as keep vector units busy.
fn sum(bytes: &[u8]) -> u64 {
    let (lines, rest) = bytes.as_chunks::<64>();
    let mut sums = [0_u64; 8];
    for line in lines {
        for (sum, word) in sums.iter_mut().zip(line.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    let rest: u64 = rest.iter().map(|byte| u64::from(*byte)).sum();
    sums.into_iter().fold(rest, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use brooklet_core::threads::SingleThread;

    #[test]
    fn all_weights_but_tables_are_read() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let bytes = std::fs::read(format!("{root}/models/stories/tiny-q8_0.gguf")).unwrap();
        let gguf = Gguf::parse(&bytes).unwrap();
        let weights = Weights::of(&gguf);
        let all: usize = gguf.tensors().map(|tensor| tensor.data().len()).sum();
        let table = gguf.tensor("token_embd.weight").unwrap().data().len();
        let own_output = gguf.tensor("output.weight").is_some();
        let expected = if own_output { all - table } else { all };
        assert_eq!(weights.bytes(), expected);
        assert!(weights.read(&SingleThread) > 0.0);
    }

    #[test]
    fn every_byte_is_in_the_sum() {
        let bytes: Vec<u8> = (0..200_u8).collect();
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(sum(&bytes), sum(&other), "byte {at}");
        }
    }
}

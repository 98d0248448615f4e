//! From any sample rate to [`RATE`], block by block, without delay.
//!
//! A block of samples is filtered and resampled in the frequency domain: its spectrum, padded to
//! twice the length, is multiplied by that of a windowed sinc (Blackman-Harris, squared), cut off
//! or extended to the other rate, and transformed back; what reaches past the block is added to the
//! next ("overlap-add"; A. V. Oppenheim and R. W. Schafer, "Discrete-Time Signal Processing",
//! section 8.7.3). The transforms are [`rubato`]'s. The filter is symmetric, so that it delays
//! every frequency by half its length: as many samples are dropped at the start, and silence is
//! fed at the end until they have come out.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};

use super::{AudioError, HIGHEST_RATE, LOWEST_RATE, RATE};

/// Fewest samples of a block that comes out, and of the filter: the longer it is, the closer its
/// edge lies to the highest frequency.
const BLOCK: usize = 2048;

/// A resampler and the block that it waits to fill.
pub struct Resampler {
    fft: Fft<f32>,
    rate: u32,
    /// Room for one block; `filled` samples are there.
    input: Vec<f32>,
    filled: usize,
    output: Vec<f32>,
    /// Samples of the delay that are still to be dropped.
    delay: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// Creates one for samples at `rate` Hz.
    ///
    /// # Errors
    /// [`AudioError::Rate`] if the rate is outside of what can be resampled.
    pub fn new(rate: u32) -> Result<Self, AudioError> {
        let wrong = |_| AudioError::Rate { rate };
        if !(LOWEST_RATE..=HIGHEST_RATE).contains(&rate) {
            return Err(AudioError::Rate { rate });
        }
        let fft = Fft::new(
            rate as usize,
            RATE as usize,
            block(rate),
            1,
            FixedSync::Both,
        )
        .map_err(wrong)?;
        Ok(Resampler {
            rate,
            input: vec![0.0; fft.input_frames_max()],
            filled: 0,
            output: vec![0.0; fft.output_frames_max()],
            delay: fft.output_delay(),
            fft,
            taken: 0,
            given: 0,
        })
    }

    /// Takes finite samples, and appends to `out` those that they complete.
    pub fn push(&mut self, mut samples: &[f32], out: &mut Vec<f32>) {
        self.taken += samples.len() as u64;
        while !samples.is_empty() {
            let free = &mut self.input[self.filled..];
            let (now, later) = samples.split_at(samples.len().min(free.len()));
            free[..now.len()].copy_from_slice(now);
            self.filled += now.len();
            samples = later;
            if self.filled == self.input.len() {
                self.block(out);
            }
        }
    }

    /// Appends to `out` what is still to come: the number of samples that were given is then the
    /// number taken x [`RATE`] / rate, rounded.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        let rate = u128::from(self.rate);
        let total = (u128::from(self.taken) * u128::from(RATE) + rate / 2) / rate;
        while u128::from(self.given) < total {
            self.input[self.filled..].fill(0.0);
            let left = total - u128::from(self.given);
            let before = out.len();
            self.block(out);
            let surplus = ((out.len() - before) as u128).saturating_sub(left);
            out.truncate(out.len() - surplus as usize);
        }
    }

    /// Resamples the block that is there, and appends it to `out`.
    fn block(&mut self, out: &mut Vec<f32>) {
        self.filled = 0;
        let (taken, given) = (self.input.len(), self.output.len());
        let input = InterleavedSlice::new(&self.input, 1, taken);
        let output = InterleavedSlice::new_mut(&mut self.output, 1, given);
        let (Ok(input), Ok(mut output)) = (input, output) else {
            unreachable!("both slices are as long as they say");
        };
        let (_, given) = self
            .fft
            .process_into_buffer(&input, &mut output, None)
            .expect("one channel, and blocks of the length that was asked for");
        let dropped = self.delay.min(given);
        self.delay -= dropped;
        out.extend_from_slice(&self.output[dropped..given]);
        self.given += (given - dropped) as u64;
    }
}

/// Samples of a block that goes in: the fewest of which [`BLOCK`] or more come out, a whole number.
/// It is even, so that the middle of the filter is a sample.
fn block(rate: u32) -> usize {
    let (mut common, mut rest) = (rate, RATE);
    while rest != 0 {
        (common, rest) = (rest, common % rest);
    }
    let (taken, given) = ((rate / common) as usize, (RATE / common) as usize);
    let times = BLOCK.div_ceil(given);
    taken * (times + times % 2)
}

//! From any sample rate to [`RATE`], sample by sample, without delay and without drift.
//!
//! A sample that comes out is the sound at its moment: the sum of the samples around it, each
//! weighted by a windowed sinc (Blackman-Harris, squared) that is cut off below half of the lower
//! rate (J. O. Smith, "Digital Audio Resampling", "theory of ideal bandlimited interpolation"). The
//! weights come from [`rubato`]'s table of that curve; between two of its points a cubic goes
//! through four. Moments are counted in whole numbers, so that a day of sound ends where it must.

use rubato::WindowFunction::BlackmanHarris2;
use rubato::calculate_cutoff;
use rubato::interpolation::interp_cubic;
use rubato::sinc_interpolator::{AnyInterpolator, SincInterpolator as _, make_interpolator};

use super::{AudioError, HIGHEST_RATE, LOWEST_RATE, RATE};

/// Length of the filter in samples of the lower rate: the longer it is, the closer its edge lies to
/// the highest frequency. It sees half of them ahead: 16 ms at 16 kHz.
const LENGTH: usize = 512;

/// Points of the curve between two samples of the lower rate: a cubic through four of them is off
/// by less than 16 bits can tell.
const POINTS: usize = 128;

/// Samples that are taken before what they complete is computed.
const BLOCK: usize = 1024;

/// A resampler and the samples that it still needs.
pub struct Resampler {
    filter: AnyInterpolator<f32>,
    rate: u32,
    /// Samples in order; before the first one stands silence, which the filter sees.
    input: Vec<f32>,
    /// Index of the sound's sample that `input` begins with; the sound begins at 0.
    first: i64,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// Creates one for samples at `rate` Hz.
    ///
    /// # Errors
    /// [`AudioError::Rate`] if the rate is outside of what can be resampled.
    pub fn new(rate: u32) -> Result<Self, AudioError> {
        if !(LOWEST_RATE..=HIGHEST_RATE).contains(&rate) {
            return Err(AudioError::Rate { rate });
        }
        // Of a higher rate, as many more samples are as long a time, and as many fewer points
        // between two of them as close to each other.
        let lower = rate.min(RATE);
        let length = (LENGTH * rate as usize).div_ceil(lower as usize);
        let points = (POINTS * lower as usize).div_ceil(rate as usize);
        let filter = make_interpolator(
            length,
            f64::from(RATE) / f64::from(rate),
            Some(calculate_cutoff(LENGTH, BlackmanHarris2)),
            points,
            BlackmanHarris2,
        );
        let length = filter.nbr_points();
        let mut input = Vec::with_capacity(2 * length + BLOCK);
        input.resize(length, 0.0);
        Ok(Resampler {
            filter,
            rate,
            input,
            first: -(length as i64),
            taken: 0,
            given: 0,
        })
    }

    /// Takes finite samples, and appends to `out` those that they complete.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.taken += samples.len() as u64;
        for block in samples.chunks(BLOCK) {
            self.input.extend_from_slice(block);
            self.complete(u64::MAX, out);
        }
    }

    /// Appends to `out` what is still to come: the number of samples that were given is then the
    /// number taken x [`RATE`] / rate, rounded.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        let rate = u128::from(self.rate);
        let total = (u128::from(self.taken) * u128::from(RATE) + rate / 2) / rate;
        while u128::from(self.given) < total {
            self.input.resize(self.input.len() + BLOCK, 0.0);
            self.complete(total as u64, out);
        }
    }

    /// Appends to `out` the samples that `input` has all neighbours of, and of which no more than
    /// `total` are given then; forgets what later ones do not need.
    fn complete(&mut self, total: u64, out: &mut Vec<f32>) {
        let length = self.filter.nbr_points();
        while self.given < total {
            let (whole, rest) = self.moment();
            // The filter's first sample, for the earliest of the four points.
            let start = (whole - length as i64 / 2 - self.first) as usize;
            // The latest of the four lies two samples after it at most.
            if start + 2 + length >= self.input.len() {
                break;
            }
            out.push(self.at(start, rest));
            self.given += 1;
        }
        let (whole, _) = self.moment();
        let unneeded = (whole - length as i64 / 2 - self.first) as usize;
        let unneeded = unneeded.min(self.input.len());
        self.input.drain(..unneeded);
        self.first += unneeded as i64;
    }

    /// The moment of the next sample that comes out, in samples of the sound: whole ones, and
    /// sixteen-thousandths ([`RATE`]) of one.
    fn moment(&self) -> (i64, u32) {
        let moment = u128::from(self.given) * u128::from(self.rate);
        let (whole, rest) = (moment / u128::from(RATE), moment % u128::from(RATE));
        (whole as i64, rest as u32)
    }

    /// The sound at `rest` / [`RATE`] after the sample in the middle of the filter at `start` + 1.
    fn at(&self, start: usize, rest: u32) -> f32 {
        let points = self.filter.nbr_sincs();
        let place = rest as usize * points;
        let (point, between) = (place / RATE as usize, place % RATE as usize);
        // The table holds the curve one point after the sample at its index 0, and so on, to the
        // next sample.
        let read = |point: usize| {
            let (index, subindex) = (point / points, point % points);
            self.filter
                .get_sinc_interpolated(&self.input, start + index, subindex)
        };
        let before = points + point - 1;
        if between == 0 {
            return read(before);
        }
        let values = [before - 1, before, before + 1, before + 2].map(read);
        interp_cubic(between as f32 / RATE as f32, &values)
    }
}

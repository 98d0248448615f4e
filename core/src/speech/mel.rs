//! The log-mel spectrogram that Whisper hears (Radford et al., arXiv 2212.04356, section 2.2).
//!
//! The sound is cut into overlapping frames, each is multiplied by a window and transformed; the
//! filterbank sums the power of its bins to bands of the mel scale, and the logarithm of a band is
//! one feature. Window and filterbank come from the model's file.
//!
//! Frame `t` is centred on sample `t · hop`: it covers `n_fft` samples from `t · hop - n_fft/2` on.
//! Outside the sound, samples are reflected at its first and at its last one, which are not
//! repeated (`reflect` of numpy's `pad`), as often as the frame needs. Whisper adds zeros to a
//! sound until it has 480,000 samples; here that number is an argument, and no zero is stored.

use core::fmt;
use core::ops::Range;

use super::fft::{self, RealFft};
use crate::nn::math::log10;
use crate::quant::F32;

/// Largest number of bands.
pub const MAX_MELS: usize = 1 << 8;

/// Least power of a band: its logarithm is -10.
const LEAST_POWER: f32 = 1e-10;

/// Error: a file's numbers do not describe features that can be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum MelError {
    /// A frame has this number of samples, for which [`fft::is_supported`] is false.
    FrameLength(usize),
    /// Frames would be 0 samples apart.
    NoHop,
    /// The number of bands is 0 or more than [`MAX_MELS`].
    Bands(usize),
    /// The filterbank has this number of elements, not one for each band and bin.
    Filters(usize),
    /// The window has this number of elements, not one for each sample of a frame.
    Window(usize),
}

impl fmt::Display for MelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MelError::FrameLength(n) => write!(
                f,
                "frames of {n} samples: not an even product of 2, 3 and 5 up to {}",
                fft::MAX_LENGTH
            ),
            MelError::NoHop => f.write_str("frames are 0 samples apart"),
            MelError::Bands(n) => write!(f, "{n} mel bands are not from 1 to {MAX_MELS}"),
            MelError::Filters(n) => write!(f, "the mel filterbank has {n} elements"),
            MelError::Window(n) => write!(f, "the window has {n} elements"),
        }
    }
}

impl core::error::Error for MelError {}

/// Dimensions of a spectrogram; checked, so that no size computed from it overflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MelShape {
    n_fft: usize,
    hop: usize,
    mels: usize,
}

impl MelShape {
    /// Creates the shape of frames of `n_fft` samples that start `hop` samples apart, with `mels`
    /// features each. Whisper has 400, 160 and 80 or 128, at 16,000 samples a second.
    ///
    /// # Errors
    /// If one of them is 0 or too large, or there is no transform of `n_fft` samples
    /// ([`fft::is_supported`]).
    pub const fn new(n_fft: usize, hop: usize, mels: usize) -> Result<MelShape, MelError> {
        if !fft::is_supported(n_fft) {
            return Err(MelError::FrameLength(n_fft));
        }
        if hop == 0 {
            return Err(MelError::NoHop);
        }
        if mels == 0 || mels > MAX_MELS {
            return Err(MelError::Bands(mels));
        }
        Ok(MelShape { n_fft, hop, mels })
    }

    /// Number of samples of a frame.
    pub const fn n_fft(&self) -> usize {
        self.n_fft
    }

    /// Distance of two frames, in samples.
    pub const fn hop(&self) -> usize {
        self.hop
    }

    /// Number of mel bands: features of a frame.
    pub const fn mels(&self) -> usize {
        self.mels
    }

    /// Number of bins of a frame's spectrum.
    pub const fn bins(&self) -> usize {
        fft::bins(self.n_fft)
    }

    /// Number of frames of a sound of `samples` samples, the zeros after it included: one for every
    /// whole hop. A last frame, centred on the sound's end, is not counted; Whisper drops it.
    pub const fn frames(&self, samples: usize) -> usize {
        samples / self.hop
    }

    /// Number of floats of the table of [`LogMel::new`].
    pub const fn twiddles(&self) -> usize {
        fft::twiddles(self.n_fft)
    }

    /// Number of spans of [`LogMel::new`].
    pub const fn spans(&self) -> usize {
        self.mels
    }

    /// Number of floats of the scratch of [`LogMel::power_mel`]: a frame, its spectrum, and the
    /// transform's own.
    pub const fn scratch(&self) -> usize {
        self.n_fft + 2 * self.bins() + fft::scratch(self.n_fft)
    }
}

/// Bins of one band: the first whose filter is not zero, and the one after the last.
pub type Span = [u32; 2];

/// The front end of one model: its filterbank and window, borrowed from the file, and what was
/// planned from them. Copies share everything, so that threads may compute frames at once, each
/// with its own scratch.
#[derive(Clone, Copy, Debug)]
pub struct LogMel<'a> {
    shape: MelShape,
    filters: &'a [F32],
    window: &'a [F32],
    fft: RealFft<'a>,
    spans: &'a [Span],
}

impl<'a> LogMel<'a> {
    /// Plans the features of a model: fills `twiddles` ([`MelShape::twiddles`]) and `spans`
    /// ([`MelShape::spans`]).
    ///
    /// The filterbank has a row of [`MelShape::bins`] weights for each band, the window a factor
    /// for each sample of a frame.
    ///
    /// # Errors
    /// If the filterbank or the window has another length.
    ///
    /// # Panics
    /// If `twiddles` or `spans` has.
    pub fn new(
        shape: MelShape,
        filters: &'a [F32],
        window: &'a [F32],
        twiddles: &'a mut [f32],
        spans: &'a mut [Span],
    ) -> Result<LogMel<'a>, MelError> {
        assert!(twiddles.len() == shape.twiddles() && spans.len() == shape.spans());
        if filters.len() != shape.mels * shape.bins() {
            return Err(MelError::Filters(filters.len()));
        }
        if window.len() != shape.n_fft {
            return Err(MelError::Window(window.len()));
        }
        for (filter, span) in filters.chunks_exact(shape.bins()).zip(&mut *spans) {
            let is_used = |weight: &F32| weight.to_f32() != 0.0;
            let first = filter.iter().position(is_used).unwrap_or(0);
            let end = filter
                .iter()
                .rposition(is_used)
                .map_or(first, |last| last + 1);
            *span = [first as u32, end as u32];
        }
        Ok(LogMel {
            shape,
            filters,
            window,
            fft: RealFft::new(shape.n_fft, twiddles),
            spans,
        })
    }

    /// The dimensions.
    pub const fn shape(&self) -> MelShape {
        self.shape
    }

    /// Writes `log10(max(power, 1e-10))` of every band for frames `frames` of a sound: one row of
    /// [`MelShape::mels`] numbers for each frame.
    ///
    /// The sound is `samples`, usually from -1 to 1, and zeros up to `padded` samples. A frame that
    /// contains zeros only is -10 everywhere and costs nothing; so is a sound without samples.
    /// Frames do not depend on each other. A sample that is no number makes the rows of the frames
    /// that contain it NaN.
    ///
    /// # Panics
    /// - If there are more than `padded` samples, or `padded` is more than `isize::MAX`.
    /// - If the sound has no such frames ([`MelShape::frames`] of `padded`).
    /// - If `scratch` is shorter than [`MelShape::scratch`], or `rows` is not as long as the rows
    ///   of the frames together.
    pub fn power_mel(
        &self,
        samples: &[f32],
        padded: usize,
        frames: Range<usize>,
        scratch: &mut [f32],
        rows: &mut [f32],
    ) {
        let MelShape { n_fft, hop, mels } = self.shape;
        let bins = self.shape.bins();
        assert!(samples.len() <= padded && padded <= isize::MAX as usize);
        assert!(frames.end <= self.shape.frames(padded));
        assert!(scratch.len() >= self.shape.scratch() && rows.len() == frames.len() * mels);
        let (frame, scratch) = scratch.split_at_mut(n_fft);
        let (re, scratch) = scratch.split_at_mut(bins);
        let (im, scratch) = scratch.split_at_mut(bins);
        for (t, row) in frames.zip(rows.chunks_exact_mut(mels)) {
            if !self.windowed(samples, padded, t * hop, frame) {
                row.fill(log10(LEAST_POWER));
                continue;
            }
            self.fft.spectrum(frame, scratch, re, im);
            for (re, im) in re.iter_mut().zip(&*im) {
                *re = *re * *re + *im * *im;
            }
            self.bands(re, row);
        }
    }

    /// Writes the frame whose centre is sample `centre` of the sound, times the window; returns
    /// false if it contains zeros only, of those after the samples.
    fn windowed(&self, samples: &[f32], padded: usize, centre: usize, frame: &mut [f32]) -> bool {
        let n_fft = self.shape.n_fft;
        let half = n_fft / 2;
        let inside = centre
            .checked_sub(half)
            .and_then(|start| samples.get(start..));
        if let Some(samples) = inside.and_then(|samples| samples.get(..n_fft)) {
            for ((out, sample), factor) in frame.iter_mut().zip(samples).zip(self.window) {
                *out = sample * factor.to_f32();
            }
            return true;
        }
        // Some of it is outside the samples. The sums cannot overflow: `padded` is at most
        // `isize::MAX`, and the window has more bytes than `n_fft`.
        if centre >= samples.len() + half && centre + half <= padded {
            return false;
        }
        for (i, (out, factor)) in frame.iter_mut().zip(self.window).enumerate() {
            let index = reflected((centre + i).abs_diff(half), padded);
            *out = samples.get(index).unwrap_or(&0.0) * factor.to_f32();
        }
        true
    }

    /// Writes the logarithm of every band of a power spectrum.
    fn bands(&self, power: &[f32], row: &mut [f32]) {
        let filters = self.filters.chunks_exact(self.shape.bins());
        for ((filter, [first, end]), out) in filters.zip(self.spans).zip(row) {
            let span = *first as usize..*end as usize;
            let mut sum = 0.0f32;
            for (weight, power) in filter[span.clone()].iter().zip(&power[span]) {
                sum += weight.to_f32() * power;
            }
            // Written this way, NaN stays.
            *out = log10(if sum < LEAST_POWER { LEAST_POWER } else { sum });
        }
    }
}

/// Index in a sound of `len` samples of what stands `distance` samples from its first one, on
/// either side: the sound, reflected at both ends for ever, has the period `2 (len - 1)` and is
/// symmetric about 0. The index is 0 for a sound of at most one sample.
const fn reflected(distance: usize, len: usize) -> usize {
    if len <= 1 {
        return 0;
    }
    let period = 2 * (len - 1);
    let index = distance % period;
    if index < len { index } else { period - index }
}

/// Scales the rows of a whole sound ([`LogMel::power_mel`] of all frames) as Whisper expects them:
/// `(max(x, largest - 8) + 4) / 4`, where `largest` is the largest number of all rows.
///
/// If one number is NaN, all become NaN.
pub fn normalise(rows: &mut [f32]) {
    let mut largest = f32::NEG_INFINITY;
    for x in rows.iter() {
        if *x > largest || x.is_nan() {
            largest = *x;
        }
    }
    let least = largest - 8.0;
    for x in rows {
        // Written this way, a least number that is NaN is taken.
        let limited = if *x >= least { *x } else { least };
        *x = (limited + 4.0) / 4.0;
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::speech::budget::LOG_MEL_VS_EXACT;

    /// One case of the goldens, which numpy computed in f64 (`mel_goldens.py`).
    struct Case {
        name: &'static str,
        shape: MelShape,
        padded: usize,
        samples: Vec<f32>,
        window: Vec<F32>,
        filters: Vec<F32>,
        rows: Vec<f32>,
        normalised: Vec<f32>,
    }

    fn numbers(text: &str) -> impl Iterator<Item = f32> {
        text.split_ascii_whitespace()
            .map(|word| word.parse().unwrap())
    }

    fn cases() -> Vec<Case> {
        let mut cases: Vec<Case> = Vec::new();
        for line in include_str!("../../tests/golden/mel.txt").lines() {
            let (key, rest) = line.split_once(' ').unwrap();
            match key {
                "case" => {
                    let (name, rest) = rest.split_once(' ').unwrap();
                    let words: Vec<_> = numbers(rest).map(|x| x as usize).collect();
                    let [n_fft, hop, mels, padded] = words[..] else {
                        panic!()
                    };
                    let shape = MelShape::new(n_fft, hop, mels).unwrap();
                    cases.push(Case {
                        name,
                        shape,
                        padded,
                        samples: Vec::new(),
                        window: Vec::new(),
                        filters: std::vec![F32([0; 4]); mels * shape.bins()],
                        rows: Vec::new(),
                        normalised: Vec::new(),
                    });
                }
                "#" => {}
                _ => {
                    let case = cases.last_mut().unwrap();
                    let float = |x: f32| F32(x.to_le_bytes());
                    match key {
                        "samples" => case.samples.extend(numbers(rest).map(|x| x / 32768.0)),
                        "window" => case.window.extend(numbers(rest).map(float)),
                        "row" => case.rows.extend(numbers(rest)),
                        "normalised" => case.normalised.extend(numbers(rest)),
                        "filter" => {
                            let mut rest = numbers(rest);
                            let (row, first) = (rest.next().unwrap(), rest.next().unwrap());
                            let start = row as usize * case.shape.bins() + first as usize;
                            for (to, from) in case.filters[start..].iter_mut().zip(rest) {
                                *to = float(from);
                            }
                        }
                        _ => panic!("{key}"),
                    }
                }
            }
        }
        cases
    }

    /// The rows of all frames, computed in parts of at most `chunk` frames.
    fn rows_of(case: &Case, samples: &[f32], padded: usize, chunk: usize) -> Vec<f32> {
        let shape = case.shape;
        let mut twiddles = std::vec![f32::NAN; shape.twiddles()];
        let mut spans = std::vec![[u32::MAX; 2]; shape.spans()];
        let (filters, window) = (&case.filters, &case.window);
        let front = LogMel::new(shape, filters, window, &mut twiddles, &mut spans).unwrap();
        let mut scratch = std::vec![f32::NAN; shape.scratch()];
        let frames = shape.frames(padded);
        let mut rows = std::vec![f32::NAN; frames * shape.mels()];
        for (i, rows) in rows.chunks_mut(chunk * shape.mels()).enumerate() {
            let range = i * chunk..frames.min((i + 1) * chunk);
            front.power_mel(samples, padded, range, &mut scratch, rows);
        }
        rows
    }

    fn whisper() -> Case {
        cases()
            .into_iter()
            .find(|case| case.name == "whisper-80")
            .unwrap()
    }

    fn is_close(a: &[f32], b: &[f32], tolerance: f32) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
    }

    #[test]
    fn equals_numpy() {
        for case in cases() {
            let mut rows = rows_of(&case, &case.samples, case.padded, 3);
            // The scale of normalised rows is a quarter of that of logarithms.
            assert!(
                is_close(&rows, &case.rows, 4.0 * LOG_MEL_VS_EXACT),
                "{}",
                case.name
            );
            assert_eq!(rows, rows_of(&case, &case.samples, case.padded, 64));
            normalise(&mut rows);
            assert!(
                is_close(&rows, &case.normalised, LOG_MEL_VS_EXACT),
                "{}",
                case.name
            );
        }
    }

    #[test]
    fn zeros_after_a_sound_need_not_be_stored() {
        for case in cases() {
            let mut stored = case.samples.clone();
            stored.resize(case.padded, 0.0);
            let rows = rows_of(&case, &case.samples, case.padded, 1);
            assert_eq!(
                rows,
                rows_of(&case, &stored, case.padded, 1),
                "{}",
                case.name
            );
        }
    }

    #[test]
    fn silence_of_any_length_is_the_least_power() {
        let case = whisper();
        for padded in [0, 1, 159, 160, 161, 200, 399, 400, 401, 2000] {
            for samples in [0, 1, padded / 2, padded] {
                let samples = std::vec![0.0; samples.min(padded)];
                let mut rows = rows_of(&case, &samples, padded, 2);
                assert_eq!(rows.len(), padded / 160 * 80);
                assert!(is_close(&rows, &std::vec![-10.0; rows.len()], 1e-5));
                normalise(&mut rows);
                assert!(is_close(&rows, &std::vec![-1.5; rows.len()], 1e-5));
            }
        }
        normalise(&mut []);
    }

    #[test]
    fn reflection_repeats_as_often_as_needed() {
        let around = |len: usize| (0..9).map(move |i: usize| reflected(i.abs_diff(4), len));
        let expected: [[usize; 9]; 4] = [
            [0, 0, 0, 0, 0, 0, 0, 0, 0],
            [0, 1, 0, 1, 0, 1, 0, 1, 0],
            [0, 1, 2, 1, 0, 1, 2, 1, 0],
            [2, 3, 2, 1, 0, 1, 2, 3, 2],
        ];
        for (len, expected) in (1..).zip(expected) {
            assert!(around(len).eq(expected), "{len}");
        }
        assert_eq!(reflected(7, 0), 0);
    }

    #[test]
    fn what_is_no_number_stays_in_its_frames() {
        let case = whisper();
        let mut samples = std::vec![0.25; 1600];
        samples[1000] = f32::NAN;
        let mut rows = rows_of(&case, &samples, 1600, 4);
        for (t, row) in rows.chunks(80).enumerate() {
            let covers = (t * 160).abs_diff(1000) < 200;
            assert!(row.iter().all(|x| x.is_nan() == covers), "frame {t}");
        }
        normalise(&mut rows);
        assert!(rows.iter().all(|x| x.is_nan()));
    }

    #[test]
    fn full_scale_and_beyond() {
        let case = whisper();
        let square = |amplitude: f32| (0..1600).map(move |i| [amplitude, -amplitude][i / 20 % 2]);
        let full: Vec<_> = square(1.0).collect();
        let mut rows = rows_of(&case, &full, 1600, 4);
        // A band holds at most the power of the window's sum.
        assert!(rows.iter().all(|x| (-10.0..=5.0).contains(x)));
        normalise(&mut rows);
        let largest = rows.iter().fold(f32::MIN, |a, b| a.max(*b));
        assert!(
            rows.iter()
                .all(|x| (largest - 2.0 - 1e-6..=largest).contains(x))
        );
        // Numbers that no recording has do not stop the program.
        for amplitude in [1e30, f32::MAX, f32::INFINITY, f32::MIN_POSITIVE] {
            let samples: Vec<_> = square(amplitude).collect();
            normalise(&mut rows_of(&case, &samples, 1600, 4));
        }
    }

    #[test]
    fn a_file_cannot_describe_what_cannot_be_computed() {
        assert_eq!(MelShape::new(14, 1, 1), Err(MelError::FrameLength(14)));
        assert_eq!(
            MelShape::new(usize::MAX, 1, 1),
            Err(MelError::FrameLength(usize::MAX))
        );
        assert_eq!(MelShape::new(400, 0, 80), Err(MelError::NoHop));
        assert_eq!(MelShape::new(400, 160, 0), Err(MelError::Bands(0)));
        assert_eq!(MelShape::new(400, 160, 4097), Err(MelError::Bands(4097)));
        const SHAPE: MelShape = match MelShape::new(4, usize::MAX, 2) {
            Ok(shape) => shape,
            Err(_) => panic!(),
        };
        let numbers = [F32([0xFF; 4]); 7];
        let (mut twiddles, mut spans) = ([0.0; SHAPE.twiddles()], [[0; 2]; SHAPE.spans()]);
        let mut new = |filters: usize, window: usize| {
            let (filters, window) = (&numbers[..filters], &numbers[..window]);
            LogMel::new(SHAPE, filters, window, &mut twiddles, &mut spans).map(|_| ())
        };
        assert_eq!(new(7, 4), Err(MelError::Filters(7)));
        assert_eq!(new(6, 3), Err(MelError::Window(3)));
        assert_eq!(new(6, 4), Ok(()));
    }
}

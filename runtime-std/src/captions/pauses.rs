//! Pauses of a sound: where it is cut for models that write no times.

use std::ops::Range;

use brooklet_core::speech::SAMPLE_RATE;

/// Samples of a frame: 20 ms.
const FRAME: usize = SAMPLE_RATE / 50;

/// Frames of the shortest pause that is looked for: 300 ms.
const PAUSE: usize = 15;

/// Frames that are kept before and after what is loud: 200 ms. Words begin and end softly.
const MARGIN: usize = 10;

/// Share of the power of loud frames under which a frame is quiet: 30 dB less.
const QUIET: f32 = 1e-3;

/// Of the frames the part that may be louder than the loud ones: a door that slams is no measure
/// for the speech beside it.
const LOUDER: (usize, usize) = (1, 10);

/// Power under which a frame is quiet beside any other: 70 dB under a full-scale square wave.
const SILENT: f32 = 1e-7;

/// Variance of each frame, which is its power without what does not change; the last frame may be
/// shorter.
fn powers(samples: &[f32]) -> Vec<f32> {
    let power = |frame: &[f32]| {
        let mean = frame.iter().sum::<f32>() / frame.len() as f32;
        let squares = frame.iter().map(|x| (x - mean) * (x - mean));
        squares.sum::<f32>() / frame.len() as f32
    };
    samples.chunks(FRAME).map(power).collect()
}

/// Returns where to cut: the middle of the quietest 300 ms of `samples` that do not begin before
/// sample `least`; the last of them if several are equal. All samples if what follows `least` is
/// shorter than that.
pub(super) fn quietest(samples: &[f32], least: usize) -> usize {
    let powers = powers(samples);
    let sums = powers.windows(PAUSE).map(|frames| frames.iter().sum());
    let mut best = None;
    for (start, sum) in sums.enumerate().skip(least.div_ceil(FRAME)) {
        let sum: f32 = sum;
        if best.is_none_or(|(_, least)| sum <= least) {
            best = Some((start, sum));
        }
    }
    best.map_or(samples.len(), |(start, _)| (start + PAUSE / 2) * FRAME)
}

/// Returns the samples from the first to the last frame that is not quiet, and a little around
/// them; `None` if all are silent. All samples if one is NaN, infinite or far too large: the model
/// says so.
pub(super) fn loud(samples: &[f32]) -> Option<Range<usize>> {
    let powers = powers(samples);
    if powers.iter().any(|power| !power.is_finite()) {
        return Some(0..samples.len());
    }
    let mut sorted = powers.clone();
    sorted.sort_by(f32::total_cmp);
    let loud = sorted.len() - sorted.len() * LOUDER.0 / LOUDER.1;
    let loud = loud.checked_sub(1).map_or(0.0, |at| sorted[at]);
    let is_loud = |power: &f32| *power > (loud * QUIET).max(SILENT);
    let first = powers.iter().position(is_loud)?;
    let last = powers.iter().rposition(is_loud)?;
    let start = first.saturating_sub(MARGIN) * FRAME;
    Some(start..samples.len().min((last + 1 + MARGIN) * FRAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sound: for each pair, that many frames of a tone of that amplitude.
    fn sound(parts: &[(usize, f32)]) -> Vec<f32> {
        let mut samples = Vec::new();
        for (frames, amplitude) in parts {
            for i in 0..frames * FRAME {
                samples.push((i as f32 * 0.3).sin() * amplitude);
            }
        }
        samples
    }

    #[test]
    fn a_sound_is_cut_in_its_longest_quiet_part() {
        // A short gap within a word, and a pause.
        let samples = sound(&[(100, 0.5), (4, 0.0), (60, 0.4), (30, 0.01), (100, 0.5)]);
        let cut = quietest(&samples, 50 * FRAME) / FRAME;
        assert!((164 + 7..194 - 7).contains(&cut), "{cut}");
        // The pause is over before the cut may come: then where it is softest.
        let cut = quietest(&samples, 200 * FRAME) / FRAME;
        assert!((200..294).contains(&cut), "{cut}");
        assert_eq!(quietest(&samples, 290 * FRAME), samples.len());
        assert_eq!(quietest(&[], 0), 0);
        assert_eq!(quietest(&[0.0; 7], 0), 7);
    }

    #[test]
    fn quiet_ends_are_left_out() {
        let samples = sound(&[(50, 0.001), (20, 0.5), (5, 0.0), (20, 0.3), (40, 0.002)]);
        assert_eq!(loud(&samples), Some(40 * FRAME..105 * FRAME));
        let samples = sound(&[(5, 0.5), (3, 0.0)]);
        assert_eq!(loud(&samples), Some(0..8 * FRAME));
        assert_eq!(loud(&sound(&[(50, 1e-4)])), None);
        assert_eq!(loud(&[0.0; 1000]), None);
        assert_eq!(loud(&[]), None);
        // A single sample has no power, and neither has a constant.
        assert_eq!(loud(&[0.5]), None);
        assert_eq!(loud(&[0.5; 4000]), None);
        // Speech after a slam.
        let samples = sound(&[(5, 0.9), (20, 0.0), (60, 0.01), (20, 0.0)]);
        assert_eq!(loud(&samples), Some(0..95 * FRAME));
        for bad in [f32::NAN, f32::INFINITY, 1e30] {
            let samples = [&samples[..], &[bad, 0.0]].concat();
            assert_eq!(loud(&samples), Some(0..samples.len()));
        }
    }
}

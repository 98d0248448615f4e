//! The filters and the window of Whisper's log-mel features, computed as `librosa` does: in f64, by
//! functions that give the same bits on every machine.

use std::f64::consts::PI;

use super::Array;

/// Triangular filters `[mels, n_fft / 2 + 1]` on the mel scale of Slaney's *Auditory Toolbox*, each
/// of area 1 in Hz.
///
/// The scale is linear below 1000 Hz, with 200/3 Hz to a mel, and logarithmic above, with 27 mels
/// to a factor of 6.4 in frequency (the default of `librosa.filters.mel`, whose documentation has
/// the formula; `norm="slaney"` is the factor 2 / (right - left)).
pub(super) fn filters(mels: usize, n_fft: usize, rate: usize) -> Array {
    let (linear, knee, octave) = (200.0 / 3.0, 1000.0, libm::log(6.4) / 27.0);
    let nyquist = rate as f64 / 2.0;
    let top = knee / linear + libm::log(nyquist / knee) / octave;
    let step = top / (mels + 1) as f64;
    let edge = |i: usize| {
        let mel = i as f64 * step;
        if mel < knee / linear {
            mel * linear
        } else {
            knee * libm::exp((mel - knee / linear) * octave)
        }
    };
    let bins = n_fft / 2 + 1;
    let mut values = Vec::with_capacity(mels * bins);
    for filter in 0..mels {
        let [left, centre, right] = [0, 1, 2].map(|i| edge(filter + i));
        values.extend((0..bins).map(|bin| {
            let hertz = bin as f64 * (nyquist / (bins - 1) as f64);
            let up = (hertz - left) / (centre - left);
            let down = (right - hertz) / (right - centre);
            (up.min(down).max(0.0) * 2.0 / (right - left)) as f32
        }));
    }
    Array {
        dims: vec![mels, bins],
        values,
    }
}

/// A periodic Hann window of `len` samples: its next one would be the first again.
pub(super) fn window(len: usize) -> Array {
    let at = |i: usize| 0.5 - 0.5 * libm::cos(2.0 * PI * i as f64 / len as f64);
    Array {
        dims: vec![len],
        values: (0..len).map(|i| at(i) as f32).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_triangles_of_area_one() {
        let bank = filters(80, 400, 16_000);
        assert_eq!(bank.dims, [80, 201]);
        for (number, filter) in bank.values.chunks(201).enumerate() {
            let peak = filter.iter().copied().fold(0.0, f32::max);
            let place = filter.iter().position(|x| *x == peak).unwrap();
            assert!(filter[..=place].is_sorted(), "{number}");
            assert!(filter[place..].is_sorted_by(|a, b| a >= b), "{number}");
        }
        // Of a wide one the bins, 40 Hz apart, are a good sum of the area.
        let area: f32 = bank.values[79 * 201..].iter().map(|x| x * 40.0).sum();
        assert!((area - 1.0).abs() < 0.01, "{area}");
    }

    #[test]
    fn the_window_is_periodic() {
        let window = window(400).values;
        assert_eq!((window[0], window[200]), (0.0, 1.0));
        assert!((1..400).all(|i| (window[i] - window[400 - i]).abs() < 1e-7));
    }
}

#!/usr/bin/env python3
"""Writes log-mel features of short sounds, by numpy in f64, as a golden of brooklet-core's front end.

    python3 mel_goldens.py ../../core/tests/golden/mel.txt

The definition is that of Whisper (Radford et al., arXiv 2212.04356, section 2.2): the sound with zeros up to `padded` samples, reflected by half a
frame on both sides; a periodic Hann window; the power of the Fourier transform; triangular filters on Slaney's mel scale, each of area 1 in Hz
(Slaney, Auditory Toolbox, 1998, `mfcc`); log10 of at least 1e-10, the last frame dropped; then (max(x, largest - 8) + 4) / 4.
"""

import argparse

import numpy as np

RATE = 16000
# Name, samples of a frame, hop, bands, samples of the sound, samples with the zeros after it.
CASES = [
    ("whisper-80", 400, 160, 80, 2000, 3200),
    ("whisper-128", 400, 160, 128, 700, 800),
    ("not-padded", 360, 100, 10, 500, 500),
    ("shorter-than-half-a-frame", 30, 2, 6, 5, 5),
    ("reflected-zeros", 30, 3, 6, 4, 12),
    ("one-sample", 12, 1, 3, 1, 1),
]
# Slaney's scale: 3 mels are 200 Hz up to 1000 Hz; from there on 27 mels are a factor of 6.4.
LINEAR, KNEE, STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def hertz(mel):
    knee = KNEE / LINEAR
    return np.where(mel < knee, mel * LINEAR, KNEE * np.exp(STEP * (mel - knee)))


def filterbank(n_fft, mels):
    """Rows of weights, one a band."""
    top = KNEE / LINEAR + np.log(RATE / 2 / KNEE) / STEP
    corners = hertz(np.linspace(0, top, mels + 2))
    bins = np.arange(n_fft // 2 + 1) * RATE / n_fft
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rows = np.maximum(0, np.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)))
    return (rows * 2 / (right - left)).astype(np.float32)


def sound(length):
    """A rising tone with noise, as 16-bit samples."""
    seconds = np.arange(length) / RATE
    tone = np.sin(2 * np.pi * (300 + 9000 * seconds) * seconds)
    noise = np.random.default_rng(length).standard_normal(length)
    return np.round(12000 * tone + 1500 * noise).astype(np.int16)


def features(samples, padded, window, filters, hop):
    """One row of logarithms a frame."""
    n_fft = len(window)
    whole = np.zeros(padded)
    whole[: len(samples)] = samples / 32768
    whole = np.pad(whole, n_fft // 2, mode="reflect")
    rows = []
    for frame in range(padded // hop):
        spectrum = np.fft.rfft(whole[frame * hop :][:n_fft] * window)
        power = spectrum.real**2 + spectrum.imag**2
        rows.append(np.log10(np.maximum(filters.astype(np.float64) @ power, 1e-10)))
    return np.array(rows)


def words(numbers, form):
    return " ".join(format(number, form) for number in numbers)


def lines(name, n_fft, hop, mels, length, padded):
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)
    filters, samples = filterbank(n_fft, mels), sound(length)
    yield f"case {name} {n_fft} {hop} {mels} {padded}"
    yield f"samples {words(samples, 'd')}"
    yield f"window {words(window, '.9g')}"
    for band, row in enumerate(filters):
        used = np.flatnonzero(row)
        if len(used):
            yield f"filter {band} {used[0]} {words(row[used[0] : used[-1] + 1], '.9g')}"
    rows = features(samples, padded, window.astype(np.float64), filters, hop)
    for row in rows:
        yield f"row {words(row, '.5f')}"
    for row in (np.maximum(rows, rows.max() - 8) + 4) / 4:
        yield f"normalised {words(row, '.5f')}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    args = parser.parse_args()
    with open(args.out, "w", encoding="utf-8") as file:
        file.write(f"# Written by mel_goldens.py with numpy {np.__version__}.\n")
        file.write("# case NAME FRAME HOP BANDS PADDED, then samples (of 32768), window, filter BAND FIRST_BIN WEIGHTS, and rows.\n")
        for case in CASES:
            file.writelines(line + "\n" for line in lines(*case))


if __name__ == "__main__":
    main()

//! Sounds made here, and what is read of them.

use std::f64::consts::TAU;
use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;

use super::*;

const TONE_FLAC: &[u8] = include_bytes!("../../tests/data/sound/tone.flac");
const TONE_MP3: &[u8] = include_bytes!("../../tests/data/sound/tone.mp3");

/// The forms of samples in a WAV file.
#[derive(Clone, Copy, Debug)]
enum Form {
    U8,
    S16,
    S24,
    S32,
    F32,
}

impl Form {
    /// The number of the form in the `fmt` chunk, and its bits.
    fn code(self) -> (u16, u16) {
        match self {
            Form::U8 => (1, 8),
            Form::S16 => (1, 16),
            Form::S24 => (1, 24),
            Form::S32 => (1, 32),
            Form::F32 => (3, 32),
        }
    }

    fn write(self, sample: f64, out: &mut Vec<u8>) {
        match self {
            Form::U8 => out.push((128.0 + 127.0 * sample).round() as u8),
            Form::S16 => out.extend(((32767.0 * sample).round() as i16).to_le_bytes()),
            Form::S24 => {
                out.extend(&((8_388_607.0 * sample).round() as i32).to_le_bytes()[..3]);
            }
            Form::S32 => out.extend(((2_147_483_647.0 * sample).round() as i32).to_le_bytes()),
            Form::F32 => out.extend((sample as f32).to_le_bytes()),
        }
    }
}

/// The header of a WAV file with `length` bytes of samples (RIFF, "Multimedia Programming
/// Interface and Data Specifications 1.0", 1991).
fn header((code, bits): (u16, u16), rate: u32, channels: u16, length: u32) -> Vec<u8> {
    let block = channels * bits.div_ceil(8);
    let mut bytes = b"RIFF".to_vec();
    bytes.extend(length.saturating_add(36).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0");
    bytes.extend(code.to_le_bytes());
    bytes.extend(channels.to_le_bytes());
    bytes.extend(rate.to_le_bytes());
    bytes.extend(rate.saturating_mul(u32::from(block)).to_le_bytes());
    bytes.extend(block.to_le_bytes());
    bytes.extend(bits.to_le_bytes());
    bytes.extend(b"data");
    bytes.extend(length.to_le_bytes());
    bytes
}

/// A WAV file with `frames` frames; `sample` gives that of a frame and a channel.
fn wav(
    form: Form,
    rate: u32,
    channels: u16,
    frames: u32,
    sample: impl Fn(u32, u16) -> f64,
) -> Vec<u8> {
    let mut samples = Vec::new();
    for frame in 0..frames {
        for channel in 0..channels {
            form.write(sample(frame, channel), &mut samples);
        }
    }
    let mut bytes = header(form.code(), rate, channels, samples.len() as u32);
    bytes.extend(samples);
    bytes
}

/// A sample of a tone of that frequency, at `index` of `rate`.
fn tone(frequency: f64, index: usize, rate: u32) -> f64 {
    (TAU * frequency * index as f64 / f64::from(rate)).sin()
}

fn mono(form: Form, rate: u32, frames: u32) -> Vec<u8> {
    wav(form, rate, 1, frames, |frame, _| {
        0.5 * tone(440.0, frame as usize, rate)
    })
}

fn open(bytes: Vec<u8>) -> Result<Sound, AudioError> {
    Sound::coded(Box::new(Cursor::new(bytes)))
}

/// All samples, and the error that ended them.
fn drain(sound: &mut Sound) -> (Vec<f32>, Option<AudioError>) {
    let (mut all, mut block) = (Vec::new(), [0.0; 1000]);
    loop {
        match sound.read(&mut block) {
            Ok(0) => return (all, None),
            Ok(count) => all.extend(&block[..count]),
            Err(error) => return (all, Some(error)),
        }
    }
}

fn decoded(bytes: Vec<u8>) -> Vec<f32> {
    let (samples, error) = drain(&mut open(bytes).unwrap());
    assert!(error.is_none(), "{error:?}");
    samples
}

/// The sentence of a sound that fails, and the number of samples before it.
fn failed(bytes: Vec<u8>) -> (usize, String) {
    match open(bytes) {
        Ok(mut sound) => {
            let (samples, error) = drain(&mut sound);
            let error = error.unwrap().to_string();
            assert!(matches!(sound.read(&mut [0.0]), Ok(0)), "after: {error}");
            (samples.len(), error)
        }
        Err(error) => (0, error.to_string()),
    }
}

/// The largest difference from a tone, but for 64 ms at both ends, where the filter sees silence.
fn difference(samples: &[f32], amplitude: f64, frequency: f64) -> f64 {
    let inner = 1_024..samples.len() - 1_024;
    let difference =
        |index: usize| (f64::from(samples[index]) - amplitude * tone(frequency, index, RATE)).abs();
    inner.map(difference).fold(0.0, f64::max)
}

#[test]
fn a_tone_stays_the_same_tone() {
    let cases = [
        (Form::U8, 8_000, 1, 9_000, 0.02),
        (Form::S16, 11_025, 1, 10_000, 1e-3),
        (Form::S16, 16_000, 1, 16_001, 1e-4),
        (Form::S24, 22_050, 2, 22_051, 1e-4),
        (Form::S16, 44_100, 2, 44_099, 1e-3),
        (Form::S24, 48_000, 6, 48_007, 1e-4),
        (Form::S32, 96_000, 2, 70_001, 1e-4),
        (Form::F32, 192_000, 1, 100_003, 1e-4),
        // No common divisor with 16 kHz.
        (Form::F32, 44_101, 1, 44_100, 1e-4),
    ];
    for (form, rate, channels, frames, most) in cases {
        // The channels' amplitudes are 0.5, 0.25, ...: their mean is what is left.
        let gain = |channel: u16| 0.5_f64.powi(i32::from(channel) + 1);
        let bytes = wav(form, rate, channels, frames, |frame, channel| {
            gain(channel) * tone(440.0, frame as usize, rate)
        });
        let seconds = open(bytes.clone()).unwrap().seconds();
        assert_eq!(seconds, Some(f64::from(frames) / f64::from(rate)));
        let samples = decoded(bytes);
        let expected = (f64::from(frames) * 16_000.0 / f64::from(rate)).round() as usize;
        assert_eq!(samples.len(), expected, "{form:?} at {rate} Hz");
        let mean = (0..channels).map(gain).sum::<f64>() / f64::from(channels);
        let off = difference(&samples, mean, 440.0);
        assert!(off < most * mean, "{form:?} at {rate} Hz: off by {off:e}");
    }
}

#[test]
fn the_band_below_8_khz_stays_and_nothing_above_it_comes_back() {
    for rate in [44_100, 48_000, 192_000] {
        for (frequency, amplitude) in [(50.0, 0.5), (7_300.0, 0.5), (8_300.0, 0.0), (12_000.0, 0.0)]
        {
            let samples = decoded(wav(Form::F32, rate, 1, rate, |frame, _| {
                0.5 * tone(frequency, frame as usize, rate)
            }));
            let off = difference(&samples, amplitude, frequency);
            assert!(off < 5e-4, "{frequency} of {rate} Hz: off by {off:e}");
        }
    }
}

#[test]
fn rates_that_make_no_sense_are_refused() {
    for rate in [1, 999, 384_001, u32::MAX] {
        let (count, error) = failed(mono(Form::S16, rate, 100));
        let expected = "the rate must be from 1000 to 384000 Hz";
        assert!(count == 0 && error.contains(expected), "{error}");
    }
    for rate in [1_000, 383_987, 384_000] {
        let expected = (5_000.0 * 16_000.0 / f64::from(rate)).round() as usize;
        assert_eq!(decoded(mono(Form::S16, rate, 5_000)).len(), expected);
    }
}

#[test]
fn blocks_of_any_length_make_the_same_sound() {
    let bytes = mono(Form::S16, 44_100, 20_000);
    let whole = decoded(bytes.clone());
    for length in [1, 7, 1_152, 30_000] {
        let mut sound = open(bytes.clone()).unwrap();
        let (mut all, mut block) = (Vec::<f32>::new(), vec![0.0; length]);
        while let count @ 1.. = sound.read(&mut block).unwrap() {
            // Only the last block may be shorter.
            assert!(count == length || all.len() + count == whole.len());
            all.extend(&block[..count]);
        }
        assert_eq!(all, whole);
    }
}

/// Gives one byte at a time.
struct Drops<R>(R);

impl<R: Read> Read for Drops<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = bytes.len().min(1);
        self.0.read(&mut bytes[..most])
    }
}

#[test]
fn files_and_pipes_are_the_same() {
    let bytes = mono(Form::S24, 48_000, 5_000);
    let whole = decoded(bytes.clone());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let mut sound = Sound::open(file.path()).unwrap();
    assert_eq!(drain(&mut sound).0, whole);
    let mut sound = Sound::stream(Drops(Cursor::new(bytes))).unwrap();
    assert_eq!(drain(&mut sound).0, whole);
}

#[test]
fn raw_samples_arrive_as_they_are() {
    let samples = [0.0, 0.5, -1.0, -0.25];
    let whole: Vec<f32> = samples.repeat(10_000);
    for format in [RawFormat::S16le, RawFormat::F32le] {
        let bytes: Vec<u8> = match format {
            RawFormat::S16le => {
                let integer = |sample: &f32| ((32768.0 * sample) as i16).to_le_bytes();
                whole.iter().flat_map(integer).collect()
            }
            RawFormat::F32le => whole.iter().flat_map(|s| s.to_le_bytes()).collect(),
        };
        let mut sound = Sound::raw(Cursor::new(bytes.clone()), format);
        assert_eq!(sound.seconds(), None);
        assert_eq!(drain(&mut sound).0, whole);
        let mut sound = Sound::raw(Drops(Cursor::new(bytes.clone())), format);
        assert_eq!(drain(&mut sound).0, whole);
        let cut = bytes[..bytes.len() - 1].to_vec();
        let (samples, error) = drain(&mut Sound::raw(Cursor::new(cut), format));
        assert_eq!(samples, whole[..whole.len() - 1]);
        let error = error.unwrap().to_string();
        assert_eq!(error, "the sound is not whole: it ends after 2.5 s");
    }
    let mut sound = Sound::raw(io::empty(), RawFormat::F32le);
    assert!(matches!(sound.read(&mut [0.0; 9]), Ok(0)));
}

#[test]
fn samples_that_are_no_numbers_are_refused() {
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let bytes = wav(Form::F32, 16_000, 1, 8_000, |frame, _| match frame {
            4_000 => f64::from(wrong),
            _ => 0.5,
        });
        let raw = bytes[44..].to_vec();
        let sentence =
            "the sample at 0.2500 s is not a number of a sound: NaN, infinite, or over 1e10";
        assert_eq!(failed(bytes), (4_000, sentence.to_owned()));
        let mut sound = Sound::raw(Cursor::new(raw), RawFormat::F32le);
        let (samples, error) = drain(&mut sound);
        assert_eq!(samples, [0.5; 4_000]);
        assert_eq!(error.unwrap().to_string(), sentence);
        assert!(matches!(sound.read(&mut [0.0]), Ok(0)));
    }
    // What only one of many channels holds is found too, and before it is resampled.
    let bytes = wav(Form::F32, 48_000, 3, 9_000, |frame, channel| {
        if (frame, channel) == (6_000, 1) {
            f64::NAN
        } else {
            0.5
        }
    });
    let (count, error) = failed(bytes);
    assert!(
        count == 2_000 && error.contains("at 0.1250 s"),
        "{count} {error}"
    );
}

#[test]
fn what_is_there_of_a_file_that_is_cut_short_is_read() {
    let bytes = mono(Form::S16, 48_000, 48_000);
    for kept in [44, 46, 10_000, 10_001, bytes.len() - 2] {
        let (count, error) = failed(bytes[..kept].to_vec());
        let frames = (kept - 44) / 2;
        let seconds = frames as f64 / 48_000.0;
        assert_eq!(count, (frames as f64 / 3.0).round() as usize);
        assert_eq!(
            error,
            format!("the sound is not whole: it ends after {seconds:.1} s")
        );
    }
    let (count, error) = failed(TONE_FLAC[..4_000].to_vec());
    assert!((1_000..3_000).contains(&count), "{count}: {error}");
    assert!(
        error.starts_with("the sound is not whole: it ends after 0.1 s"),
        "{error}"
    );
}

#[test]
fn a_file_without_samples_ends_at_once() {
    assert!(decoded(mono(Form::S16, 44_100, 0)).is_empty());
}

#[test]
fn lengths_that_a_pipe_did_not_know_are_no_fault() {
    let bytes = mono(Form::S16, 16_000, 5_000);
    // As ffmpeg and SoX write them.
    for (whole, samples) in [(u32::MAX, u32::MAX), (0x7FFF_F024, 0x7FFF_F000)] {
        let mut bytes = bytes.clone();
        bytes[4..8].copy_from_slice(&u32::to_le_bytes(whole));
        bytes[40..44].copy_from_slice(&u32::to_le_bytes(samples));
        assert_eq!(open(bytes.clone()).unwrap().seconds(), None);
        assert_eq!(decoded(bytes).len(), 5_000);
    }
}

#[test]
fn what_is_no_sound_is_said_in_one_sentence() {
    let not_sound =
        "this is not a sound file of a known kind: WAV, FLAC, MP3, Ogg, M4A, MP4 or Matroska";
    let no_sound = [
        Vec::new(),
        b"RIFF".to_vec(),
        b"The sea was calm, and nobody spoke.\n".repeat(100),
        vec![0; 100_000],
        vec![0xFF; 100_000],
    ];
    for bytes in no_sound {
        let start = bytes.len().min(20);
        let sentence = failed(bytes.clone()).1;
        assert_eq!(sentence, not_sound, "{:?}", &bytes[..start]);
    }
    // ADPCM: blocks of 256 bytes with 505 samples each, as an addition to the `fmt` chunk says.
    let mut bytes = header((0x11, 4), 16_000, 1, 1_024);
    bytes[4..8].copy_from_slice(&(40 + 1_024_u32).to_le_bytes());
    bytes[16] = 20;
    bytes[32..34].copy_from_slice(&256_u16.to_le_bytes());
    bytes.splice(36..36, [2, 0, 0xF9, 1]);
    bytes.resize(48 + 1_024, 0);
    let sentence = "the sound is coded as ADPCM, which cannot be decoded";
    assert_eq!(failed(bytes).1, sentence);
    let mut bytes = header((0x7777, 16), 16_000, 1, 1_024);
    bytes.resize(44 + 1_024, 0);
    let sentence = "a part of the format cannot be decoded, 0.0 s into the sound: wav: unsupported wave format";
    assert_eq!(failed(bytes).1, sentence);
    let error = Sound::open(Path::new("/")).err().unwrap().to_string();
    assert_eq!(error, "the sound cannot be read: is a directory");
}

#[test]
fn coded_tones_are_the_same_tone() {
    let samples = decoded(TONE_FLAC.to_vec());
    assert_eq!(samples.len(), 4_000);
    assert!(difference(&samples, 0.375, 440.0) < 1e-4);
    let samples = decoded(TONE_MP3.to_vec());
    assert_eq!(samples.len(), 4_000);
    // LAME makes everything 5 % quieter.
    assert!(difference(&samples, 0.95 * 0.375, 440.0) < 1e-3);
}

#[test]
fn after_damage_the_rest_is_where_it_was() {
    let whole = decoded(TONE_FLAC.to_vec());
    let mut bytes = TONE_FLAC.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 100].fill(0);
    let mut sound = open(bytes).unwrap();
    let (mut samples, error) = drain(&mut sound);
    let error = error.unwrap().to_string();
    assert_eq!(
        error,
        "the sound is damaged at 0.1 s: a part of it is missing"
    );
    let (rest, error) = drain(&mut sound);
    samples.extend(rest);
    assert!(error.is_none() && samples.len() == whole.len());
    assert_eq!(samples[3_500..], whole[3_500..]);
}

/// An endless WAV file in bytes that repeat.
struct Endless {
    header: Cursor<Vec<u8>>,
    left: u64,
}

impl Read for Endless {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = bytes.len().min(self.left as usize);
        self.left -= most as u64;
        let start = self.header.read(&mut bytes[..most])?;
        bytes[start..most].fill(0x11);
        Ok(most)
    }
}

#[test]
fn memory_does_not_grow_with_the_length() {
    // Without a length, as programs write to a pipe: an hour at 8 kHz.
    let header = Cursor::new(header((1, 8), 8_000, 1, u32::MAX));
    let mut sound = Sound::stream(Endless {
        header,
        left: 44 + 8_000 * 3_600,
    })
    .unwrap();
    assert_eq!(sound.seconds(), None);
    let (mut block, mut total, mut room) = (vec![0.0; 16_000], 0, 0);
    while let count @ 1.. = sound.read(&mut block).unwrap() {
        total += count;
        room = room.max(sound.ready.capacity());
    }
    assert_eq!(total, 3_600 * RATE as usize);
    assert!(room <= 16_384, "{room}");
}

/// Reads to the end, past damage. Counts bound what a file may claim.
fn survives(bytes: Vec<u8>) {
    let Ok(mut sound) = open(bytes) else { return };
    let seconds = sound.seconds();
    assert!(seconds.is_none_or(|seconds| seconds >= 0.0));
    let (mut block, mut faults, mut total) = ([0.0; 4_096], 0, 0);
    loop {
        match sound.read(&mut block) {
            Ok(0) => break,
            Ok(count) => {
                assert!(block[..count].iter().all(|sample| sample.is_finite()));
                total += count;
            }
            Err(error) => {
                let sentence = error.to_string();
                assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
                faults += 1;
            }
        }
        assert!(faults < 10_000 && total < 100_000_000);
    }
}

proptest! {
    #[test]
    fn hostile_bytes_do_no_harm(
        file in 0_usize..6,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        early in any::<bool>(),
        kept in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = match file {
            0 => mono(Form::S16, 44_100, 5_000),
            1 => mono(Form::F32, 8_000, 5_000),
            2 => wav(Form::S24, 48_000, 6, 3_000, |frame, _| tone(440.0, frame as usize, 48_000)),
            3 => mono(Form::U8, 192_000, 5_000),
            4 => TONE_FLAC.to_vec(),
            _ => TONE_MP3.to_vec(),
        };
        // Half of the time only what stands before the samples changes.
        let most = if early { 64 } else { bytes.len() };
        for (place, byte) in changes {
            bytes[place.index(most)] = byte;
        }
        if cut {
            bytes.truncate(kept.index(bytes.len()));
        }
        survives(bytes);
    }

    #[test]
    fn any_bytes_are_raw_samples(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let mut sound = Sound::raw(Cursor::new(bytes.clone()), RawFormat::S16le);
        prop_assert_eq!(drain(&mut sound).0.len(), bytes.len() / 2);
        let (samples, _) = drain(&mut Sound::raw(Cursor::new(bytes), RawFormat::F32le));
        prop_assert!(samples.iter().all(|sample| sample.is_finite()));
    }
}

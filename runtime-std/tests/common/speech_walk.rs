//! Reading bytes that need not be what they claim, as `brooklet convert` and `brooklet caption` do:
//! for the fuzz target and for the replay of its inputs.

use std::io::{self, Cursor};

use brooklet::audio::Sound;
use brooklet::convert::speech::{ctranslate2, moonshine, whisper_cpp};
use brooklet::core::quant::Format;

/// Most samples that are read of a sound: a minute.
const SAMPLES: usize = 60 * 16_000;

/// Reads the input after its first byte, which says as what; true if it is that.
pub fn walk(input: &[u8]) -> bool {
    let Some((kind, bytes)) = input.split_first() else {
        return false;
    };
    let (half, out) = (bytes.len() / 2, io::sink());
    match kind {
        b'c' => {
            let files = ctranslate2::Files {
                model: bytes,
                vocabulary: b"<|endoftext|>\n<|startoftranscript|>\n<|translate|>",
                config: None,
            };
            ctranslate2::write(&files, Format::Q8_0, out).is_ok()
        }
        b'w' => whisper_cpp::write(bytes, Format::Q8_0, out).is_ok(),
        b'm' => {
            let files = moonshine::Files {
                encoder: &bytes[..half],
                decoder: &bytes[half..],
                tokenizer: b"\x01a",
            };
            moonshine::write(&files, Format::Q8_0, out).is_ok()
        }
        _ => hears(bytes),
    }
}

/// Reads a sound; true if it ends as it should.
fn hears(bytes: &[u8]) -> bool {
    let Ok(mut sound) = Sound::stream(Cursor::new(bytes.to_vec())) else {
        return false;
    };
    let mut samples = [0.0; 4096];
    let mut left = SAMPLES;
    loop {
        match sound.read(&mut samples) {
            Ok(0) => return true,
            Ok(count) => {
                let heard = &samples[..count];
                assert!(heard.iter().all(|sample| sample.is_finite()));
                left = left.saturating_sub(count);
                if left == 0 {
                    return true;
                }
            }
            Err(_) => return false,
        }
    }
}

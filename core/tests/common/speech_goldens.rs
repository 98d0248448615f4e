//! The tiny random Whisper, its sounds and their logits by `transformers`. Made by
//! `runtime-std/oracles/speech_goldens.py`, which describes the files.

use std::fs;
use std::path::Path;

/// Content of `speech.txt` and of the model's files.
pub struct Golden {
    pub file: Vec<u8>,
    pub ids: Vec<u32>,
    pub vocab: usize,
    pub sounds: Vec<Sound>,
}

/// Frames of a sound, and the logits after each token.
pub struct Sound {
    pub frames: Vec<f32>,
    pub logits: Vec<f32>,
}

impl Golden {
    pub fn read() -> Golden {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let text = fs::read_to_string(tests.join("golden/speech/speech.txt")).unwrap();
        let words = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap()
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let ids: Vec<u32> = words("ids").iter().map(|id| id.parse().unwrap()).collect();
        let model = words("model");
        let numbers: Vec<usize> = model[1..]
            .iter()
            .map(|word| word.parse().unwrap())
            .collect();
        let [mels, width, vocab, ref frames @ ..] = numbers[..] else {
            panic!("speech.txt has three numbers and the frames");
        };
        let bytes = fs::read(tests.join(format!("golden/speech/{}.f32", model[0]))).unwrap();
        let floats = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes));
        let mut floats = floats.collect::<Vec<_>>().into_iter();
        let mut take = |count: usize| floats.by_ref().take(count).collect::<Vec<f32>>();
        let sounds = frames.iter().map(|frames| {
            let input = take(frames * mels);
            take(frames / 2 * width);
            Sound {
                frames: input,
                logits: take(ids.len() * vocab),
            }
        });
        Golden {
            file: fs::read(tests.join(format!("data/{}.gguf", model[0]))).unwrap(),
            sounds: sounds.collect(),
            ids,
            vocab,
        }
    }
}

//! Tiny random speech models, their sounds and their logits by `transformers`. Made by
//! `runtime-std/oracles/speech_goldens.py` and `moonshine_goldens.py`, which describe the files.

use std::fs;
use std::path::Path;

/// Content of a list of goldens and of its model's files.
pub struct Golden {
    /// Values of a row of the encoder's input.
    pub width: usize,
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
    /// The tiny random Whisper.
    pub fn whisper() -> Golden {
        Golden::read("speech.txt", |frames| frames / 2)
    }

    /// The tiny random Moonshine.
    pub fn moonshine() -> Golden {
        Golden::read("moonshine.txt", |samples| {
            let first = (samples - 127) / 64 + 1;
            let second = (first - 7) / 3 + 1;
            (second - 3) / 2 + 1
        })
    }

    fn read(list: &str, rows: fn(usize) -> usize) -> Golden {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let text = fs::read_to_string(tests.join("golden/speech").join(list)).unwrap();
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
        let [input_width, width, vocab, ref frames @ ..] = numbers[..] else {
            panic!("{list} has three numbers and the frames");
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
            let input = take(frames * input_width);
            take(rows(*frames) * width);
            Sound {
                frames: input,
                logits: take(ids.len() * vocab),
            }
        });
        Golden {
            width: input_width,
            file: fs::read(tests.join(format!("data/{}.gguf", model[0]))).unwrap(),
            sounds: sounds.collect(),
            ids,
            vocab,
        }
    }
}

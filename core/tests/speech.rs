//! Tiny random speech models against Hugging Face `transformers`: the logits of the decoder after
//! the encoder has seen whole and short sounds.

#[path = "common/speech_goldens.rs"]
mod speech_goldens;
#[path = "common/streamed.rs"]
mod streamed;

use std::fs;
use std::path::Path;

use brooklet_core::cache::{CrossLayout, ElementType, LayoutChoice, Policy};
use brooklet_core::gguf::Gguf;
use brooklet_core::plan::Options;
use brooklet_core::stream::{Stream, StreamError};
use brooklet_core::transcribe::{Request, SpeechTokens, Transcriber, Written};

use speech_goldens::{Golden, Sound};
use streamed::with_stream;

/// Largest error of a logit, with everything in f32 on both sides, relative to the largest logit.
const BUDGET: f32 = 2e-5;

impl Golden {
    fn with_stream<R>(&self, options: &Options, work: impl FnOnce(&mut Stream<'_>) -> R) -> R {
        with_stream(&self.file, options, work)
    }

    /// Returns the logits after each token, for each sound; all are heard by one stream.
    fn run(&self, options: &Options) -> Vec<Vec<f32>> {
        self.with_stream(options, |stream| {
            let run = |sound: &Sound| {
                let mut logits = Vec::new();
                stream.reset();
                stream.encode(&sound.frames).unwrap();
                stream
                    .feed_each(&self.ids, &mut |_, row| logits.extend_from_slice(row))
                    .unwrap();
                logits
            };
            self.sounds.iter().map(run).collect()
        })
    }

    /// Returns the largest error of all logits, relative to the largest logit of a sound.
    fn error(&self, ours: &[Vec<f32>]) -> f32 {
        let of_sound = |(sound, ours): (&Sound, &Vec<f32>)| {
            assert_eq!(ours.len(), self.ids.len() * self.vocab);
            let largest = sound
                .logits
                .iter()
                .fold(0.0f32, |most, x| most.max(x.abs()));
            let pairs = ours.iter().zip(&sound.logits);
            pairs.fold(0.0f32, |most, (a, b)| most.max((a - b).abs() / largest))
        };
        self.sounds
            .iter()
            .zip(ours)
            .map(of_sound)
            .fold(0.0, f32::max)
    }
}

/// Options with everything in f32.
fn exact(cross: CrossLayout, layout: LayoutChoice, chunk: usize) -> Options {
    Options {
        policy: Policy::Dense { capacity: 32 },
        cache_type: ElementType::F32,
        layout,
        cross,
        chunk,
        logits_rows: chunk,
        f32_activations: true,
        ..Options::sink(0, 1)
    }
}

#[test]
fn every_layout_gives_the_logits_of_transformers() {
    // Moonshine's keys are rotated: its decoder cannot keep inputs.
    let (whisper, moonshine) = (Golden::whisper(), Golden::moonshine());
    let all = [
        (&whisper, LayoutChoice::Kv),
        (&whisper, LayoutChoice::X),
        (&moonshine, LayoutChoice::Kv),
    ];
    for (golden, layout) in all {
        for cross in CrossLayout::ALL {
            for chunk in [1, 5, 24, 64] {
                let error = golden.error(&golden.run(&exact(cross, layout, chunk)));
                assert!(
                    error <= BUDGET,
                    "input of {}, {cross}, {layout}, chunks of {chunk}: {error}",
                    golden.width
                );
            }
        }
    }
}

/// The cost of int8 activations, of an encoder's attention in 8-bit integers, and of smaller
/// element types. The logits of this model are small and random: a real model's are far apart.
#[test]
fn smaller_numbers_stay_within_their_budgets() {
    for golden in [Golden::whisper(), Golden::moonshine()] {
        for (cache_type, budget) in [(ElementType::F16, 2e-2), (ElementType::Q8_0, 4e-2)] {
            for cross in CrossLayout::ALL {
                let options = Options {
                    cache_type,
                    f32_activations: false,
                    ..exact(cross, LayoutChoice::Kv, 24)
                };
                let error = golden.error(&golden.run(&options));
                let (width, name) = (golden.width, cache_type.name());
                assert!(
                    error <= budget,
                    "input of {width}, {cross}, {name}: {error}"
                );
            }
        }
    }
}

#[test]
fn chunks_change_no_bit_with_keys_and_values() {
    for golden in [Golden::whisper(), Golden::moonshine()] {
        let run = |chunk| golden.run(&exact(CrossLayout::Kv, LayoutChoice::Kv, chunk));
        let one_by_one = run(1);
        for chunk in [3, 8, 24] {
            assert!(run(chunk) == one_by_one, "chunks of {chunk}");
        }
        // With 8-bit attention in the encoder, too.
        let run = |chunk| {
            golden.run(&Options {
                f32_activations: false,
                ..exact(CrossLayout::Kv, LayoutChoice::Kv, chunk)
            })
        };
        let one_by_one = run(1);
        for chunk in [3, 8, 24, 64] {
            assert!(run(chunk) == one_by_one, "chunks of {chunk}");
        }
    }
}

#[test]
fn the_output_of_the_encoder_is_kept_once() {
    let golden = Golden::whisper();
    let bytes = |cross| {
        let options = exact(cross, LayoutChoice::Kv, 8);
        golden.with_stream(&options, |stream| {
            stream.plan().part(brooklet_core::plan::Part::CrossCache)
        })
    };
    // Two layers of keys and values.
    assert_eq!(bytes(CrossLayout::Kv), 4 * bytes(CrossLayout::E));
}

/// From samples to the end of a transcript, by a model that writes nonsense: whatever it writes is
/// in the order of the rules, and ends.
#[test]
fn a_sound_becomes_a_transcript_that_ends() {
    let golden = Golden::whisper();
    let file = Gguf::parse(&golden.file).unwrap();
    let tokens = SpeechTokens::from_gguf(&file, golden.vocab).unwrap();
    let samples: Vec<f32> = (0..7680).map(|i| (i as f32 * 0.05).sin() * 0.3).collect();
    let options = Options {
        f32_activations: false,
        ..exact(CrossLayout::E, LayoutChoice::X, 8)
    };
    golden.with_stream(&options, |stream| {
        let mut transcriber = Transcriber::new(stream, tokens);
        let mut write = |samples: &[f32], request: &Request<'_>| {
            transcriber.hear(samples).unwrap();
            let language = transcriber.detect_language().unwrap();
            let request = Request {
                language,
                ..*request
            };
            transcriber.begin(&request).unwrap();
            let mut written = Vec::new();
            loop {
                match transcriber.write_next().unwrap() {
                    Written::End => break written,
                    piece => written.push(piece),
                }
            }
        };
        for samples in [&samples[..], &samples[..1], &samples[..4000]] {
            let before = [1, 2, 3];
            for before in [&[][..], &before] {
                let with_times = Request {
                    times: true,
                    before,
                    ..Request::default()
                };
                let written = write(samples, &with_times);
                assert!(written.len() <= 16, "half of the positions");
                assert!(matches!(written.first(), None | Some(Written::Time(_))));
                let text = write(
                    samples,
                    &Request {
                        before,
                        ..Request::default()
                    },
                );
                assert!(text.iter().all(|piece| matches!(piece, Written::Text(_))));
                // The same sound gives the same text again.
                assert_eq!(write(samples, &with_times), written);
            }
        }
    });
    golden.with_stream(&options, |stream| {
        assert_eq!(
            stream.hear(&[f32::NAN; 400]),
            Err(StreamError::SoundNotFinite)
        );
        assert_eq!(stream.hear(&[]), Err(StreamError::NothingToHear));
        let loud = [1e30; 400];
        assert_eq!(stream.hear(&loud), Err(StreamError::SoundNotFinite));
        let long = StreamError::SourceTooLong {
            frames: 49,
            most: 48,
        };
        assert_eq!(stream.hear(&vec![0.0; 7681]), Err(long));
    });
}

/// A model that writes text only: it ends, at the latest after as many tokens as the sound has
/// room for, and a sound of one sample is followed by zeros.
#[test]
fn a_model_without_times_writes_text_and_ends() {
    let golden = Golden::moonshine();
    let file = Gguf::parse(&golden.file).unwrap();
    let tokens = SpeechTokens::from_gguf(&file, golden.vocab).unwrap();
    assert_eq!((tokens.start, tokens.end, tokens.times), (1, 2, None));
    let samples = &golden.sounds[0].frames;
    golden.with_stream(&exact(CrossLayout::E, LayoutChoice::Kv, 8), |stream| {
        let mut transcriber = Transcriber::new(stream, tokens);
        let mut write = |samples: &[f32], times| {
            transcriber.hear(samples).unwrap();
            assert_eq!(transcriber.detect_language().unwrap(), None);
            let request = Request {
                times,
                ..Request::default()
            };
            transcriber.begin(&request).unwrap();
            assert_eq!(transcriber.no_speech(), 0.0);
            let mut written = Vec::new();
            loop {
                match transcriber.write_next().unwrap() {
                    Written::Text(token) => written.push(token),
                    Written::Time(_) => unreachable!("it knows no times"),
                    Written::End => break written,
                }
            }
        };
        // 1.25 s have room for nine tokens, and the shortest sound for one.
        let written = write(samples, false);
        assert!(!written.is_empty() && written.len() <= 9, "{written:?}");
        assert_eq!(write(samples, true), written);
        assert!(write(&samples[..1], false).len() <= 1);
    });
    // The tokens that the model thinks of first, by transformers' logits.
    let options = exact(CrossLayout::E, LayoutChoice::Kv, 8);
    golden.with_stream(&options, |stream| {
        stream.encode(samples).unwrap();
        let ours = stream.feed(&golden.ids[..1]).unwrap().to_vec();
        let theirs = &golden.sounds[0].logits[..golden.vocab];
        let largest = |logits: &[f32]| brooklet_core::sampler::argmax(logits);
        assert_eq!(largest(&ours), largest(theirs));
        assert_eq!(stream.hear(&[]), Err(StreamError::NothingToHear));
        assert_eq!(
            stream.hear(&[f32::INFINITY; 900]),
            Err(StreamError::SoundNotFinite)
        );
        let most = 1249 * 384 + 510;
        let long = StreamError::SourceTooLong {
            frames: most + 1,
            most,
        };
        assert_eq!(stream.hear(&vec![0.0; most + 1]), Err(long));
    });
}

#[test]
fn what_cannot_be_encoded_is_an_error() {
    let golden = Golden::whisper();
    let options = exact(CrossLayout::E, LayoutChoice::Kv, 8);
    golden.with_stream(&options, |stream| {
        assert_eq!(stream.feed(&[1]).unwrap_err(), StreamError::NoSource);
        assert_eq!(stream.encode(&[]), Err(StreamError::NothingToHear));
        let rows = StreamError::Rows {
            width: 16,
            given: 17,
        };
        assert_eq!(stream.encode(&[0.0; 17]), Err(rows));
        let long = StreamError::SourceTooLong {
            frames: 49,
            most: 48,
        };
        assert_eq!(stream.encode(&[0.0; 49 * 16]), Err(long));
        // An odd number of frames, and a single one.
        for frames in [47, 1] {
            stream.reset();
            stream.encode(&vec![0.5; frames * 16]).unwrap();
            assert!(stream.feed(&[1]).unwrap().iter().all(|x| x.is_finite()));
        }
    });
    let other = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/random.gguf"));
    with_stream(&other.unwrap(), &Options::sink(4, 60), |stream| {
        assert_eq!(stream.encode(&[0.0; 80]), Err(StreamError::NoEncoder));
    });
}

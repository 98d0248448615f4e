//! Generations of a feed that counts its calls, and stop texts against a naive search.

use std::string::String;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::Vec;
use std::{format, vec};

use proptest::prelude::*;

use super::*;
use crate::arena::ALIGN;
use crate::gguf::Gguf;
use crate::kernels::Isa;
use crate::model::{Config, Layer, Model};
use crate::plan::{Options, Plan};
use crate::sampler::{Sampler, SamplerOptions};
use crate::stream::{Stream, StreamError};
use crate::threads::Threads;
use crate::tokenizer::{EncodeOptions, Tokenizer, Vocab};

const FILE: &[u8] = include_bytes!("../../tests/data/random.gguf");

/// Works with the tokenizer of a small model.
fn with_tokenizer<R>(work: impl FnOnce(&mut Tokenizer<'_>) -> R) -> R {
    let file = Gguf::parse(FILE).unwrap();
    let vocab = Vocab::from_gguf(&file).unwrap();
    let mut memory = vec![0; vocab.index_bytes(64) + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    work(&mut Tokenizer::new(&vocab, &mut memory[start..]).unwrap())
}

/// A feed whose logits depend on the last two tokens only, and which records its calls.
struct Counter {
    chunk: usize,
    capacity: usize,
    seen: Vec<u32>,
    absorbed: Vec<usize>,
    fed: Vec<usize>,
    logits: Vec<f32>,
    candidates: Vec<u32>,
}

impl Counter {
    fn new(chunk: usize, vocab: usize) -> Self {
        Counter {
            chunk,
            capacity: usize::MAX,
            seen: Vec::new(),
            absorbed: Vec::new(),
            fed: Vec::new(),
            logits: vec![0.0; vocab],
            candidates: vec![0; vocab],
        }
    }

    fn take(&mut self, tokens: &[u32]) -> Result<(), StreamError> {
        if tokens.is_empty() {
            return Err(StreamError::NoTokens);
        }
        if self.seen.len() + tokens.len() > self.capacity {
            let capacity = self.capacity;
            return Err(StreamError::Full { capacity });
        }
        self.seen.extend(tokens);
        Ok(())
    }
}

/// Logits after a text.
fn logits_after(seen: &[u32], vocab: usize) -> Vec<f32> {
    let last = seen.iter().rev().take(2);
    let hash = last.fold(17u32, |hash, token| {
        (hash ^ token).wrapping_mul(0x9E37_79B1)
    });
    let logit = |id: u32| (hash ^ id).wrapping_mul(0x85EB_CA6B) >> 8;
    (0..vocab as u32).map(|id| logit(id) as f32 / 1e6).collect()
}

impl Feed for Counter {
    fn chunk(&self) -> usize {
        self.chunk
    }

    fn absorb(&mut self, tokens: &[u32]) -> Result<(), StreamError> {
        self.take(tokens)?;
        self.absorbed.push(tokens.len());
        Ok(())
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<Next<'_>, StreamError> {
        self.take(tokens)?;
        self.fed.push(tokens.len());
        self.logits = logits_after(&self.seen, self.logits.len());
        Ok(self.last())
    }

    fn last(&mut self) -> Next<'_> {
        Next {
            logits: &mut self.logits,
            candidates: &mut self.candidates,
        }
    }
}

/// Feeds a whole prompt.
fn prefill(generation: &mut Generation, feed: &mut Counter, sampler: &mut Sampler, prompt: &[u32]) {
    let mut left = prompt;
    while !left.is_empty() {
        let fed = generation.prefill(feed, sampler, left).unwrap();
        left = &left[fed..];
    }
}

#[test]
fn logits_are_computed_for_the_last_chunk_of_a_prompt_alone() {
    for (chunk, absorbed, last) in [(1, vec![1; 9], 1), (4, vec![4, 4], 2), (16, vec![], 10)] {
        let mut feed = Counter::new(chunk, 50);
        let mut sampler = Sampler::new(SamplerOptions::default());
        let mut generation = Generation::new(Some(3), AtEnd::GoOn);
        let prompt: Vec<u32> = (1..=10).collect();
        prefill(&mut generation, &mut feed, &mut sampler, &prompt);
        assert_eq!((&feed.absorbed, &feed.fed), (&absorbed, &vec![last]));
        // The last token of three is not fed.
        while let Step::Token(_) = generation.next_token(&mut feed, &mut sampler, &[]).unwrap() {}
        assert_eq!(feed.fed, [last, 1, 1]);
        assert_eq!(generation.pending(), Some(argmax_after(&feed.seen)));
        // The next prompt comes after it.
        let pending = generation.pending().unwrap();
        let mut next = generation.followed_by(None, AtEnd::GoOn);
        next.prefill(&mut feed, &mut sampler, &[5]).unwrap();
        assert_eq!(feed.seen[12..], [pending, 5]);
    }
    let mut generation = Generation::new(None, AtEnd::GoOn);
    let mut sampler = Sampler::new(SamplerOptions::default());
    let nothing = generation.prefill(&mut Counter::new(4, 50), &mut sampler, &[]);
    assert_eq!(nothing, Err(StreamError::NoTokens));
}

#[test]
fn sampling_without_scratch_is_an_error() {
    let mut feed = Counter::new(4, 50);
    feed.candidates.clear();
    let sampling = SamplerOptions {
        temperature: 0.5,
        ..SamplerOptions::default()
    };
    let mut sampler = Sampler::new(sampling);
    let mut generation = Generation::new(None, AtEnd::GoOn);
    prefill(&mut generation, &mut feed, &mut sampler, &[1, 2]);
    let (needed, given) = (50, 0);
    let refused = generation.next_token(&mut feed, &mut sampler, &[]);
    assert_eq!(refused, Err(StreamError::NotForSampling { needed, given }));
    // Greedy choice needs none.
    sampler.restart(SamplerOptions::default());
    let chosen = generation.next_token(&mut feed, &mut sampler, &[]);
    assert_eq!(chosen, Ok(Step::Token(argmax_after(&[1, 2]))));
}

fn argmax_after(seen: &[u32]) -> u32 {
    crate::sampler::argmax(&logits_after(seen, 50))
}

/// Each token counts once for the penalty, also the prompt's: if a token were accepted twice, two
/// tokens back would be one.
#[test]
fn the_sampler_is_told_of_every_token_once() {
    let options = SamplerOptions {
        repeat_penalty: 50.0,
        repeat_last: 3,
        ..SamplerOptions::default()
    };
    let prompt = [7, 3, 9, 4];
    let mut feed = Counter::new(2, 6);
    let mut sampler = Sampler::new(options);
    let mut generation = Generation::new(Some(200), AtEnd::GoOn);
    prefill(&mut generation, &mut feed, &mut sampler, &prompt);
    let mut all = prompt.to_vec();
    while let Step::Token(token) = generation.next_token(&mut feed, &mut sampler, &[]).unwrap() {
        let mut logits = logits_after(&all, 6);
        for recent in &all[all.len() - 3..] {
            if let Some(logit) = logits.get_mut(*recent as usize) {
                *logit /= 50.0;
            }
        }
        assert_eq!(token, crate::sampler::argmax(&logits));
        all.push(token);
    }
    assert_eq!(all.len(), 204);
}

#[test]
fn ends_finish_or_are_avoided_or_are_tokens() {
    let run = |at_end, ends: &[u32]| {
        let mut feed = Counter::new(1, 8);
        let mut sampler = Sampler::new(SamplerOptions::default());
        let mut generation = Generation::new(Some(40), at_end);
        prefill(&mut generation, &mut feed, &mut sampler, &[1]);
        let mut tokens = Vec::new();
        loop {
            match generation
                .next_token(&mut feed, &mut sampler, ends)
                .unwrap()
            {
                Step::Token(token) => tokens.push(token),
                Step::Finished(finish) => {
                    // The result stays the same.
                    let again = generation.next_token(&mut feed, &mut sampler, ends);
                    assert_eq!(again, Ok(Step::Finished(finish)));
                    assert_eq!(generation.tokens(), tokens.len() as u64);
                    return (tokens, finish, generation.pending());
                }
            }
        }
    };
    let (all, finish, pending) = run(AtEnd::GoOn, &[0, 1, 2, 3]);
    assert_eq!(
        (all.len(), finish, pending),
        (40, Finish::Length, Some(all[39]))
    );
    let end = all[5];
    let first = all.iter().position(|token| *token == end).unwrap();
    // An id beyond the vocabulary has no effect.
    let (some, finish, pending) = run(AtEnd::Finish, &[end, 99]);
    assert_eq!(
        (&some[..], finish, pending),
        (&all[..first], Finish::End, None)
    );
    let (others, finish, _) = run(AtEnd::Avoid, &[end, 99]);
    assert_eq!((others.len(), finish), (40, Finish::Length));
    assert!(!others.contains(&end));
    assert_eq!(run(AtEnd::Avoid, &[]).0, all);
}

#[test]
fn a_full_cache_and_a_limit_of_nothing_end_it() {
    let mut feed = Counter::new(2, 8);
    feed.capacity = 5;
    let mut sampler = Sampler::new(SamplerOptions::default());
    let mut generation = Generation::new(None, AtEnd::GoOn);
    prefill(&mut generation, &mut feed, &mut sampler, &[1, 2, 3]);
    let mut next = || generation.next_token(&mut feed, &mut sampler, &[]).unwrap();
    assert!((0..3).all(|_| matches!(next(), Step::Token(_))));
    assert_eq!([next(), next()], [Step::Finished(Finish::Full); 2]);
    assert!(generation.pending().is_some());
    let mut none = Generation::new(Some(0), AtEnd::GoOn);
    let step = none.next_token(&mut feed, &mut sampler, &[]);
    assert_eq!(step, Ok(Step::Finished(Finish::Length)));
}

/// The text of a generation is that of its tokens, cut before a stop text, in whatever pieces it
/// comes.
#[test]
fn text_ends_before_a_stop_text() {
    with_tokenizer(|tokenizer| {
        let vocab = tokenizer.vocab().len();
        let run = |stops: &[&str]| {
            let mut feed = Counter::new(4, vocab);
            let mut sampler = Sampler::new(SamplerOptions::default());
            let mut generation = Generation::new(Some(60), AtEnd::Avoid);
            prefill(&mut generation, &mut feed, &mut sampler, &[1, 2]);
            let (mut text, mut bytes) = (String::new(), Vec::new());
            let finish = loop {
                let mut parts = Parts {
                    feed: &mut feed,
                    tokenizer,
                    sampler: &mut sampler,
                    stops,
                };
                match generation
                    .next(&mut parts, &mut |piece| text.push_str(piece))
                    .unwrap()
                {
                    Step::Token(token) => bytes.extend(tokenizer.piece(token, false)),
                    Step::Finished(finish) => break finish,
                }
            };
            assert_eq!(generation.finish(), Some(finish));
            (text, String::from_utf8_lossy(&bytes).into_owned(), finish)
        };
        let (whole, bytes, finish) = run(&[]);
        assert_eq!((&whole, finish), (&bytes, Finish::Length));
        assert!(whole.len() > 60, "{whole:?}");
        let (text, _, finish) = run(&["never this", ""]);
        assert_eq!((text, finish), (whole.clone(), Finish::Length));
        let starts: Vec<usize> = whole.char_indices().map(|(at, _)| at).collect();
        for pair in starts.windows(6).step_by(3) {
            let stop = &whole[pair[0]..pair[5]];
            let (text, _, finish) = run(&["nor that", stop]);
            assert_eq!(text, whole[..whole.find(stop).unwrap()]);
            assert_eq!(finish, Finish::Stop);
        }
    });
}

/// The calling thread, which counts its calls: products of matrices and attention.
#[derive(Default)]
struct Calls(AtomicUsize);

impl Threads for Calls {
    fn workers(&self) -> usize {
        1
    }

    fn run(&self, jobs: usize, job: &(dyn Fn(usize, usize) + Sync)) {
        self.0.fetch_add(1, Ordering::Relaxed);
        (0..jobs).for_each(|index| job(0, index));
    }
}

/// Works with a session of a small model.
fn with_session<R>(chunk: usize, work: impl FnOnce(&mut Session<'_>, &Calls) -> R) -> R {
    let file = Gguf::parse(FILE).unwrap();
    let config = Config::from_gguf(&file).unwrap();
    let layers: Vec<Layer<'_>> = (0..config.layers)
        .map(|layer| Layer::read(&file, &config, layer).unwrap())
        .collect();
    let model = Model::new(&file, &layers).unwrap();
    let vocab = Vocab::from_gguf(&file).unwrap();
    let options = Options {
        chunk,
        tokenizer_bytes: vocab.index_bytes(64),
        ..Options::sink(4, 28)
    };
    let plan = Plan::new(&config, &options).unwrap();
    let mut memory = vec![0; plan.bytes() + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    let (engine, index) = plan.split(&mut memory[start..][..plan.bytes()]).unwrap();
    let calls = Calls::default();
    let stream = Stream::new(model, &plan, engine, Isa::Scalar, &calls).unwrap();
    let tokenizer = Tokenizer::new(&vocab, index).unwrap();
    work(&mut Session::new(stream, tokenizer), &calls)
}

fn encoded(session: &mut Session<'_>, text: &str) -> Vec<u32> {
    let mut tokens = Vec::new();
    let mut push = |token| tokens.push(token);
    session
        .tokenizer()
        .encode(text.as_bytes(), EncodeOptions::default(), &mut push);
    tokens
}

/// Begins with a prompt; returns the number of calls for each chunk of it.
fn begun(
    session: &mut Session<'_>,
    calls: &Calls,
    prompt: &[u32],
    request: Request<'static>,
) -> Vec<usize> {
    session.begin(SamplerOptions::default(), request);
    let (mut left, mut took) = (prompt, Vec::new());
    while !left.is_empty() {
        let before = calls.0.load(Ordering::Relaxed);
        let fed = session.prefill(left).unwrap();
        took.push(calls.0.load(Ordering::Relaxed) - before);
        left = &left[fed..];
    }
    took
}

/// Returns all the text that follows.
fn rest(session: &mut Session<'_>) -> String {
    let mut text = String::new();
    while let Step::Token(_) = session.next(&mut |piece| text.push_str(piece)).unwrap() {}
    text
}

#[test]
fn the_output_matrix_is_multiplied_once_a_prompt() {
    let request = Request {
        limit: Some(40),
        at_end: AtEnd::GoOn,
        stops: &[],
    };
    let [one, four] = [1, 4].map(|chunk| {
        with_session(chunk, |session, calls| {
            let prompt = encoded(session, "The sea was 7 °C.");
            let took = begun(session, calls, &prompt, request);
            let (last, others) = took.split_last().unwrap();
            assert_eq!(others.len(), prompt.len().div_ceil(chunk) - 1);
            // For the other chunks, the last layer computes only keys and values, and there are no
            // logits.
            assert!(others.iter().all(|calls| calls < last), "{took:?}");
            rest(session)
        })
    });
    assert!(one.len() > 30 && one == four, "{one:?} {four:?}");
}

#[test]
fn a_session_goes_on_after_a_text_and_forgets_when_it_is_told_to() {
    let request = Request {
        limit: Some(7),
        at_end: AtEnd::Avoid,
        ..Request::default()
    };
    with_session(4, |session, calls| {
        let prompt = encoded(session, "The sea");
        begun(session, calls, &prompt, request);
        let first = rest(session);
        assert_eq!(session.generation().finish(), Some(Finish::Length));
        // The last token is fed before the second prompt.
        let seen = session.stream().position();
        assert_eq!(seen, prompt.len() as u64 + 6);
        begun(session, calls, &prompt, request);
        assert_eq!(session.stream().position(), seen + 1 + prompt.len() as u64);
        rest(session);
        session.reset();
        begun(session, calls, &prompt, request);
        assert_eq!(session.stream().position(), prompt.len() as u64);
        assert_eq!(rest(session), first);
    });
}

/// Returns the output for these pieces, its length after each of them, and whether a stop text was
/// found.
fn filtered(stops: &[&str], pieces: &[&str]) -> (String, Vec<usize>, bool) {
    let mut filter = StopFilter::new();
    let (mut out, mut lengths) = (String::new(), Vec::new());
    let mut is_stopped = false;
    for piece in pieces {
        let mut emit = |text: &str| out.push_str(text);
        filter.push(stops, piece, &mut emit);
        is_stopped = filter.end_piece(stops, &mut emit);
        lengths.push(out.len());
        if is_stopped {
            break;
        }
    }
    filter.finish(stops, &mut |text| out.push_str(text));
    (out, lengths, is_stopped)
}

/// Does the same by searching all of the text after each piece.
fn naively_filtered(stops: &[&str], pieces: &[&str]) -> (String, Vec<usize>, bool) {
    let stops: Vec<&str> = stops
        .iter()
        .copied()
        .filter(|stop| !stop.is_empty())
        .collect();
    let (mut text, mut lengths) = (String::new(), Vec::new());
    for piece in pieces {
        text.push_str(piece);
        if let Some(at) = stops.iter().filter_map(|stop| text.find(stop)).min() {
            lengths.push(at);
            return (text[..at].into(), lengths, true);
        }
        let may_begin = |at: &usize| stops.iter().any(|stop| stop.starts_with(&text[*at..]));
        let held = text.char_indices().map(|(at, _)| at).find(may_begin);
        lengths.push(held.unwrap_or(text.len()));
    }
    (text, lengths, false)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

    #[test]
    fn stop_texts_are_found_as_by_a_search_of_all_the_text(
        stops in prop::collection::vec("[abé]{0,5}", 0..4),
        pieces in prop::collection::vec("[abéè]{0,7}", 0..12),
    ) {
        let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        prop_assert_eq!(filtered(&stops, &pieces), naively_filtered(&stops, &pieces));
    }
}

#[test]
fn stops_however_the_text_is_cut() {
    let text = "naïve aab, then </s> and the rest";
    for (cut, _) in text.char_indices() {
        let pieces = [&text[..cut], &text[cut..]];
        let out = |stops: &[&str]| {
            let (out, _, is_stopped) = filtered(stops, &pieces);
            (out, is_stopped)
        };
        assert_eq!(out(&["</s>"]), ("naïve aab, then ".into(), true));
        assert_eq!(out(&["ab", "</s>"]), ("naïve a".into(), true));
        assert_eq!(out(&["ïx", "</t>"]), (text.into(), false));
        assert_eq!(out(&["", "rest!"]), (text.into(), false));
    }
    // Of the stop texts that one piece completes, the one that begins first counts; the other one
    // counts if it is complete a piece earlier.
    assert_eq!(filtered(&["abcd", "bc"], &["xabcd"]).0, "x");
    assert_eq!(filtered(&["abcd", "bc"], &["xabc", "d"]).0, "xa");
}

#[test]
fn text_that_cannot_be_a_stop_is_not_held_back() {
    let (out, lengths, _) = filtered(&["END"], &["word ", "E", "N", "ough"]);
    assert_eq!((out, lengths), ("word ENough".into(), vec![5, 5, 5, 11]));
    let (out, lengths, _) = filtered(&["END"], &["the E", "N"]);
    assert_eq!((out, lengths), ("the EN".into(), vec![4, 4]));
    // Stop texts that differ from those before are a mistake, but nothing breaks.
    let mut filter = StopFilter::new();
    filter.push(&["éa"], "é", &mut |_| panic!("it is held back"));
    filter.push(&["x"], "y", &mut |text| assert_eq!(text, "y"));
    filter.finish::<&str>(&[], &mut |text| {
        panic!("{}", format!("nothing is left of {text}"))
    });
}

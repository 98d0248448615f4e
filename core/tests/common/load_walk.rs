//! The whole way from a file's bytes to logits: header, facts, layers, plan, stream, tokenizer, a
//! few tokens. This is the body of the fuzz target, of the replay of its corpus and of the hostile
//! set.

use brooklet_core::arena::ALIGN;
use brooklet_core::cache::{ElementType, Policy};
use brooklet_core::gguf::Gguf;
use brooklet_core::kernels::Isa;
use brooklet_core::model::{Config, Layer, Model};
use brooklet_core::plan::{Options, Plan};
use brooklet_core::stream::{Stream, StreamError};
use brooklet_core::threads::SingleThread;
use brooklet_core::tokenizer::{EncodeOptions, Tokenizer, Vocab};

/// Largest number of bytes of the arena, for any file.
const BUDGET: usize = 4 << 20;
/// Requested window, if the trained context is as large.
const WINDOW: usize = 12;
/// Number of tokens that are fed.
const TOKENS: usize = 7;
const TEXT: &[u8] = "The sea <s></s>\u{fffd} 12\n".as_bytes();

/// Loads `bytes`, with the options that the last byte chooses, and feeds a few tokens on each of
/// `isas`.
///
/// # Errors
/// The sentence of the first step that refuses, as a person sees it.
///
/// # Panics
/// If a promise is broken.
pub fn walk(bytes: &[u8], isas: &[Isa]) -> Result<(), String> {
    let file = Gguf::parse(bytes).map_err(said)?;
    let tokenizer = tokenize(&file);
    // A missing tokenizer is an error only if text is needed.
    let tokens = tokenizer.clone().unwrap_or(vec![0, 1, 2, 3]);
    let config = Config::from_gguf(&file).map_err(said)?;
    let layers: Result<Vec<Layer<'_>>, _> = (0..config.layers_in_file())
        .map(|layer| Layer::read(&file, &config, layer))
        .collect();
    let layers = layers.map_err(said)?;
    let model = Model::new(&file, &layers).map_err(said)?;
    let choice = usize::from(bytes.last().copied().unwrap_or(0));
    let plan = Plan::within(&config, &options(&config, choice), BUDGET).map_err(said)?;
    assert!(plan.bytes() <= BUDGET);
    let logits: Vec<Vec<u32>> = isas
        .iter()
        .map(|&isa| stream(model, &plan, isa, &tokens))
        .collect();
    if config.encoder.get().is_some() {
        // Convolutions are products of floats, whose order of additions differs by instruction set.
        return tokenizer.map(|_| ());
    }
    for (bits, isa) in logits.iter().zip(isas) {
        let different = bits.iter().zip(&logits[0]).position(|(a, b)| a != b);
        assert!(
            different.is_none() && bits.len() == logits[0].len(),
            "{} differs from {}: logit {different:?} of {bits:08x?}, {:08x?}",
            isa.name(),
            isas[0].name(),
            logits[0]
        );
    }
    tokenizer.map(|_| ())
}

fn said(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains('\n'));
    text
}

/// Returns the tokens of a text, or some ids for a file without a tokenizer. A broken vocabulary is
/// an error.
fn tokenize(file: &Gguf<'_>) -> Result<Vec<u32>, String> {
    let mut tokens = vec![0, 1, 2, 3];
    if file.get("tokenizer.ggml.tokens").is_none() {
        return Ok(tokens);
    }
    let vocab = Vocab::from_gguf(file).map_err(said)?;
    let needed = vocab.index_bytes(TEXT.len());
    assert!(
        needed < (file.bytes().len() + 64) * 512,
        "{needed} bytes of index"
    );
    let mut memory = vec![0; needed + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    let mut tokenizer = Tokenizer::new(&vocab, &mut memory[start..start + needed]).map_err(said)?;
    tokenizer.encode(TEXT, EncodeOptions::default(), &mut |id| tokens.push(id));
    for id in &tokens {
        assert!(tokenizer.piece(*id, true).count() <= file.bytes().len());
    }
    Ok(tokens)
}

/// Returns options that go through policies and types of the cache in turn.
fn options(config: &Config, choice: usize) -> Options {
    let window = WINDOW.min(config.context.saturating_sub(2)).max(1);
    let sinks = if config.context > 2 { 2 } else { 0 };
    let policies = [
        Policy::Sink { sinks, window },
        Policy::Dense { capacity: window },
        Policy::Window { window },
        Policy::Recompute { window },
    ];
    let types = [ElementType::F32, ElementType::F16, ElementType::Q8_0];
    Options {
        policy: policies[choice % policies.len()],
        cache_type: types[choice / policies.len() % types.len()],
        chunk: 3,
        f32_activations: choice >= 128,
        ..Options::sink(sinks, window)
    }
}

/// Feeds `tokens` and returns the bits of the last logits.
fn stream(model: Model<'_>, plan: &Plan, isa: Isa, tokens: &[u32]) -> Vec<u32> {
    let vocab = model.config.vocab;
    let mut memory = vec![0; plan.bytes() + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    let (arena, _) = plan
        .split(&mut memory[start..][..plan.bytes()])
        .expect("planned");
    let mut stream = Stream::new(model, plan, arena, isa, &SingleThread).expect("planned");
    assert!(matches!(stream.feed(&[]), Err(StreamError::NoTokens)));
    let outside = [u32::try_from(vocab).expect("a checked dimension")];
    assert!(matches!(
        stream.feed(&outside),
        Err(StreamError::TokenOutOfRange { .. })
    ));
    if let Some(encoder) = model.config.encoder.get() {
        assert!(matches!(stream.feed(&[0]), Err(StreamError::NoSource)));
        let samples: Vec<f32> = (0..encoder.most_samples().min(2000))
            .map(|i| (i % 37) as f32 / 37.0)
            .collect();
        match stream.hear(&samples) {
            // Weights that overflow later make no error here: their logits are compared as all
            // others.
            Ok(()) => {}
            Err(StreamError::NotFinite { .. }) => return Vec::new(),
            Err(error) => panic!("a finite sound that is not too long: {error}"),
        }
    }
    let known = tokens.iter().copied().filter(|id| (*id as usize) < vocab);
    let fed: Vec<u32> = known.take(TOKENS).collect();
    let mut bits = Vec::new();
    for part in fed.chunks(4) {
        if let Ok(logits) = stream.feed(part) {
            assert_eq!(logits.len(), vocab);
            bits = logits
                .iter()
                .map(|v| if v.is_nan() { f32::NAN } else { *v }.to_bits())
                .collect();
        }
    }
    bits
}

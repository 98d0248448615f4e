//! Perplexity of a text under a board's setup, with `libm` or with `micromath`.

use std::fs;
use std::path::Path;

use brooklet_board_data::Board;
use brooklet_core::arena::ALIGN;
use brooklet_core::gguf::Gguf;
use brooklet_core::kernels::Isa;
use brooklet_core::model::{Config, Layer, Model};
use brooklet_core::plan::Plan;
use brooklet_core::stream::Stream;
use brooklet_core::threads::SingleThread;
use brooklet_core::tokenizer::{EncodeOptions, IndexedVocab, Tokenizer, Vocab};

use crate::reference::setup_of;
use crate::{Error, model_of, table};

/// Prints the perplexity of the first `tokens` tokens of the text at `path`.
pub fn print(path: &Path, tokens: usize) -> Result<(), Error> {
    let board = Board::read(&table(), "mps2-an386")?;
    let bytes = fs::read(model_of(&board))?;
    let file = Gguf::parse(&bytes)?;
    let config = Config::from_gguf(&file)?;
    let layers: Vec<Layer<'_>> = (0..config.layers)
        .map(|layer| Layer::read(&file, &config, layer))
        .collect::<Result<_, _>>()?;
    let vocab = Vocab::from_gguf(&file)?;
    let mut words = vec![0; IndexedVocab::words(&vocab)];
    let indexed = IndexedVocab::build(&vocab, &mut words)?;
    let plan = Plan::new(&config, &setup_of(&board).options(&vocab))?;
    let mut memory = vec![0; plan.bytes() + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    let (engine, window) = plan
        .split(&mut memory[start..])
        .ok_or("the arena is shorter than planned")?;

    let mut ids = Vec::new();
    Tokenizer::over(indexed, window)?.encode(
        &fs::read(path)?,
        EncodeOptions::default(),
        &mut |id| ids.push(id),
    );
    ids.truncate(tokens + 1);
    if ids.len() < 2 {
        return Err(format!("{} has no tokens to predict", path.display()).into());
    }
    let model = Model::new(&file, &layers)?;
    let mut stream = Stream::new(model, &plan, engine, Isa::Scalar, &SingleThread)?;
    let mut nats = 0.0;
    for pair in ids.windows(2) {
        nats -= log_probability(stream.feed(&pair[..1])?, pair[1]);
    }
    let predicted = ids.len() - 1;
    let mathematics = if cfg!(feature = "libm") {
        "libm"
    } else {
        "micromath"
    };
    say!(
        "{mathematics}: perplexity {:.5} of {predicted} tokens",
        (nats / predicted as f64).exp()
    );
    Ok(())
}

/// The natural logarithm of a token's probability.
fn log_probability(logits: &[f32], token: u32) -> f64 {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|logit| f64::from(logit - most).exp())
        .sum();
    f64::from(logits[token as usize] - most) - sum.ln()
}

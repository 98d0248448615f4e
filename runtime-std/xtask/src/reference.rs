//! The host's run of a board's story: the source of expected outputs.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use brooklet_core::arena::ALIGN;
use brooklet_core::cache::ElementType;
use brooklet_core::gguf::Gguf;
use brooklet_core::kernels::Isa;
use brooklet_core::model::{Config, Layer, Model};
use brooklet_core::plan::{Options, Plan};
use brooklet_core::tokenizer::{EncodeOptions, IndexedVocab, Tokenizer, Vocab};
use brooklet_firmware::{Board, Event, Setup, Story};

use crate::Error;

/// A board's setup.
pub fn setup_of(board: &brooklet_board_data::Board) -> Setup {
    Setup {
        sinks: board.sinks,
        window: board.window,
        chunk: board.chunk,
        cache_type: board.cache,
        layout: board.layout,
        temperature: board.temperature,
        seed: board.seed,
    }
}

/// Expected result of a prompt on a board.
pub struct Reference {
    /// The board's plan.
    pub plan: Plan,
    /// Weights that take part in a token's products: all but the embedding's.
    pub parameters: usize,
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Tokens said after it.
    pub ids: Vec<u32>,
    /// The prompt and their text.
    pub text: String,
}

/// A board that remembers.
#[derive(Default)]
struct Host {
    ids: Vec<u32>,
    text: String,
    typed: VecDeque<u8>,
}

impl Board for Host {
    fn say(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn heard(&mut self) -> Option<u8> {
        self.typed.pop_front()
    }

    fn ticks(&mut self) -> u32 {
        0
    }

    fn event(&mut self, event: Event) {
        if let Event::Said { id, .. } = event {
            self.ids.push(id);
        }
    }
}

impl Reference {
    /// Continues `prompt` by `tokens` tokens with the model at `path`, with the scalar kernels of
    /// this machine.
    ///
    /// # Errors
    /// If the file cannot be read or is no model of a known family.
    pub fn run(path: &Path, setup: Setup, prompt: &str, tokens: usize) -> Result<Reference, Error> {
        Reference::run_with(path, setup, prompt, tokens, |_| {})
    }

    /// As [`Reference::run`], with f32 activations and an f32 cache: without rounding that
    /// other programs do not have.
    ///
    /// # Errors
    /// As [`Reference::run`].
    pub fn run_in_f32(
        path: &Path,
        setup: Setup,
        prompt: &str,
        tokens: usize,
    ) -> Result<Reference, Error> {
        Reference::run_with(path, setup, prompt, tokens, |options| {
            options.f32_activations = true;
            options.cache_type = ElementType::F32;
        })
    }

    fn run_with(
        path: &Path,
        setup: Setup,
        prompt: &str,
        tokens: usize,
        change: impl FnOnce(&mut Options),
    ) -> Result<Reference, Error> {
        let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let file = Gguf::parse(&bytes)?;
        let config = Config::from_gguf(&file)?;
        let layers: Vec<Layer<'_>> = (0..config.layers)
            .map(|layer| Layer::read(&file, &config, layer))
            .collect::<Result<_, _>>()?;
        let model = Model::new(&file, &layers)?;
        let vocab = Vocab::from_gguf(&file)?;
        let mut options = setup.options(&vocab);
        change(&mut options);
        let plan = Plan::new(&config, &options)?;
        let mut memory = vec![0; plan.bytes() + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        let mut words = vec![0; IndexedVocab::words(&vocab)];
        let indexed = IndexedVocab::build(&vocab, &mut words)?;
        let prompt_ids = encode(indexed, prompt)?;

        let arena = &mut memory[start..][..plan.bytes()];
        let mut story = Story::new(setup, model, indexed, &plan, arena, Isa::Scalar)?;
        let mut host = Host::default();
        story.begin(prompt.as_bytes(), &mut host)?;
        for _ in 0..tokens {
            story.step(&mut host)?;
        }
        Ok(Reference {
            plan,
            parameters: parameters(&config),
            prompt: prompt_ids,
            ids: host.ids,
            text: host.text,
        })
    }

    /// Compares prompt and tokens with those that `model/reference.py` wrote to `path`.
    ///
    /// # Errors
    /// If the file cannot be read or says something else.
    pub fn check_ids(&self, path: &Path) -> Result<(), Error> {
        let ours = format!(
            "{}\n{}\n",
            blanks_between(&self.prompt),
            blanks_between(&self.ids)
        );
        let theirs = fs::read_to_string(path)?;
        if ours != theirs {
            return Err(format!(
                "the host and {} differ\nhost:\n{ours}\nthere:\n{theirs}",
                path.display()
            )
            .into());
        }
        Ok(())
    }
}

fn encode(vocab: IndexedVocab<'_>, text: &str) -> Result<Vec<u32>, Error> {
    let mut window = vec![0; vocab.vocab().window_bytes(64) + ALIGN];
    let start = window.as_ptr().align_offset(ALIGN);
    let mut tokenizer = Tokenizer::over(vocab, &mut window[start..])?;
    let mut ids = Vec::new();
    tokenizer.encode(text.as_bytes(), EncodeOptions::default(), &mut |id| {
        ids.push(id)
    });
    Ok(ids)
}

/// Weights that a token is multiplied with: of queries, keys, values and output, of the
/// feed-forward network, and of the logits.
fn parameters(config: &Config) -> usize {
    let width = config.d_model;
    let heads = config.heads * config.head_dim;
    let kv = config.kv_heads * config.head_dim;
    config.layers * (2 * width * heads + 2 * width * kv + 3 * width * config.ff)
        + config.vocab * width
}

fn blanks_between(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

//! A stream and a tokenizer at work in an arena that somebody else holds.

use std::sync::Arc;

use brooklet_core::cache::Ring;
use brooklet_core::plan::Plan;
use brooklet_core::stream::{Stream, StreamError};
use brooklet_core::tokenizer::{EncodeOptions, Mark, Tokenizer};

use crate::Error;
use crate::model::{IndexError, Model, no_memory};
use crate::planning::Settings;
use crate::system::isa::detect_isa;
use crate::system::mmap::ArenaMemory;
use crate::system::pool::Pool;

/// The memory and the threads of an engine, as planned.
pub struct Resources {
    plan: Plan,
    arena: ArenaMemory,
    pool: Arc<Pool>,
}

impl Resources {
    /// Plans for a session of `model`, and takes from the system what the plan says; the threads
    /// are the model's.
    ///
    /// # Errors
    /// As [`Model::plan`] and [`Model::pool`]; if the system refuses memory.
    pub fn new(model: &Model, settings: &Settings) -> Result<Resources, Error> {
        Resources::of(model, model.plan(settings)?)
    }

    /// As [`Resources::new`], with the window and the chunk of a plan [with the
    /// index](Model::plan_with_index).
    ///
    /// # Errors
    /// As [`Resources::new`].
    pub fn as_planned(model: &Model, plan: &Plan) -> Result<Resources, Error> {
        Resources::of(model, model.own_plan(plan)?)
    }

    fn of(model: &Model, plan: Plan) -> Result<Resources, Error> {
        Ok(Resources {
            plan,
            arena: ArenaMemory::new(plan.bytes())
                .map_err(|error| no_memory(plan.bytes(), error))?,
            pool: model.pool()?,
        })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}

/// A model at work; borrows the model, its memory and the threads. [`Session`](crate::Session)
/// holds all of them.
pub struct Engine<'a> {
    model: &'a Model,
    stream: Stream<'a>,
    tokenizer: Result<Tokenizer<'a>, IndexError>,
}

impl<'a> Engine<'a> {
    /// Lays the engine out in its memory. Nothing is allocated by it after this.
    ///
    /// # Errors
    /// If `BROOKLET_ISA` names an instruction set that is not there.
    pub fn new(model: &'a Model, resources: &'a mut Resources) -> Result<Engine<'a>, Error> {
        let Resources { plan, arena, pool } = resources;
        let isa = detect_isa()?;
        let arena = arena.bytes();
        let (needed, given) = (plan.bytes(), arena.len());
        let (arena, window) = plan
            .split(arena)
            .ok_or(StreamError::Arena { needed, given })?;
        // A file without a tokenizer runs on tokens; a caller who asks for text gets the reason.
        let tokenizer = model
            .index()
            .and_then(|vocab| Tokenizer::over(vocab, window).map_err(IndexError::Vocab));
        Ok(Engine {
            model,
            stream: Stream::new(model.weights()?, plan, arena, isa, &**pool)?,
            tokenizer,
        })
    }

    /// Tokens fed so far.
    pub fn position(&self) -> u64 {
        self.stream.position()
    }

    /// The cache's slots: the tokens that are kept.
    pub fn ring(&self) -> &Ring {
        self.stream.ring()
    }

    /// The text of tokens, with the names of control tokens if `special` is set. Bytes that are no
    /// text become U+FFFD.
    ///
    /// # Errors
    /// As [`Model::vocab`].
    pub fn decode(&self, tokens: &[u32], special: bool) -> Result<String, Error> {
        let tokenizer = self
            .tokenizer
            .as_ref()
            .map_err(|error| self.model.index_error(*error))?;
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|id| tokenizer.piece(*id, special))
            .collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The stream: tokens in, logits out.
    pub fn stream(&mut self) -> &mut Stream<'a> {
        &mut self.stream
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// As [`Model::vocab`].
    pub fn tokenizer(&mut self) -> Result<&mut Tokenizer<'a>, Error> {
        Ok(self.parts()?.1)
    }

    /// The stream and the tokenizer.
    ///
    /// # Errors
    /// As [`Model::vocab`].
    pub fn parts(&mut self) -> Result<(&mut Stream<'a>, &mut Tokenizer<'a>), Error> {
        match &mut self.tokenizer {
            Ok(tokenizer) => Ok((&mut self.stream, tokenizer)),
            Err(error) => Err(self.model.index_error(*error)),
        }
    }

    /// The tokens of a prompt, with the start-of-sequence token where the model asks for one.
    /// Control tokens written out in the text are not obeyed. An empty prompt is that token alone,
    /// where the model has one.
    ///
    /// # Errors
    /// As [`Model::vocab`].
    pub fn encode(&mut self, text: &[u8]) -> Result<Vec<u32>, Error> {
        Ok(encode_prompt(self.tokenizer()?, text, false))
    }
}

/// The tokens of a prompt, as [`Engine::encode`] gives them; control tokens written out in the text
/// are obeyed if `special` is set.
pub(crate) fn encode_prompt(tokenizer: &mut Tokenizer<'_>, text: &[u8], special: bool) -> Vec<u32> {
    let options = EncodeOptions {
        bos: if text.is_empty() {
            Mark::Always
        } else {
            Mark::Model
        },
        special,
        ..EncodeOptions::default()
    };
    let mut tokens = Vec::new();
    tokenizer.encode(text, options, &mut |token| tokens.push(token));
    tokens
}

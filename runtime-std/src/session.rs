//! A conversation with a model: its own arena, planned before it starts, and the text that it is
//! writing.

use brooklet_core::cache::Ring;
use brooklet_core::generate::{AtEnd, Finish, Generation, Parts, Step};
use brooklet_core::plan::Plan;
use brooklet_core::sampler::{Sampler, SamplerOptions};
use brooklet_core::tokenizer::{EncodeOptions, Mark};
use self_cell::{MutBorrow, self_cell};

use crate::Error;
use crate::engine::{Engine, Resources};
use crate::generate::Cancel;
use crate::model::Model;
use crate::notice::{Notice, Notices};
use crate::planning::Settings;

self_cell! {
    struct Running {
        owner: Held,
        #[not_covariant]
        dependent: Engine,
    }
}

/// The model and the memory that the engine borrows.
struct Held {
    model: Model,
    resources: MutBorrow<Resources>,
}

/// A stream of text over a [`Model`], in an arena of its own: it can be stored and sent to other
/// threads, and it takes [`Plan::bytes`] of memory and nothing else, whatever it writes.
pub struct Session {
    running: Running,
    plan: Plan,
    sampler: Sampler,
    generation: Generation,
    finish: Option<Finish>,
    notices: Notices,
}

impl Model {
    /// Starts a session in memory of its own. The model's threads are shared: sessions that compute
    /// at the same time take turns.
    ///
    /// # Errors
    /// As [`Model::plan`]; if the system refuses memory or threads; if `BROOKLET_ISA` names an
    /// instruction set that is not there.
    pub fn session(&self, settings: &Settings) -> Result<Session, Error> {
        self.start(Resources::new(self, settings)?)
    }

    /// Starts a session with the window and the chunk of a plan [with the
    /// index](Model::plan_with_index).
    ///
    /// # Errors
    /// As [`Model::session`].
    pub fn session_as_planned(&self, plan: &Plan) -> Result<Session, Error> {
        self.start(Resources::as_planned(self, plan)?)
    }

    fn start(&self, resources: Resources) -> Result<Session, Error> {
        let plan = *resources.plan();
        let mut notices = Notices::new();
        for notice in self.notices(&plan) {
            notices.add(notice);
        }
        let held = Held {
            model: self.clone(),
            resources: MutBorrow::new(resources),
        };
        let running = Running::try_new(held, |held| {
            Engine::new(&held.model, held.resources.borrow_mut())
        })?;
        Ok(Session {
            running,
            plan,
            sampler: Sampler::new(SamplerOptions::default()),
            generation: Generation::new(None, AtEnd::Finish),
            finish: None,
            notices,
        })
    }
}

impl Session {
    /// The model.
    pub fn model(&self) -> &Model {
        &self.running.borrow_owner().model
    }

    /// The plan of the arena: what every byte is for.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Lends the engine: the stream of tokens and the tokenizer.
    ///
    /// ```
    /// # use brooklet::{Model, Settings};
    /// # let file = concat!(env!("CARGO_MANIFEST_DIR"), "/models/stories/tiny-q8_0.gguf");
    /// # let model = Model::open(file)?;
    /// let mut session = model.session(&Settings::new().window(64))?;
    /// let best = session.with(|engine| -> Result<_, brooklet::Error> {
    ///     let tokens = engine.encode(b"The sea")?;
    ///     let logits = engine.stream().feed(&tokens)?;
    ///     Ok((0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])))
    /// })?;
    /// assert!(best.is_some());
    /// # Ok::<(), brooklet::Error>(())
    /// ```
    pub fn with<'s, R>(&'s mut self, work: impl for<'a> FnOnce(&'s mut Engine<'a>) -> R) -> R {
        self.running.with_dependent_mut(|_, engine| work(engine))
    }

    /// Tokens fed so far.
    pub fn position(&self) -> u64 {
        self.running.with_dependent(|_, engine| engine.position())
    }

    /// The cache's slots: the tokens that are kept.
    pub fn ring(&self) -> &Ring {
        self.running.with_dependent(|_, engine| engine.ring())
    }

    /// The text of tokens, with the names of control tokens if `special` is set.
    ///
    /// # Errors
    /// As [`Model::vocab`].
    pub fn decode(&self, tokens: &[u32], special: bool) -> Result<String, Error> {
        self.running
            .with_dependent(|_, engine| engine.decode(tokens, special))
    }

    /// Forgets all text.
    pub fn reset(&mut self) {
        self.with(|engine| engine.stream().reset());
        self.generation = Generation::new(None, AtEnd::Finish);
        self.finish = None;
    }

    /// The reason why the last text has ended; `None` while it goes on.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// Notices of what was cut or ignored so far, each once.
    pub fn notices(&self) -> &[Notice] {
        self.notices.all()
    }

    /// Goes on with `prompt` after everything that was said so far, and writes what follows.
    /// Nothing is computed before the text is iterated over.
    pub fn text(&mut self, prompt: &str) -> Text<'_> {
        Text {
            session: self,
            prompt: prompt.as_bytes().to_vec(),
            limit: None,
            at_end: AtEnd::Finish,
            stops: Vec::new(),
            sampling: SamplerOptions::default(),
            cancel: Cancel::new(),
            is_begun: false,
            is_over: false,
        }
    }

    /// The tokens of a prompt: at the start of a stream as [`Engine::encode`], else without the
    /// token of a start.
    fn encode(&mut self, prompt: &[u8]) -> Result<Vec<u32>, Error> {
        let is_first = self.position() == 0 && self.generation.pending().is_none();
        self.with(|engine| {
            if is_first {
                return engine.encode(prompt);
            }
            let options = EncodeOptions {
                bos: Mark::Never,
                continued: true,
                ..EncodeOptions::default()
            };
            let mut tokens = Vec::new();
            engine
                .tokenizer()?
                .encode(prompt, options, &mut |token| tokens.push(token));
            Ok(tokens)
        })
    }
}

/// A text that is being written, in pieces of one token or more: an iterator, and the options that
/// it begins with. Without them the text is greedy, and ends where the model ends it.
///
/// ```
/// # use brooklet::{Model, Settings};
/// # let file = concat!(env!("CARGO_MANIFEST_DIR"), "/models/stories/tiny-q8_0.gguf");
/// # let model = Model::open(file)?;
/// let mut session = model.session(&Settings::new().window(64))?;
/// for piece in session.text("The sea was").limit(20).temperature(0.8).seed(7).stop("\n\n") {
///     print!("{}", piece?);
/// }
/// # Ok::<(), brooklet::Error>(())
/// ```
pub struct Text<'s> {
    session: &'s mut Session,
    prompt: Vec<u8>,
    limit: Option<u64>,
    at_end: AtEnd,
    stops: Vec<String>,
    sampling: SamplerOptions,
    cancel: Cancel,
    is_begun: bool,
    is_over: bool,
}

impl Text<'_> {
    /// Writes at most `tokens` tokens.
    pub fn limit(mut self, tokens: u64) -> Self {
        self.limit = Some(tokens);
        self
    }

    /// Writes for ever: tokens that end a text are never chosen.
    pub fn endless(mut self) -> Self {
        self.at_end = AtEnd::Avoid;
        self
    }

    /// Ends before this text. May be called several times.
    pub fn stop(mut self, text: &str) -> Self {
        self.stops.push(text.to_owned());
        self
    }

    /// Draws tokens at random, from logits divided by `temperature`.
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.sampling.temperature = temperature;
        self
    }

    /// The start of the random sequence: the same seed writes the same text.
    pub fn seed(mut self, seed: u64) -> Self {
        self.sampling.seed = seed;
        self
    }

    /// Everything that a sampler can be told.
    pub fn sampling(mut self, options: SamplerOptions) -> Self {
        self.sampling = options;
        self
    }

    /// Ends when this handle, or a clone of it, says so.
    pub fn cancelled_by(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// Computes the next token, the first time the prompt too, and calls `emit` with the text that
    /// is certain now. Returns why the text has ended, once it has. Allocates nothing after the
    /// first call.
    ///
    /// # Errors
    /// If the file has no tokenizer, or the prompt is empty and nothing was said before it; if the
    /// prompt does not fit a dense cache.
    pub fn step(&mut self, emit: &mut dyn FnMut(&str)) -> Result<Option<Finish>, Error> {
        if !self.is_begun && !self.begin()? {
            return Ok(self.session.finish);
        }
        if self.session.finish.is_some() {
            return Ok(self.session.finish);
        }
        let Session {
            running,
            sampler,
            generation,
            finish,
            ..
        } = &mut *self.session;
        if generation.finish().is_none() && self.cancel.is_cancelled() {
            generation.flush(&self.stops, emit);
            *finish = Some(Finish::Interrupted);
            return Ok(*finish);
        }
        let step = running.with_dependent_mut(|_, engine| -> Result<Step, Error> {
            let (feed, tokenizer) = engine.parts()?;
            let mut parts = Parts {
                feed,
                tokenizer,
                sampler,
                stops: &self.stops,
            };
            Ok(generation.next(&mut parts, emit)?)
        })?;
        if let Step::Finished(why) = step {
            *finish = Some(why);
        }
        Ok(*finish)
    }

    /// Feeds the prompt; false if that was cancelled.
    fn begin(&mut self) -> Result<bool, Error> {
        self.is_begun = true;
        let prompt = self.session.encode(&self.prompt)?;
        let cut = Notice::of_prompt(&self.session.plan, prompt.len());
        cut.into_iter()
            .for_each(|cut| self.session.notices.add(cut));
        let Session {
            running,
            sampler,
            generation,
            finish,
            ..
        } = &mut *self.session;
        *sampler = Sampler::new(self.sampling);
        *generation = generation.followed_by(self.limit, self.at_end);
        *finish = None;
        let mut fed = 0;
        // A text may go on without a prompt, but not begin without one.
        let goes_on = running.with_dependent_mut(|_, engine| engine.stream().position() > 0);
        while fed < prompt.len() || (prompt.is_empty() && !goes_on) {
            if self.cancel.is_cancelled() {
                *finish = Some(Finish::Interrupted);
                return Ok(false);
            }
            fed += running.with_dependent_mut(|_, engine| {
                generation.prefill(engine.stream(), sampler, &prompt[fed..])
            })?;
        }
        Ok(true)
    }
}

impl Iterator for Text<'_> {
    type Item = Result<String, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut piece = String::new();
        while !self.is_over {
            match self.step(&mut |text| piece.push_str(text)) {
                Ok(finish) => self.is_over = finish.is_some(),
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
            }
            if !piece.is_empty() {
                return Some(Ok(piece));
            }
        }
        None
    }
}

//! The engine: feed tokens, get logits, for ever.
//!
//! A [`Stream`] owns nothing but its place in an arena that a [`Plan`] laid out. After [`Stream::new`] no call allocates, and no call
//! does more work because the stream has run for longer.

use core::fmt;

use crate::arena::Carver;
use crate::attention::geometry::{self, Geometry};
use crate::attention::reach::Reach;
use crate::cache::Ring;
use crate::compute::Compute;
use crate::kernels::Isa;
use crate::kernels::attend::LaneAngles;
use crate::kernels::vector;
use crate::model::forward::{self, Buffers, Reaches};
use crate::model::{Model, Visit};
use crate::nn::rope;
use crate::plan::{Part, Plan, Policy};
use crate::threads::Threads;

/// Why a stream cannot start or go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum StreamError {
    /// The arena is shorter than planned, or not aligned to [`crate::arena::ALIGN`].
    Arena {
        /// Bytes that the plan takes.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The plan was made for another number of workers.
    Workers {
        /// Workers planned for.
        planned: usize,
        /// Workers given.
        given: usize,
    },
    /// The buffer for attention weights has another length than layers x heads x slots.
    Probe {
        /// Values that it must hold.
        needed: usize,
        /// Values that it holds.
        given: usize,
    },
    /// No token was fed.
    NoTokens,
    /// A token is not in the vocabulary.
    TokenOutOfRange {
        /// The token.
        token: u32,
        /// Tokens of the vocabulary.
        vocab: usize,
    },
    /// The policy keeps all tokens, and there is no room for these.
    Full {
        /// Tokens that there is room for.
        capacity: usize,
    },
    /// Only the sink policy evicts and pins what it is told to.
    NotSink,
    /// Too many tokens to pin: no slot would be left, or some have been evicted.
    Pin {
        /// Tokens fed.
        tokens: u64,
        /// Tokens that could be pinned before the first eviction.
        most: usize,
    },
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            StreamError::Arena { needed, given } => {
                write!(
                    f,
                    "the arena must be aligned and {needed} bytes long; it has {given}"
                )
            }
            StreamError::Workers { planned, given } => {
                write!(f, "the plan was made for {planned} workers, not for {given}")
            }
            StreamError::Probe { needed, given } => {
                write!(
                    f,
                    "the buffer for attention weights must hold {needed} values; it holds {given}"
                )
            }
            StreamError::NoTokens => write!(f, "at least one token is needed"),
            StreamError::TokenOutOfRange { token, vocab } => {
                write!(f, "token {token} is not in the vocabulary of {vocab}")
            }
            StreamError::Full { capacity } => write!(
                f,
                "the dense cache is full: it holds {capacity} tokens; the sink policy streams without end"
            ),
            StreamError::NotSink => write!(f, "only the sink policy evicts and pins what it is told to"),
            StreamError::Pin { tokens, most } => {
                write!(
                    f,
                    "{tokens} tokens cannot be pinned; the cache has room for {most}"
                )
            }
        }
    }
}

impl core::error::Error for StreamError {}

/// Whose logits a pass computes.
enum Wanted<'v> {
    None,
    Last,
    Each(&'v mut dyn FnMut(usize, &[f32])),
}

/// A model at work in an arena.
pub struct Stream<'a> {
    model: Model<'a>,
    plan: Plan,
    compute: Compute<'a>,
    /// What layers see that attend to all that is kept.
    global: Reach<'a>,
    /// What local layers see.
    local: Option<Reach<'a>>,
    seen: u64,
    buffers: Buffers<'a>,
    any_slim: bool,
    /// Angles of every pair at every place in a tile; empty if no layer is slim.
    lanes: &'a mut [LaneAngles],
    /// Scratch for the angles of a pass's tiles.
    bases: &'a mut [[f32; 2]],
    history: &'a mut [u32],
    logits: &'a mut [f32],
    candidates: &'a mut [u32],
}

impl<'a> Stream<'a> {
    /// Lays the engine out in `arena`, the engine's part of what [`Plan::split`] cuts.
    ///
    /// # Errors
    /// If the arena or the number of workers is not what the plan says.
    ///
    /// # Panics
    /// If the plan was made for another model's configuration.
    pub fn new(
        model: Model<'a>,
        plan: &Plan,
        arena: &'a mut [u8],
        isa: Isa,
        threads: &'a dyn Threads,
    ) -> Result<Self, StreamError> {
        let options = plan.options();
        let error = StreamError::Arena {
            needed: plan.bytes() - plan.part(Part::Tokenizer),
            given: arena.len(),
        };
        if threads.workers() != options.workers {
            return Err(StreamError::Workers {
                planned: options.workers,
                given: threads.workers(),
            });
        }
        assert!(
            Plan::new(&model.config, &options).as_ref() == Ok(plan),
            "the plan is for another model"
        );
        let mut parts = Parts {
            carver: Carver::new(arena).ok_or(error)?,
            plan,
            pairs: model.config.rope_dim / 2,
            error,
        };
        let cache = parts.take(Part::Cache)?;
        let chunk_cache = parts.take(Part::ChunkCache)?;
        let history = parts.take(Part::History)?;
        let buffers = Buffers {
            cache,
            chunk_cache,
            residual: parts.take(Part::Residual)?,
            normed: parts.take(Part::Normed)?,
            queries: parts.take(Part::Queries)?,
            sink_queries: parts.take(Part::SinkQueries)?,
            keys: parts.take(Part::Keys)?,
            values: parts.take(Part::Values)?,
            channels: parts.take(Part::Channels)?,
            attended: parts.take(Part::Attended)?,
            gate: parts.take(Part::Gate)?,
            up: parts.take(Part::Up)?,
            activations: parts.take(Part::Activations)?,
            scores: parts.take(Part::Scores)?,
            scratch: parts.take(Part::KernelScratch)?,
            probe: &mut [],
            inputs: None,
        };
        let (policy, local) = (options.policy, model.config.local);
        let (global, local) = parts.reaches(policy, local.map(|local| local.window))?;
        let lanes: &mut [f32] = parts.take(Part::LaneAngles)?;
        let bases: &mut [f32] = parts.take(Part::TileAngles)?;
        let mut stream = Stream {
            compute: Compute {
                isa,
                threads,
                f32_activations: options.f32_activations,
            },
            global,
            local,
            seen: 0,
            buffers,
            any_slim: options.any_slim(&model.config),
            lanes: lanes.as_chunks_mut().0.as_chunks_mut().0,
            bases: bases.as_chunks_mut().0,
            history,
            logits: parts.take(Part::Logits)?,
            candidates: parts.take(Part::Candidates)?,
            model,
            plan: *plan,
        };
        stream.start_frequencies();
        if stream.any_slim {
            // Slots that no token has taken yet are multiplied by a weight of zero, and must be numbers.
            stream.buffers.cache.fill(0);
            let frequencies = &*stream.global.frequencies;
            let lanes = &mut stream.lanes[..frequencies.len()];
            geometry::fill_lanes(frequencies, model.config.rope_magnitude, lanes);
        }
        crate::log::info!(
            "{} kernels, {} workers, {} policy with {} slots in {}, {} bytes of arena",
            isa.name(),
            options.workers,
            policy.name(),
            plan.capacity(),
            options.cache_type.name(),
            plan.bytes()
        );
        Ok(stream)
    }

    fn start_frequencies(&mut self) {
        self.model
            .rope_frequencies(self.plan.capacity(), self.global.frequencies);
        if let (Some(reach), Some(local)) = (&mut self.local, self.model.config.local) {
            rope::frequencies(local.theta, |_| 1.0, reach.frequencies);
        }
    }

    /// Feeds tokens and returns the logits that follow the last of them: one per token of the vocabulary.
    ///
    /// # Errors
    /// If there is no token, one is not in the vocabulary, or a dense cache is full. Then nothing was fed.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&mut [f32], StreamError> {
        self.run(tokens, Wanted::Last)?;
        Ok(&mut self.logits[..self.model.config.vocab])
    }

    /// Feeds tokens without computing logits.
    ///
    /// # Errors
    /// As [`Stream::feed`].
    pub fn absorb(&mut self, tokens: &[u32]) -> Result<(), StreamError> {
        self.run(tokens, Wanted::None)
    }

    /// Feeds tokens and calls `visit(index, logits)` with what follows each of them, in order.
    ///
    /// # Errors
    /// As [`Stream::feed`].
    pub fn feed_each(
        &mut self,
        tokens: &[u32],
        visit: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), StreamError> {
        self.run(tokens, Wanted::Each(visit))
    }

    /// Tokens fed since the start or the last reset.
    pub fn position(&self) -> u64 {
        self.seen
    }

    /// Tokens that are kept: the sinks and the window.
    pub fn live(&self) -> usize {
        self.global.ring.live()
    }

    /// How tokens are kept: which are, and in which slots.
    pub fn ring(&self) -> &Ring {
        &self.global.ring
    }

    /// Makes sinks of all tokens fed so far, so that they are kept until the next reset: a system prompt. At least the planned sinks
    /// stay sinks. A token's key and value do not change, so that this costs nothing.
    ///
    /// # Errors
    /// [`StreamError::NotSink`]; [`StreamError::Pin`] if no slot would be left for a window, or if some tokens were evicted.
    pub fn pin(&mut self) -> Result<(), StreamError> {
        let Policy::Sink { .. } = self.plan.options().policy else {
            return Err(StreamError::NotSink);
        };
        let ring = &self.global.ring;
        let most = ring.capacity() - 1;
        let evicted = ring.window_start() != ring.sinks() as u64;
        if evicted || self.seen > most as u64 {
            return Err(StreamError::Pin {
                tokens: self.seen,
                most,
            });
        }
        self.global.pin(0);
        let window = self.global.ring.capacity() - self.global.ring.sinks();
        if let Some(local) = &mut self.local {
            local.pin(window);
        }
        Ok(())
    }

    /// Evicts the `tokens` oldest tokens of the window, or as many as there are, and returns how many: the oldest messages of a chat, as
    /// a whole. No byte moves; what remains is at the positions within the cache that it would have if the evicted ones had never
    /// been in the window.
    ///
    /// # Errors
    /// [`StreamError::NotSink`].
    pub fn evict(&mut self, tokens: usize) -> Result<usize, StreamError> {
        match self.plan.options().policy {
            Policy::Sink { .. } => {
                let evicted = self.global.ring.evict(tokens);
                if let Some(local) = &mut self.local {
                    local.evict_before(self.global.ring.window_start());
                }
                Ok(evicted)
            }
            _ => Err(StreamError::NotSink),
        }
    }

    /// The plan that the stream was laid out by.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The last logits, and scratch for a sampler: a `u32` per token of the vocabulary (empty if the plan has no sampling).
    pub fn logits_and_candidates(&mut self) -> (&mut [f32], &mut [u32]) {
        let vocab = self.model.config.vocab;
        let candidates = self.candidates.len().min(vocab);
        (&mut self.logits[..vocab], &mut self.candidates[..candidates])
    }

    /// From now on adds the softmax weights of every token's attention to `weights`, `layers x heads x slots` by cache slot
    /// (before the first eviction, slot `s` holds token `s`; the first slots are the sinks for ever). An empty slice ends it.
    ///
    /// # Errors
    /// [`StreamError::Probe`] if the length is neither zero nor that.
    pub fn probe(&mut self, weights: &'a mut [f32]) -> Result<(), StreamError> {
        let needed = self.model.config.layers * self.model.config.heads * self.global.ring.capacity();
        if !weights.is_empty() && weights.len() != needed {
            return Err(StreamError::Probe {
                needed,
                given: weights.len(),
            });
        }
        self.buffers.probe = weights;
        Ok(())
    }

    /// From now on calls `visit(layer, rows)` with what enters every layer's attention, `tokens x d_model`, normed: what calibration
    /// wants to see. `None` ends it.
    pub fn visit_inputs(&mut self, visit: Option<&'a mut Visit<'a>>) {
        self.buffers.inputs = visit;
    }

    /// Ends [`Stream::probe`] and returns its weights.
    pub fn take_probe(&mut self) -> &'a mut [f32] {
        core::mem::take(&mut self.buffers.probe)
    }

    /// Forgets all tokens.
    pub fn reset(&mut self) {
        self.reset_ring();
        self.seen = 0;
    }

    fn reset_ring(&mut self) {
        let policy = self.plan.options().policy;
        self.global.reset(policy);
        if let Some(local) = &mut self.local {
            local.reset(policy);
        }
    }

    fn run(&mut self, tokens: &[u32], wanted: Wanted<'_>) -> Result<(), StreamError> {
        let vocab = self.model.config.vocab;
        if tokens.is_empty() {
            return Err(StreamError::NoTokens);
        }
        if let Some(token) = tokens.iter().find(|token| **token as usize >= vocab) {
            return Err(StreamError::TokenOutOfRange { token: *token, vocab });
        }
        match self.plan.options().policy {
            Policy::Dense { capacity } if tokens.len() as u64 > capacity as u64 - self.seen => {
                Err(StreamError::Full { capacity })
            }
            Policy::Recompute { window } => {
                self.run_recompute(tokens, window, wanted);
                Ok(())
            }
            _ => {
                self.run_chunks(tokens, wanted);
                self.seen += tokens.len() as u64;
                Ok(())
            }
        }
    }

    /// Feeds chunk by chunk.
    fn run_chunks(&mut self, tokens: &[u32], mut wanted: Wanted<'_>) {
        // Pinned tokens may have left less than a chunk's.
        let window = |reach: &Reach<'_>| reach.ring.capacity() - reach.ring.sinks();
        let local = self.local.as_ref().map_or(usize::MAX, window);
        let chunk = self.plan.options().chunk.min(window(&self.global)).min(local);
        let mut done = 0;
        while done < tokens.len() {
            let part = &tokens[done..tokens.len().min(done + chunk)];
            let is_last = done + part.len() == tokens.len();
            match &mut wanted {
                Wanted::Each(visit) => {
                    self.forward(part, 0);
                    self.output(part.len(), 0, &mut |index, logits| visit(done + index, logits));
                }
                Wanted::Last if is_last => {
                    self.forward(part, part.len() - 1);
                    self.output(part.len(), part.len() - 1, &mut |_, _| {});
                }
                _ => self.forward(part, part.len()),
            }
            done += part.len();
        }
    }

    /// Sliding window with recomputation (StreamingLLM, figure 1c): once the window is full, every token whose logits are wanted
    /// costs a pass over the whole window from an empty cache.
    fn run_recompute(&mut self, tokens: &[u32], window: usize, mut wanted: Wanted<'_>) {
        for (index, token) in tokens.iter().enumerate() {
            self.history[(self.seen % window as u64) as usize] = *token;
            self.seen += 1;
            let this = match &mut wanted {
                Wanted::Each(visit) => Wanted::Each(visit),
                Wanted::Last if index + 1 == tokens.len() => Wanted::Last,
                _ => continue,
            };
            self.recompute(window, index, this);
        }
    }

    fn recompute(&mut self, window: usize, index: usize, mut wanted: Wanted<'_>) {
        self.reset_ring();
        let live = self.seen.min(window as u64);
        let mut buffer = [0u32; 64];
        let chunk = self.plan.options().chunk.min(buffer.len());
        let mut at = self.seen - live;
        while at < self.seen {
            let len = (self.seen - at).min(chunk as u64) as usize;
            for (i, token) in buffer[..len].iter_mut().enumerate() {
                *token = self.history[((at + i as u64) % window as u64) as usize];
            }
            at += len as u64;
            if at < self.seen {
                self.forward(&buffer[..len], len);
            } else {
                self.forward(&buffer[..len], len - 1);
                self.output(len, len - 1, &mut |_, logits| {
                    if let Wanted::Each(visit) = &mut wanted {
                        visit(index, logits);
                    }
                });
            }
        }
    }

    /// One pass of at most a chunk; tokens from `wanted` on will have outputs.
    fn forward(&mut self, tokens: &[u32], wanted: usize) {
        let (config, options) = (&self.model.config, self.plan.options());
        for reach in core::iter::once(&mut self.global).chain(&mut self.local) {
            reach.turn(tokens.len(), config.rope_magnitude);
        }
        let geometry = self.any_slim.then(|| {
            let frequencies = &*self.global.frequencies;
            let lanes = &self.lanes[..frequencies.len()];
            let tables = (frequencies, lanes);
            Geometry::new(
                &self.global.ring,
                tokens.len(),
                config.rope_pairs,
                tables,
                self.bases,
            )
        });
        let reaches = Reaches {
            global: &self.global,
            local: self.local.as_ref(),
            geometry: geometry.as_ref(),
        };
        forward::forward(
            &self.compute,
            &self.model,
            &options,
            &reaches,
            &mut self.buffers,
            tokens,
            wanted,
        );
        for reach in core::iter::once(&mut self.global).chain(&mut self.local) {
            reach.ring.advance(tokens.len());
        }
    }

    /// Logits of tokens `wanted..tokens` of the last pass, a few rows at a time.
    fn output(&mut self, tokens: usize, wanted: usize, visit: &mut dyn FnMut(usize, &[f32])) {
        let (d, vocab) = (self.model.config.d_model, self.model.config.vocab);
        let rows = self.plan.options().logits_rows;
        let blocks = d / crate::quant::BLOCK;
        let mut at = wanted;
        while at < tokens {
            let count = rows.min(tokens - at);
            let logits = &mut self.logits[..count * vocab];
            let values = &self.buffers.normed[at * d..][..count * d];
            let skipped = ((at - wanted) * blocks).min(self.buffers.activations.len());
            let input = forward::quantized(values, &self.buffers.activations[skipped..], d);
            self.compute
                .linear(input, [(&self.model.output, logits)], self.buffers.scratch);
            let cap = self.model.config.logit_cap;
            for (i, logits) in self.logits.chunks_exact_mut(vocab).take(count).enumerate() {
                if cfg!(feature = "families") && cap > 0.0 {
                    vector::soft_cap(self.compute.isa, logits, cap);
                }
                visit(at + i, logits);
            }
            at += count;
        }
    }
}

/// Takes a plan's parts in order.
struct Parts<'a, 'p> {
    carver: Carver<'a>,
    plan: &'p Plan,
    /// Pairs of a head that are rotated.
    pairs: usize,
    error: StreamError,
}

impl<'a> Parts<'a, '_> {
    /// All of `part`, padding included.
    fn take<T: crate::arena::Pod>(&mut self, part: Part) -> Result<&'a mut [T], StreamError> {
        self.carver
            .take(self.plan.part(part) / size_of::<T>())
            .ok_or(self.error)
    }

    /// What layers of either kind see.
    fn reaches(
        &mut self,
        policy: Policy,
        local: Option<usize>,
    ) -> Result<(Reach<'a>, Option<Reach<'a>>), StreamError> {
        let kinds = if local.is_some() { 2 } else { 1 };
        let pairs = self.pairs;
        let frequencies: &mut [u64] = self.take(Part::Frequencies)?;
        let angles: &mut [f32] = self.take(Part::Angles)?;
        let sink_angles: &mut [f32] = self.take(Part::SinkAngles)?;
        let (frequencies, of_local) = frequencies.split_at_mut(frequencies.len() / kinds);
        let (angles, local_angles) = angles.split_at_mut(angles.len() / kinds);
        let (sink_angles, local_sinks) = sink_angles.split_at_mut(sink_angles.len() / kinds);
        let reach = |local, frequencies: &'a mut [u64], angles: &'a mut [f32], sinks: &'a mut [f32]| {
            let (angles, sinks) = (angles.as_chunks_mut().0, sinks.as_chunks_mut().0);
            Reach::new(policy, local, &mut frequencies[..pairs], angles, sinks)
        };
        let global = reach(None, frequencies, angles, sink_angles);
        let local = local.map(|window| reach(Some(window), of_local, local_angles, local_sinks));
        Ok((global, local))
    }
}

//! The engine: feed tokens, get logits, for ever.
//!
//! A [`Stream`] owns only its place in an arena that a [`Plan`] laid out. After [`Stream::new`] no
//! call allocates, and no call gets slower because the stream has run for longer.

mod error;
mod hear;

use crate::attention::geometry::{self, Geometry};
use crate::cache::{CacheMemory, Policy, Reach, Reaches, Ring, Source};
use crate::features::{FAMILIES, OfFamilies};
use crate::forward::{self, Input, Pass, Visit, Watch};
use crate::kernels::attend::LaneAngles;
use crate::kernels::{Isa, SoftCap, Softmax};
use crate::model::Model;
use crate::nn::math;
use crate::plan::{Buffers, Plan};
use crate::quant::BLOCK;
use crate::speech::mel::LogMel;
use crate::threads::Threads;
use crate::workers::Compute;

pub use error::StreamError;

/// Selection of the tokens whose logits a pass computes.
enum Wanted<'v> {
    None,
    Last,
    Each(&'v mut dyn FnMut(usize, &[f32])),
}

/// A model that runs in an arena.
pub struct Stream<'a> {
    model: Model<'a>,
    plan: Plan,
    compute: Compute<'a>,
    /// Ring and angles of each kind of layer, in the order of
    /// [`LayerKinds::list`](crate::model::LayerKinds::list).
    reaches: Reaches<'a>,
    /// Index of the first kind whose layers attend to all kept tokens.
    full: usize,
    seen: u64,
    caches: CacheMemory<'a>,
    buffers: Buffers<'a>,
    watch: Watch<'a>,
    /// From sound to the encoder's input; `None` in models without an encoder.
    front_end: OfFamilies<LogMel<'a>>,
    /// Tables for layers that compute values from their kept rows; `None` if no layer does.
    tables: Option<AngleTables<'a>>,
}

/// Tables for keys that are rotated when they are read.
struct AngleTables<'a> {
    /// Angles of every pair at every position in a tile.
    lanes: &'a mut [LaneAngles],
    /// Scratch for the angles of a pass's tiles.
    bases: &'a mut [[f32; 2]],
}

impl<'a> Stream<'a> {
    /// Lays out the engine in `arena`, which is the engine's part of [`Plan::split`].
    ///
    /// # Errors
    /// If the model, the arena or the number of workers does not match the plan.
    pub fn new(
        model: Model<'a>,
        plan: &Plan,
        arena: &'a mut [u8],
        isa: Isa,
        threads: &'a dyn Threads,
    ) -> Result<Self, StreamError> {
        let options = plan.options();
        if *plan.config() != model.config {
            return Err(StreamError::OtherModel);
        }
        if threads.workers() != options.workers {
            return Err(StreamError::Workers {
                planned: options.workers,
                given: threads.workers(),
            });
        }
        let given = arena.len();
        let mut buffers = plan.carve(arena).ok_or(StreamError::Arena {
            needed: plan.engine_bytes(),
            given,
        })?;
        let mut caches = CacheMemory::new(
            core::mem::take(&mut buffers.cache),
            core::mem::take(&mut buffers.cache_starts),
            core::mem::take(&mut buffers.chunk_cache),
            Source::new(
                core::mem::take(&mut buffers.source_rows),
                core::mem::take(&mut buffers.source_cache),
                core::mem::take(&mut buffers.cross_cache),
            ),
            |layer| plan.cache_shape(layer),
        );
        let (kinds, magnitude) = (&model.config.kinds, model.config.rope_magnitude);
        let full = kinds.first_full();
        let reaches = reaches(&model, plan, &mut buffers);
        let tables = options.derives_values(&model.config).then(|| {
            // Slots without a token are multiplied by a weight of zero, so they must not hold NaN.
            caches.clear();
            let lanes = core::mem::take(&mut buffers.lane_angles);
            geometry::fill_lanes(&*reaches.of(full).frequencies, magnitude, lanes);
            AngleTables {
                lanes,
                bases: core::mem::take(&mut buffers.tile_angles),
            }
        });
        let front_end = hear::front_end(&model, &mut buffers);
        crate::log::info!(
            "{} kernels, {} workers, {} policy with {} slots in {}, {} bytes of arena",
            isa.name(),
            options.workers,
            options.policy.name(),
            plan.capacity(),
            options.cache_type.name(),
            plan.bytes()
        );
        Ok(Stream {
            compute: Compute {
                isa,
                threads,
                f32_activations: options.f32_activations,
            },
            reaches,
            full,
            seen: 0,
            caches,
            buffers,
            watch: Watch::default(),
            front_end,
            tables,
            model,
            plan: *plan,
        })
    }

    /// Ring of the layers that attend to all kept tokens.
    fn full_ring(&self) -> &Ring {
        &self.reaches.of(self.full).ring
    }

    /// Feeds tokens and returns the logits after the last of them: one per token of the vocabulary.
    ///
    /// # Errors
    /// If `tokens` is empty, a token is not in the vocabulary, a dense cache is full, or a model
    /// with an encoder has nothing encoded. Then nothing is fed. [`StreamError::NotFinite`] if a
    /// damaged file makes a number NaN or infinite: then some of the tokens are fed, and the stream
    /// is of use only after a [`Stream::reset`].
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&mut [f32], StreamError> {
        self.run(Input::Tokens(tokens), Wanted::Last)?;
        Ok(&mut self.buffers.logits[..self.model.config.vocab])
    }

    /// Feeds rows of embeddings in place of tokens, `tokens x d_model` (scaled, if the model scales
    /// its embeddings), and returns the logits after the last of them.
    ///
    /// # Errors
    /// As [`Stream::feed`]; also if the rows are not whole, or the policy is recompute.
    pub fn feed_rows(&mut self, rows: &[f32]) -> Result<&mut [f32], StreamError> {
        self.run(Input::Rows(rows), Wanted::Last)?;
        Ok(&mut self.buffers.logits[..self.model.config.vocab])
    }

    /// Feeds tokens without computing logits.
    ///
    /// # Errors
    /// As [`Stream::feed`].
    pub fn absorb(&mut self, tokens: &[u32]) -> Result<(), StreamError> {
        self.run(Input::Tokens(tokens), Wanted::None)
    }

    /// Feeds tokens and calls `visit(index, logits)` with the logits after each of them, in order.
    ///
    /// # Errors
    /// As [`Stream::feed`].
    pub fn feed_each(
        &mut self,
        tokens: &[u32],
        visit: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), StreamError> {
        self.run(Input::Tokens(tokens), Wanted::Each(visit))
    }

    /// Turns the last logits into weights that are proportional to probabilities, in place; returns
    /// them and the factor that makes their sum 1 (softmax, Vaswani et al., arXiv 1706.03762,
    /// section 3.2.1). A weight of the largest logit is 1, and the smallest weight is e^-87.
    pub fn softmax(&mut self) -> (&mut [f32], f32) {
        let scores = &mut self.buffers.logits[..self.model.config.vocab];
        let inverse = self.compute.isa.run(Softmax {
            scores: &mut *scores,
        });
        (scores, inverse)
    }

    /// Number of tokens fed since the start or the last reset.
    pub fn position(&self) -> u64 {
        self.seen
    }

    /// Number of kept tokens: the sinks and the window.
    pub fn live(&self) -> usize {
        self.full_ring().live()
    }

    /// Ring of the kept tokens: their positions and slots.
    pub fn ring(&self) -> &Ring {
        self.full_ring()
    }

    /// Makes the tokens fed so far the sinks, which are kept until the next reset; for a system
    /// prompt, for example. If they are fewer than the planned sinks, the window takes the slots
    /// that are left; if there are none, the planned sinks stay. The keys and values of the tokens
    /// do not change, so the call costs nothing.
    ///
    /// # Errors
    /// [`StreamError::NotSink`]; [`StreamError::Pin`] if no slot would be left for a window, or if
    /// some tokens were evicted.
    pub fn pin(&mut self) -> Result<(), StreamError> {
        let Policy::Sink { .. } = self.plan.options().policy else {
            return Err(StreamError::NotSink);
        };
        let ring = self.full_ring();
        let most = ring.capacity() - 1;
        let evicted = ring.window_start() != ring.sinks() as u64;
        if evicted || self.seen > most as u64 {
            return Err(StreamError::Pin {
                tokens: self.seen,
                most,
            });
        }
        if self.seen == 0 {
            return Ok(());
        }
        let window = ring.capacity() - self.seen as usize;
        for reach in self.reaches.iter_mut() {
            reach.pin(window);
        }
        Ok(())
    }

    /// Evicts the `tokens` oldest tokens of the window (all of them if there are fewer) and returns
    /// their number; for whole old messages of a chat, for example. No byte moves. The remaining
    /// tokens have the positions within the cache that they would have if the evicted tokens had
    /// never been in the window.
    ///
    /// # Errors
    /// [`StreamError::NotSink`].
    pub fn evict(&mut self, tokens: usize) -> Result<usize, StreamError> {
        match self.plan.options().policy {
            Policy::Sink { .. } => {
                let ring = self.full_ring();
                let start = ring.window_start();
                let kept = ring.position().saturating_sub(start);
                let evicted = kept.min(tokens as u64);
                for reach in self.reaches.iter_mut() {
                    reach.evict_before(start + evicted);
                }
                Ok(evicted as usize)
            }
            _ => Err(StreamError::NotSink),
        }
    }

    /// Plan of the stream.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The last logits, and scratch for a sampler: a `u32` per token of the vocabulary (empty if
    /// the plan has no sampling).
    pub fn logits_and_candidates(&mut self) -> (&mut [f32], &mut [u32]) {
        let vocab = self.model.config.vocab;
        let b = &mut self.buffers;
        (&mut b.logits[..vocab], b.candidates)
    }

    /// Starts to add the softmax weights of every token's attention to `weights`,
    /// `layers x heads x slots` by cache slot (before the first eviction, slot `s` holds token `s`;
    /// the first slots always hold the sinks). An empty slice stops it.
    ///
    /// # Errors
    /// [`StreamError::Probe`] if the length is neither zero nor `layers x heads x slots`.
    pub fn probe(&mut self, weights: &'a mut [f32]) -> Result<(), StreamError> {
        let needed = self.model.config.layers * self.model.config.heads * self.plan.capacity();
        if !weights.is_empty() && weights.len() != needed {
            return Err(StreamError::Probe {
                needed,
                given: weights.len(),
            });
        }
        self.watch.probe = weights;
        Ok(())
    }

    /// Starts to call `visit(layer, rows)` with the normed input of every layer's attention,
    /// `tokens x d_model`, for calibration. `None` stops it.
    pub fn visit_inputs(&mut self, visit: Option<&'a mut Visit<'a>>) {
        self.watch.inputs = visit;
    }

    /// Ends [`Stream::probe`] and returns its weights.
    pub fn take_probe(&mut self) -> &'a mut [f32] {
        core::mem::take(&mut self.watch.probe)
    }

    /// Forgets all tokens.
    pub fn reset(&mut self) {
        self.reset_ring();
        self.seen = 0;
    }

    fn reset_ring(&mut self) {
        let policy = self.plan.options().policy;
        for reach in self.reaches.iter_mut() {
            reach.reset(policy);
        }
    }

    fn run(&mut self, input: Input<'_>, wanted: Wanted<'_>) -> Result<(), StreamError> {
        let tokens = self.check(input)?;
        match (self.plan.options().policy, input) {
            (Policy::Dense { capacity }, _) if tokens as u64 > capacity as u64 - self.seen => {
                Err(StreamError::Full { capacity })
            }
            (Policy::Recompute { window }, Input::Tokens(tokens)) => {
                self.run_recompute(tokens, window, wanted)
            }
            (Policy::Recompute { .. }, Input::Rows(_)) => Err(StreamError::RowsRecomputed),
            _ => self.run_chunks(input, tokens, wanted),
        }
    }

    /// Checks all tokens or rows of an input and returns the number of tokens.
    fn check(&self, input: Input<'_>) -> Result<usize, StreamError> {
        let (vocab, width) = (self.model.config.vocab, self.model.config.d_model);
        match input {
            Input::Tokens(tokens) => {
                if let Some(token) = tokens.iter().find(|token| **token as usize >= vocab) {
                    return Err(StreamError::TokenOutOfRange {
                        token: *token,
                        vocab,
                    });
                }
            }
            Input::Rows(rows) => {
                if !rows.len().is_multiple_of(width) {
                    return Err(StreamError::Rows {
                        width,
                        given: rows.len(),
                    });
                }
            }
        }
        let hears_first =
            self.model.config.encoder.get().is_some() && self.caches.source.len() == 0;
        match input.tokens(width) {
            0 => Err(StreamError::NoTokens),
            _ if hears_first => Err(StreamError::NoSource),
            tokens => Ok(tokens),
        }
    }

    /// Feeds an input chunk by chunk.
    fn run_chunks(
        &mut self,
        input: Input<'_>,
        tokens: usize,
        mut wanted: Wanted<'_>,
    ) -> Result<(), StreamError> {
        // Pinned tokens may leave a window that is smaller than a chunk.
        let windows = self.reaches.iter();
        let windows = windows.map(|reach| reach.ring.capacity() - reach.ring.sinks());
        let chunk = windows.fold(self.plan.options().chunk, usize::min);
        let width = self.model.config.d_model;
        let mut done = 0;
        while done < tokens {
            let end = tokens.min(done + chunk);
            let (part, len) = (input.part(done..end, width), end - done);
            match &mut wanted {
                Wanted::Each(visit) => {
                    self.forward(part, 0)?;
                    self.output(len, 0, &mut |index, logits| visit(done + index, logits))?;
                }
                Wanted::Last if end == tokens => {
                    self.forward(part, len - 1)?;
                    self.output(len, len - 1, &mut |_, _| {})?;
                }
                _ => self.forward(part, len)?,
            }
            self.seen += len as u64;
            done = end;
        }
        Ok(())
    }

    /// Sliding window with recomputation (StreamingLLM, figure 1c): once the window is full, every
    /// token whose logits are wanted costs a pass over the whole window from an empty cache.
    fn run_recompute(
        &mut self,
        tokens: &[u32],
        window: usize,
        mut wanted: Wanted<'_>,
    ) -> Result<(), StreamError> {
        for (index, token) in tokens.iter().enumerate() {
            self.buffers.history[(self.seen % window as u64) as usize] = *token;
            self.seen += 1;
            let this = match &mut wanted {
                Wanted::Each(visit) => Wanted::Each(visit),
                Wanted::Last if index + 1 == tokens.len() => Wanted::Last,
                _ => continue,
            };
            self.recompute(window, index, this)?;
        }
        Ok(())
    }

    fn recompute(
        &mut self,
        window: usize,
        index: usize,
        mut wanted: Wanted<'_>,
    ) -> Result<(), StreamError> {
        self.reset_ring();
        let live = self.seen.min(window as u64);
        let mut buffer = [0u32; 64];
        let chunk = self.plan.options().chunk.min(buffer.len());
        let mut at = self.seen - live;
        while at < self.seen {
            let len = (self.seen - at).min(chunk as u64) as usize;
            for (i, token) in buffer[..len].iter_mut().enumerate() {
                *token = self.buffers.history[((at + i as u64) % window as u64) as usize];
            }
            at += len as u64;
            if at < self.seen {
                self.forward(Input::Tokens(&buffer[..len]), len)?;
            } else {
                self.forward(Input::Tokens(&buffer[..len]), len - 1)?;
                self.output(len, len - 1, &mut |_, logits| {
                    if let Wanted::Each(visit) = &mut wanted {
                        visit(index, logits);
                    }
                })?;
            }
        }
        Ok(())
    }

    /// Runs one pass over at most a chunk; tokens from `wanted` on get outputs.
    fn forward(&mut self, input: Input<'_>, wanted: usize) -> Result<(), StreamError> {
        let config = &self.model.config;
        let tokens = input.tokens(config.d_model);
        for reach in self.reaches.iter_mut() {
            reach.turn(tokens, config.rope_magnitude);
        }
        let full = self.reaches.of(self.full);
        let geometry = self.tables.as_mut().map(|tables| {
            let of_pass = geometry::Tables {
                frequencies: full.frequencies,
                lanes: tables.lanes,
                pairs: config.rope_pairs(),
            };
            Geometry::new(&full.ring, tokens, of_pass, tables.bases)
        });
        let pass = Pass {
            compute: &self.compute,
            model: &self.model,
            plan: &self.plan,
            reaches: &self.reaches,
            geometry: geometry.as_ref(),
            tokens,
            wanted,
        };
        let is_finite = pass.run(input, &mut self.caches, &mut self.buffers, &mut self.watch);
        for reach in self.reaches.iter_mut() {
            reach.ring.advance(tokens);
        }
        self.finite(is_finite)
    }

    /// Returns an error unless all numbers of a pass `is_finite`.
    fn finite(&self, is_finite: bool) -> Result<(), StreamError> {
        if is_finite {
            Ok(())
        } else {
            let position = self.seen;
            Err(StreamError::NotFinite { position })
        }
    }

    /// Computes the logits of tokens `wanted..tokens` of the last pass, a few rows at a time.
    fn output(
        &mut self,
        tokens: usize,
        wanted: usize,
        visit: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), StreamError> {
        let (d, vocab) = (self.model.config.d_model, self.model.config.vocab);
        let rows = self.plan.options().logits_rows;
        let b = &mut self.buffers;
        let mut at = wanted;
        while at < tokens {
            let count = rows.min(tokens - at);
            let logits = &mut b.logits[..count * vocab];
            let values = &b.normed[at * d..][..count * d];
            let skipped = ((at - wanted) * (d / BLOCK)).min(b.activations.len());
            let input = forward::quantized(values, &b.activations[skipped..], d);
            let layers = [(&self.model.output, &mut *logits)];
            self.compute.linear(input, layers, b.kernel_scratch);
            // Before the cap, which would make an infinity finite.
            if !math::all_finite(logits) {
                return self.finite(false);
            }
            let cap = self.model.config.logit_cap;
            for (i, logits) in logits.chunks_exact_mut(vocab).enumerate() {
                if FAMILIES && cap > 0.0 {
                    self.compute.isa.run(SoftCap { x: logits, cap });
                }
                visit(at + i, logits);
            }
            at += count;
        }
        Ok(())
    }
}

/// Creates the ring and the angles of each kind of layer in the plan's buffers.
fn reaches<'a>(model: &Model<'_>, plan: &Plan, buffers: &mut Buffers<'a>) -> Reaches<'a> {
    let config = &model.config;
    let kinds = config.kinds.list();
    let pairs = config.rope_dim / 2;
    let policy = plan.options().policy;
    let mut frequencies = core::mem::take(&mut buffers.frequencies);
    let mut angles = core::mem::take(&mut buffers.angles);
    let mut sink_angles = core::mem::take(&mut buffers.sink_angles);
    let (rows, sink_rows) = (angles.len() / kinds.len(), sink_angles.len() / kinds.len());
    Reaches::new(kinds.len(), |index| {
        let kind = kinds[index];
        let rotated = if kind.rotation.is_some() { pairs } else { 0 };
        let frequencies = &mut front(&mut frequencies, pairs)[..rotated];
        let angles = (front(&mut angles, rows), front(&mut sink_angles, sink_rows));
        model.rope_frequencies(kind, plan.capacity(), frequencies);
        Reach::new(policy, kind.window, frequencies, angles.0, angles.1)
    })
}

/// Takes `len` values off the front of `slice`.
fn front<'a, T>(slice: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (front, rest) = core::mem::take(slice).split_at_mut(len);
    *slice = rest;
    front
}

//! Attention over cached keys and values: scores, softmax, weighted sum.

use super::super::{Lanes, LeaveOut, Op, SoftCap, Softmax};
use super::ElementType;
use super::kv_scores::scores;
use super::kv_values::{Sources, Weights, weighted_sum};
use super::tiles::{Element, Planes, SlotRun, Store, not_built};
use crate::features::{FAMILIES, OfFamilies};

/// Most query rows in one [`Job`].
pub(crate) const MAX_ROWS: usize = 8;

/// Ring and chunk that some query rows of one KV head attend to.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    /// The ring: slots `0..live` are in use.
    pub(crate) ring: Store<'a>,
    /// Slots of the ring in use.
    pub(crate) live: usize,
    /// Number of the first slots of the ring, the sinks, which are scored with the sink queries.
    pub(crate) sinks: usize,
    /// A chunk that is not in the ring yet: the store of its tokens by index, and the slots that
    /// they will take.
    pub(crate) chunk: Option<(Store<'a>, SlotRun)>,
    /// First key column of the head, and their number.
    pub(crate) key_head: (usize, usize),
    /// First value column of the head, and their number.
    pub(crate) value_head: (usize, usize),
    /// Values with a smaller softmax weight are left out; 0 leaves none out.
    pub(crate) least_weight: f32,
    /// Cap of the scores `s`, which become `cap·tanh(s/cap)`; 0 for no cap.
    pub(crate) score_cap: f32,
}

/// One query row.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    /// The query for window keys, scaled and rotated, with as many values as the head has key
    /// columns.
    pub(crate) query: &'a [f32],
    /// The query rotated at its cache position, for the sinks.
    pub(crate) sink_query: &'a [f32],
    /// Number of tokens of the chunk that the row sees: its own index in the chunk plus 1 (0
    /// without a chunk).
    pub(crate) chunk_tokens: usize,
    /// Number of slots in use after those tokens have taken their places.
    pub(crate) live: usize,
    /// Slots among them whose tokens were evicted, and their number.
    pub(crate) evicted: (SlotRun, usize),
}

/// Term of the scores that does not depend on queries and keys, as that of a distance.
pub(crate) trait ScoreBias {
    /// Adds the term to the scores of row `row`, which are capped already, one for each slot of the
    /// ring. Slots whose tokens the row does not see may get any finite term.
    fn add(&self, row: usize, by_slot: &mut [f32]);
}

/// Score of slots that a row must not see. It is finite, since a row of `-inf` would become NaN.
pub(crate) const HIDDEN: f32 = -1e30;

/// Receiver of the results of [`Attend`].
pub(crate) trait Output {
    /// Returns true if [`Output::weights`] must be called.
    fn wants_weights(&self) -> bool;
    /// Receives the softmax weights of a row by slot, to be multiplied by `inverse`.
    fn weights(&mut self, row: usize, by_slot: &[f32], inverse: f32);
    /// Receives some columns of a row's output, from `column` on.
    fn values(&mut self, row: usize, column: usize, values: &[f32]);
}

/// The output of rows from `first` on.
struct Shifted<'o> {
    first: usize,
    out: &'o mut dyn Output,
}

/// Number of floats of scratch that [`Attend`] needs for `rows` rows: scores by slot and scores by
/// chunk token.
pub(crate) const fn scratch_floats(rows: usize, capacity: usize, chunk: usize) -> usize {
    rows.saturating_mul(capacity.saturating_add(chunk))
}

/// Computes attention for `rows` (at most [`MAX_ROWS`]) and passes each row's output
/// (`value_head.1` values) to `out` in parts. Ring and chunk have the same element type.
pub(crate) struct Attend<'a> {
    pub(crate) job: &'a Job<'a>,
    pub(crate) rows: &'a [Row<'a>],
    /// Bias of the scores of `rows`; `None` for none.
    pub(crate) bias: OfFamilies<&'a dyn ScoreBias>,
    /// At least [`scratch_floats`] for the rows.
    pub(crate) scratch: &'a mut [f32],
    pub(crate) out: &'a mut dyn Output,
}

impl Op for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<L: Lanes>(self, l: L) {
        let job = self.job;
        macro_rules! attend {
            ($variant:ident, $ring:expr) => {{
                let chunk = job.chunk.map(|(store, slots)| match store {
                    Store::$variant(planes) => (planes, slots),
                    _ => panic!("ring and chunk have one element type"),
                });
                self.by_rows(l, &$ring, &chunk)
            }};
        }
        match job.ring {
            Store::F32(ring) if ElementType::F32.is_built() => attend!(F32, ring),
            Store::F16(ring) if ElementType::F16.is_built() => attend!(F16, ring),
            Store::Q8(ring) => attend!(Q8, ring),
            _ => not_built(),
        }
    }
}

impl Attend<'_> {
    /// Chooses the instance for the number of rows, so that accumulators stay in registers. Scalar
    /// code takes the rows one by one.
    #[inline(always)]
    fn by_rows<L: Lanes, E: Element>(
        self,
        l: L,
        ring: &Planes<'_, E>,
        chunk: &Option<(Planes<'_, E>, SlotRun)>,
    ) {
        let block = Block {
            job: self.job,
            ring,
            chunk,
        };
        let mut at = 0;
        while at < self.rows.len() {
            let left = &self.rows[at..];
            macro_rules! block {
                ($($row:ident),+) => {
                    l.apart(AttendRows {
                        block,
                        rows: [$(*$row),+],
                        bias: self.bias,
                        scratch: &mut *self.scratch,
                        out: Shifted {
                            first: at,
                            out: &mut *self.out,
                        },
                    })
                };
            }
            at += match left {
                [a, b, c, d, e, f, g, h, ..] if L::MANY_ROWS => block!(a, b, c, d, e, f, g, h),
                [a, b, c, d, ..] if L::MANY_ROWS => block!(a, b, c, d),
                [a, ..] => block!(a),
                [] => break,
            };
        }
    }
}

/// Operands of all blocks of query rows, with one element type.
#[derive(Clone, Copy)]
struct Block<'a, E> {
    job: &'a Job<'a>,
    ring: &'a Planes<'a, E>,
    chunk: &'a Option<(Planes<'a, E>, SlotRun)>,
}

/// Computes attention for `R` rows; returns `R`.
struct AttendRows<'a, E, const R: usize> {
    block: Block<'a, E>,
    rows: [Row<'a>; R],
    bias: OfFamilies<&'a dyn ScoreBias>,
    scratch: &'a mut [f32],
    out: Shifted<'a>,
}

/// Scores of a block of rows, row after row, which then become softmax weights.
struct Scores<'s> {
    /// Scores of each slot of the ring.
    by_slot: &'s mut [f32],
    /// Number of slots of the ring, the stride of `by_slot`.
    slots: usize,
    /// Scores of each token of the chunk.
    by_token: &'s mut [f32],
    /// Number of tokens of the chunk, the stride of `by_token`.
    tokens: usize,
}

impl<E: Element, const R: usize> Op for AttendRows<'_, E, R> {
    type Output = usize;

    #[inline(always)]
    fn eval<L: Lanes>(mut self, l: L) -> usize {
        let Block { job, ring, chunk } = self.block;
        let tokens = chunk.as_ref().map_or(0, |(planes, _)| planes.keys.capacity);
        let mut scores = Scores::new::<R>(self.scratch, ring.keys.capacity, tokens);
        let seen = self
            .rows
            .iter()
            .fold(0, |most, row| most.max(row.chunk_tokens));

        self.block.score(l, &self.rows, seen, &mut scores);
        if let Some((_, slots)) = chunk {
            for (r, row) in self.rows.iter().enumerate() {
                scores.move_to_slots(r, slots, row.chunk_tokens);
            }
        }
        let mut inverse = [0.0; R];
        for (r, row) in self.rows.iter().enumerate() {
            let index = self.out.first + r;
            let (by_slot, _) = scores.row(r);
            inverse[r] = l.apart(Weigh {
                job,
                bias: self.bias,
                index,
                row,
                by_slot: &mut *by_slot,
            });
            if self.out.out.wants_weights() {
                self.out
                    .out
                    .weights(index, &by_slot[..row.live], inverse[r]);
            }
            if let Some((_, slots)) = chunk {
                scores.move_to_tokens(r, slots, row.chunk_tokens, seen);
            }
        }
        self.block.sum(l, &scores, &inverse, seen, &mut self.out);
        R
    }
}

/// Turns the scores of row `index` into unnormalised softmax weights; returns their factor.
struct Weigh<'a> {
    job: &'a Job<'a>,
    bias: OfFamilies<&'a dyn ScoreBias>,
    index: usize,
    row: &'a Row<'a>,
    by_slot: &'a mut [f32],
}

impl Op for Weigh<'_> {
    type Output = f32;

    #[inline(always)]
    fn eval<L: Lanes>(self, l: L) -> f32 {
        let Weigh {
            job, row, by_slot, ..
        } = self;
        let live = row.live;
        if FAMILIES && job.score_cap > 0.0 {
            SoftCap {
                x: &mut by_slot[..live],
                cap: job.score_cap,
            }
            .eval(l);
        }
        if let Some(bias) = self.bias.get() {
            bias.add(self.index, by_slot);
        }
        let (run, evicted) = row.evicted;
        for (slots, _) in run.runs(evicted) {
            by_slot[slots].fill(HIDDEN);
        }
        let inverse = Softmax {
            scores: &mut by_slot[..live],
        }
        .eval(l);
        if job.least_weight > 0.0 {
            LeaveOut {
                weights: &mut by_slot[..live],
                least: job.least_weight / inverse,
            }
            .eval(l);
        }
        // The exponential is clamped at e^-87, but an evicted slot must have a weight of exactly
        // zero.
        for (slots, _) in run.runs(evicted) {
            by_slot[slots].fill(0.0);
        }
        inverse
    }
}

impl<E: Element> Block<'_, E> {
    /// Scores the rows against the ring, and against the first `seen` tokens of the chunk.
    #[inline(always)]
    fn score<L: Lanes, const R: usize>(
        &self,
        l: L,
        rows: &[Row<'_>; R],
        seen: usize,
        out: &mut Scores<'_>,
    ) {
        let (job, ring) = (self.job, self.ring);
        let (first_column, columns) = job.key_head;
        let sinks = job.sinks.min(job.live);
        // One loop over the sinks, the window and the chunk needs only one instance of the code.
        let sink_queries = rows.map(|row| &row.sink_query[..columns]);
        let queries = rows.map(|row| &row.query[..columns]);
        for pass in 0..3 {
            let (planes, queries, range, out) = match (pass, self.chunk) {
                (0, _) => (ring, &sink_queries, 0..sinks, &mut *out.by_slot),
                (1, _) => (ring, &queries, sinks..job.live, &mut *out.by_slot),
                (_, Some((planes, _))) => (planes, &queries, 0..seen, &mut *out.by_token),
                (_, None) => break,
            };
            scores(l, &planes.keys, first_column, queries, range, out);
        }
    }

    /// Computes the weighted sums of the values and passes them to `out`.
    #[inline(always)]
    fn sum<L: Lanes, const R: usize>(
        &self,
        l: L,
        weights: &Scores<'_>,
        inverse: &[f32; R],
        seen: usize,
        out: &mut Shifted<'_>,
    ) {
        let job = self.job;
        let weights: [Weights<'_>; R] = core::array::from_fn(|r| Weights {
            by_slot: &weights.by_slot[r * weights.slots..][..weights.slots],
            by_token: &weights.by_token[r * weights.tokens..][..weights.tokens],
        });
        let sources = Sources {
            ring: self.ring,
            live: job.live,
            chunk: self.chunk,
            seen,
            skips: job.least_weight > 0.0,
        };
        let (first, columns) = job.value_head;
        let mut column = 0;
        while column < columns {
            let width = weighted_sum(
                l,
                &sources,
                first + column,
                columns - column,
                &weights,
                inverse,
                &mut |r, values| {
                    out.out.values(out.first + r, column, values);
                },
            );
            column += width;
        }
    }
}

impl<'s> Scores<'s> {
    /// Room for `R` rows.
    #[inline(always)]
    fn new<const R: usize>(scratch: &'s mut [f32], slots: usize, tokens: usize) -> Self {
        let (by_slot, rest) = scratch.split_at_mut(R * slots);
        let (by_token, _) = rest.split_at_mut(R * tokens);
        Scores {
            by_slot,
            slots,
            by_token,
            tokens,
        }
    }

    /// Row `r`, by slot and by token.
    #[inline(always)]
    fn row(&mut self, r: usize) -> (&mut [f32], &mut [f32]) {
        (
            &mut self.by_slot[r * self.slots..][..self.slots],
            &mut self.by_token[r * self.tokens..][..self.tokens],
        )
    }

    /// Puts the scores of a row's first `tokens` chunk tokens into the slots that these will take.
    #[inline(always)]
    fn move_to_slots(&mut self, r: usize, run: &SlotRun, tokens: usize) {
        let (by_slot, by_token) = self.row(r);
        let by_token = &by_token[..tokens];
        for (slots, first) in run.runs(tokens) {
            let len = slots.len();
            by_slot[slots].copy_from_slice(&by_token[first..][..len]);
        }
    }

    /// Moves the weights of a row's first `tokens` chunk tokens out of these slots. The weights of
    /// the tokens after them, up to `seen`, are set to 0.
    #[inline(always)]
    fn move_to_tokens(&mut self, r: usize, run: &SlotRun, tokens: usize, seen: usize) {
        let (by_slot, by_token) = self.row(r);
        let by_token = &mut by_token[..seen];
        by_token[tokens..].fill(0.0);
        for (slots, first) in run.runs(tokens) {
            by_token[first..][..slots.len()].copy_from_slice(&by_slot[slots.clone()]);
            by_slot[slots].fill(0.0);
        }
    }
}

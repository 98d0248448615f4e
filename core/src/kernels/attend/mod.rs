//! Attention of a few query rows over cached keys and values: scores, softmax, weighted sum.
//!
//! # Memory layout
//!
//! A *store* holds up to `capacity` slots, one token each. Values are row-major, `[slot][column]`. Keys are interleaved in tiles of
//! [`TILE`] slots, `[tile][column][slot in tile]` (the last tile is as wide as it has slots), so that the scores of a whole tile
//! are sums of vectors over slots: no horizontal sum, and one load serves every query row. With 8-bit elements each slot has an
//! f16 scale per 32 columns of the concatenated row: `[tile][block][slot in tile]` for keys, `[slot][block]` for values.
//!
//! # Order
//!
//! A score is the plain sum over columns in order (for 8-bit elements: over the columns of each block in order, times the
//! block's scale, then over blocks). The softmax's sum puts slot `s` in partial sum `s mod 16`. The weighted sum runs over slots in
//! order. Products and sums are never fused. All of it depends on slots only, so that a token attends to the same bits whether
//! it comes alone or in a chunk, on any instruction set and any number of threads.

mod element;
mod pairs;
pub mod raw;
mod scores;
mod sums;
pub mod tile_sums;

use core::ops::Range;

use super::lanes::Lanes;
use super::ops;
use crate::nn::float16;
use crate::quant::BLOCK;
pub use element::{ElementType, UnknownElementType};
use scores::scores;
use sums::{Sources, Weights, weighted_sum};

/// Slots in a tile of keys.
pub const TILE: usize = 32;

/// Most query rows in one [`Job`].
pub const MAX_ROWS: usize = 8;

/// Columns interleaved in tiles of slots; see the module for the layout.
#[derive(Clone, Copy)]
pub struct Tiles<'a, E> {
    /// `capacity · columns` elements.
    pub elements: &'a [E],
    /// Scales of 8-bit elements, f16 as bits; else empty.
    pub scales: &'a [u16],
    /// Slots that there is room for.
    pub capacity: usize,
    /// Columns of a slot, all heads together.
    pub columns: usize,
}

/// Row-major columns.
#[derive(Clone, Copy)]
pub struct Rows<'a, E> {
    /// `capacity · columns` elements.
    pub elements: &'a [E],
    /// Scales of 8-bit elements, f16 as bits; else empty.
    pub scales: &'a [u16],
    /// Columns of a slot, all heads together.
    pub columns: usize,
}

/// Keys and values of one layer in elements of type `E`.
#[derive(Clone, Copy)]
pub struct Planes<'a, E> {
    /// Keys.
    pub keys: Tiles<'a, E>,
    /// Values.
    pub values: Rows<'a, E>,
}

/// Keys and values of one layer.
#[derive(Clone, Copy)]
pub enum Store<'a> {
    /// f32 elements.
    F32(Planes<'a, f32>),
    /// f16 elements, as bits.
    F16(Planes<'a, u16>),
    /// 8-bit elements.
    Q8(Planes<'a, i8>),
}

/// Interleaved columns of one layer, whatever they are.
#[derive(Clone, Copy)]
pub enum TileStore<'a> {
    /// f32 elements.
    F32(Tiles<'a, f32>),
    /// f16 elements, as bits.
    F16(Tiles<'a, u16>),
    /// 8-bit elements.
    Q8(Tiles<'a, i8>),
}

/// What some query rows of one KV head attend to.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The ring: slots `0..live` are in use.
    pub ring: Store<'a>,
    /// Slots of the ring in use.
    pub live: usize,
    /// The first slots of the ring, which are scored by the sink queries.
    pub sinks: usize,
    /// A chunk that is not in the ring yet: its tokens by index, and the slots that they will take.
    pub chunk: Option<(Store<'a>, SlotRun)>,
    /// First key column of the head, and how many it has.
    pub key_head: (usize, usize),
    /// First value column of the head, and how many it has.
    pub value_head: (usize, usize),
    /// Values of a smaller softmax weight are left out; 0 for none.
    pub least_weight: f32,
    /// Scores `s` become `cap·tanh(s/cap)`; 0 for none.
    pub score_cap: f32,
}

/// Slots of the ring in the order of their tokens: from `first` on and, after the last slot, from the first one past the sinks.
#[derive(Clone, Copy, Debug)]
pub struct SlotRun {
    /// Slot of the first token.
    pub first: usize,
    /// First slot past the sinks.
    pub wrap_to: usize,
    /// Slots of the ring.
    pub capacity: usize,
}

impl SlotRun {
    /// The slot of token `index`.
    #[inline(always)]
    pub fn slot(&self, index: usize) -> usize {
        let slot = self.first + index;
        if slot < self.capacity {
            slot
        } else {
            slot - self.capacity + self.wrap_to
        }
    }

    /// The first `tokens` tokens as runs `(slots, index of the first token)` in the order of slots: what wrapped comes first.
    #[inline(always)]
    pub(crate) fn runs(&self, tokens: usize) -> [(Range<usize>, usize); 2] {
        let straight = tokens.min(self.capacity - self.first);
        let wrapped = tokens - straight;
        [
            (self.wrap_to..self.wrap_to + wrapped, straight),
            (self.first..self.first + straight, 0),
        ]
    }
}

/// One query row.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// The query for window keys, scaled and rotated: as many values as the head has key columns.
    pub query: &'a [f32],
    /// The same at its cache position, for the sinks.
    pub sink_query: &'a [f32],
    /// How many tokens of the chunk the row sees: its own index in the chunk plus 1 (0 without a chunk).
    pub chunk_tokens: usize,
    /// Slots that are in use once those tokens are in their places.
    pub live: usize,
    /// Slots among them whose tokens were evicted, and how many.
    pub evicted: (SlotRun, usize),
}

/// Score of what a row must not see. Finite: a row of `-inf` would be NaN.
pub(crate) const HIDDEN: f32 = -1e30;

/// Where [`attend`] puts its results.
pub(crate) trait Output {
    /// Whether [`Output::weights`] is wanted.
    fn wants_weights(&self) -> bool;
    /// The softmax weights of a row by slot, to be multiplied by `inverse`.
    fn weights(&mut self, row: usize, by_slot: &[f32], inverse: f32);
    /// Some columns of a row's output, from `column` on.
    fn values(&mut self, row: usize, column: usize, values: &[f32]);
}

/// The output of rows from `first` on.
struct Shifted<'o> {
    first: usize,
    out: &'o mut dyn Output,
}

/// Floats of scratch that `attend` needs for `rows` rows: scores by slot, scores by chunk token.
pub const fn scratch_floats(rows: usize, capacity: usize, chunk: usize) -> usize {
    rows.saturating_mul(capacity.saturating_add(chunk))
}

/// Elements and scales of the `width` slots from `start` on, a tile.
#[inline(always)]
fn tile_of<'a, E: Element>(tiles: &Tiles<'a, E>, start: usize, width: usize) -> (&'a [E], &'a [u16]) {
    let blocks = tiles.columns.div_ceil(BLOCK);
    let scales = if E::SCALED {
        &tiles.scales[start * blocks..][..width * blocks]
    } else {
        &[]
    };
    (
        &tiles.elements[start * tiles.columns..][..width * tiles.columns],
        scales,
    )
}

/// How an element type is loaded.
trait Element: Copy + 'static {
    /// Whether there is a scale per block of 32 columns.
    const SCALED: bool;
    const ZERO: Self;
    fn load<L: Lanes>(l: L, x: &[Self; 16]) -> L::V;
    fn widen(self) -> f32;
    /// The elements, if they are 8-bit ones.
    #[inline(always)]
    fn bytes(_: &[Self]) -> Option<&[i8]> {
        None
    }
    /// `acc + Σ factors[n] · x[n · stride..][..16]`, row after row: see [`Lanes::add_rows_i8`].
    #[inline(always)]
    fn add_rows<L: Lanes>(l: L, mut acc: L::V, factors: &[f32], x: &[Self], stride: usize) -> L::V {
        for (n, factor) in factors.iter().enumerate() {
            let Some(row) = x[n * stride..].first_chunk() else {
                unreachable!("a row has sixteen elements")
            };
            acc = l.add(acc, l.mul(l.splat(*factor), Self::load(l, row)));
        }
        acc
    }
    /// `acc += weights · (x · scale)`, of elements that have a scale.
    #[inline(always)]
    fn add_scaled<L: Lanes>(l: L, acc: &mut L::V, weights: &[f32; 16], x: &[Self; 16], scale: &L::V) {
        let value = l.mul(Self::load(l, x), *scale);
        *acc = l.add(*acc, l.mul(l.load(weights), value));
    }
}

impl Element for f32 {
    const SCALED: bool = false;
    const ZERO: f32 = 0.0;

    #[inline(always)]
    fn load<L: Lanes>(l: L, x: &[f32; 16]) -> L::V {
        l.load(x)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Element for u16 {
    const SCALED: bool = false;
    const ZERO: u16 = 0;

    #[inline(always)]
    fn load<L: Lanes>(l: L, x: &[u16; 16]) -> L::V {
        l.load_f16(x)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        float16::widen(self)
    }
}

impl Element for i8 {
    const SCALED: bool = true;
    const ZERO: i8 = 0;

    #[inline(always)]
    fn load<L: Lanes>(l: L, x: &[i8; 16]) -> L::V {
        l.load_i8(x)
    }

    #[inline(always)]
    fn add_rows<L: Lanes>(l: L, acc: L::V, factors: &[f32], x: &[i8], stride: usize) -> L::V {
        l.add_rows_i8(acc, factors, x, stride)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }

    #[inline(always)]
    fn bytes(x: &[i8]) -> Option<&[i8]> {
        Some(x)
    }
}

/// Attends `rows` (at most [`MAX_ROWS`]) and hands each row's output (`value_head.1` values) to `out` in parts.
///
/// # Panics
/// If ring and chunk differ in element type, or shapes do not fit.
#[inline(always)]
pub(crate) fn attend<L: Lanes>(
    l: L,
    job: &Job<'_>,
    rows: &[Row<'_>],
    scratch: &mut [f32],
    out: &mut dyn Output,
) {
    macro_rules! run {
        ($variant:ident, $ring:expr) => {{
            let chunk = job.chunk.map(|(store, slots)| match store {
                Store::$variant(planes) => (planes, slots),
                _ => panic!("ring and chunk have one element type"),
            });
            by_rows(l, job, &$ring, &chunk, rows, scratch, out)
        }};
    }
    match job.ring {
        Store::F32(ring) if ElementType::F32.is_built() => run!(F32, ring),
        Store::F16(ring) if ElementType::F16.is_built() => run!(F16, ring),
        Store::Q8(ring) => run!(Q8, ring),
        _ => not_built(),
    }
}

/// A plan refuses element types that the build does not have.
pub(crate) fn not_built() -> ! {
    panic!("this build has no cache of this element type")
}

/// Instantiates the row count, so that accumulators stay in registers; scalar code takes the rows one by one.
#[inline(always)]
fn by_rows<L: Lanes, E: Element>(
    l: L,
    job: &Job<'_>,
    ring: &Planes<'_, E>,
    chunk: &Option<(Planes<'_, E>, SlotRun)>,
    rows: &[Row<'_>],
    scratch: &mut [f32],
    out: &mut dyn Output,
) {
    let mut at = 0;
    while at < rows.len() {
        let left = &rows[at..];
        let out = Shifted {
            first: at,
            out: &mut *out,
        };
        let this = Attention {
            l,
            job,
            ring,
            chunk,
            scratch: &mut *scratch,
            out,
        };
        at += match left {
            [a, b, c, d, e, f, g, h, ..] if L::MANY_ROWS => this.run([*a, *b, *c, *d, *e, *f, *g, *h]),
            [a, b, c, d, ..] if L::MANY_ROWS => this.run([*a, *b, *c, *d]),
            [a, ..] => this.run([*a]),
            [] => break,
        };
    }
}

/// One block of query rows over one element type.
struct Attention<'a, 'o, L, E> {
    l: L,
    job: &'a Job<'a>,
    ring: &'a Planes<'a, E>,
    chunk: &'a Option<(Planes<'a, E>, SlotRun)>,
    scratch: &'a mut [f32],
    out: Shifted<'o>,
}

impl<L: Lanes, E: Element> Attention<'_, '_, L, E> {
    /// Attends `R` rows; returns `R`.
    #[inline(always)]
    fn run<const R: usize>(self, rows: [Row<'_>; R]) -> usize {
        let Attention {
            l,
            job,
            ring,
            chunk,
            scratch,
            out,
        } = self;
        let chunk_capacity = chunk.as_ref().map_or(0, |(planes, _)| planes.keys.capacity);
        let (first_column, columns) = job.key_head;
        let (by_slot, rest) = scratch.split_at_mut(R * ring.keys.capacity);
        let (by_token, _) = rest.split_at_mut(R * chunk_capacity);

        let sinks = job.sinks.min(job.live);
        let seen = rows.iter().fold(0, |most, row| most.max(row.chunk_tokens));
        // The sinks, the window and the chunk in one loop: one instance of the code for all three.
        let sink_queries = rows.map(|row| &row.sink_query[..columns]);
        let queries = rows.map(|row| &row.query[..columns]);
        for pass in 0..3 {
            let (planes, queries, range, out) = match (pass, chunk) {
                (0, _) => (ring, &sink_queries, 0..sinks, &mut *by_slot),
                (1, _) => (ring, &queries, sinks..job.live, &mut *by_slot),
                (_, Some((planes, _))) => (planes, &queries, 0..seen, &mut *by_token),
                (_, None) => break,
            };
            scores(l, &planes.keys, first_column, queries, range, out);
        }
        if let Some((_, slots)) = chunk {
            for (r, row) in rows.iter().enumerate() {
                let by_slot = &mut by_slot[r * ring.keys.capacity..][..ring.keys.capacity];
                let by_token = &by_token[r * chunk_capacity..][..row.chunk_tokens];
                for (slots, first) in slots.runs(row.chunk_tokens) {
                    let len = slots.len();
                    by_slot[slots].copy_from_slice(&by_token[first..][..len]);
                }
            }
        }

        let mut inverse = [0.0; R];
        for (r, row) in rows.iter().enumerate() {
            let by_slot = &mut by_slot[r * ring.keys.capacity..][..ring.keys.capacity];
            if cfg!(feature = "families") && job.score_cap > 0.0 {
                ops::soft_cap(l, &mut by_slot[..row.live], job.score_cap);
            }
            let (run, evicted) = row.evicted;
            for (slots, _) in run.runs(evicted) {
                by_slot[slots].fill(HIDDEN);
            }
            inverse[r] = ops::softmax(l, &mut by_slot[..row.live]);
            if job.least_weight > 0.0 {
                ops::leave_out(&mut by_slot[..row.live], job.least_weight / inverse[r]);
            }
            // The exponential ends at e^-87; what is evicted weighs nothing at all.
            for (slots, _) in run.runs(evicted) {
                by_slot[slots].fill(0.0);
            }
            if out.out.wants_weights() {
                out.out.weights(out.first + r, &by_slot[..row.live], inverse[r]);
            }
            if let Some((_, slots)) = chunk {
                let by_token = &mut by_token[r * chunk_capacity..][..seen];
                by_token[row.chunk_tokens..].fill(0.0);
                for (slots, first) in slots.runs(row.chunk_tokens) {
                    by_token[first..][..slots.len()].copy_from_slice(&by_slot[slots.clone()]);
                    by_slot[slots].fill(0.0);
                }
            }
        }

        let weights: [Weights<'_>; R] = core::array::from_fn(|r| Weights {
            by_slot: &by_slot[r * ring.keys.capacity..][..ring.keys.capacity],
            by_token: &by_token[r * chunk_capacity..][..chunk_capacity],
        });
        let sources = Sources {
            ring,
            live: job.live,
            chunk,
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
                &inverse,
                &mut |r, values| {
                    out.out.values(out.first + r, column, values);
                },
            );
            column += width;
        }
        R
    }
}

//! Attention over cached keys and values.
//!
//! The score of a rotated query and key depends on their distance only. Keys are stored rotated at
//! their absolute position; each query is rotated twice: at its absolute position for the window,
//! and at its position *within the cache* for the sinks, as StreamingLLM (arXiv 2309.17453, section
//! 3.2) defines it. So no key is rotated again. ALiBi's biases follow from the distances within the
//! cache, as in that section.

use core::ops::Range;

use super::step::{Attend, Caches, JobPart, MAX_RANGES, Queries, Split, Step, run_jobs};
use crate::arena::Columns;
use crate::cache::Ring;
use crate::features::OfFamilies;
use crate::kernels;
use crate::kernels::attend::{Job, MAX_ROWS, Output, Row, ScoreBias};
use crate::nn::alibi::Slopes;

/// Attends for the tokens from `step.wanted` on, of `tokens` tokens.
pub(super) fn run(attend: &Attend<'_>, caches: &Caches<'_>, step: &mut Step<'_>, tokens: usize) {
    let (shape, workers) = (attend.shape, attend.compute.threads.workers());
    let group = shape.group();
    // All query heads of a KV head together read its keys once; as separate jobs they balance
    // better among workers.
    let together =
        group <= MAX_ROWS && tokens * group <= MAX_ROWS && shape.kv_heads.is_multiple_of(workers);
    let heads = if together { group } else { 1 };
    // Heads alone may divide badly: nine among two workers, for example. A probe's sums are over
    // tokens, in their order.
    let ranges = if workers == 1 || !step.probe.is_empty() {
        1
    } else {
        let rows = (tokens - step.wanted) * heads;
        rows.div_ceil(MAX_ROWS).min(MAX_RANGES)
    };
    let split = Split {
        heads,
        ranges,
        multiple: MAX_ROWS.div_ceil(heads),
    };
    let (least_weight, score_cap, alibi) = (step.least_weight, step.score_cap, step.alibi);
    run_jobs(attend, step, tokens, &split, &|queries, part| {
        run_job(
            attend,
            caches,
            queries,
            part,
            [least_weight, score_cap],
            alibi,
        );
    });
}

/// Computes one job's outputs, [`MAX_ROWS`] rows at a time: row `n` is head `n mod heads` of the
/// range's token `n / heads`.
fn run_job(
    attend: &Attend<'_>,
    caches: &Caches<'_>,
    queries: Queries<'_>,
    part: JobPart<'_>,
    [least_weight, score_cap]: [f32; 2],
    alibi: OfFamilies<Slopes>,
) {
    let (shape, ring, chunk) = (attend.shape, attend.ring, caches.chunk.as_ref());
    let (head, columns) = (shape.head_dim, shape.query_columns());
    let heads = part.heads.len();
    let kv_head = part.heads.start / shape.group();
    let job = Job {
        ring: caches.ring.keys_and_values(),
        live: ring.used_after(usize::from(chunk.is_none())),
        sinks: ring.sinks(),
        chunk: chunk.map(|chunk| (chunk.keys_and_values(), ring.chunk_slots())),
        key_head: (kv_head * head, head),
        value_head: (kv_head * head, head),
        least_weight,
        score_cap,
    };
    let row = |n: usize| {
        let token = part.tokens.start + n / heads;
        let at = token * columns + (part.heads.start + n % heads) * head;
        Row {
            query: &queries.window[at..][..head],
            sink_query: &queries.sinks[at..][..head],
            chunk_tokens: if chunk.is_some() { token + 1 } else { 0 },
            live: ring.used_after(token + 1),
            evicted: ring.evicted_slots(ring.position() + token as u64),
        }
    };
    let rows = part.tokens.len() * heads;
    let mut scratch = part.scratch;
    let mut out = JobOutput {
        attended: part.attended,
        probe: part.probe,
        done: 0,
        heads,
        head,
        slots: ring.capacity(),
    };
    while out.done < rows {
        let block: heapless::Vec<Row<'_>, MAX_ROWS> =
            (out.done..rows.min(out.done + MAX_ROWS)).map(row).collect();
        let bias = alibi.get().map(|&slopes| LinearBias {
            slopes,
            ring,
            heads: part.heads.clone(),
            token: part.tokens.start,
            first: out.done,
        });
        attend.compute.isa.run(kernels::attend::Attend {
            job: &job,
            rows: &block,
            bias: match &bias {
                Some(bias) => OfFamilies::some(bias as &dyn ScoreBias),
                None => OfFamilies::NONE,
            },
            scratch: &mut scratch,
            out: &mut out,
        });
        out.done += block.len();
    }
}

/// ALiBi's bias of a job's rows from row `first` on.
struct LinearBias<'a> {
    slopes: Slopes,
    ring: &'a Ring,
    /// Query heads of the job.
    heads: Range<usize>,
    /// First token of the job.
    token: usize,
    first: usize,
}

impl ScoreBias for LinearBias<'_> {
    fn add(&self, row: usize, by_slot: &mut [f32]) {
        let (n, heads) = (self.first + row, self.heads.len());
        let slope = self.slopes.of(self.heads.start + n % heads);
        let position = self.ring.position() + (self.token + n / heads) as u64;
        for (slots, distance) in self.ring.distances(position) {
            for (index, score) in by_slot[slots].iter_mut().enumerate() {
                // 32 bits, which vectors of numbers convert.
                *score -= slope * (distance - index) as i32 as f32;
            }
        }
    }
}

/// Destination of a job's rows.
struct JobOutput<'a> {
    attended: Columns<'a, f32>,
    probe: Option<Columns<'a, f32>>,
    done: usize,
    heads: usize,
    head: usize,
    slots: usize,
}

impl Output for JobOutput<'_> {
    fn wants_weights(&self) -> bool {
        self.probe.is_some()
    }

    fn weights(&mut self, row: usize, by_slot: &[f32], inverse: f32) {
        let local = (self.done + row) % self.heads;
        if let Some(probe) = &mut self.probe {
            for (sum, weight) in probe[local * self.slots..].iter_mut().zip(by_slot) {
                *sum += weight * inverse;
            }
        }
    }

    fn values(&mut self, row: usize, column: usize, values: &[f32]) {
        let n = self.done + row;
        let start = n % self.heads * self.head + column;
        self.attended.row_mut(n / self.heads)[start..][..values.len()].copy_from_slice(values);
    }
}

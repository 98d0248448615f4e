//! Attention over a cache of keys and values.
//!
//! The score of a rotated query and key depends on their distance only. Keys are stored rotated at their absolute position; each
//! query is rotated twice: at its absolute position for the window, and at its position *within the cache* for the sinks, which is
//! where StreamingLLM (arXiv 2309.17453, section 3.2) has it. So no key is ever rotated again.

use core::ops::Range;

use super::MAX_RANGES;
use crate::arena::{Columns, Shared};
use crate::cache::{KvCache, Ring};
use crate::compute::Compute;
use crate::kernels::attend::{Job, MAX_ROWS, Output, Row};
use crate::kernels::{Isa, vector};
use crate::model::Config;
use crate::nn::rope::Pairs;

/// The activations that attention reads and writes, token after token.
pub(crate) struct Step<'a> {
    /// `tokens x query columns`; rotated in place.
    pub(crate) queries: &'a mut [f32],
    /// The same for the sinks; empty if there are none.
    pub(crate) sink_queries: &'a mut [f32],
    /// `tokens x kv columns`; rotated in place.
    pub(crate) keys: &'a mut [f32],
    /// `tokens x kv columns`.
    pub(crate) values: &'a [f32],
    /// `tokens x query columns`.
    pub(crate) attended: &'a mut [f32],
    /// Scratch of all workers.
    pub(crate) scores: &'a mut [f32],
    /// What queries are multiplied with.
    pub(crate) scale: f32,
    /// Scores `s` become `cap·tanh(s/cap)`; 0 for none.
    pub(crate) score_cap: f32,
    /// Values of a smaller softmax weight are left out; 0 for none.
    pub(crate) least_weight: f32,
    /// Angles of each token at its absolute position: `tokens x pairs`.
    pub(crate) angles: &'a [[f32; 2]],
    /// Angles at its position within the cache; empty if there are no sinks.
    pub(crate) sink_angles: &'a [[f32; 2]],
    /// Tokens before this one need no output: their keys and values only.
    pub(crate) first: usize,
    /// Where softmax weights are added up, `heads x slots`; empty if nobody looks.
    pub(crate) probe: &'a mut [f32],
}

/// The caches of one layer.
pub(crate) struct Caches<'a> {
    pub(crate) ring: KvCache<'a>,
    /// Where a chunk's keys and values lie until it is committed; `None` for a single token.
    pub(crate) chunk: Option<KvCache<'a>>,
}

/// Attends; `ring` says where the tokens will be, and is not advanced.
pub(crate) fn attend(
    compute: &Compute<'_>,
    config: &Config,
    ring: &Ring,
    caches: &mut Caches<'_>,
    step: &mut Step<'_>,
) {
    let tokens = step.keys.len() / config.kv_columns();
    match &mut caches.chunk {
        Some(chunk) => rotate_and_write_chunk(compute, config, chunk, step, tokens),
        None => {
            let slot = ring.slot(ring.position());
            let rotation = Rotation::new(compute, config, step);
            let rows = (&mut *step.keys, &mut *step.queries, &mut *step.sink_queries);
            rotation.rotate_and_write(0, rows, &mut caches.ring, slot);
        }
    }
    if step.first < tokens {
        run_jobs(
            compute,
            config,
            ring,
            &caches.ring,
            caches.chunk.as_ref(),
            step,
            tokens,
        );
    }
    if let Some(chunk) = &caches.chunk {
        for (slots, first) in ring.chunk_slots().runs(tokens) {
            commit(compute, &mut caches.ring, slots, chunk, first);
        }
    }
}

/// What happens to a token before it attends.
struct Rotation<'a> {
    isa: Isa,
    head: usize,
    /// Columns of a token's value.
    columns: usize,
    pairs: usize,
    /// What queries are multiplied with.
    scale: f32,
    order: Pairs,
    angles: &'a [[f32; 2]],
    sink_angles: &'a [[f32; 2]],
    values: &'a [f32],
    first: usize,
}

impl<'a> Rotation<'a> {
    fn new(compute: &Compute<'_>, config: &Config, step: &Step<'a>) -> Self {
        Rotation {
            isa: compute.isa,
            head: config.head_dim,
            columns: config.kv_columns(),
            pairs: config.rope_dim / 2,
            scale: step.scale,
            order: config.rope_pairs,
            angles: step.angles,
            sink_angles: step.sink_angles,
            values: step.values,
            first: step.first,
        }
    }

    /// Rotates the key and queries of a token, scales the queries, and writes key and value to `slot`.
    fn rotate_and_write(
        &self,
        token: usize,
        (key, query, sink_query): (&mut [f32], &mut [f32], &mut [f32]),
        cache: &mut KvCache<'_>,
        slot: usize,
    ) {
        let of_token = |angles: &'a [[f32; 2]]| &angles[token * self.pairs..][..self.pairs];
        let angles = of_token(self.angles);
        vector::rotate(self.isa, key, self.head, angles, self.order);
        cache.write(
            self.isa,
            slot,
            key,
            &self.values[token * self.columns..][..self.columns],
        );
        if token < self.first {
            return;
        }
        for q in query.iter_mut() {
            *q *= self.scale;
        }
        if !sink_query.is_empty() {
            sink_query.copy_from_slice(query);
            vector::rotate(
                self.isa,
                sink_query,
                self.head,
                of_token(self.sink_angles),
                self.order,
            );
        }
        vector::rotate(self.isa, query, self.head, angles, self.order);
    }
}

/// [`Rotation::rotate_and_write`] for all tokens of a chunk, whose store's slots are the tokens.
fn rotate_and_write_chunk(
    compute: &Compute<'_>,
    config: &Config,
    chunk: &mut KvCache<'_>,
    step: &mut Step<'_>,
    tokens: usize,
) {
    let rotation = Rotation::new(compute, config, step);
    let (kv, columns) = (config.kv_columns(), config.query_columns());
    let sink_columns = if step.sink_queries.is_empty() { 0 } else { columns };
    let (mut parts, cut) = chunk.parts(0..tokens);
    let (len, each) = (parts.len(), cut.each);
    let parts = Shared::new(&mut parts, len, 1);
    let keys = Shared::new(step.keys, tokens * kv, each * kv);
    let queries = Shared::new(step.queries, tokens * columns, each * columns);
    let sink_queries = Shared::new(
        step.sink_queries,
        (tokens * sink_columns).max(1),
        (each * sink_columns).max(1),
    );
    compute.threads.run(len, &|_, index| {
        let (mut part, mut keys, mut queries) = (parts.take(index), keys.take(index), queries.take(index));
        let mut sink_queries = (sink_columns > 0).then(|| sink_queries.take(index));
        for slot in 0..each.min(tokens - index * each) {
            let rows = (
                &mut keys[slot * kv..][..kv],
                &mut queries[slot * columns..][..columns],
                sink_queries
                    .as_deref_mut()
                    .map_or(&mut [][..], |rows| &mut rows[slot * columns..][..columns]),
            );
            rotation.rotate_and_write(index * each + slot, rows, &mut part[0], slot);
        }
    });
}

/// Copies the chunk's tokens from `first` on to `slots` of the ring.
fn commit(
    compute: &Compute<'_>,
    ring: &mut KvCache<'_>,
    slots: Range<usize>,
    chunk: &KvCache<'_>,
    first: usize,
) {
    if slots.is_empty() {
        return;
    }
    let (mut parts, cut) = ring.parts(slots.clone());
    let len = parts.len();
    let parts = Shared::new(&mut parts, len, 1);
    compute.threads.run(len, &|_, index| {
        let start = cut.start + index * cut.each;
        let mut part = parts.take(index);
        for slot in slots.start.max(start)..slots.end.min(start + cut.each) {
            part[0].copy(slot - start, chunk, first + slot - slots.start);
        }
    });
}

/// Divides heads and tokens into jobs.
fn run_jobs(
    compute: &Compute<'_>,
    config: &Config,
    ring: &Ring,
    cache: &KvCache<'_>,
    chunk: Option<&KvCache<'_>>,
    step: &mut Step<'_>,
    tokens: usize,
) {
    let (head, group, columns) = (config.head_dim, config.group(), config.query_columns());
    let workers = compute.threads.workers();
    // All query heads of a KV head together read its keys once; one by one they balance better among workers.
    let together = group <= MAX_ROWS && tokens * group <= MAX_ROWS && config.kv_heads.is_multiple_of(workers);
    let heads = if together { group } else { 1 };
    let probing = !step.probe.is_empty();
    // Heads alone may share out badly, nine to two workers say. A probe's sums are over tokens, in their order.
    let rows = (tokens - step.first) * heads;
    let ranges = if workers == 1 || probing {
        1
    } else {
        rows.div_ceil(MAX_ROWS).min(MAX_RANGES)
    };
    let range = (tokens - step.first)
        .div_ceil(ranges)
        .next_multiple_of(MAX_ROWS.div_ceil(heads));
    let attended: heapless::Vec<_, MAX_RANGES> = step.attended[step.first * columns..]
        .chunks_mut(range * columns)
        .map(|part| Shared::new(part, columns, heads * head))
        .collect();
    let scores_len = step.scores.len();
    let scores = Shared::new(step.scores, scores_len, scores_len / workers);
    let (queries, first) = (&*step.queries, step.first);
    let sink_queries = if step.sink_queries.is_empty() {
        queries
    } else {
        &*step.sink_queries
    };
    let committed = usize::from(chunk.is_none());
    let slots = ring.capacity();
    let probe = Shared::new(
        step.probe,
        if probing { config.heads * slots } else { 1 },
        heads * slots,
    );
    let head_jobs = config.heads / heads;
    let (least_weight, score_cap) = (step.least_weight, step.score_cap);
    compute.threads.run(head_jobs * attended.len(), &|worker, job| {
        // The last tokens see most: those that take longest come first.
        let (part, index) = (attended.len() - 1 - job / head_jobs, job % head_jobs);
        let first = first + part * range;
        let kv_head = index * heads / group;
        let job = Job {
            ring: cache.store(),
            live: ring.used_after(committed),
            sinks: ring.sinks(),
            chunk: chunk.map(|chunk| (chunk.store(), ring.chunk_slots())),
            key_head: (kv_head * head, head),
            value_head: (kv_head * head, head),
            least_weight,
            score_cap,
        };
        let row = |n: usize| {
            let (token, local) = (first + n / heads, n % heads);
            let at = token * columns + (index * heads + local) * head;
            Row {
                query: &queries[at..][..head],
                sink_query: &sink_queries[at..][..head],
                chunk_tokens: if chunk.is_some() { token + 1 } else { 0 },
                live: ring.used_after(token + 1),
                evicted: ring.evicted_slots(ring.position() + token as u64),
            }
        };
        let rows = (tokens - first).min(range) * heads;
        let mut scratch = scores.take(worker);
        let mut out = JobOutput {
            attended: attended[part].take(index),
            probe: probing.then(|| probe.take(index)),
            done: 0,
            heads,
            head,
            slots,
        };
        while out.done < rows {
            let block: heapless::Vec<Row<'_>, MAX_ROWS> =
                (out.done..rows.min(out.done + MAX_ROWS)).map(row).collect();
            vector::attend(compute.isa, &job, &block, &mut scratch, &mut out);
            out.done += block.len();
        }
    });
}

/// Where a job's rows go: row `n` is head `n mod heads` of the range's token `n / heads`.
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

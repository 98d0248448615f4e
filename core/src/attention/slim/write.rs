//! What happens to the tokens of a pass before and after they attend: they are rotated, written, and committed.

use super::super::geometry::Geometry;
use super::{Caches, Heads, Step, ValueMap};
use crate::arena::Shared;
use crate::cache::{Ring, SlimCache};
use crate::compute::Compute;
use crate::kernels::{Isa, vector};

/// Takes the mean off the keys; scales and rotates the queries.
pub(super) fn rotate(
    compute: &Compute<'_>,
    heads: &Heads,
    geometry: &Geometry<'_>,
    values: &ValueMap<'_>,
    step: &mut Step<'_>,
    tokens: usize,
) {
    let (head, pairs, order) = (heads.query_width(), geometry.lanes.len(), geometry.pairs);
    let (columns, key_columns) = (heads.queries * head, heads.cached);
    let each = compute.tokens_of_a_job(tokens);
    let keys = Shared::new(step.keys, tokens * key_columns, each * key_columns);
    let queries = Shared::new(step.queries, tokens * columns, each * columns);
    let sink_columns = if step.sink_queries.is_empty() { 0 } else { columns };
    let sink_queries = Shared::new(
        step.sink_queries,
        (tokens * sink_columns).max(1),
        (each * sink_columns).max(1),
    );
    let (angles, sink_angles, first, scale) = (step.angles, step.sink_angles, step.first, step.scale);
    compute.by_tokens(tokens, |part| {
        let (mut keys, mut queries) = (keys.take(part), queries.take(part));
        for key in keys.chunks_exact_mut(key_columns) {
            for (key, mean) in key.iter_mut().zip(values.mean) {
                *key -= mean.to_f32();
            }
        }
        let mut sink_queries = (sink_columns > 0).then(|| sink_queries.take(part));
        for (i, query) in queries.chunks_exact_mut(columns).enumerate() {
            let token = part * each + i;
            if token < first {
                continue;
            }
            for q in query.iter_mut() {
                *q *= scale;
            }
            if let Some(sink_queries) = &mut sink_queries {
                let sink_query = &mut sink_queries[i * columns..][..columns];
                sink_query.copy_from_slice(query);
                vector::rotate(
                    compute.isa,
                    sink_query,
                    head,
                    &sink_angles[token * pairs..][..pairs],
                    order,
                );
            }
            vector::rotate(compute.isa, query, head, &angles[token * pairs..][..pairs], order);
        }
    });
}

/// Keeps the values of those of the tokens that are first sinks.
pub(super) fn sink_values(heads: &Heads, ring: &Ring, caches: &mut Caches<'_>, step: &Step<'_>) {
    for (i, value) in step.sink_values.chunks_exact(heads.value_columns()).enumerate() {
        caches
            .ring
            .write_sink_value(ring.slot(ring.position() + i as u64), value);
    }
}

/// Writes the tokens: one to the ring, several to the chunk's store, whose slots are the tokens.
pub(super) fn tokens(
    compute: &Compute<'_>,
    heads: &Heads,
    ring: &Ring,
    caches: &mut Caches<'_>,
    step: &Step<'_>,
    tokens: usize,
) {
    let Some(chunk) = &mut caches.chunk else {
        let slot = ring.slot(ring.position());
        return token(compute.isa, &mut caches.ring, slot, step, 0, heads.cached);
    };
    let (mut parts, cut) = chunk.parts(0..tokens);
    let len = parts.len();
    let parts = Shared::new(&mut parts, len, 1);
    compute.threads.run(len, &|_, index| {
        let mut part = parts.take(index);
        let start = index * cut.each;
        for i in start..tokens.min(start + cut.each) {
            token(compute.isa, &mut part[0], i - start, step, i, heads.cached);
        }
    });
}

fn token(isa: Isa, cache: &mut SlimCache<'_>, slot: usize, step: &Step<'_>, token: usize, columns: usize) {
    let rank = step.channels.len() / (step.keys.len() / columns);
    cache.write(
        isa,
        slot,
        &step.keys[token * columns..][..columns],
        &step.channels[token * rank..][..rank],
    );
}

/// Copies a chunk's tokens to the ring.
pub(super) fn commit(
    compute: &Compute<'_>,
    ring: &Ring,
    cache: &mut SlimCache<'_>,
    chunk: &SlimCache<'_>,
    tokens: usize,
) {
    for (slots, first) in ring.chunk_slots().runs(tokens) {
        if slots.is_empty() {
            continue;
        }
        let (mut parts, cut) = cache.parts(slots.clone());
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
}

//! Attention of every row of an encoder to all of its rows, by products of 8-bit integers.
//!
//! Both products of a head are those of linear layers, whose kernels compute them: scores are
//! queries by a matrix of the keys, outputs are softmax weights by a matrix of the values'
//! transpose. Keys are quantised in blocks of 32 of a head's columns, values in blocks of 32 rows,
//! queries and weights as all activations are. Every row sees all rows, so nothing is masked.
//!
//! What a row gives depends neither on the chunk in which it was written nor on the others that
//! attend with it.

use core::ops::Range;

use super::Shape;
use crate::arena::{Carver, Columns, MAX_PARTS, Shared};
use crate::kernels::{self, Input, Isa, Narrow, Product, Softmax};
use crate::quant::{BLOCK, Format, Q8Activation};
use crate::tensor::Matrix;
use crate::workers::Compute;

/// Most rows that attend in one job.
const QUERIES: usize = 32;

/// Bytes of a block.
const BYTES: usize = Format::Q8_0.block_bytes();

/// Rows that kernels take at once: others they compute one by one.
const GROUP: usize = 16;

/// Blocks that are quantised at a time.
const BATCH: usize = 16;

/// Sizes of the matrices, for a number of rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    kv_heads: usize,
    head_dim: usize,
    /// Rows, padded to whole blocks.
    slots: usize,
}

impl Sizes {
    pub(crate) const fn new(shape: &Shape, rows: usize) -> Sizes {
        Sizes {
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            slots: rows.next_multiple_of(BLOCK),
        }
    }

    /// Blocks of a head's key.
    const fn key_blocks(&self) -> usize {
        self.head_dim.div_ceil(BLOCK)
    }

    /// Bytes of a head's keys.
    const fn keys(&self) -> usize {
        self.slots.saturating_mul(self.key_blocks() * BYTES)
    }

    /// Blocks of a column of a head's values.
    const fn value_blocks(&self) -> usize {
        self.slots / BLOCK
    }

    /// Rows of a head's matrix of values. Those after the head's columns are never written, and
    /// what they give is not read.
    const fn value_rows(&self) -> usize {
        self.head_dim.next_multiple_of(GROUP)
    }

    /// Bytes of a head's values.
    const fn values(&self) -> usize {
        self.value_rows()
            .saturating_mul(self.value_blocks() * BYTES)
    }

    /// Floats of a head's values that do not fill their blocks yet.
    const fn staged(&self) -> usize {
        self.head_dim * BLOCK
    }

    /// Bytes of everything that is kept of a layer.
    pub(crate) const fn bytes(&self) -> usize {
        let floats = self.staged().saturating_mul(self.kv_heads);
        let Some(staged) = Carver::part_bytes::<f32>(floats) else {
            return usize::MAX;
        };
        let keys = Carver::part_bytes::<u8>(self.keys().saturating_mul(self.kv_heads));
        let values = Carver::part_bytes::<u8>(self.values().saturating_mul(self.kv_heads));
        match (keys, values) {
            (Some(keys), Some(values)) => staged.saturating_add(keys).saturating_add(values),
            _ => usize::MAX,
        }
    }

    /// Bytes of a worker's scratch.
    pub(crate) const fn scratch(&self) -> usize {
        let key_blocks = QUERIES * self.key_blocks();
        let weights = self.slots.saturating_mul(QUERIES);
        let parts = [
            Carver::part_bytes::<f32>(weights),
            Carver::part_bytes::<Q8Activation>(weights / BLOCK),
            Carver::part_bytes::<f32>(key_blocks * BLOCK),
            Carver::part_bytes::<Q8Activation>(key_blocks),
            Carver::part_bytes::<f32>(QUERIES * self.value_rows()),
        ];
        let (mut sum, mut i) = (0usize, 0);
        while i < parts.len() {
            match parts[i] {
                Some(bytes) => sum = sum.saturating_add(bytes),
                None => return usize::MAX,
            }
            i += 1;
        }
        sum
    }

    /// Columns of the widest matrix, for the kernels' scratch.
    pub(crate) const fn widest(&self) -> usize {
        let keys = self.key_blocks() * BLOCK;
        if keys > self.slots { keys } else { self.slots }
    }
}

/// The parts of a layer's memory.
struct Kept<'a> {
    /// For each head and column the values of the last rows, which do not fill a block yet.
    staged: &'a mut [f32],
    keys: &'a mut [u8],
    values: &'a mut [u8],
}

fn kept<'a>(sizes: &Sizes, memory: &'a mut [u8]) -> Kept<'a> {
    let taken = Carver::new(memory).and_then(|mut carver| {
        Some(Kept {
            staged: carver.take(sizes.staged() * sizes.kv_heads)?,
            keys: carver.take(sizes.keys() * sizes.kv_heads)?,
            values: carver.take(sizes.values() * sizes.kv_heads)?,
        })
    });
    taken.expect("the plan has room for an encoder's layer")
}

/// Writes the `keys` and `values` of rows from `first` on, `rows x KV columns`; all rows before
/// have been written.
pub(crate) fn write(
    compute: &Compute<'_>,
    sizes: &Sizes,
    memory: &mut [u8],
    first: usize,
    (keys, values): (&[f32], &[f32]),
) {
    let Kept {
        staged,
        keys: kept_keys,
        values: kept_values,
    } = kept(sizes, memory);
    let (head_dim, columns) = (sizes.head_dim, sizes.kv_heads * sizes.head_dim);
    let staged = by_head(staged, sizes.staged());
    let kept_keys = by_head(kept_keys, sizes.keys());
    let kept_values = by_head(kept_values, sizes.values());
    compute.threads.run(sizes.kv_heads, &|_, head| {
        let (mut staged, mut kept_keys, mut kept_values) = (
            staged.take(head),
            kept_keys.take(head),
            kept_values.take(head),
        );
        let of_head = |rows: &'_ [f32], row: usize| -> Range<usize> {
            debug_assert!(rows.len() >= (row + 1) * columns);
            row * columns + head * head_dim..row * columns + (head + 1) * head_dim
        };
        let rows = keys.len() / columns;
        for row in 0..rows {
            let slot = first + row;
            let place = slot % BLOCK;
            let key = &keys[of_head(keys, row)];
            let own = sizes.key_blocks() * BYTES;
            let out = &mut kept_keys[slot * own..][..own];
            for (part, out) in key.chunks(BLOCK).zip(out.chunks_exact_mut(BYTES)) {
                let mut padded = [0.0; BLOCK];
                padded[..part.len()].copy_from_slice(part);
                blocks(compute.isa, &padded, &mut |_, block| {
                    out.copy_from_slice(block)
                });
            }
            if place == 0 {
                staged.fill(0.0);
            }
            let value = &values[of_head(values, row)];
            for (column, value) in staged.chunks_exact_mut(BLOCK).zip(value) {
                column[place] = *value;
            }
            // A block that is not full is written again when it is.
            if place + 1 == BLOCK || row + 1 == rows {
                let block = slot / BLOCK;
                blocks(compute.isa, &staged, &mut |column, bytes| {
                    let at = (column * sizes.value_blocks() + block) * BYTES;
                    kept_values[at..][..BYTES].copy_from_slice(bytes);
                });
            }
        }
    });
}

/// Shares `all`, of `each` values for a head.
fn by_head<T>(all: &mut [T], each: usize) -> Shared<'_, T> {
    let len = all.len();
    Shared::new(all, len, each)
}

/// Quantises whole blocks of `values` to Q8_0, and hands over each with its number.
fn blocks(isa: Isa, values: &[f32], put: &mut dyn FnMut(usize, &[u8; BYTES])) {
    let mut number = 0;
    for values in values.chunks(BATCH * BLOCK) {
        let mut quantized = [Q8Activation::ZERO; BATCH];
        let quantized = &mut quantized[..values.len() / BLOCK];
        kernels::quantize(isa, values, quantized);
        let mut scales = [0.0; BATCH];
        for (scale, block) in scales.iter_mut().zip(&*quantized) {
            *scale = block.scale;
        }
        let mut halves = [0u16; BATCH];
        isa.run(Narrow {
            x: &scales,
            out: &mut halves,
        });
        for (block, half) in quantized.iter().zip(halves) {
            let mut bytes = [0; BYTES];
            bytes[..2].copy_from_slice(&half.to_le_bytes());
            for (byte, quant) in bytes[2..].iter_mut().zip(block.q) {
                *byte = quant as u8;
            }
            put(number, &bytes);
            number += 1;
        }
    }
}

/// Rows that attend, and where their output goes.
pub(crate) struct Rows<'a> {
    /// `rows x query columns`.
    pub(crate) queries: &'a [f32],
    /// Factor of the queries.
    pub(crate) scale: f32,
    /// `rows x query columns`: the output.
    pub(crate) attended: &'a mut [f32],
    /// Scratch of all workers.
    pub(crate) scratch: &'a mut [u8],
    /// Kernel scratch of all workers.
    pub(crate) kernel_scratch: &'a mut [u8],
}

/// Attends to `all` rows, which have been written.
pub(crate) fn attend(
    compute: &Compute<'_>,
    (shape, sizes): (&Shape, &Sizes),
    memory: &mut [u8],
    all: usize,
    rows: Rows<'_>,
) {
    let Kept { keys, values, .. } = kept(sizes, memory);
    let (columns, head_dim, slots) = (shape.query_columns(), shape.head_dim, sizes.slots);
    let workers = compute.threads.workers();
    let attended: heapless::Vec<_, { MAX_PARTS / QUERIES }> = rows
        .attended
        .chunks_mut(QUERIES * columns)
        .map(|part| Shared::new(part, columns, head_dim))
        .collect();
    let by_worker = |all: usize| all / workers;
    let (len, kernel_len) = (rows.scratch.len(), rows.kernel_scratch.len());
    let scratch = Shared::new(rows.scratch, len, by_worker(len));
    let kernel_scratch = Shared::new(rows.kernel_scratch, kernel_len, by_worker(kernel_len));
    let (keys, values) = (&*keys, &*values);
    compute
        .threads
        .run(shape.heads * attended.len(), &|worker, job| {
            let (part, head) = (job / shape.heads, job % shape.heads);
            let kv_head = head / shape.group();
            let mut out = attended[part].take(head);
            let (count, first) = (out.rows(), part * QUERIES);
            let mut scratch = scratch.take(worker);
            let Some(work) = Work::carve(sizes, count, &mut scratch) else {
                unreachable!("the plan has room for a worker's scratch");
            };
            let width = sizes.key_blocks() * BLOCK;
            for (row, padded) in work.queries.chunks_exact_mut(width).enumerate() {
                let query = &rows.queries[(first + row) * columns + head * head_dim..][..head_dim];
                for (padded, query) in padded.iter_mut().zip(query) {
                    *padded = query * rows.scale;
                }
                padded[head_dim..].fill(0.0);
            }
            kernels::quantize(compute.isa, work.queries, work.quantized);
            let keys = &keys[kv_head * sizes.keys()..][..sizes.keys()];
            let mut kernel_scratch = kernel_scratch.take(worker);
            let mut multiply = |bytes, (rows, cols), activations, out: &mut [f32]| {
                let Ok(weights) = Matrix::new(Format::Q8_0, rows, cols, bytes) else {
                    unreachable!("a head's matrix has whole blocks");
                };
                let product = Product {
                    weights: &weights,
                    rows: 0..rows,
                    activations: Input::Q8(activations),
                    out: &mut Columns::all(out, rows),
                    scratch: &mut kernel_scratch,
                };
                kernels::matmul(compute.isa, product);
            };
            multiply(keys, (slots, width), work.quantized, work.weights);
            let mut inverse = [0.0; QUERIES];
            for (weights, inverse) in work.weights.chunks_exact_mut(slots).zip(&mut inverse) {
                let (seen, padding) = weights.split_at_mut(all);
                *inverse = compute.isa.run(Softmax { scores: seen });
                padding.fill(0.0);
            }
            kernels::quantize(compute.isa, work.weights, work.quantized_weights);
            let values = &values[kv_head * sizes.values()..][..sizes.values()];
            multiply(
                values,
                (sizes.value_rows(), slots),
                work.quantized_weights,
                work.sums,
            );
            for (row, sums) in work.sums.chunks_exact(sizes.value_rows()).enumerate() {
                for (out, sum) in out.row_mut(row).iter_mut().zip(sums) {
                    *out = sum * inverse[row];
                }
            }
        });
}

/// A job's part of a worker's scratch.
struct Work<'a> {
    /// `rows x slots`: scores, then unnormalised weights.
    weights: &'a mut [f32],
    quantized_weights: &'a mut [Q8Activation],
    /// `rows x key columns`, padded.
    queries: &'a mut [f32],
    quantized: &'a mut [Q8Activation],
    /// `rows x value rows`: sums of values.
    sums: &'a mut [f32],
}

impl<'a> Work<'a> {
    fn carve(sizes: &Sizes, rows: usize, scratch: &'a mut [u8]) -> Option<Work<'a>> {
        let mut carver = Carver::new(scratch)?;
        let key_blocks = rows * sizes.key_blocks();
        Some(Work {
            weights: carver.take(rows * sizes.slots)?,
            quantized_weights: carver.take(rows * sizes.slots / BLOCK)?,
            queries: carver.take(key_blocks * BLOCK)?,
            quantized: carver.take(key_blocks)?,
            sums: carver.take(rows * sizes.value_rows())?,
        })
    }
}

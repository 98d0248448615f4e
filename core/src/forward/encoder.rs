//! The encoder: from frames to the rows that cross-attention reads.
//!
//! Rows are computed in chunks, as a prefill's tokens are, so that the buffers of a pass serve here
//! too. In every layer, first the keys and values of all rows are written, then all rows attend.

use core::ops::Range;

use super::{At, Pass, optional, quantized, scaling};
use crate::attention::{Values, whole, write_source};
use crate::cache::{CacheMemory, Layout};
use crate::kernels::Rotate;
use crate::model::{Encoder, Layer, Linear};
use crate::nn::{math, rope};
use crate::plan::Buffers;
use crate::workers::Pending;

impl<'p> Pass<'p> {
    /// Returns the same pass with `tokens` rows, all of which have an output.
    fn of_rows(&self, tokens: usize) -> Pass<'p> {
        Pass {
            tokens,
            wanted: 0,
            ..*self
        }
    }

    /// Runs `rows` rows, which the stem has written to the source's residual stream, through all
    /// layers of the encoder, and writes what the decoder's cross-attention reads. Returns false,
    /// and leaves no row to be read, if a number was NaN or infinite.
    pub(crate) fn encode(
        &self,
        encoder: &Encoder<'_>,
        rows: usize,
        caches: &mut CacheMemory<'_>,
        b: &mut Buffers<'_>,
    ) -> bool {
        let chunk = self.plan.options().chunk;
        let chunks = move || {
            (0..rows)
                .step_by(chunk)
                .map(move |at| at..rows.min(at + chunk))
        };
        for layer in encoder.layers {
            for range in chunks() {
                let pass = self.of_rows(range.len());
                pass.write_own(layer, (range, rows), caches, b);
            }
            for range in chunks() {
                let pass = self.of_rows(range.len());
                pass.encoder_layer(layer, (range, rows), caches, b);
            }
        }
        for range in chunks() {
            let pass = self.of_rows(range.len());
            pass.write_cross(encoder, range, caches, b);
        }
        let width = self.model.config.d_model;
        let is_finite = math::all_finite(&caches.source.rows[..rows * width]);
        caches.source.set_len(if is_finite { rows } else { 0 });
        is_finite
    }

    /// Writes the keys and values of rows `range` of `all` of one of the encoder's layers.
    fn write_own(
        &self,
        layer: &Layer<'_>,
        (range, all): (Range<usize>, usize),
        caches: &mut CacheMemory<'_>,
        b: &mut Buffers<'_>,
    ) {
        let (d, attention) = (self.model.config.d_model, &layer.attention);
        let (Some(shape), Some(value)) = (self.plan.encoder_shape(), &attention.value) else {
            unreachable!("an encoder's layers have values");
        };
        let rows = &mut *caches.source.rows;
        b.residual[..range.len() * d].copy_from_slice(&rows[range.start * d..range.end * d]);
        let takers = [&attention.key.weight, &value.weight];
        self.norm(0, Pending::Nothing, attention.norm.as_ref(), &takers, b);
        let (keys, values) = self.keys_and_values(&attention.key, value, b);
        if !(math::all_finite(keys) && math::all_finite(values)) {
            rows[range.start * d] = f32::NAN;
        }
        let kv = self.model.config.kv_columns();
        let keys = &mut b.keys[..range.len() * kv];
        self.rotate(keys, kv, range.start, b.hidden);
        let (keys, values) = (&*keys, &b.values[..range.len() * kv]);
        if self.compute.f32_activations {
            let (_, mut cache) = caches.source.own(&shape);
            return write_source(self.compute, &mut cache, range.start, (keys, kv), values);
        }
        let sizes = whole::Sizes::new(&self.model.config.shape_of_source(), all);
        let (_, memory) = caches.source.own_bytes();
        whole::write(self.compute, &sizes, memory, range.start, (keys, values));
    }

    /// Projects keys and values of all rows from `normed`.
    fn keys_and_values<'b>(
        &self,
        key: &Linear<'_>,
        value: &Linear<'_>,
        b: &'b mut Buffers<'_>,
    ) -> (&'b [f32], &'b [f32]) {
        let (d, kv) = (self.model.config.d_model, self.model.config.kv_columns());
        let keys = &mut b.keys[..self.tokens * kv];
        let values = &mut b.values[..self.tokens * kv];
        let input = quantized(&b.normed[..self.tokens * d], b.activations, d);
        let layers = [(&key.weight, &mut *keys), (&value.weight, &mut *values)];
        self.compute.linear(input, layers, b.kernel_scratch);
        self.compute.add_bias(keys, optional(key.bias));
        self.compute.add_bias(values, optional(value.bias));
        (keys, values)
    }

    /// Rotates the heads of rows of `columns` values by their positions, from `first` on, in models
    /// that rotate. `table` has room for the angles of one row.
    fn rotate(&self, rows: &mut [f32], columns: usize, first: usize, table: &mut [f32]) {
        let config = &self.model.config;
        let frequencies = &*self.reaches.of(0).frequencies;
        let table = &mut table.as_chunks_mut().0[..frequencies.len()];
        if table.is_empty() {
            return;
        }
        for (row, position) in rows.chunks_exact_mut(columns).zip(first as u64..) {
            rope::angles(frequencies, position, table);
            self.compute.isa.run(Rotate {
                heads: row,
                head_dim: config.head_dim,
                table,
                pairs: config.rope_pairs(),
            });
        }
    }

    /// Runs rows `range` of `all` through one layer, whose keys and values are written:
    /// `x += attention(norm(x))`, `x += feed_forward(norm(x))`.
    fn encoder_layer(
        &self,
        layer: &Layer<'_>,
        (range, all): (Range<usize>, usize),
        caches: &mut CacheMemory<'_>,
        b: &mut Buffers<'_>,
    ) {
        let (d, attention) = (self.model.config.d_model, &layer.attention);
        let (feed_forward, config) = (&layer.feed_forward, &self.model.config);
        let Some(shape) = self.plan.encoder_shape() else {
            unreachable!("the plan of a model with an encoder has its cache");
        };
        let at = At {
            pass: self,
            index: 0,
            reach: self.reaches.of(0),
            wanted: 0,
        };
        let rows = range.start * d..range.end * d;
        b.residual[..rows.len()].copy_from_slice(&caches.source.rows[rows.clone()]);
        let takers = [&attention.query.weight];
        self.norm(0, Pending::Nothing, attention.norm.as_ref(), &takers, b);
        at.project_queries(&attention.query, b);
        let columns = config.query_columns();
        let queries = &mut b.queries[..range.len() * columns];
        self.rotate(queries, columns, range.start, b.hidden);
        if self.compute.f32_activations {
            let (_, cache) = caches.source.own(&shape);
            at.attend_to_source(Values::Cached, (cache, all), b);
        } else {
            let shape = config.shape_of_source();
            let sizes = whole::Sizes::new(&shape, all);
            let (_, memory) = caches.source.own_bytes();
            let rows = whole::Rows {
                queries: &b.queries[..range.len() * columns],
                scale: 1.0 / math::sqrt(config.query_scale_of as f32),
                attended: &mut b.attended[..range.len() * columns],
                scratch: b.source_scratch,
                kernel_scratch: b.kernel_scratch,
            };
            whole::attend(self.compute, (&shape, &sizes), memory, all, rows);
        }
        at.attention_output(&attention.output, b);
        let pending = Pending::Before(scaling(config, attention.post_norm.as_ref()));
        self.norm(
            0,
            pending,
            feed_forward.norm.as_ref(),
            &feed_forward.takers(),
            b,
        );
        at.feed_forward(feed_forward, b);
        let pending = Pending::Before(scaling(config, feed_forward.post_norm.as_ref()));
        self.norm(0, pending, None, &[], b);
        caches.source.rows[rows.clone()].copy_from_slice(&b.residual[..rows.len()]);
    }

    /// Norms rows `range` of the encoder's output, and writes what cross-attention reads: the rows
    /// themselves, or keys and values for every layer of the decoder.
    fn write_cross(
        &self,
        encoder: &Encoder<'_>,
        range: Range<usize>,
        caches: &mut CacheMemory<'_>,
        b: &mut Buffers<'_>,
    ) {
        let (config, source) = (&self.model.config, &mut caches.source);
        let Some(shape) = self.plan.cross_shape() else {
            unreachable!("the plan of a model with an encoder has its cache");
        };
        let d = config.d_model;
        b.residual[..range.len() * d].copy_from_slice(&source.rows[range.start * d..range.end * d]);
        let crosses = || {
            self.model
                .layers
                .iter()
                .filter_map(|layer| layer.cross.get())
        };
        // int8 is wanted if any layer's matrix is quantised; layout x keeps the rows as they are.
        let takers = crosses()
            .flat_map(|cross| [&cross.key.weight, &cross.value.weight])
            .find(|matrix| matrix.format().is_quantized() && shape.layout != Layout::X);
        let norm = Some(&encoder.norm);
        self.norm(0, Pending::Nothing, norm, takers.as_slice(), b);
        if let Layout::X = shape.layout {
            let rows = (&b.normed[..range.len() * d], d);
            if !math::all_finite(rows.0) {
                source.rows[range.start * d] = f32::NAN;
            }
            write_source(
                self.compute,
                &mut source.cross(0, &shape),
                range.start,
                rows,
                &[],
            );
            return;
        }
        for (layer, cross) in crosses().enumerate() {
            let (keys, values) = self.keys_and_values(&cross.key, &cross.value, b);
            if !(math::all_finite(keys) && math::all_finite(values)) {
                source.rows[range.start * d] = f32::NAN;
            }
            let mut cache = source.cross(layer, &shape);
            let keys = (keys, config.kv_columns());
            write_source(self.compute, &mut cache, range.start, keys, values);
        }
    }
}

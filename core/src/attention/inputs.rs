//! Attention over inputs: keys and values are never computed, where keys are not rotated.
//!
//! `K = X·W_K` and `V = X·W_V` both follow from the layer's input `X` if nothing comes between projection and dot product, so a cache
//! of inputs is exact, takes half of what keys and values take, and inverts no matrix. For head `i`, scale `s` and softmax weights `p`:
//!
//! - scores: `s·(q_i·W_K,iᵀ)·Xᵀ`: each query goes through `W_K`'s transpose once, and then is as wide as an input;
//! - output: `(p·X)·W_V,i + b_V,i`, or `p·(X·W_V,i) + b_V,i`: the two orders of equation 5 of slim attention (Graef and Wasielewski, arXiv
//!   2503.05840), as slim attention's code counts them.
//!
//! A key bias adds the same to all scores of a row, and drops out of the softmax. So does the inputs' mean, which is taken off
//! before they are rounded, and comes back in the output as `mean·W_V`.
//!
//! Two layouts come of it. In *x*, the inputs are those of a decoder's self-attention: [`InputAttention::self_attention`]. In *e*, they are
//! an encoder's output, which all layers of a decoder share, where keys and values would be kept for each: the paper's second option for such models,
//! [`InputAttention::cross_attention`].

use super::geometry::{Geometry, Of, Placed};
pub use super::slim::Caches;
use super::slim::{self, Heads, Layer, Step, ValueMap};
use crate::arena::{Columns, Shared};
use crate::cache::{Ring, SlimCache};
use crate::compute::Compute;
use crate::kernels::attend::Run;
use crate::kernels::{self, Input, Isa, Product};
use crate::nn::rope::Pairs;
use crate::quant::F32;
use crate::tensor::Matrix;
use crate::threads::Threads;

/// One layer's attention over inputs of `d` columns.
#[derive(Clone, Copy)]
pub struct InputAttention<'w> {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// `kv_heads·d x head_dim`: below each other the transposes of the KV heads' parts of `W_K`, of any float format.
    pub keys: Matrix<'w>,
    /// `kv_heads·head_dim x d`: `W_V` as a model file has it, of any float format.
    pub values: Matrix<'w>,
    /// What is taken off inputs before they are rounded: `d` values, or none.
    pub mean: &'w [F32],
    /// What is added to each output: `mean·W_V + b_V`, `kv_heads·head_dim` values, or none.
    pub offset: &'w [F32],
    /// What scores are multiplied with: `1/sqrt(head_dim)`, or 1 in T5.
    pub scale: f32,
}

/// What a pass computes with.
pub struct Work<'a> {
    /// The instruction set.
    pub isa: Isa,
    /// The workers.
    pub threads: &'a dyn Threads,
    /// Queries as wide as inputs: `tokens x heads·d`.
    pub queries: &'a mut [f32],
    /// [`InputAttention::scratch_floats`] for each worker.
    pub scratch: &'a mut [f32],
    /// [`kernels::scratch_bytes`] for rows of `d` columns and one token for each worker, aligned to [`crate::arena::ALIGN`].
    pub kernel_scratch: &'a mut [u8],
}

impl InputAttention<'_> {
    const fn dims(&self) -> Heads {
        Heads {
            queries: self.heads,
            group: self.heads / self.kv_heads,
            width: self.keys.cols(),
            cached: self.values.cols(),
            score_rows: true,
        }
    }

    /// Floats of a worker's scratch: for `slots` slots, chunks of at most `chunk` tokens (1 without chunks) and `exact_sinks` sinks whose
    /// values are kept as they are.
    pub const fn scratch_floats(&self, slots: usize, chunk: usize, exact_sinks: usize) -> usize {
        slim::scratch_floats(&self.dims(), 0, (slots, chunk, exact_sinks))
    }

    /// Layout x: writes `inputs` (`tokens x d`, from which the mean is taken in place) to the cache, attends to it and what was there before
    /// with `queries` (`tokens x heads·head_dim`, not scaled), and puts each head's output into `attended` (as `queries`).
    ///
    /// The cache has `d` columns and no further channels. `ring` says where the tokens will be, and is not advanced. `sink_values`
    /// are the values (with `b_V`) of those tokens that are among the cache's first sinks.
    ///
    /// # Panics
    /// If shapes do not fit, or several tokens come without a chunk's cache.
    pub fn self_attention(
        &self,
        work: &mut Work<'_>,
        ring: &Ring,
        caches: &mut Caches<'_>,
        (queries, inputs, sink_values): (&[f32], &mut [f32], &[f32]),
        attended: &mut [f32],
    ) {
        let heads = self.dims();
        let tokens = inputs.len() / heads.cached;
        assert!(tokens == 1 || caches.chunk.is_some());
        let compute = self.absorb(work, queries);
        let geometry = Geometry::new(ring, tokens, Pairs::Neighbours, (&[], &[]), &mut []);
        slim::attend(
            &compute,
            &heads,
            ring,
            &geometry,
            &self.value_map(),
            caches,
            &mut self.step(work, (inputs, sink_values), attended),
        );
    }

    /// Layout e: attends with `queries` (`tokens x heads·head_dim`, not scaled) to the first `frames` slots of `encoded`, which
    /// [`write_frames`] wrote; every token sees all of them. Puts each head's output into `attended` (as `queries`).
    ///
    /// # Panics
    /// If there are no frames, or shapes do not fit.
    pub fn cross_attention(
        &self,
        work: &mut Work<'_>,
        encoded: SlimCache<'_>,
        frames: usize,
        queries: &[f32],
        attended: &mut [f32],
    ) {
        assert!(0 < frames && frames <= encoded.capacity());
        let heads = self.dims();
        let tokens = queries.len() / (self.heads * heads.width);
        let compute = self.absorb(work, queries);
        // All frames are there, and none ever leaves: a ring that is full, whatever comes after.
        let mut ring = Ring::new(0, frames);
        ring.advance(frames);
        let run = Run {
            slots: 0..frames,
            position: 0,
        };
        let geometry = Geometry {
            runs: [Placed {
                run,
                of: Of::Window,
                base: 0,
            }]
            .into_iter()
            .collect(),
            bases: &[],
            lanes: &[],
            pairs: Pairs::Neighbours,
        };
        let layer = Layer {
            compute: &compute,
            heads: &heads,
            ring: &ring,
            geometry: &geometry,
            values: &self.value_map(),
            caches: &Caches {
                ring: encoded,
                chunk: None,
                exact_sinks: 0,
            },
        };
        layer.run_jobs(&mut self.step(work, (&mut [], &[]), attended), tokens);
    }

    /// Takes every head's query through the transpose of its part of `W_K`, and scales it.
    fn absorb<'t>(&self, work: &mut Work<'t>, queries: &[f32]) -> Compute<'t> {
        let compute = Compute {
            isa: work.isa,
            threads: work.threads,
            f32_activations: true,
        };
        let Heads {
            queries: count,
            group,
            width,
            cached: d,
            ..
        } = self.dims();
        let tokens = queries.len() / (count * width);
        let workers = compute.threads.workers();
        let kernel_len = work.kernel_scratch.len();
        let scratch = Shared::new(work.kernel_scratch, kernel_len, kernel_len / workers);
        let wide = Shared::new(&mut work.queries[..tokens * count * d], count * d, d);
        compute.threads.run(count, &|worker, head| {
            let (mut out, mut scratch) = (wide.take(head), scratch.take(worker));
            let first = head / group * d;
            for token in 0..tokens {
                let out = out.row_mut(token);
                kernels::matmul(
                    compute.isa,
                    Product {
                        weights: &self.keys,
                        rows: first..first + d,
                        activations: Input::F32(&queries[(token * count + head) * width..][..width]),
                        out: &mut Columns::all(out, d),
                        scratch: &mut scratch,
                    },
                );
                for x in out.iter_mut() {
                    *x *= self.scale;
                }
            }
        });
        compute
    }

    fn value_map(&self) -> ValueMap<'_> {
        ValueMap {
            map: self.values,
            mean: self.mean,
            offset: self.offset,
            rank: 0,
        }
    }

    fn step<'s>(
        &self,
        work: &'s mut Work<'_>,
        (inputs, sink_values): (&'s mut [f32], &'s [f32]),
        attended: &'s mut [f32],
    ) -> Step<'s> {
        let tokens = attended.len() / (self.heads * self.keys.cols());
        Step {
            queries: &mut work.queries[..tokens * self.heads * self.values.cols()],
            scale: 1.0,
            sink_queries: &mut [],
            keys: inputs,
            channels: &[],
            sink_values,
            attended,
            scratch: work.scratch,
            kernel_scratch: work.kernel_scratch,
            least_weight: 0.0,
            angles: &[],
            sink_angles: &[],
            first: 0,
            probe: &mut [],
        }
    }
}

/// Writes an encoder's output (`frames x d`, from which `mean` is taken in place) to slots `0..frames` of a cache of `d` columns
/// without further channels, whose memory was zeros.
///
/// # Panics
/// If there are more frames than slots, or shapes do not fit.
pub fn write_frames(isa: Isa, frames: &mut [f32], mean: &[F32], d: usize, cache: &mut SlimCache<'_>) {
    for (slot, frame) in frames.chunks_exact_mut(d).enumerate() {
        for (x, mean) in frame.iter_mut().zip(mean) {
            *x -= mean.to_f32();
        }
        cache.write(isa, slot, frame, &[]);
    }
}

//! Linear layers and per-token work, divided among workers.
//!
//! A job is a range of output rows or one token; each output is computed by one job in one order, so that the number of workers
//! changes no bit.

use crate::arena::{MAX_PARTS, Shared};
use crate::kernels::{self, Input, Isa, Q8Activation, vector};
use crate::quant::{BLOCK, F32};
use crate::tensor::Matrix;
use crate::threads::Threads;

/// What computes: an instruction set and workers.
#[derive(Clone, Copy)]
pub(crate) struct Compute<'a> {
    pub(crate) isa: Isa,
    pub(crate) threads: &'a dyn Threads,
    pub(crate) f32_activations: bool,
}

/// Activations of some tokens, in f32 and (unless switched off) also in int8.
#[derive(Clone, Copy)]
pub(crate) struct Activations<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) quantized: &'a [Q8Activation],
}

/// Where int8 activations go.
pub(crate) struct Quantized<'a> {
    pub(crate) buffer: &'a mut [Q8Activation],
    /// Whether any weight that takes them is quantised.
    pub(crate) wanted: bool,
}

impl<'a> Quantized<'a> {
    /// `buffer`, if any of `weights` wants it.
    pub(crate) fn wanted_by(weights: &[&Matrix<'_>], buffer: &'a mut [Q8Activation]) -> Self {
        Quantized {
            wanted: weights.iter().any(|w| w.format().is_quantized()),
            buffer,
        }
    }
}

impl Compute<'_> {
    /// Calls `job(token)` for every token, on all workers if there are several tokens.
    pub(crate) fn per_token(&self, tokens: usize, job: impl Fn(usize) + Sync) {
        if tokens == 1 {
            job(0);
        } else {
            self.threads.run(tokens, &|_, token| job(token));
        }
    }

    /// Adds each token's row of `normed` to that of `x` if `add`; then norms `x` into `normed`, and quantises that into `quantized`.
    pub(crate) fn norm(
        &self,
        x: &mut [f32],
        add: bool,
        weight: &[F32],
        eps: f32,
        normed: &mut [f32],
        quantized: Quantized<'_>,
    ) {
        let d = weight.len();
        let tokens = x.len() / d;
        if tokens == 0 {
            return;
        }
        let x = Shared::new(x, tokens * d, d);
        let normed = Shared::new(normed, tokens * d, d);
        let quantized = self.rows(quantized, tokens, d);
        self.per_token(tokens, |token| {
            let (mut x, mut row) = (x.take(token), normed.take(token));
            if add {
                vector::add(self.isa, &mut x, &row);
            }
            vector::rms_norm(self.isa, &x, weight, eps, &mut row);
            if let Some(quantized) = &quantized {
                kernels::quantize(self.isa, &row, &mut quantized.take(token));
            }
        });
    }

    /// `gate = silu(gate) · up` for each token's row of `width` values, quantised into `quantized`.
    pub(crate) fn swiglu(&self, gate: &mut [f32], up: &[f32], width: usize, quantized: Quantized<'_>) {
        let tokens = gate.len() / width;
        let gate = Shared::new(gate, tokens * width, width);
        let quantized = self.rows(quantized, tokens, width);
        self.per_token(tokens, |token| {
            let mut row = gate.take(token);
            vector::swiglu(self.isa, &mut row, &up[token * width..][..width]);
            if let Some(quantized) = &quantized {
                kernels::quantize(self.isa, &row, &mut quantized.take(token));
            }
        });
    }

    /// Quantises each token's row of `width` values.
    pub(crate) fn quantize(&self, x: &[f32], width: usize, quantized: Quantized<'_>) {
        let tokens = x.len() / width;
        if let Some(quantized) = self.rows(quantized, tokens, width) {
            self.per_token(tokens, |token| {
                kernels::quantize(self.isa, &x[token * width..][..width], &mut quantized.take(token));
            });
        }
    }

    /// The buffer by tokens, if int8 activations are wanted at all.
    fn rows<'q>(
        &self,
        quantized: Quantized<'q>,
        tokens: usize,
        width: usize,
    ) -> Option<Shared<'q, Q8Activation>> {
        let blocks = width / BLOCK;
        (!self.f32_activations && quantized.wanted)
            .then(|| Shared::new(&mut quantized.buffer[..tokens * blocks], tokens * blocks, blocks))
    }

    /// Several linear layers of the same input at once: `out[t] = w · x[t]` for each `(w, out)`.
    pub(crate) fn linear<const N: usize>(
        &self,
        x: Activations<'_>,
        layers: [(&Matrix<'_>, &mut [f32]); N],
        scratch: &mut [u8],
    ) {
        let workers = self.threads.workers();
        let scratch_len = scratch.len();
        let scratch = Shared::new(scratch, scratch_len, scratch_len / workers);
        let parts = layers.map(|(w, out)| {
            let chunk = rows_of_a_job(w.rows(), workers);
            (w, chunk, Shared::new(out, w.rows(), chunk))
        });
        let jobs = parts.iter().map(|(_, _, out)| out.parts()).sum();
        self.threads.run(jobs, &|worker, mut job| {
            for (w, chunk, out) in &parts {
                if job >= out.parts() {
                    job -= out.parts();
                    continue;
                }
                let mut columns = out.take(job);
                let start = job * chunk;
                let input = if self.f32_activations || !w.format().is_quantized() {
                    Input::F32(x.values)
                } else {
                    Input::Q8(x.quantized)
                };
                let rows = start..start + columns.width();
                kernels::matmul(self.isa, w, rows, input, &mut columns, &mut scratch.take(worker));
                return;
            }
        });
    }
}

/// Rows of one job: about four jobs a worker, so that an uneven start evens out; whole panels of 32 rows, which is what kernels
/// unpack at once.
fn rows_of_a_job(rows: usize, workers: usize) -> usize {
    if workers == 1 {
        return rows;
    }
    rows.div_ceil((workers * 4).min(MAX_PARTS)).next_multiple_of(32)
}

//! Division of work among workers: linear layers, and steps that treat each token by itself.
//!
//! A job is a range of output rows or one token. One job computes each output in a fixed order, so
//! the number of workers changes no bit.

use crate::arena::{MAX_PARTS, Shared};
use crate::features::FAMILIES;
use crate::kernels::{
    self, Activate, Activation, Add, Input, Isa, Norm, NormInPlace, NormThenAdd, Product,
    Q8Activation, Scaling,
};
use crate::quant::{BLOCK, F32};
use crate::speech::mel::LogMel;
use crate::tensor::Matrix;
use crate::threads::Threads;

/// Means of computation: an instruction set and workers.
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

/// Time at which a sublayer's output is added to the residual stream, relative to the next norm.
/// Until then the output lies where that norm's output will be.
#[derive(Clone, Copy)]
pub(crate) enum Pending<'w> {
    /// There is no pending output.
    Nothing,
    /// Before the norm: `x += f`, then `norm(x)`; `f` is normed first if it has a norm of its own.
    Before(Option<Scaling<'w>>),
    /// After the norm of `x`, which does not see it: parallel sublayers.
    After,
}

/// Rows of the residual stream, and the place of the normed rows.
pub(crate) struct NormRows<'a> {
    /// `tokens x width`: the residual stream.
    pub(crate) x: &'a mut [f32],
    /// `tokens x width`: the pending output, and then the normed rows.
    pub(crate) normed: &'a mut [f32],
    /// Width of a row.
    pub(crate) width: usize,
}

/// Destination of int8 activations.
pub(crate) struct Quantized<'a> {
    pub(crate) buffer: &'a mut [Q8Activation],
    /// True if any weight that takes them is quantised.
    pub(crate) wanted: bool,
}

impl<'a> Quantized<'a> {
    /// Creates a destination that is wanted if any of `weights` is quantised.
    pub(crate) fn wanted_by(weights: &[&Matrix<'_>], buffer: &'a mut [Q8Activation]) -> Self {
        Quantized {
            wanted: weights.iter().any(|w| w.format().is_quantized()),
            buffer,
        }
    }
}

impl Compute<'_> {
    /// Number of tokens in one job of [`Compute::by_tokens`]: about eight jobs a worker. With one
    /// job for each token, the workers would wait for each other when they claim jobs.
    pub(crate) fn tokens_of_a_job(&self, tokens: usize) -> usize {
        tokens.div_ceil((self.threads.workers() * 8).min(MAX_PARTS))
    }

    /// Calls `job(part)` for every range of [`Compute::tokens_of_a_job`] tokens, on all workers if
    /// there are several tokens.
    pub(crate) fn by_tokens(&self, tokens: usize, job: impl Fn(usize) + Sync) {
        if tokens == 1 {
            job(0);
        } else {
            let parts = tokens.div_ceil(self.tokens_of_a_job(tokens));
            self.threads.run(parts, &|_, part| job(part));
        }
    }

    /// Shares rows of `width` values, one for each token, among the jobs of [`Compute::by_tokens`].
    fn share<'m, T>(&self, rows: &'m mut [T], width: usize) -> Shared<'m, T> {
        let each = self.tokens_of_a_job(rows.len() / width);
        Shared::new(rows, rows.len(), each * width)
    }

    /// Norms each token's row and quantises it into `quantized`. The pending output is added to the
    /// residual stream before or after the norm. Without a norm the rows are copied.
    pub(crate) fn norm(
        &self,
        rows: NormRows<'_>,
        pending: Pending<'_>,
        norm: Option<Scaling<'_>>,
        quantized: Quantized<'_>,
    ) {
        let NormRows { x, normed, width } = rows;
        let tokens = x.len() / width;
        if tokens == 0 {
            return;
        }
        let (x, normed) = (self.share(x, width), self.share(normed, width));
        let quantized = self.share_quantized(quantized, tokens, width);
        self.by_tokens(tokens, |part| {
            let (mut x, mut normed) = (x.take(part), normed.take(part));
            for (x, normed) in x
                .chunks_exact_mut(width)
                .zip(normed.chunks_exact_mut(width))
            {
                self.norm_row(x, normed, pending, norm);
            }
            if let Some(quantized) = &quantized {
                kernels::quantize(self.isa, &normed, &mut quantized.take(part));
            }
        });
    }

    fn norm_row(
        &self,
        x: &mut [f32],
        normed: &mut [f32],
        pending: Pending<'_>,
        norm: Option<Scaling<'_>>,
    ) {
        match (pending, norm) {
            (Pending::After, Some(norm)) if FAMILIES => {
                return self.isa.run(NormThenAdd {
                    x,
                    scaling: norm,
                    y: normed,
                });
            }
            (Pending::Before(post), _) => {
                if let Some(post) = post.filter(|_| FAMILIES) {
                    self.isa.run(NormInPlace {
                        x: normed,
                        scaling: post,
                    });
                }
                self.isa.run(Add { x, y: normed });
            }
            (Pending::Nothing | Pending::After, _) => {}
        }
        match norm {
            Some(scaling) => self.isa.run(Norm {
                x,
                scaling,
                out: normed,
            }),
            None => normed.copy_from_slice(x),
        }
    }

    /// Norms `rows` in place by their root mean square, in groups as wide as `weight`.
    pub(crate) fn norm_rows(&self, rows: &mut [f32], weight: &[F32], eps: f32) {
        let width = weight.len();
        let scaling = Scaling {
            centred: false,
            weight,
            bias: &[],
            eps,
        };
        let count = rows.len() / width;
        let rows = self.share(rows, width);
        self.by_tokens(count, |part| {
            for row in rows.take(part).chunks_exact_mut(width) {
                self.isa.run(NormInPlace { x: row, scaling });
            }
        });
    }

    /// Computes the log-mel features of all frames of a sound of `samples`, which zeros follow up
    /// to `padded` samples ([`LogMel::power_mel`]). `scratch` is for all workers.
    pub(crate) fn log_mel(
        &self,
        front_end: &LogMel<'_>,
        (samples, padded): (&[f32], usize),
        scratch: &mut [f32],
        rows: &mut [f32],
    ) {
        let mels = front_end.shape().mels();
        let frames = rows.len() / mels;
        let each = self.tokens_of_a_job(frames);
        let len = scratch.len();
        let scratch = Shared::new(scratch, len, len / self.threads.workers());
        let rows = self.share(rows, mels);
        self.threads.run(frames.div_ceil(each), &|worker, part| {
            let range = part * each..frames.min((part + 1) * each);
            let (mut scratch, mut rows) = (scratch.take(worker), rows.take(part));
            front_end.power_mel(samples, padded, range, &mut scratch, &mut rows);
        });
    }

    /// Adds `bias` to each token's row of the same width; does nothing if `bias` is empty.
    pub(crate) fn add_bias(&self, rows: &mut [f32], bias: &[F32]) {
        let width = bias.len();
        if width == 0 || rows.is_empty() {
            return;
        }
        let tokens = rows.len() / width;
        let rows = self.share(rows, width);
        self.by_tokens(tokens, |part| {
            for row in rows.take(part).chunks_exact_mut(width) {
                for (x, bias) in row.iter_mut().zip(bias) {
                    *x += bias.to_f32();
                }
            }
        });
    }

    /// Computes `hidden = f(hidden)`, times `up` if that is not empty, for each token's row of
    /// `width` values, and quantises it into `quantized`.
    pub(crate) fn activate(
        &self,
        f: Activation,
        hidden: &mut [f32],
        up: &[f32],
        width: usize,
        quantized: Quantized<'_>,
    ) {
        let tokens = hidden.len() / width;
        let each = self.tokens_of_a_job(tokens) * width;
        let hidden = self.share(hidden, width);
        let quantized = self.share_quantized(quantized, tokens, width);
        self.by_tokens(tokens, |part| {
            let mut hidden = hidden.take(part);
            let up = up.chunks(each).nth(part).unwrap_or_default();
            self.isa.run(Activate {
                function: f,
                x: &mut hidden,
                up,
            });
            if let Some(quantized) = &quantized {
                kernels::quantize(self.isa, &hidden, &mut quantized.take(part));
            }
        });
    }

    /// Quantises each token's row of `width` values.
    pub(crate) fn quantize(&self, x: &mut [f32], width: usize, quantized: Quantized<'_>) {
        let tokens = x.len() / width;
        let x = self.share(x, width);
        if let Some(quantized) = self.share_quantized(quantized, tokens, width) {
            self.by_tokens(tokens, |part| {
                kernels::quantize(self.isa, &x.take(part), &mut quantized.take(part));
            });
        }
    }

    /// Shares the buffer as [`Compute::share`] does, if int8 activations are wanted.
    fn share_quantized<'q>(
        &self,
        quantized: Quantized<'q>,
        tokens: usize,
        width: usize,
    ) -> Option<Shared<'q, Q8Activation>> {
        let blocks = width / BLOCK;
        (!self.f32_activations && quantized.wanted)
            .then(|| self.share(&mut quantized.buffer[..tokens * blocks], blocks))
    }

    /// Computes several linear layers of the same input at once: `out[t] = w · x[t]` for each
    /// `(w, out)`.
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
                let product = Product {
                    weights: w,
                    rows,
                    activations: input,
                    out: &mut columns,
                    scratch: &mut scratch.take(worker),
                };
                kernels::matmul(self.isa, product);
                return;
            }
        });
    }
}

/// Number of rows in one job: about four jobs a worker, which evens out an uneven start; whole
/// panels of 32 rows, the number that kernels unpack at once.
fn rows_of_a_job(rows: usize, workers: usize) -> usize {
    if workers == 1 {
        return rows;
    }
    rows.div_ceil((workers * 4).min(MAX_PARTS))
        .next_multiple_of(32)
}

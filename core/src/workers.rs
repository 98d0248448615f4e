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
        let bytes = |w: &Matrix<'_>| w.rows() * w.row_bytes();
        let all = layers.iter().map(|(w, _)| bytes(w)).sum::<usize>();
        let tokens = layers[0].1.len() / layers[0].0.rows();
        let jobs = jobs(all, tokens, workers);
        let share = all.div_ceil(jobs);
        let parts = layers.map(|(w, out)| {
            let unit = if jobs == 1 {
                w.rows()
            } else {
                unit(w.rows(), tokens)
            };
            (w, unit, Shared::new(out, w.rows(), unit))
        });
        self.threads.run(jobs, &|worker, job| {
            // The job's bytes, of all matrices one after the other, from this one's beginning.
            let (mut start, mut end) = (job * share, (job + 1) * share);
            for (w, unit, out) in &parts {
                let units_to = |byte: usize| byte.div_ceil(unit * w.row_bytes()).min(out.parts());
                let units = units_to(start)..units_to(end);
                (start, end) = (start.saturating_sub(bytes(w)), end.saturating_sub(bytes(w)));
                if units.is_empty() {
                    continue;
                }
                let mut columns = out.take_several(units.start, units.len());
                let start = units.start * unit;
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
            }
        });
    }
}

/// Number of jobs that read `bytes` of weights for `tokens` tokens. A job begins with lines that
/// nothing has asked for, and asks for lines after its end: with few tokens, when reading is all of
/// the work, each worker has one job, or several of [`LONG`] bytes. With many tokens four jobs a
/// worker even out cores that are not equally fast.
fn jobs(bytes: usize, tokens: usize, workers: usize) -> usize {
    match (workers, tokens) {
        (1, _) => 1,
        (_, ..MANY) => (bytes / LONG).clamp(workers, workers * 4),
        _ => workers * 4,
    }
}

/// Tokens from which on reading weights is little of the work.
const MANY: usize = 64;

/// Bytes of a job that is long beside its beginning.
const LONG: usize = 1 << 20;

/// Rows of the ranges in which a matrix is shared among jobs: whole groups of 16, which are the
/// most that decode at once, or with more tokens whole panels of 32 rows.
fn unit(rows: usize, tokens: usize) -> usize {
    let step = if tokens < 4 { 16 } else { 32 };
    rows.div_ceil(MAX_PARTS).next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::vec::Vec;

    use super::*;
    use crate::arena::Aligned;
    use crate::quant::Format;

    /// Workers that take turns on one thread, the last job first.
    struct Backwards(usize, AtomicUsize);

    impl Threads for Backwards {
        fn workers(&self) -> usize {
            self.0
        }

        fn run(&self, jobs: usize, job: &(dyn Fn(usize, usize) + Sync)) {
            self.1.store(jobs, Ordering::Relaxed);
            (0..jobs).rev().for_each(|index| job(index % self.0, index));
        }
    }

    /// Every row of every matrix is computed once, whatever the sizes, workers and tokens.
    #[test]
    fn linear_layers_are_whole_however_they_are_divided() {
        const COLS: usize = 2;
        for workers in [1, 2, 3, 4, 7] {
            for rows in [[1, 1, 1], [576, 192, 192], [31, 1000, 5], [33_000, 16, 1]] {
                for tokens in [1, 5, 70] {
                    let weights = rows.map(|rows| {
                        let row = |row: usize| [row as f32, 1.0];
                        let values = (0..rows).flat_map(row);
                        values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>()
                    });
                    let matrices: Vec<Matrix<'_>> = rows
                        .iter()
                        .zip(&weights)
                        .map(|(rows, bytes)| Matrix::new(Format::F32, *rows, COLS, bytes).unwrap())
                        .collect();
                    let x: Vec<f32> = (0..tokens).flat_map(|t| [1.0, t as f32 / 8.0]).collect();
                    let mut out = rows.map(|rows| std::vec![f32::NAN; rows * tokens]);
                    let threads = Backwards(workers, AtomicUsize::new(0));
                    let compute = Compute {
                        isa: Isa::Scalar,
                        threads: &threads,
                        f32_activations: true,
                    };
                    let [a, b, c] = &mut out;
                    let layers = [
                        (&matrices[0], &mut a[..]),
                        (&matrices[1], b),
                        (&matrices[2], c),
                    ];
                    let activations = Activations {
                        values: &x,
                        quantized: &[],
                    };
                    let mut scratch = Aligned([0u8; 7 << 12]);
                    let scratch = &mut scratch.0[..workers << 12];
                    compute.linear(activations, layers, scratch);
                    for (rows, out) in rows.into_iter().zip(&out) {
                        let whole = out.iter().enumerate().all(|(i, value)| {
                            let (token, row) = (i / rows, i % rows);
                            *value == row as f32 + token as f32 / 8.0
                        });
                        assert!(whole, "{rows} rows, {tokens} tokens, {workers} workers");
                    }
                    let jobs = threads.1.into_inner();
                    let each = if tokens < MANY || workers == 1 { 1 } else { 4 };
                    assert_eq!(jobs, each * workers);
                }
            }
        }
    }
}

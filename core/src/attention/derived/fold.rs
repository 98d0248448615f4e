//! Products of queries with the transpose of the key projection, for caches of inputs.

use super::super::step::{Attend, Step};
use crate::arena::Shared;
use crate::tensor::Matrix;

/// Writes `q_i·W_K,iᵀ` of every head `i` to `step.wide_queries`, for the tokens that need an
/// output.
///
/// `keys` has a row for each column of a key. A row is dequantised into a worker's scratch and then
/// used for all tokens: `wide += q[j]·row j`, in the order of the rows.
pub(super) fn queries(attend: &Attend<'_>, keys: &Matrix<'_>, step: &mut Step<'_>, tokens: usize) {
    let shape = attend.shape;
    let (d, head, group) = (shape.d_model, shape.head_dim, shape.group());
    let workers = attend.compute.threads.workers();
    let scratch_len = step.scratch.len();
    let scratch = Shared::new(&mut *step.scratch, scratch_len, scratch_len / workers);
    let columns = shape.heads * d;
    let wide = Shared::new(&mut step.wide_queries[..tokens * columns], columns, d);
    let (queries, wanted) = (&*step.queries, step.wanted);
    attend.compute.threads.run(shape.heads, &|worker, index| {
        let (mut wide, mut scratch) = (wide.take(index), scratch.take(worker));
        let row = &mut scratch[..d];
        for token in wanted..tokens {
            wide.row_mut(token).fill(0.0);
        }
        for j in 0..head {
            keys.dequantize_row(index / group * head + j, row);
            for token in wanted..tokens {
                let q = queries[(token * shape.heads + index) * head + j];
                for (wide, x) in wide.row_mut(token).iter_mut().zip(&*row) {
                    *wide += q * x;
                }
            }
        }
    });
}

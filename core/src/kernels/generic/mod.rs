//! Algorithms written once over a vector of sixteen ([`Lanes`]) for every instruction set. Each is
//! an [`Op`], a struct of its operands, which [`Isa::run`](super::Isa::run) evaluates.
//!
//! Operations whose result depends on an order (sums over lanes) have the same order everywhere,
//! and products and sums are never fused, so that the bits are the same on every instruction set.

mod activate;
pub mod attend;
mod elementwise;
mod exp;
mod lanes;
mod norm;
mod rotate;
mod softmax;

pub(crate) use activate::{Activate, Activation};
pub(crate) use elementwise::{Add, Narrow};
pub(crate) use lanes::{ColumnHalves, Lanes, SlotPairs};
pub use norm::{Norm, Scaling};
pub(crate) use norm::{NormInPlace, NormThenAdd};
pub use rotate::Rotate;
pub use softmax::Softmax;
pub(crate) use softmax::{LeaveOut, SoftCap};

/// A vector algorithm with its operands.
///
/// [`Op::eval`] and all functions that it calls are `#[inline(always)]`, and no closure calls a
/// method of the lanes: a function compiled separately would not have the features of the
/// instruction set.
pub trait Op {
    /// Result of the algorithm.
    type Output;

    /// Runs the algorithm.
    ///
    /// # Panics
    /// If the operands do not fit one another, as each algorithm specifies.
    fn eval<L: Lanes>(self, l: L) -> Self::Output;
}

/// Sum of the lanes by the fold of halves of [`crate::kernels::dot`].
#[inline(always)]
fn fold<L: Lanes>(l: L, v: L::V) -> f32 {
    let mut lanes = [0.0; 16];
    l.store(v, &mut lanes);
    super::scalar::fold(lanes)
}

/// Replaces sixteen values of `$x` at a time: `$v` is the vector of those from `$at` on; the last,
/// shorter part is padded with zeros and cut off again. It is a macro, since the body of a closure
/// would be compiled without the caller's instruction set.
macro_rules! map_in_place {
    ($l:expr, $x:expr, |$v:ident, $at:ident| $body:expr) => {{
        let (chunks, rest) = $x.as_chunks_mut::<16>();
        let whole = chunks.len() * 16;
        for (i, chunk) in chunks.iter_mut().enumerate() {
            let ($v, $at) = ($l.load(chunk), i * 16);
            $l.store($body, chunk);
        }
        if !rest.is_empty() {
            let ($v, $at) = ($l.load_part(rest), whole);
            $l.store_part($body, rest);
        }
    }};
}
use map_in_place;

/// Loads sixteen values of `x` from `at` on, zeros past the end.
#[inline(always)]
fn load_padded<L: Lanes>(l: L, x: &[f32], at: usize) -> L::V {
    match x[at..].first_chunk::<16>() {
        Some(chunk) => l.load(chunk),
        None => l.load_part(&x[at..]),
    }
}

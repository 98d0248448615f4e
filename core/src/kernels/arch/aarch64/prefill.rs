//! Prefill: a group of rows, unpacked once, is multiplied with a few tokens at a time.

use core::arch::aarch64::*;

use super::dot::Dot;
use super::multipliers::Multipliers;
use super::unpack::{Heads, Unpack};
use super::{GROUP, Group, Weights, prefetch};
use crate::arena::Carver;
use crate::quant::{BLOCK, Q8Activation};

/// Bytes of a group's integers in one column of blocks.
pub(super) const INTEGERS: usize = GROUP * BLOCK;

/// Floats of a group in one column of blocks: its scales, then its minima.
pub(super) const FLOATS: usize = 2 * GROUP;

/// A group of rows, unpacked.
pub(super) struct Panel<'s> {
    /// For each column of blocks: rows 0..4, then rows 4..8, each 8 registers in the order of
    /// [`Dot::store`].
    integers: &'s mut [i8],
    /// For each column of blocks 8 scales, then 8 minima; for formats with factors the input of
    /// [`Multipliers::new`].
    floats: &'s mut [f32],
}

impl<'s> Panel<'s> {
    /// Makes a panel for rows of `row_blocks` blocks; its contents are those of the scratch.
    ///
    /// # Panics
    /// If the scratch is not aligned or too small.
    pub(super) fn new(scratch: &'s mut [u8], row_blocks: usize) -> Self {
        let Some(mut carver) = Carver::new(scratch) else {
            panic!("scratch is not aligned")
        };
        let integers = carver.take(row_blocks * INTEGERS);
        let floats = carver.take(row_blocks * FLOATS);
        let (Some(integers), Some(floats)) = (integers, floats) else {
            panic!("scratch is too small")
        };
        Panel { integers, floats }
    }

    /// The integers and the floats of each column of blocks.
    pub(super) fn columns(&mut self) -> (&mut [[i8; INTEGERS]], &mut [[f32; FLOATS]]) {
        (
            self.integers.as_chunks_mut().0,
            self.floats.as_chunks_mut().0,
        )
    }

    /// Unpacks a group.
    ///
    /// # Panics
    /// If its rows are not as long as the panel.
    pub(super) fn fill<D: Dot, B: Unpack>(&mut self, dot: D, rows: Group<'_, B>) {
        let (integers, floats) = self.columns();
        assert!(rows.row_len == integers.len());
        let mut next = rows.blocks.as_ptr_range().end;
        let mut rows = rows.starts();
        for (integers, floats) in integers.iter_mut().zip(floats) {
            // SAFETY: a `Dot` proves that the processor has NEON; each row has a block for each of
            // `integers`.
            unsafe { fill_block::<D, B>(dot, &mut rows, next, integers, floats) };
            next = next.wrapping_add(GROUP);
        }
    }

    /// Multiplies all tokens with the panel and calls `store` with each token's index and outputs.
    pub(super) fn multiply<D: Dot, B: Weights>(
        &self,
        dot: D,
        x: &[Q8Activation],
        tokens: usize,
        mut store: impl FnMut(usize, [f32; GROUP]),
    ) {
        let row_blocks = x.len() / tokens;
        let mut token = 0;
        while token < tokens {
            let x = &x[token * row_blocks..];
            token += match tokens - token {
                4.. if D::FOUR_TOKENS => self.tile::<D, B, 4>(dot, x, token, &mut store),
                2.. => self.tile::<D, B, 2>(dot, x, token, &mut store),
                _ => self.tile::<D, B, 1>(dot, x, token, &mut store),
            };
        }
    }

    /// Multiplies the first `T` tokens of `x`, of which the first is number `token`; returns `T`.
    fn tile<D: Dot, B: Weights, const T: usize>(
        &self,
        dot: D,
        x: &[Q8Activation],
        token: usize,
        store: &mut impl FnMut(usize, [f32; GROUP]),
    ) -> usize {
        let integers = self.integers.as_chunks::<INTEGERS>().0;
        let floats = self.floats.as_chunks::<FLOATS>().0;
        let x: [&[Q8Activation]; T] =
            core::array::from_fn(|t| &x[t * integers.len()..][..integers.len()]);
        // SAFETY: `dot` proves that the processor has NEON; `b` is below the length of each of `x`.
        unsafe {
            let mut acc = [[vdupq_n_f32(0.0); 2]; T];
            for (b, (integers, floats)) in integers.iter().zip(floats).enumerate() {
                let x = x.map(|x| &raw const *x.get_unchecked(b));
                tile_block::<D, B, T>(dot, integers, floats, x, &mut acc);
            }
            for (t, acc) in acc.iter().enumerate() {
                let mut out = [0.0; GROUP];
                vst1q_f32(out.as_mut_ptr(), acc[0]);
                vst1q_f32(out.as_mut_ptr().add(4), acc[1]);
                store(token + t, out);
            }
        }
        T
    }
}

/// Unpacks one column of blocks, and moves the rows' pointers to the next. `next` is the part of
/// the next group that is asked for meanwhile.
///
/// # Safety
/// The blocks are readable and the processor has NEON.
#[inline(always)]
unsafe fn fill_block<D: Dot, B: Unpack>(
    dot: D,
    rows: &mut [*const u8; GROUP],
    next: *const B,
    integers: &mut [i8; INTEGERS],
    floats: &mut [f32; FLOATS],
) {
    // SAFETY: contracts 1 and 2 (NEON; a block of each row). The stores of 4 floats fill `floats`.
    unsafe {
        let mut heads = Heads::none();
        macro_rules! each_row {
            ($($row:literal)*) => {[$({
                heads.load::<B, $row>(&mut rows[$row]);
                prefetch::<B, $row>(next);
                B::integers(&mut rows[$row]).map(|w| vaddq_s8(w, vdupq_n_s8(B::OFFSET)))
            }),*]};
        }
        let lanes = each_row!(0 1 2 3 4 5 6 7);
        for (i, out) in integers.as_chunks_mut().0.iter_mut().enumerate() {
            let (half, columns) = (i / 2, i % 2);
            dot.store([0, 1, 2, 3].map(|row| lanes[4 * half + row][columns]), out);
        }
        for (i, widened) in heads.widen::<B>().into_iter().flatten().enumerate() {
            vst1q_f32(floats.as_mut_ptr().add(4 * i), widened);
        }
    }
}

/// Adds one column of blocks of a panel for `T` tokens.
///
/// # Safety
/// Each of `x` is readable and the processor has NEON.
#[inline(always)]
unsafe fn tile_block<D: Dot, B: Weights, const T: usize>(
    dot: D,
    integers: &[i8; INTEGERS],
    floats: &[f32; FLOATS],
    x: [*const Q8Activation; T],
    acc: &mut [[float32x4_t; 2]; T],
) {
    // SAFETY: contracts 1 and 3 (NEON; a block of activations of each token). `floats` is 4
    // registers; the head of a block of activations is its first 16 bytes.
    unsafe {
        let sums = dot.sums::<B, T>(integers, x);
        let float = |i: usize| vld1q_f32(floats.as_ptr().add(4 * i));
        let multipliers = [0, 1].map(|half| Multipliers::new::<B>([float(half), float(2 + half)]));
        for t in 0..T {
            let head = vld1q_f32(x[t].cast());
            for (half, multipliers) in multipliers.iter().enumerate() {
                let isum = sums[t].map(|sums| sums[half]);
                acc[t][half] = vaddq_f32(acc[t][half], multipliers.term::<B>(isum, head));
            }
        }
    }
}

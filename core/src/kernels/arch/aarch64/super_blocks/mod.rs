//! Super-blocks, four rows and two blocks of 32 columns (parts) at a time.

mod unpack;

use core::arch::aarch64::*;
use core::arch::asm;

use super::dot::Dot;
use super::multipliers::Multipliers;
use super::prefill::Panel;
use super::{GROUP, Group, Weights, prefetch, store};
use crate::quant::{
    BLOCK, BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, Q8Activation, SUPER_BLOCK, SuperBlock,
};

use unpack::{Heads, Super};

/// Parts of a super-block.
const PARTS: usize = SUPER_BLOCK / BLOCK;

/// Implements [`Weights`] for a format of super-blocks.
macro_rules! weights {
    ($($block:ty)*) => {$(
        impl Weights for $block {
            const HAS_MIN: bool = <$block as SuperBlock>::HAS_MIN;
            const HAS_FACTORS: bool = <$block as Super>::HAS_FACTORS;

            fn decode<D: Dot>(dot: D, blocks: &[Self], x: &[Q8Activation], out: &mut [f32]) {
                let row_len = x.len() / PARTS;
                assert!(blocks.len() == out.len() * row_len);
                let groups = blocks.chunks(GROUP * row_len);
                for (out, blocks) in out.chunks_mut(GROUP).zip(groups) {
                    store(out, group(dot, Group { blocks, row_len }, x));
                }
            }

            fn fill<D: Dot>(dot: D, rows: Group<'_, Self>, panel: &mut Panel<'_>) {
                fill(dot, rows, panel);
            }
        }
    )*};
}

weights!(BlockQ2K BlockQ3K BlockQ4K BlockQ5K BlockQ6K);

/// Calls a function for each of four pairs of half `$half`, with its number as `PAIR`, and asks for
/// a part of the next group after each.
macro_rules! each_pair {
    ($half:ident, $next:ident, $function:ident::<$($types:ty),*> $arguments:tt) => {
        each_pair!(@ $half $next $function [$($types),*] $arguments 0 1 2 3)
    };
    (@ $half:ident $next:ident $function:ident $types:tt $arguments:tt $($pair:literal)*) => {$(
        each_pair!(@ call $function $types $arguments $pair);
        if $half == 0 {
            prefetch::<B, $pair>($next);
        } else {
            prefetch::<B, { $pair + 4 }>($next);
        }
    )*};
    (@ call $function:ident [$($types:ty),*] ($($argument:expr),*) $pair:literal) => {
        $function::<$($types),*, $pair>($($argument),*)
    };
}

/// Returns the outputs of a group.
fn group<D: Dot, B: Super + Weights>(
    dot: D,
    rows: Group<'_, B>,
    x: &[Q8Activation],
) -> [f32; GROUP] {
    assert!(rows.row_len * PARTS == x.len());
    let mut next = rows.blocks.as_ptr_range().end;
    let starts = rows.starts();
    // SAFETY: `dot` proves that the processor has NEON; each row has a block for every `PARTS` of
    // `x`.
    unsafe {
        let mut acc = [vdupq_n_f32(0.0); 2];
        for (i, x) in x.as_chunks::<PARTS>().0.iter().enumerate() {
            for (half, acc) in acc.iter_mut().enumerate() {
                let rows = [0, 1, 2, 3].map(|row| starts[4 * half + row].cast::<B>().add(i));
                let heads = B::heads(rows);
                each_pair!(half, next, decode_pair::<D, B>(dot, rows, &heads, x, acc));
            }
            next = next.wrapping_add(GROUP);
        }
        let mut out = [0.0; GROUP];
        vst1q_f32(out.as_mut_ptr(), acc[0]);
        vst1q_f32(out.as_mut_ptr().add(4), acc[1]);
        out
    }
}

/// Adds a pair of parts of four rows.
///
/// # Safety
/// The blocks are readable and the processor has NEON.
#[inline(always)]
unsafe fn decode_pair<D: Dot, B: Super + Weights, const PAIR: usize>(
    dot: D,
    rows: [*const B; 4],
    heads: &Heads,
    x: &[Q8Activation; PARTS],
    acc: &mut float32x4_t,
) {
    // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows). The head of a block of activations
    // is its first 16 bytes, its integers are 32 bytes.
    unsafe {
        let xq = [0, 1].map(|part| {
            let q = x[2 * PAIR + part].q.as_ptr();
            [vld1q_s8(q), vld1q_s8(q.add(16))]
        });
        let [a, b, c, d] = rows;
        let (a, b) = (row::<D, B, PAIR>(dot, a, xq), row::<D, B, PAIR>(dot, b, xq));
        let ab = neighbours::<B>(a, b);
        let (c, d) = (row::<D, B, PAIR>(dot, c, xq), row::<D, B, PAIR>(dot, d, xq));
        let sums = neighbours::<B>(ab, neighbours::<B>(c, d));
        for (part, sums) in sums.into_iter().enumerate() {
            let multipliers = Multipliers::new::<B>(B::packed(heads, 2 * PAIR + part));
            let head = vld1q_f32((&raw const x[2 * PAIR + part]).cast());
            *acc = vaddq_f32(*acc, multipliers.term::<B>(sums, head));
        }
    }
}

/// Sums of a pair, of each part those of both halves. Formats without factors have the whole sum in
/// the first, and zeros.
type Sums = [[int32x4_t; 2]; 2];

/// Returns the sums of a row, four lanes each.
///
/// # Safety
/// The block is readable and the processor has NEON.
#[inline(always)]
unsafe fn row<D: Dot, B: Super + Weights, const PAIR: usize>(
    dot: D,
    block: *const B,
    xq: [[int8x16_t; 2]; 2],
) -> Sums {
    // SAFETY: contracts 1 and 2 (NEON; the block).
    unsafe {
        let zero = vdupq_n_s32(0);
        let [first, second] = B::pair::<PAIR>(block);
        if <B as Weights>::HAS_FACTORS {
            let first = [
                dot.half(zero, first[0], xq[0][0]),
                dot.half(zero, first[1], xq[0][1]),
            ];
            let second = [
                dot.half(zero, second[0], xq[1][0]),
                dot.half(zero, second[1], xq[1][1]),
            ];
            [done(first), done(second)]
        } else {
            let [first, second] = done([dot.row(zero, first, xq[0]), dot.row(zero, second, xq[1])]);
            [[first, zero], [second, zero]]
        }
    }
}

/// Adds neighbouring lanes: those of `a`, then those of `b`.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn neighbours<B: Weights>(a: Sums, b: Sums) -> Sums {
    let mut sums = a;
    for part in 0..2 {
        for half in 0..if B::HAS_FACTORS { 2 } else { 1 } {
            // SAFETY: contract 1 (NEON).
            sums[part][half] = unsafe { vpaddq_s32(a[part][half], b[part][half]) };
        }
    }
    sums
}

/// Has the compiler end what makes these sums before it loads anything else. It would begin all
/// rows of all pairs first, and keep in memory what does not fit the registers.
#[inline(always)]
fn done([mut first, mut second]: [int32x4_t; 2]) -> [int32x4_t; 2] {
    // SAFETY: no instruction at all. That it may touch memory, as is said by leaving `nomem` out,
    // keeps loads from moving across it.
    unsafe {
        asm!(
            "/* {first:v} {second:v} */",
            first = inout(vreg) first, second = inout(vreg) second,
            options(nostack, preserves_flags)
        );
    }
    [first, second]
}

/// Implements [`Weights::fill`].
fn fill<D: Dot, B: Super>(dot: D, rows: Group<'_, B>, panel: &mut Panel<'_>) {
    let (integers, floats) = panel.columns();
    let (integers, floats) = (
        integers.as_chunks_mut::<PARTS>().0,
        floats.as_chunks_mut::<PARTS>().0,
    );
    assert!(rows.row_len == integers.len() && rows.row_len == floats.len());
    let mut next = rows.blocks.as_ptr_range().end;
    let starts = rows.starts();
    for (i, (integers, floats)) in integers.iter_mut().zip(floats).enumerate() {
        for half in 0..2 {
            // SAFETY: a `Dot` proves that the processor has NEON; each row has a block for each
            // `PARTS` columns of `integers`.
            unsafe {
                let rows = [0, 1, 2, 3].map(|row| starts[4 * half + row].cast::<B>().add(i));
                let heads = B::heads(rows);
                for (part, floats) in floats.iter_mut().enumerate() {
                    let [first, second] = B::packed(&heads, part);
                    vst1q_f32(floats.as_mut_ptr().add(4 * half), first);
                    vst1q_f32(floats.as_mut_ptr().add(GROUP + 4 * half), second);
                }
                each_pair!(half, next, fill_pair::<D, B>(dot, rows, half, integers));
            }
        }
        next = next.wrapping_add(GROUP);
    }
}

/// Unpacks a pair of parts of rows 0..4 (`half` 0) or 4..8.
///
/// # Safety
/// The blocks are readable and the processor has NEON.
#[inline(always)]
unsafe fn fill_pair<D: Dot, B: Super, const PAIR: usize>(
    dot: D,
    rows: [*const B; 4],
    half: usize,
    integers: &mut [[i8; super::prefill::INTEGERS]; PARTS],
) {
    // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows).
    let pairs = unsafe { rows.map(|row| B::pair::<PAIR>(row)) };
    for (part, columns) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let (of_part, _) = integers[2 * PAIR + part].as_chunks_mut();
        dot.store(
            pairs.map(|row| row[part][columns]),
            &mut of_part[2 * half + columns],
        );
    }
}

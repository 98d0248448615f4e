//! Decode: the sums of eight rows for one token, straight from the rows' blocks.

use core::arch::aarch64::*;
use core::mem::offset_of;

use super::dot::Dot;
use super::unpack::{Heads, Unpack};
use super::{GROUP, Group, prefetch};
use crate::quant::Q8Activation;

/// A group's state from block to block.
#[derive(Clone, Copy)]
struct State {
    /// Integer sums of all blocks so far, four lanes a row. They wrap. The sum of one block is the
    /// difference of a row's total before and after it, which is exact. No block therefore has to
    /// clear eight registers first.
    running: [int32x4_t; GROUP],
    /// Totals of `running` before this block, a row in a lane.
    before: [int32x4_t; 2],
    /// The rows' results so far.
    acc: [float32x4_t; 2],
}

/// The outputs of a group of rows of `x.len()` blocks each.
///
/// # Panics
/// If the rows are of another length.
pub(super) fn group<D: Dot, B: Unpack>(
    dot: D,
    rows: Group<'_, B>,
    x: &[Q8Activation],
) -> [f32; GROUP] {
    assert!(rows.row_len == x.len());
    // SAFETY: `dot` proves that the processor has NEON; each row has a block for every block of
    // `x`.
    unsafe {
        let mut state = State {
            running: [vdupq_n_s32(0); GROUP],
            before: [vdupq_n_s32(0); 2],
            acc: [vdupq_n_f32(0.0); 2],
        };
        let mut next = rows.blocks.as_ptr_range().end;
        let mut rows = rows.starts();
        for x in x {
            block::<D, B>(dot, &mut rows, next, x, &mut state);
            next = next.wrapping_add(GROUP);
        }
        let mut out = [0.0; GROUP];
        vst1q_f32(out.as_mut_ptr(), state.acc[0]);
        vst1q_f32(out.as_mut_ptr().add(4), state.acc[1]);
        out
    }
}

/// Adds one block of each row, and moves the rows' pointers to the next. `next` is the part of the
/// next group that is asked for meanwhile.
///
/// # Safety
/// The blocks are readable and the processor has NEON.
#[inline(always)]
unsafe fn block<D: Dot, B: Unpack>(
    dot: D,
    rows: &mut [*const u8; GROUP],
    next: *const B,
    x: &Q8Activation,
    state: &mut State,
) {
    // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows). The head of `x` is its first 16
    // bytes: scale, scaled sum, sums, four integers.
    unsafe {
        let head = vld1q_f32((&raw const *x).cast());
        let xq = [vld1q_s8(x.q.as_ptr()), vld1q_s8(x.q.as_ptr().add(16))];
        let mut heads = Heads::none();
        macro_rules! each_row {
            ($($row:literal)*) => {$(
                heads.load::<B, $row>(&mut rows[$row]);
                state.running[$row] = dot.row(state.running[$row], B::integers(&mut rows[$row]), xq);
                prefetch::<B, $row>(next);
            )*};
        }
        each_row!(0 1 2 3 4 5 6 7);
        let [scales, minima] = heads.widen::<B>();
        for half in 0..2 {
            let lanes = &state.running[4 * half..];
            let now = vpaddq_s32(
                vpaddq_s32(lanes[0], lanes[1]),
                vpaddq_s32(lanes[2], lanes[3]),
            );
            let mut isum = vsubq_s32(now, state.before[half]);
            state.before[half] = now;
            if B::OFFSET != 0 {
                isum = vmlal_laneq_s16::<4>(
                    isum,
                    vdup_n_s16(B::OFFSET.into()),
                    vreinterpretq_s16_f32(head),
                );
            }
            let scale = vmulq_laneq_f32::<0>(scales[half], head);
            let mut term = vmulq_f32(scale, vcvtq_f32_s32(isum));
            if B::HAS_MIN {
                term = vaddq_f32(term, vmulq_laneq_f32::<1>(minima[half], head));
            }
            state.acc[half] = vaddq_f32(state.acc[half], term);
        }
    }
}

const _: () = assert!(
    offset_of!(Q8Activation, scale) == 0
        && offset_of!(Q8Activation, scaled_sum) == 4
        && offset_of!(Q8Activation, sum) == 8
);

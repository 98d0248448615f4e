//! Decode: the sums of eight rows for one token, straight from the rows' blocks.

use core::arch::aarch64::*;
use core::arch::asm;
use core::mem::offset_of;
use core::ops::Range;

use super::dot::Dot;
use super::unpack::{Heads, Unpack};
use super::{GROUP, Group, prefetch, store};
use crate::quant::Q8Activation;

/// True if two columns of blocks are added in a step, so that totals need not be moved between
/// registers: one instruction in twenty. Images of boards are 19 KB smaller without.
const TWO_COLUMNS: bool = cfg!(not(target_os = "none"));

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

/// Computes the outputs of consecutive rows of `x.len()` blocks each.
///
/// The pointers of a group's rows end where the next row begins, so that the next group needs one
/// step of each. Where fewer than eight rows are left, the group goes back and computes some rows
/// again.
///
/// # Panics
/// If there are no rows, or rows of another length.
pub(super) fn rows<D: Dot, B: Unpack>(dot: D, blocks: &[B], x: &[Q8Activation], out: &mut [f32]) {
    let row_len = x.len();
    assert!(!out.is_empty() && blocks.len() == out.len() * row_len);
    let mut next = blocks.as_ptr().wrapping_add(GROUP * row_len);
    let mut rows = Group { blocks, row_len }.starts();
    let mut at = 0;
    // SAFETY: `dot` proves that the processor has NEON.
    let offset = unsafe { opaque(vdup_n_s16(B::OFFSET.into())) };
    loop {
        // SAFETY: `dot` proves that the processor has NEON; each row has a block for every block of
        // `x`.
        let sums = unsafe {
            let mut state = State {
                running: [vdupq_n_s32(0); GROUP],
                before: [vdupq_n_s32(0); 2],
                acc: [vdupq_n_f32(0.0); 2],
            };
            let Range { start: mut x, end } = x.as_ptr_range();
            macro_rules! column {
                () => {
                    block::<D, B>(dot, &mut rows, next, &mut x, offset, &mut state);
                    next = next.wrapping_add(GROUP);
                };
            }
            if TWO_COLUMNS {
                let even = x.wrapping_add(row_len & !1);
                while x != even {
                    column!();
                    column!();
                }
            }
            while x != end {
                column!();
            }
            let mut sums = [0.0; GROUP];
            vst1q_f32(sums.as_mut_ptr(), state.acc[0]);
            vst1q_f32(sums.as_mut_ptr().add(4), state.acc[1]);
            sums
        };
        store(&mut out[at..], sums);
        let step = out.len().saturating_sub(at + GROUP).min(GROUP);
        if step == 0 {
            return;
        }
        at += step;
        let step = (step - 1) * row_len * size_of::<B>();
        for row in &mut rows {
            *row = row.wrapping_add(step);
        }
    }
}

/// Adds one block of each row, and moves the pointers of the rows and of the token to the next.
/// `next` is the part of the next group that is asked for meanwhile.
///
/// # Safety
/// The blocks are readable and the processor has NEON.
#[inline(always)]
unsafe fn block<D: Dot, B: Unpack>(
    dot: D,
    rows: &mut [*const u8; GROUP],
    next: *const B,
    x: &mut *const Q8Activation,
    offset: int16x4_t,
    state: &mut State,
) {
    // SAFETY: contracts 1 and 2 (NEON; the blocks of the rows). The head of `x` is its first 16
    // bytes: scale, scaled sum, sums, four integers.
    unsafe {
        let (head, xq) = activations(x);
        let mut heads = Heads::none();
        macro_rules! each_row {
            ($($row:literal)*) => {$(
                heads.load::<B, $row>(&mut rows[$row]);
                state.running[$row] = dot.row(state.running[$row], B::integers(&mut rows[$row]), xq);
                if $row % 2 == 1 {
                    done(&mut state.running, $row);
                }
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
                isum = vmlal_laneq_s16::<4>(isum, offset, vreinterpretq_s16_f32(head));
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

/// Hides a constant from the compiler, which would multiply by it in more instructions than one.
#[inline(always)]
fn opaque(mut constant: int16x4_t) -> int16x4_t {
    // SAFETY: no instruction at all.
    unsafe {
        asm!(
            "/* {0:v} */",
            inout(vreg) constant,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    constant
}

/// Has the compiler end the work on `row` and the one before it, before it loads the next two. It
/// would load all eight first, and keep in memory what does not fit the registers.
#[inline(always)]
fn done(running: &mut [int32x4_t; GROUP], row: usize) {
    // SAFETY: no instruction at all.
    unsafe {
        asm!(
            "/* {first:v} {second:v} */",
            first = inout(vreg) running[row - 1], second = inout(vreg) running[row],
            options(nomem, nostack, preserves_flags)
        );
    }
}

/// Loads a block of activations, head and integers, and advances the pointer to the next block, as
/// [`super::unpack`] does it.
///
/// # Safety
/// The block is readable and the processor has NEON.
#[inline(always)]
unsafe fn activations(x: &mut *const Q8Activation) -> (float32x4_t, [int8x16_t; 2]) {
    let (head, low, high);
    // SAFETY: contracts 1 and 2 (NEON; the block). The head's 16 bytes reach into the integers,
    // which begin at byte 12 and are the block's last 32.
    unsafe {
        asm!(
            "ldr {head:q}, [{x}], #12",
            "ldp {low:q}, {high:q}, [{x}], #32",
            x = inout(reg) *x, head = out(vreg) head, low = out(vreg) low, high = out(vreg) high,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    (head, [low, high])
}

const _: () = assert!(
    offset_of!(Q8Activation, q) == 12
        && size_of::<Q8Activation>() == 12 + 32
        && offset_of!(Q8Activation, scale) == 0
        && offset_of!(Q8Activation, scaled_sum) == 4
        && offset_of!(Q8Activation, sum) == 8
);

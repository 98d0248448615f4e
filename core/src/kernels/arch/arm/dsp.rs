//! Products of blocks by `smlad`: two 16-bit products and two sums in one instruction.
//!
//! `sxtb16` widens bytes 0 and 2 of a word (or, rotated, 1 and 3) to 16 bits. The activations of a
//! token are widened and put in that order once per matrix, in the scratch. Weights are widened
//! when they are used, in groups of [`GROUP`] rows that share the loads of activations.

use core::arch::asm;

use super::widen;
use crate::kernels::isa::Dsp;
use crate::kernels::product::{ProductQ8, view};
use crate::quant::{BLOCK, BlockQ4_0, BlockQ4_1, BlockQ8_0, Format, Q8Activation, QuantBlock};

/// Rows in a group.
const GROUP: usize = 4;

/// Words of a block of activations: two words of 16-bit pairs (elements 0 and 2, elements 1 and 3)
/// for each four elements, and the scale at the end.
const WIDENED: usize = BLOCK / 2 + 1;

/// A block of activations, see [`WIDENED`].
type Widened = [u32; WIDENED];

/// Implements [`InstructionSet::product_q8`](crate::kernels::dispatch::InstructionSet::product_q8)
/// for some formats.
pub(super) fn product_q8<'p, 'c>(
    isa: Dsp,
    product: ProductQ8<'p, 'c>,
) -> Option<ProductQ8<'p, 'c>> {
    match product.weights.format() {
        Format::Q4_0 => multiply_groups::<BlockQ4_0>(isa, product),
        Format::Q4_1 => multiply_groups::<BlockQ4_1>(isa, product),
        Format::Q8_0 => multiply_groups::<BlockQ8_0>(isa, product),
        _ => return Some(product),
    }
    None
}

fn multiply_groups<B: Products>(isa: Dsp, product: ProductQ8<'_, '_>) {
    let (w, x, out) = (product.weights, product.activations, product.out);
    let row_blocks = w.cols() / BLOCK;
    let blocks = w.blocks::<B>(product.rows);
    let widened = view::<u32>(product.scratch, row_blocks * WIDENED)
        .as_chunks_mut()
        .0;
    for (token, x) in x.chunks_exact(row_blocks).enumerate() {
        for (widened, x) in widened.iter_mut().zip(x) {
            widen_activations(isa, x, widened);
        }
        let groups = blocks.chunks_exact(GROUP * row_blocks);
        let rest = groups.remainder().chunks_exact(row_blocks);
        let (out, out_rest) = out.row_mut(token).as_chunks_mut();
        for (w, out) in groups.zip(out) {
            *out = B::group(isa, w, x, widened);
        }
        for (w, out) in rest.zip(out_rest) {
            [*out] = dots::<B, 1>(isa, w, x, widened);
        }
    }
}

#[inline(always)]
fn widen_activations(isa: Dsp, x: &Q8Activation, out: &mut Widened) {
    for (q, out) in
        x.q.as_chunks::<4>()
            .0
            .iter()
            .zip(out.as_chunks_mut::<2>().0)
    {
        let word = u32::from_le_bytes(q.map(i8::cast_unsigned));
        *out = [sxtb16(isa, word), sxtb16_odd(isa, word)];
    }
    out[WIDENED - 1] = x.scale.to_bits();
}

/// Multiplies `R` rows of `x.len()` blocks each and one token by the formula of [`crate::kernels`].
#[inline(always)]
fn dots<B: Products, const R: usize>(
    isa: Dsp,
    w: &[B],
    x: &[Q8Activation],
    widened: &[Widened],
) -> [f32; R] {
    let len = x.len();
    let rows: [&[B]; R] = core::array::from_fn(|r| &w[r * len..][..len]);
    let widened = &widened[..len];
    let mut acc = [0.0; R];
    for b in 0..len {
        let x = &x[b];
        let blocks = rows.map(|row| &row[b]);
        let mut sums = [B::OFFSET * i32::from(x.sum); R];
        B::add(isa, blocks, &widened[b], &mut sums);
        for r in 0..R {
            let term = (widen(blocks[r].scale_bytes()) * x.scale) * sums[r] as f32;
            acc[r] += if B::HAS_MIN {
                term + widen(blocks[r].min_bytes()) * x.scaled_sum
            } else {
                term
            };
        }
    }
    acc
}

/// A format whose block sums are computed by `smlad`.
trait Products: QuantBlock {
    /// Offset to add to each integer that [`Products::add`] multiplies.
    const OFFSET: i32;
    /// The scale, f16.
    fn scale_bytes(&self) -> [u8; 2];
    /// The minimum, f16.
    fn min_bytes(&self) -> [u8; 2];
    /// Adds the products of a block of each row.
    fn add<const R: usize>(isa: Dsp, rows: [&Self; R], x: &Widened, sums: &mut [i32; R]);
    /// Computes [`dots`] of [`GROUP`] rows.
    #[inline(always)]
    fn group(isa: Dsp, w: &[Self], x: &[Q8Activation], widened: &[Widened]) -> [f32; GROUP] {
        dots(isa, w, x, widened)
    }
}

impl Products for BlockQ8_0 {
    const OFFSET: i32 = 0;

    #[inline(always)]
    fn scale_bytes(&self) -> [u8; 2] {
        self.d
    }

    #[inline(always)]
    fn min_bytes(&self) -> [u8; 2] {
        [0; 2]
    }

    #[inline(always)]
    fn add<const R: usize>(isa: Dsp, rows: [&Self; R], x: &Widened, sums: &mut [i32; R]) {
        for (i, [even, odd]) in x.as_chunks().0.iter().enumerate() {
            for r in 0..R {
                let word = u32::from_le_bytes(rows[r].qs.as_chunks().0[i].map(i8::cast_unsigned));
                sums[r] = smlad(isa, sxtb16(isa, word), *even, sums[r]);
                sums[r] = smlad(isa, sxtb16_odd(isa, word), *odd, sums[r]);
            }
        }
    }

    #[inline(always)]
    fn group(isa: Dsp, w: &[Self], _: &[Q8Activation], widened: &[Widened]) -> [f32; GROUP] {
        group_q8_0(isa, w, widened)
    }
}

/// Adds the products of 16 bytes of each row: of their low halves with the first half of the
/// activations, and of their high halves with the second.
#[inline(always)]
fn add_nibbles<const R: usize>(isa: Dsp, rows: [&[u8; 16]; R], x: &Widened, sums: &mut [i32; R]) {
    const MASK: u32 = 0x000F_000F;
    for i in 0..4 {
        let [even, odd, high_even, high_odd] = [x[2 * i], x[2 * i + 1], x[2 * i + 8], x[2 * i + 9]];
        for r in 0..R {
            let word = u32::from_le_bytes(rows[r].as_chunks().0[i]);
            let sum = smlad(isa, word & MASK, even, sums[r]);
            let sum = smlad(isa, word >> 8 & MASK, odd, sum);
            let sum = smlad(isa, word >> 4 & MASK, high_even, sum);
            sums[r] = smlad(isa, word >> 12 & MASK, high_odd, sum);
        }
    }
}

impl Products for BlockQ4_0 {
    const OFFSET: i32 = -8;

    #[inline(always)]
    fn scale_bytes(&self) -> [u8; 2] {
        self.d
    }

    #[inline(always)]
    fn min_bytes(&self) -> [u8; 2] {
        [0; 2]
    }

    #[inline(always)]
    fn add<const R: usize>(isa: Dsp, rows: [&Self; R], x: &Widened, sums: &mut [i32; R]) {
        add_nibbles(isa, rows.map(|row| &row.qs), x, sums);
    }
}

impl Products for BlockQ4_1 {
    const OFFSET: i32 = 0;

    #[inline(always)]
    fn scale_bytes(&self) -> [u8; 2] {
        self.d
    }

    #[inline(always)]
    fn min_bytes(&self) -> [u8; 2] {
        self.m
    }

    #[inline(always)]
    fn add<const R: usize>(isa: Dsp, rows: [&Self; R], x: &Widened, sums: &mut [i32; R]) {
        add_nibbles(isa, rows.map(|row| &row.qs), x, sums);
    }
}

/// Computes [`dots`] for Q8_0 with registers chosen by hand: the compiler would keep a third of the
/// values on the stack.
///
/// Row `r` of a block is at `r0 + r · r1`, with 3 · `r1` in `r2`; `r3` walks over the activations,
/// two words of which are in `r4` and `r5`. `r8` to `r11` are the block's sums, `r12` and `lr` the
/// operands. `s0` to `s3` are the results so far, `s15` counts blocks, `s14` holds the address of
/// the results.
#[inline(always)]
fn group_q8_0(_: Dsp, w: &[BlockQ8_0], x: &[Widened]) -> [f32; GROUP] {
    let blocks = x.len();
    assert!(blocks > 0 && w.len() == GROUP * blocks);
    let stride = blocks * size_of::<BlockQ8_0>();
    let mut out = [0.0f32; GROUP];
    // The first products of a block replace the sum of the previous block.
    macro_rules! row {
        ($at:literal, $sum:literal, true) => {
            concat!(
                "ldr r12, ",
                $at,
                "\n",
                "sxtb16 lr, r12\n",
                "sxtb16 r12, r12, ror #8\n",
                "smuad ",
                $sum,
                ", lr, r4\n",
                "smlad ",
                $sum,
                ", r12, r5, ",
                $sum,
                "\n"
            )
        };
        ($at:literal, $sum:literal, false) => {
            concat!(
                "ldr r12, ",
                $at,
                "\n",
                "sxtb16 lr, r12\n",
                "sxtb16 r12, r12, ror #8\n",
                "smlad ",
                $sum,
                ", lr, r4, ",
                $sum,
                "\n",
                "smlad ",
                $sum,
                ", r12, r5, ",
                $sum,
                "\n"
            )
        };
    }
    macro_rules! word {
        ($first:tt) => {
            concat!(
                "ldmia r3!, {{r4, r5}}\n",
                row!("[r0, r1]", "r9", $first),
                row!("[r0, r1, lsl #1]", "r10", $first),
                row!("[r0, r2]", "r11", $first),
                row!("[r0], #4", "r8", $first)
            )
        };
    }
    // SAFETY: `r0` walks over the first row's `blocks` blocks, and reads at a distance of up to
    // three strides lie in the other rows' blocks: `w` has four rows of them. `r3` walks over the
    // `blocks` elements of `x`. Four f32 of `out` are written. The token proves that the processor
    // has the instructions.
    unsafe {
        asm!(
            "vmov s15, r4",
            "vmov s14, r5",
            "vmov s0, r12", "vmov s1, r12", "vmov s2, r12", "vmov s3, r12",
            "2:",
            "ldrh r12, [r0, r1]",
            "ldrh r4, [r0, r2]",
            "add lr, r0, r1, lsl #1",
            "ldrh lr, [lr]",
            "ldrh r5, [r0], #2",
            "vmov s4, s5, r5, r12",
            "vmov s6, s7, lr, r4",
            word!(true), word!(false), word!(false), word!(false),
            word!(false), word!(false), word!(false), word!(false),
            "vldmia r3!, {{s12}}",
            "vcvtb.f32.f16 s4, s4", "vcvtb.f32.f16 s5, s5", "vcvtb.f32.f16 s6, s6", "vcvtb.f32.f16 s7, s7",
            "vmul.f32 s4, s4, s12", "vmul.f32 s5, s5, s12", "vmul.f32 s6, s6, s12", "vmul.f32 s7, s7, s12",
            "vmov s8, s9, r8, r9",
            "vmov s10, s11, r10, r11",
            "vcvt.f32.s32 s8, s8", "vcvt.f32.s32 s9, s9", "vcvt.f32.s32 s10, s10", "vcvt.f32.s32 s11, s11",
            "vmul.f32 s4, s4, s8", "vmul.f32 s5, s5, s9", "vmul.f32 s6, s6, s10", "vmul.f32 s7, s7, s11",
            "vadd.f32 s0, s0, s4", "vadd.f32 s1, s1, s5", "vadd.f32 s2, s2, s6", "vadd.f32 s3, s3, s7",
            "vmov r12, s15",
            "subs r12, r12, #1",
            "vmov s15, r12",
            "bne 2b",
            "vmov r12, s14",
            "vstmia r12, {{s0, s1, s2, s3}}",
            inout("r0") w.as_ptr() => _,
            inout("r1") stride => _,
            inout("r2") 3 * stride => _,
            inout("r3") x.as_ptr() => _,
            inout("r4") blocks => _,
            inout("r5") out.as_mut_ptr() => _,
            inout("r12") 0 => _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("lr") _,
            out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s5") _, out("s6") _, out("s7") _,
            out("s8") _, out("s9") _, out("s10") _, out("s11") _, out("s12") _, out("s14") _, out("s15") _,
            options(nostack)
        );
    }
    out
}

/// Returns `sum` plus the products of the 16-bit halves of `a` and `b`. Sums of one block stay far
/// below 2^31, so that the sticky overflow flag does not change.
#[inline(always)]
fn smlad(_: Dsp, a: u32, b: u32, sum: i32) -> i32 {
    let result: i32;
    // SAFETY: register to register; the token proves that the processor has the instruction.
    unsafe {
        asm!(
            "smlad {result}, {a}, {b}, {sum}",
            result = lateout(reg) result,
            a = in(reg) a,
            b = in(reg) b,
            sum = in(reg) sum,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    result
}

/// Sign-extends bytes 0 and 2 of `word` to 16 bits.
#[inline(always)]
fn sxtb16(_: Dsp, word: u32) -> u32 {
    let result: u32;
    // SAFETY: register to register; the token proves that the processor has the instruction.
    unsafe {
        asm!(
            "sxtb16 {result}, {word}",
            result = lateout(reg) result,
            word = in(reg) word,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    result
}

/// Sign-extends bytes 1 and 3 of `word` to 16 bits.
#[inline(always)]
fn sxtb16_odd(_: Dsp, word: u32) -> u32 {
    let result: u32;
    // SAFETY: register to register; the token proves that the processor has the instruction.
    unsafe {
        asm!(
            "sxtb16 {result}, {word}, ror #8",
            result = lateout(reg) result,
            word = in(reg) word,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    result
}

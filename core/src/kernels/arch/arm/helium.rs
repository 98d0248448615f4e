//! Products of blocks by `vmladav`, one instruction that writes the sum of sixteen 8-bit products
//! to a core register.
//!
//! The compiler takes no operands in vector registers, so that a whole group of rows is one piece
//! of assembly. Vector instructions flush subnormal f32 to zero in every mode. Here they do only
//! operations that stay exact (on integers, from f16 to f32, from small integers to f32); the
//! contract's products and sums are scalar instructions.

use core::arch::asm;

use super::dsp;
use crate::kernels::isa::Helium;
use crate::kernels::product::ProductQ8;
use crate::quant::{BLOCK, BlockQ4_0, BlockQ8_0, Format, Q8Activation, QuantBlock};

/// Rows in a group.
const GROUP: usize = 4;

/// Implements [`InstructionSet::product_q8`](crate::kernels::dispatch::InstructionSet::product_q8)
/// for some formats.
pub(super) fn product_q8<'p, 'c>(
    isa: Helium,
    product: ProductQ8<'p, 'c>,
) -> Option<ProductQ8<'p, 'c>> {
    match product.weights.format() {
        Format::Q4_0 => multiply_groups::<BlockQ4_0>(isa, product),
        Format::Q8_0 => multiply_groups::<BlockQ8_0>(isa, product),
        _ => return dsp::product_q8(isa.dsp(), product),
    }
    None
}

fn multiply_groups<B: Group>(isa: Helium, product: ProductQ8<'_, '_>) {
    let (w, x, out) = (product.weights, product.activations, product.out);
    let row_blocks = w.cols() / BLOCK;
    let blocks = w.blocks::<B>(product.rows);
    for (token, x) in x.chunks_exact(row_blocks).enumerate() {
        let groups = blocks.chunks(GROUP * row_blocks);
        for (w, out) in groups.zip(out.row_mut(token).chunks_mut(GROUP)) {
            let rows = Rows::new(w, x);
            if let Some(out) = out.first_chunk_mut() {
                B::group(isa, rows, out);
            } else {
                let mut sums = [0.0; GROUP];
                B::group(isa, rows, &mut sums);
                out.copy_from_slice(&sums[..out.len()]);
            }
        }
    }
}

/// Up to [`GROUP`] rows, each of as many blocks as the activations have. Missing rows are copies of
/// the last.
struct Rows<'a> {
    /// Start of each row minus 16 bytes: loads that advance a pointer leave it there.
    starts: [*const u8; GROUP],
    x: &'a [Q8Activation],
}

impl<'a> Rows<'a> {
    fn new<B: QuantBlock>(w: &'a [B], x: &'a [Q8Activation]) -> Self {
        assert!(!x.is_empty() && !w.is_empty() && w.len().is_multiple_of(x.len()));
        let last = w[w.len() - x.len()..].as_ptr();
        let starts = core::array::from_fn(|row| {
            let start = w.as_ptr().wrapping_add(row * x.len()).min(last);
            start.cast::<u8>().wrapping_sub(16)
        });
        Rows { starts, x }
    }
}

/// A format with a kernel of its own.
trait Group: QuantBlock {
    /// Computes the rows' outputs by the formula of [`crate::kernels`].
    fn group(isa: Helium, rows: Rows<'_>, out: &mut [f32; GROUP]);
}

/// Multiplies a group, with `$products` for the block sums of four rows. Row pointers are in `r1`,
/// `r3`, `r5` and `r9`, 16 bytes before a block; `r2` is as far before its activations, which are
/// loaded to `q0` and `q1`; sums go to `r4`, `r8`, `r10` and `r12`. `q4` holds the results so far,
/// `q5` the activations' scale, `q6` the offsets of the rows from the first.
macro_rules! group {
    ($rows:expr, $out:expr, before: ($($before:expr),*), products: ($($products:expr),*)) => {{
        let Rows { starts, x } = $rows;
        let offset = |row: usize| starts[row].addr().wrapping_sub(starts[0].addr()).wrapping_add(16);
        let out: &mut [f32; GROUP] = $out;
        // SAFETY: each row has a block for every one of `x`, and every read lies in a block or in
        // an element of `x`. Four f32 of `out` are written. The token proves that the processor has
        // the instructions. All vector registers are clobbered by the names of their halves'
        // halves.
        unsafe {
            asm!(
                "vmov q6[2], q6[0], r4, r10",
                "vmov q6[3], q6[1], r8, r12",
                "vmov.i32 q4, #0",
                $($before,)*
                "dls lr, lr",
                "2:",
                "vldr s20, [r2, #16]",
                "vldrh.u32 q3, [r1, q6]",
                $($products,)*
                "vcvtb.f32.f16 q3, q3",
                "vmov q2[2], q2[0], r4, r10",
                "vmov q2[3], q2[1], r8, r12",
                "vcvt.f32.s32 q2, q2",
                "vmul.f32 s12, s12, s20", "vmul.f32 s13, s13, s20", "vmul.f32 s14, s14, s20", "vmul.f32 s15, s15, s20",
                "vmul.f32 s12, s12, s8", "vmul.f32 s13, s13, s9", "vmul.f32 s14, s14, s10", "vmul.f32 s15, s15, s11",
                "vadd.f32 s16, s16, s12", "vadd.f32 s17, s17, s13", "vadd.f32 s18, s18, s14", "vadd.f32 s19, s19, s15",
                "le lr, 2b",
                "vstrw.32 q4, [r0]",
                inout("r0") out.as_mut_ptr() => _,
                inout("r1") starts[0] => _,
                inout("r3") starts[1] => _,
                inout("r5") starts[2] => _,
                inout("r9") starts[3] => _,
                inout("r2") x.as_ptr().cast::<u8>().wrapping_sub(16) => _,
                inout("r4") offset(0) => _,
                inout("r8") offset(1) => _,
                inout("r10") offset(2) => _,
                inout("r12") offset(3) => _,
                inout("lr") x.len() => _,
                out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s5") _, out("s6") _, out("s7") _,
                out("s8") _, out("s9") _, out("s10") _, out("s11") _, out("s12") _, out("s13") _, out("s14") _, out("s15") _,
                out("s16") _, out("s17") _, out("s18") _, out("s19") _, out("s20") _, out("s21") _, out("s22") _, out("s23") _,
                out("s24") _, out("s25") _, out("s26") _, out("s27") _, out("s28") _, out("s29") _, out("s30") _, out("s31") _,
                options(nostack)
            );
        }
    }};
}

impl Group for BlockQ8_0 {
    #[inline(always)]
    fn group(_: Helium, rows: Rows<'_>, out: &mut [f32; GROUP]) {
        macro_rules! row {
            ($row:literal, $sum:literal) => {
                concat!(
                    "vldrb.u8 q2, [",
                    $row,
                    ", #18]!\n",
                    "vmladav.s8 ",
                    $sum,
                    ", q2, q0\n",
                    "vldrb.u8 q2, [",
                    $row,
                    ", #16]!\n",
                    "vmladava.s8 ",
                    $sum,
                    ", q2, q1\n"
                )
            };
        }
        group!(rows, out, before: (), products: (
            "vldrb.u8 q0, [r2, #28]!",
            "vldrb.u8 q1, [r2, #16]!",
            row!("r1", "r4"), row!("r3", "r8"), row!("r5", "r10"), row!("r9", "r12")
        ))
    }
}

impl Group for BlockQ4_0 {
    #[inline(always)]
    fn group(_: Helium, rows: Rows<'_>, out: &mut [f32; GROUP]) {
        // `q7` is the mask of low halves. Each sum starts at -8 times the activations' sum: the
        // format's offset.
        macro_rules! row {
            ($row:literal, $sum:literal) => {
                concat!(
                    "vldrb.u8 q2, [",
                    $row,
                    ", #18]!\n",
                    "vand q5, q2, q7\n",
                    "vmladava.s8 ",
                    $sum,
                    ", q5, q0\n",
                    "vshr.u8 q2, q2, #4\n",
                    "vmladava.s8 ",
                    $sum,
                    ", q2, q1\n"
                )
            };
        }
        group!(rows, out, before: ("vmov.i8 q7, #15"), products: (
            "ldrsh r4, [r2, #24]",
            "lsl r4, r4, #3",
            "rsb r4, r4, #0",
            "mov r8, r4", "mov r10, r4", "mov r12, r4",
            "vldrb.u8 q0, [r2, #28]!",
            "vldrb.u8 q1, [r2, #16]!",
            row!("r1", "r4"), row!("r3", "r8"), row!("r5", "r10"), row!("r9", "r12"),
            "vldr s20, [r2, #-28]"
        ))
    }
}

//! Sums of rows of 8-bit elements, sixteen columns at a time.

use core::arch::asm;

#[cfg(doc)]
use crate::kernels::generic::Lanes;

/// Panics unless there are sixteen elements for each of `count` factors.
#[inline(always)]
fn check(count: usize, x: &[i8], stride: usize) {
    let enough = count == 0
        || matches!((count - 1).checked_mul(stride), Some(last) if x.len() >= 16 && last <= x.len() - 16);
    assert!(enough);
}

/// Loads four bytes at `r0` + `$at` as integers to four registers.
#[cfg(any(test, not(feature = "helium")))]
macro_rules! convert {
    ($at:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "ldr r5, [r0, #",
            $at,
            "]\n",
            "sxtb r8, r5\n",
            "sbfx r9, r5, #8, #8\n",
            "vmov ",
            $a,
            ", ",
            $b,
            ", r8, r9\n",
            "sbfx r8, r5, #16, #8\n",
            "asr r5, r5, #24\n",
            "vmov ",
            $c,
            ", ",
            $d,
            ", r8, r5\n"
        )
    };
}

/// Implements [`Lanes::add_rows_i8`] as one shared instance. The sums stay in `s0` to `s15`; `s16`
/// to `s23` hold eight products at a time.
#[cfg(any(test, not(feature = "helium")))]
#[inline(never)]
pub(super) fn add_rows_dsp(acc: &mut [f32; 16], factors: &[f32], x: &[i8], stride: usize) {
    check(factors.len(), x, stride);
    if factors.is_empty() {
        return;
    }
    macro_rules! add {
        ($($product:literal $sum:literal),*) => {
            concat!(
                $("vcvt.f32.s32 ", $product, ", ", $product, "\n"),*,
                $("vmul.f32 ", $product, ", s24, ", $product, "\n"),*,
                $("vadd.f32 ", $sum, ", ", $sum, ", ", $product, "\n"),*
            )
        };
    }
    // SAFETY: `check` saw sixteen elements for each factor, at `stride` from one another; `acc` is
    // read and written. The crate was built with the feature, which proves that the processor has
    // the instructions.
    unsafe {
        asm!(
            "vldmia r4, {{s0-s15}}",
            "2:",
            "vldmia r2!, {{s24}}",
            convert!("0", "s16", "s17", "s18", "s19"),
            convert!("4", "s20", "s21", "s22", "s23"),
            add!("s16" "s0", "s17" "s1", "s18" "s2", "s19" "s3", "s20" "s4", "s21" "s5", "s22" "s6", "s23" "s7"),
            convert!("8", "s16", "s17", "s18", "s19"),
            convert!("12", "s20", "s21", "s22", "s23"),
            add!("s16" "s8", "s17" "s9", "s18" "s10", "s19" "s11", "s20" "s12", "s21" "s13", "s22" "s14", "s23" "s15"),
            "add r0, r0, r1",
            "subs r3, r3, #1",
            "bne 2b",
            "vstmia r4, {{s0-s15}}",
            inout("r0") x.as_ptr() => _,
            in("r1") stride,
            inout("r2") factors.as_ptr() => _,
            inout("r3") factors.len() => _,
            in("r4") acc.as_mut_ptr(),
            out("r5") _, out("r8") _, out("r9") _,
            out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s5") _, out("s6") _, out("s7") _,
            out("s8") _, out("s9") _, out("s10") _, out("s11") _, out("s12") _, out("s13") _, out("s14") _, out("s15") _,
            out("s16") _, out("s17") _, out("s18") _, out("s19") _, out("s20") _, out("s21") _, out("s22") _, out("s23") _,
            out("s24") _,
            options(nostack)
        );
    }
}

/// Implements [`Lanes::add_rows_i8`] as one shared instance. The sums stay in `q0` to `q3`.
#[cfg(feature = "helium")]
#[inline(never)]
pub(super) fn add_rows_helium(acc: &mut [f32; 16], factors: &[f32], x: &[i8], stride: usize) {
    check(factors.len(), x, stride);
    if factors.is_empty() {
        return;
    }
    macro_rules! quarter {
        ($at:literal, $sum:literal) => {
            concat!(
                "vldrb.s32 q4, [r0, #",
                $at,
                "]\n",
                "vcvt.f32.s32 q4, q4\n",
                "vmul.f32 q4, q4, r3\n",
                "vadd.f32 ",
                $sum,
                ", ",
                $sum,
                ", q4\n"
            )
        };
    }
    // SAFETY: as in `add_rows_dsp`.
    unsafe {
        asm!(
            "vldmia r4, {{s0-s15}}",
            "dls lr, lr",
            "2:",
            "ldr r3, [r2], #4",
            quarter!("0", "q0"), quarter!("4", "q1"), quarter!("8", "q2"), quarter!("12", "q3"),
            "add r0, r0, r1",
            "le lr, 2b",
            "vstmia r4, {{s0-s15}}",
            inout("r0") x.as_ptr() => _,
            in("r1") stride,
            inout("r2") factors.as_ptr() => _,
            in("r4") acc.as_mut_ptr(),
            inout("lr") factors.len() => _,
            out("r3") _,
            out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s5") _, out("s6") _, out("s7") _,
            out("s8") _, out("s9") _, out("s10") _, out("s11") _, out("s12") _, out("s13") _, out("s14") _, out("s15") _,
            out("s16") _, out("s17") _, out("s18") _, out("s19") _,
            options(nostack)
        );
    }
}

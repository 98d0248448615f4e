//! Sums over slots of one column of 8-bit elements, sixteen slots at a time.

use core::arch::asm;

use crate::kernels::generic::ColumnHalves;
#[cfg(doc)]
use crate::kernels::generic::Lanes;

/// Implements [`Lanes::add_halves_i8`] as one shared instance. The sums stay in `s0` to `s15`,
/// eight slots at a time are in `s16` to `s23`, their scales and then their weights in `s24` to
/// `s31`.
#[inline(never)]
pub(super) fn add_halves_dsp(acc: &mut [f32; 16], halves: ColumnHalves<'_>) {
    let ColumnHalves {
        weights,
        first,
        elements,
        scales,
        steps,
    } = halves;
    if weights.is_empty() {
        return;
    }
    let place = |half: usize, step: usize| (half / 2).checked_mul(step)?.checked_add(half % 2 * 16);
    let last = first + weights.len() - 1;
    let fits =
        |len: usize, step| matches!(place(last, step), Some(at) if len >= 16 && at <= len - 16);
    assert!(
        steps.0 >= 32
            && steps.1 >= 32
            && fits(elements.len(), steps.0)
            && fits(scales.len(), steps.1)
    );
    let (x, scale) = (
        &elements[first / 2 * steps.0 + first % 2 * 16..],
        &scales[first / 2 * steps.1 + first % 2 * 16..],
    );
    // Step from a first half to the second, or from a second half to the next tile's first.
    let next = |step: usize| {
        if first.is_multiple_of(2) {
            16
        } else {
            step - 16
        }
    };
    macro_rules! each {
        ($operation:literal, $($to:literal $a:literal $b:literal),*) => {
            concat!($($operation, " ", $to, ", ", $a, ", ", $b, "\n"),*)
        };
    }
    macro_rules! bytes {
        ($at:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
            concat!(
                "ldr r8, [r0, #",
                $at,
                "]\n",
                "sxtb r9, r8\n",
                "sbfx r10, r8, #8, #8\n",
                "vmov ",
                $a,
                ", ",
                $b,
                ", r9, r10\n",
                "sbfx r9, r8, #16, #8\n",
                "asr r8, r8, #24\n",
                "vmov ",
                $c,
                ", ",
                $d,
                ", r9, r8\n"
            )
        };
    }
    macro_rules! eight {
        ($x0:literal, $x1:literal, $scale0:literal, $scale1:literal, $scale2:literal, $scale3:literal, $($sum:literal $product:literal),*) => {
            concat!(
                bytes!($x0, "s16", "s17", "s18", "s19"),
                bytes!($x1, "s20", "s21", "s22", "s23"),
                "ldr r8, [r2, #", $scale0, "]\n",
                "ldr r9, [r2, #", $scale1, "]\n",
                "vmov s24, s25, r8, r9\n",
                "ldr r8, [r2, #", $scale2, "]\n",
                "ldr r9, [r2, #", $scale3, "]\n",
                "vmov s26, s27, r8, r9\n",
                "vcvt.f32.s32 s16, s16\nvcvt.f32.s32 s17, s17\nvcvt.f32.s32 s18, s18\nvcvt.f32.s32 s19, s19\n",
                "vcvt.f32.s32 s20, s20\nvcvt.f32.s32 s21, s21\nvcvt.f32.s32 s22, s22\nvcvt.f32.s32 s23, s23\n",
                "vcvtt.f32.f16 s31, s27\nvcvtb.f32.f16 s30, s27\n",
                "vcvtt.f32.f16 s29, s26\nvcvtb.f32.f16 s28, s26\n",
                "vcvtt.f32.f16 s27, s25\nvcvtb.f32.f16 s26, s25\n",
                "vcvtt.f32.f16 s25, s24\nvcvtb.f32.f16 s24, s24\n",
                each!("vmul.f32", "s16" "s16" "s24", "s17" "s17" "s25", "s18" "s18" "s26", "s19" "s19" "s27",
                    "s20" "s20" "s28", "s21" "s21" "s29", "s22" "s22" "s30", "s23" "s23" "s31"),
                "vldmia r1!, {{s24-s31}}\n",
                each!("vmul.f32", "s16" "s24" "s16", "s17" "s25" "s17", "s18" "s26" "s18", "s19" "s27" "s19",
                    "s20" "s28" "s20", "s21" "s29" "s21", "s22" "s30" "s22", "s23" "s31" "s23"),
                $("vadd.f32 ", $sum, ", ", $sum, ", ", $product, "\n"),*
            )
        };
    }
    // SAFETY: `r1` walks over `weights`; `r0` and `r2` go from half to half, to the last of which
    // the assertion saw sixteen elements and scales, or past it unread; `acc` is read and written.
    // The crate was built with the feature, which proves that the processor has the instructions.
    unsafe {
        asm!(
            "vldmia r11, {{s0-s15}}",
            "2:",
            eight!("0", "4", "0", "4", "8", "12", "s0" "s16", "s1" "s17", "s2" "s18", "s3" "s19", "s4" "s20", "s5" "s21", "s6" "s22", "s7" "s23"),
            eight!("8", "12", "16", "20", "24", "28", "s8" "s16", "s9" "s17", "s10" "s18", "s11" "s19", "s12" "s20", "s13" "s21", "s14" "s22", "s15" "s23"),
            "add r0, r0, r4",
            "rsb r4, r4, r5",
            "add r2, r2, r12",
            "rsb r12, r12, lr",
            "subs r3, r3, #1",
            "bne 2b",
            "vstmia r11, {{s0-s15}}",
            inout("r0") x.as_ptr() => _,
            inout("r1") weights.as_ptr() => _,
            inout("r2") scale.as_ptr() => _,
            inout("r3") weights.len() => _,
            inout("r4") next(steps.0) => _,
            inout("r5") steps.0 => _,
            inout("r12") 2 * next(steps.1) => _,
            inout("lr") 2 * steps.1 => _,
            in("r11") acc.as_mut_ptr(),
            out("r8") _, out("r9") _, out("r10") _,
            out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s5") _, out("s6") _, out("s7") _,
            out("s8") _, out("s9") _, out("s10") _, out("s11") _, out("s12") _, out("s13") _, out("s14") _, out("s15") _,
            out("s16") _, out("s17") _, out("s18") _, out("s19") _, out("s20") _, out("s21") _, out("s22") _, out("s23") _,
            out("s24") _, out("s25") _, out("s26") _, out("s27") _, out("s28") _, out("s29") _, out("s30") _, out("s31") _,
            options(nostack)
        );
    }
}

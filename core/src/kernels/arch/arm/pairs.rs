//! Raw scores against 8-bit keys: pairs of columns are rotated by their slots' angles, four slots
//! at a time.

use core::arch::asm;

#[cfg(doc)]
use crate::kernels::generic::Lanes;
use crate::kernels::generic::SlotPairs;

/// Implements [`Lanes::add_pairs_i8`] as one shared instance. The sums stay in `s0` to `s3`, the
/// scales in `s20` to `s27`; columns are in `s4` to `s11`, cosines and sines in `s12` to `s19`, a
/// pair's factors in `s28` to `s31`. All operations are scalar.
#[inline(never)]
pub(super) fn add_pairs_dsp(pairs: SlotPairs<'_>, sums: &mut [f32; 4]) {
    let count = pairs.factors.len();
    if count == 0 {
        return;
    }
    let enough = |len: usize, step: usize, last: usize| matches!((count - 1).checked_mul(step), Some(start) if len >= last && start <= len - last);
    assert!(
        pairs
            .columns
            .iter()
            .all(|column| enough(column.len(), pairs.step, 4))
    );
    assert!(enough(
        pairs.angles.len(),
        SlotPairs::ANGLES,
        SlotPairs::SINES + 4
    ));
    macro_rules! each {
        ($operation:literal, $($to:literal $a:literal $b:literal),*) => {
            concat!($($operation, " ", $to, ", ", $a, ", ", $b, "\n"),*)
        };
    }
    macro_rules! scales {
        ($from:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
            concat!(
                "ldr r10, [",
                $from,
                "]\n",
                "ldr ",
                $from,
                ", [",
                $from,
                ", #4]\n",
                "vmov ",
                $a,
                ", r10\n",
                "vmov ",
                $c,
                ", ",
                $from,
                "\n",
                "vcvtt.f32.f16 ",
                $b,
                ", ",
                $a,
                "\n",
                "vcvtb.f32.f16 ",
                $a,
                ", ",
                $a,
                "\n",
                "vcvtt.f32.f16 ",
                $d,
                ", ",
                $c,
                "\n",
                "vcvtb.f32.f16 ",
                $c,
                ", ",
                $c,
                "\n"
            )
        };
    }
    macro_rules! column {
        ($from:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
            concat!(
                "ldr r8, [",
                $from,
                "]\n",
                "add ",
                $from,
                ", ",
                $from,
                ", r2\n",
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
    // The columns `a` and `b` of two slots: `a·cos - b·sin` takes the cosines' place,
    // `a·sin + b·cos` the first columns'.
    macro_rules! rotate {
        ($a0:literal $b0:literal $cos0:literal $sin0:literal, $a1:literal $b1:literal $cos1:literal $sin1:literal) => {
            concat!(
                each!("vmul.f32", "s28" $a0 $cos0, "s29" $a1 $cos1, $a0 $a0 $sin0, $a1 $a1 $sin1,
                    $sin0 $b0 $sin0, $sin1 $b1 $sin1, $b0 $b0 $cos0, $b1 $b1 $cos1),
                each!("vsub.f32", $cos0 "s28" $sin0, $cos1 "s29" $sin1),
                each!("vadd.f32", $a0 $a0 $b0, $a1 $a1 $b1)
            )
        };
    }
    // SAFETY: `r0` and `r1` walk over `count` groups of four elements at `r2` from one another,
    // `r3` over as many cosines and sines, which the assertions above saw; `r4` walks over
    // `factors`. Eight scales and four sums are read, four sums written. The crate was built with
    // the feature, which proves that the processor has the instructions.
    unsafe {
        asm!(
            "vldmia r5, {{s0-s3}}",
            scales!("r8", "s20", "s21", "s22", "s23"),
            scales!("r9", "s24", "s25", "s26", "s27"),
            "2:",
            column!("r0", "s4", "s5", "s6", "s7"),
            column!("r1", "s8", "s9", "s10", "s11"),
            "vldmia r4!, {{s28-s31}}",
            "add r8, r3, #128",
            "vldmia r3, {{s12-s15}}",
            "vldmia r8, {{s16-s19}}",
            "add r3, r3, #256",
            "vcvt.f32.s32 s4, s4", "vcvt.f32.s32 s5, s5", "vcvt.f32.s32 s6, s6", "vcvt.f32.s32 s7, s7",
            "vcvt.f32.s32 s8, s8", "vcvt.f32.s32 s9, s9", "vcvt.f32.s32 s10, s10", "vcvt.f32.s32 s11, s11",
            each!("vmul.f32", "s4" "s4" "s20", "s5" "s5" "s21", "s6" "s6" "s22", "s7" "s7" "s23",
                "s8" "s8" "s24", "s9" "s9" "s25", "s10" "s10" "s26", "s11" "s11" "s27"),
            each!("vadd.f32", "s4" "s4" "s28", "s5" "s5" "s28", "s6" "s6" "s28", "s7" "s7" "s28",
                "s8" "s8" "s29", "s9" "s9" "s29", "s10" "s10" "s29", "s11" "s11" "s29"),
            rotate!("s4" "s8" "s12" "s16", "s5" "s9" "s13" "s17"),
            rotate!("s6" "s10" "s14" "s18", "s7" "s11" "s15" "s19"),
            each!("vmul.f32", "s12" "s30" "s12", "s13" "s30" "s13", "s14" "s30" "s14", "s15" "s30" "s15",
                "s4" "s31" "s4", "s5" "s31" "s5", "s6" "s31" "s6", "s7" "s31" "s7"),
            each!("vadd.f32", "s0" "s0" "s12", "s1" "s1" "s13", "s2" "s2" "s14", "s3" "s3" "s15",
                "s0" "s0" "s4", "s1" "s1" "s5", "s2" "s2" "s6", "s3" "s3" "s7"),
            "subs r12, r12, #1",
            "bne 2b",
            "vstmia r5, {{s0-s3}}",
            inout("r0") pairs.columns[0].as_ptr() => _,
            inout("r1") pairs.columns[1].as_ptr() => _,
            in("r2") pairs.step,
            inout("r3") pairs.angles.as_ptr() => _,
            inout("r4") pairs.factors.as_ptr() => _,
            in("r5") sums.as_mut_ptr(),
            inout("r8") pairs.scales[0].as_ptr() => _,
            inout("r9") pairs.scales[1].as_ptr() => _,
            inout("r12") count => _,
            out("r10") _,
            out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s5") _, out("s6") _, out("s7") _,
            out("s8") _, out("s9") _, out("s10") _, out("s11") _, out("s12") _, out("s13") _, out("s14") _, out("s15") _,
            out("s16") _, out("s17") _, out("s18") _, out("s19") _, out("s20") _, out("s21") _, out("s22") _, out("s23") _,
            out("s24") _, out("s25") _, out("s26") _, out("s27") _, out("s28") _, out("s29") _, out("s30") _, out("s31") _,
            options(nostack)
        );
    }
}

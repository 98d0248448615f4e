//! Sixteen lanes on 32-bit Arm: plain Rust, but for sums of 8-bit rows, which the compiler would keep in memory, and halves.
//!
//! Helium's vectors (also those that the compiler makes of plain Rust for such a processor) take subnormal f32 for zero, whatever
//! the floating-point mode: results differ from other instruction sets' where a number under 1.2e-38 matters.

use core::arch::asm;

use super::super::lanes::{ColumnHalves, Lanes, ScalarLanes, SlotPairs};

/// Defines a vector of sixteen that is [`ScalarLanes`]' but for [`Lanes::add_rows_i8`], [`Lanes::add_halves_i8`] and
/// [`Lanes::add_pairs_i8`].
macro_rules! lanes {
    ($(#[$doc:meta])* $name:ident, $add_rows:ident, $add_halves:ident, $add_pairs:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Lanes for $name {
            type V = [f32; 16];
            const MANY_ROWS: bool = ScalarLanes::MANY_ROWS;
            const SUMS: usize = ScalarLanes::SUMS;

            #[inline(always)]
            fn splat(self, x: f32) -> [f32; 16] {
                ScalarLanes.splat(x)
            }

            #[inline(always)]
            fn load(self, x: &[f32; 16]) -> [f32; 16] {
                ScalarLanes.load(x)
            }

            #[inline(always)]
            fn load_f16(self, x: &[u16; 16]) -> [f32; 16] {
                ScalarLanes.load_f16(x)
            }

            #[inline(always)]
            fn load_i8(self, x: &[i8; 16]) -> [f32; 16] {
                ScalarLanes.load_i8(x)
            }

            #[inline(always)]
            fn add_rows_i8(self, mut acc: [f32; 16], factors: &[f32], x: &[i8], stride: usize) -> [f32; 16] {
                $add_rows(&mut acc, factors, x, stride);
                acc
            }

            const PAIRS_BY_SLOTS: bool = true;
            const SUMS_BY_COLUMN: bool = true;

            #[inline(always)]
            fn add_halves_i8(self, acc: &mut [f32; 16], halves: ColumnHalves<'_>) {
                $add_halves(acc, halves);
            }

            #[inline(always)]
            fn add_pairs_i8(self, pairs: SlotPairs<'_>, sums: &mut [f32; 4]) {
                $add_pairs(pairs, sums);
            }

            #[inline(always)]
            fn store_f16(self, v: [f32; 16], out: &mut [u16; 16]) {
                ScalarLanes.store_f16(v, out);
            }

            #[inline(always)]
            fn store(self, v: [f32; 16], out: &mut [f32; 16]) {
                ScalarLanes.store(v, out);
            }

            #[inline(always)]
            fn add(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
                ScalarLanes.add(a, b)
            }

            #[inline(always)]
            fn sub(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
                ScalarLanes.sub(a, b)
            }

            #[inline(always)]
            fn mul(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
                ScalarLanes.mul(a, b)
            }

            #[inline(always)]
            fn div(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
                ScalarLanes.div(a, b)
            }

            #[inline(always)]
            fn max(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
                ScalarLanes.max(a, b)
            }

            #[inline(always)]
            fn min(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
                ScalarLanes.min(a, b)
            }

            #[inline(always)]
            fn exp2_int(self, n: [f32; 16]) -> [f32; 16] {
                ScalarLanes.exp2_int(n)
            }
        }
    };
}

#[cfg(any(test, not(feature = "helium")))]
lanes!(
    /// For a core with the DSP extension; the type exists where the feature says that it has it.
    DspLanes,
    add_rows_dsp,
    add_halves_dsp,
    add_pairs_dsp
);

#[cfg(feature = "helium")]
lanes!(
    /// For a core with Helium, and with it the DSP extension; the type exists where the feature says that it has them.
    HeliumLanes,
    add_rows_helium,
    add_halves_dsp,
    add_pairs_dsp
);

/// Panics unless there are sixteen elements for each of `count` factors.
#[inline(always)]
fn check(count: usize, x: &[i8], stride: usize) {
    let enough = count == 0
        || matches!((count - 1).checked_mul(stride), Some(last) if x.len() >= 16 && last <= x.len() - 16);
    assert!(enough);
}

/// Four bytes at `r0` + `$at`, as integers in four registers.
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

/// [`Lanes::add_rows_i8`], once for all who call it: the sums stay in `s0` to `s15`, eight products at a time are made in `s16` to `s23`.
#[cfg(any(test, not(feature = "helium")))]
#[inline(never)]
fn add_rows_dsp(acc: &mut [f32; 16], factors: &[f32], x: &[i8], stride: usize) {
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
    // SAFETY: `check` saw sixteen elements for each factor, at `stride` from one another; `acc` is read and written. What proves the
    // instructions is that the crate was built with the feature.
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

/// [`Lanes::add_halves_i8`], once for all who call it: the sums stay in `s0` to `s15`, eight slots at a time are in `s16` to `s23`,
/// their scales and then their weights in `s24` to `s31`.
#[inline(never)]
fn add_halves_dsp(acc: &mut [f32; 16], halves: ColumnHalves<'_>) {
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
    let fits = |len: usize, step| matches!(place(last, step), Some(at) if len >= 16 && at <= len - 16);
    assert!(steps.0 >= 32 && steps.1 >= 32 && fits(elements.len(), steps.0) && fits(scales.len(), steps.1));
    let (x, scale) = (
        &elements[first / 2 * steps.0 + first % 2 * 16..],
        &scales[first / 2 * steps.1 + first % 2 * 16..],
    );
    // From a first half to the second, or from a second half to the next tile's first.
    let next = |step: usize| if first.is_multiple_of(2) { 16 } else { step - 16 };
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
    // SAFETY: `r1` walks over `weights`; `r0` and `r2` go from half to half, to the last of which the assertion saw sixteen
    // elements and scales, or past it unread; `acc` is read and written. What proves the instructions is that the crate was
    // built with the feature.
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

/// [`Lanes::add_pairs_i8`], once for all who call it. The sums stay in `s0` to `s3`, the scales in `s20` to `s27`; columns are in `s4`
/// to `s11`, cosines and sines in `s12` to `s19`, a pair's factors in `s28` to `s31`. All operations are scalar ones.
#[inline(never)]
fn add_pairs_dsp(pairs: SlotPairs<'_>, sums: &mut [f32; 4]) {
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
    // The columns `a` and `b` of two slots: `a·cos - b·sin` takes the cosines' place, `a·sin + b·cos` the first columns'.
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
    // SAFETY: `r0` and `r1` walk over `count` groups of four elements at `r2` from one another, `r3` over as many cosines and sines, which
    // the assertions above saw; `r4` walks over `factors`. Eight scales and four sums are read, four sums written. What proves the
    // instructions is that the crate was built with the feature.
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

/// [`Lanes::add_rows_i8`], once for all who call it: the sums stay in `q0` to `q3`.
#[cfg(feature = "helium")]
#[inline(never)]
fn add_rows_helium(acc: &mut [f32; 16], factors: &[f32], x: &[i8], stride: usize) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::Noise;

    #[test]
    fn rows_are_added_as_the_reference_does() {
        let mut noise = Noise(9);
        let x: std::vec::Vec<i8> = (0..40 * 32).map(|_| noise.next() as i8).collect();
        for count in 0..=32 {
            for (stride, first) in [(32, 0), (32, 16), (16, 0), (40, 5)] {
                let factors: std::vec::Vec<f32> = (0..count).map(|_| noise.normal()).collect();
                let acc: [f32; 16] = core::array::from_fn(|_| noise.normal());
                let expected = ScalarLanes.add_rows_i8(acc, &factors, &x[first..], stride);
                assert_eq!(DspLanes.add_rows_i8(acc, &factors, &x[first..], stride), expected);
            }
        }
    }

    #[test]
    fn halves_are_added_as_the_reference_does() {
        let mut noise = Noise(10);
        let x: std::vec::Vec<i8> = (0..5 * 96).map(|_| noise.next() as i8).collect();
        let scales: std::vec::Vec<u16> = (0..5 * 64)
            .map(|_| half::f16::from_f32(noise.normal()).to_bits())
            .collect();
        let weights: std::vec::Vec<[f32; 16]> =
            (0..9).map(|_| core::array::from_fn(|_| noise.normal())).collect();
        for (first, end) in (0..9).flat_map(|first| (first..=9).map(move |end| (first, end))) {
            let halves = ColumnHalves {
                weights: &weights[first..end],
                first,
                elements: &x[32..],
                scales: &scales[32..],
                steps: (96, 64),
            };
            let acc: [f32; 16] = core::array::from_fn(|_| noise.normal());
            let (mut expected, mut got) = (acc, acc);
            ScalarLanes.add_halves_i8(&mut expected, halves);
            DspLanes.add_halves_i8(&mut got, halves);
            assert_eq!(got, expected);
        }
    }

    #[test]
    #[should_panic]
    fn halves_past_the_end_are_refused() {
        let halves = ColumnHalves {
            weights: &[[0.0; 16]; 3],
            first: 0,
            elements: &[0; 96],
            scales: &[0; 47],
            steps: (64, 32),
        };
        DspLanes.add_halves_i8(&mut [0.0; 16], halves);
    }

    #[test]
    fn pairs_are_added_as_the_reference_does() {
        let mut noise = Noise(11);
        let x: std::vec::Vec<i8> = (0..34 * 32).map(|_| noise.next() as i8).collect();
        let angles: std::vec::Vec<f32> = (0..64 * 17).map(|_| noise.normal()).collect();
        for count in 0..=16 {
            for (second, step, at) in [(32, 64, 0), (16 * 32, 32, 28), (5, 40, 3)] {
                let factors: std::vec::Vec<[f32; 4]> = (0..count)
                    .map(|_| core::array::from_fn(|_| noise.normal()))
                    .collect();
                let scales: [[u16; 4]; 2] = core::array::from_fn(|_| {
                    core::array::from_fn(|_| half::f16::from_f32(noise.normal()).to_bits())
                });
                let pairs = SlotPairs {
                    columns: [&x[at..], &x[second + at..]],
                    step,
                    scales: scales.each_ref(),
                    angles: &angles[at..],
                    factors: &factors,
                };
                let sums: [f32; 4] = core::array::from_fn(|_| noise.normal());
                let (mut expected, mut got) = (sums, sums);
                ScalarLanes.add_pairs_i8(pairs, &mut expected);
                DspLanes.add_pairs_i8(pairs, &mut got);
                assert_eq!(got, expected);
            }
        }
    }

    #[test]
    #[should_panic]
    fn pairs_past_the_end_are_refused() {
        let pairs = SlotPairs {
            columns: [&[0; 67], &[0; 68]],
            step: 32,
            scales: [&[0; 4]; 2],
            angles: &[0.0; 192],
            factors: &[[0.0; 4]; 3],
        };
        DspLanes.add_pairs_i8(pairs, &mut [0.0; 4]);
    }

    #[test]
    #[should_panic]
    fn rows_past_the_end_are_refused() {
        let _ = DspLanes.add_rows_i8([0.0; 16], &[1.0; 3], &[1; 47], 16);
    }
}

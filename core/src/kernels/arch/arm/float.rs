//! Products of f16 weights and one token, straight from the f16 to the sixteen partial sums,
//! without a row of f32 between.

use core::arch::asm;

use super::widen;
use crate::kernels::product::ProductF32;
use crate::kernels::scalar;
use crate::quant::{F16, Format};

/// Implements
/// [`InstructionSet::product_f32`](crate::kernels::dispatch::InstructionSet::product_f32) for one
/// token and f16 weights.
pub(super) fn product_f32<'p, 'c>(product: ProductF32<'p, 'c>) -> Option<ProductF32<'p, 'c>> {
    let w = product.weights;
    if w.format() != Format::F16 || product.out.rows() != 1 {
        return Some(product);
    }
    let weights = w.blocks::<F16>(product.rows);
    for (row, out) in weights.chunks_exact(w.cols()).zip(product.out.row_mut(0)) {
        *out = dot(row, product.activations);
    }
    None
}

/// Does the same as [`scalar::dot`].
fn dot(w: &[F16], x: &[f32]) -> f32 {
    let (chunks, rest) = w.as_chunks();
    let (x_chunks, x_rest) = x.as_chunks();
    assert!(chunks.len() == x_chunks.len() && rest.len() == x_rest.len());
    let mut sums = [0.0; 16];
    add(chunks, x_chunks, &mut sums);
    for (sum, (w, x)) in sums.iter_mut().zip(rest.iter().zip(x_rest)) {
        *sum += widen(w.0) * x;
    }
    scalar::fold(sums)
}

/// Adds the products of sixteen columns at a time: the sums are in `s0` to `s15`, eight weights in
/// `s16` to `s23`, their activations in `s24` to `s31`.
fn add(w: &[[F16; 16]], x: &[[f32; 16]], sums: &mut [f32; 16]) {
    if w.is_empty() || w.len() != x.len() {
        return;
    }
    macro_rules! each {
        ($($weight:literal $x:literal $sum:literal),*) => {
            concat!(
                $("vmul.f32 ", $weight, ", ", $weight, ", ", $x, "\n"),*,
                $("vadd.f32 ", $sum, ", ", $sum, ", ", $weight, "\n"),*
            )
        };
    }
    macro_rules! half {
        ($a:literal, $b:literal, $c:literal, $d:literal) => {
            concat!(
                "ldr r4, [r0, #",
                $a,
                "]\n",
                "ldr r5, [r0, #",
                $b,
                "]\n",
                "ldr r8, [r0, #",
                $c,
                "]\n",
                "ldr r9, [r0, #",
                $d,
                "]\n",
                "vldmia r1!, {{s24-s31}}\n",
                "vmov s16, s17, r4, r5\n",
                "vmov s18, s19, r8, r9\n",
                "vcvtt.f32.f16 s23, s19\nvcvtb.f32.f16 s22, s19\n",
                "vcvtt.f32.f16 s21, s18\nvcvtb.f32.f16 s20, s18\n",
                "vcvtt.f32.f16 s19, s17\nvcvtb.f32.f16 s18, s17\n",
                "vcvtt.f32.f16 s17, s16\nvcvtb.f32.f16 s16, s16\n"
            )
        };
    }
    // SAFETY: `r0` walks over `w`, `r1` over as many elements of `x`, sixteen numbers each, and
    // `sums` is read and written. The crate was built with the feature, which proves that the
    // processor has the instructions.
    unsafe {
        asm!(
            "vldmia r3, {{s0-s15}}",
            "2:",
            half!("0", "4", "8", "12"),
            each!("s16" "s24" "s0", "s17" "s25" "s1", "s18" "s26" "s2", "s19" "s27" "s3",
                "s20" "s28" "s4", "s21" "s29" "s5", "s22" "s30" "s6", "s23" "s31" "s7"),
            half!("16", "20", "24", "28"),
            each!("s16" "s24" "s8", "s17" "s25" "s9", "s18" "s26" "s10", "s19" "s27" "s11",
                "s20" "s28" "s12", "s21" "s29" "s13", "s22" "s30" "s14", "s23" "s31" "s15"),
            "add r0, r0, #32",
            "subs r2, r2, #1",
            "bne 2b",
            "vstmia r3, {{s0-s15}}",
            inout("r0") w.as_ptr() => _,
            inout("r1") x.as_ptr() => _,
            inout("r2") w.len() => _,
            in("r3") sums.as_mut_ptr(),
            out("r4") _, out("r5") _, out("r8") _, out("r9") _,
            out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s5") _, out("s6") _, out("s7") _,
            out("s8") _, out("s9") _, out("s10") _, out("s11") _, out("s12") _, out("s13") _, out("s14") _, out("s15") _,
            out("s16") _, out("s17") _, out("s18") _, out("s19") _, out("s20") _, out("s21") _, out("s22") _, out("s23") _,
            out("s24") _, out("s25") _, out("s26") _, out("s27") _, out("s28") _, out("s29") _, out("s30") _, out("s31") _,
            options(nostack)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::Noise;

    #[test]
    fn products_of_halves_are_the_references() {
        let mut noise = Noise(12);
        for len in 0..=70 {
            let w: std::vec::Vec<F16> = (0..len)
                .map(|_| F16(half::f16::from_f32(noise.normal()).to_le_bytes()))
                .collect();
            let x: std::vec::Vec<f32> = (0..len).map(|_| noise.normal()).collect();
            let row: std::vec::Vec<f32> = w.iter().map(|w| w.to_f32()).collect();
            assert_eq!(dot(&w, &x), scalar::dot(&row, &x));
        }
    }
}

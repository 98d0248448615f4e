//! Sixteen lanes in plain Rust, except for sums over 8-bit elements, which the compiler would keep
//! in memory.
//!
//! Helium's vectors (also those that the compiler makes of plain Rust for such a processor) treat
//! subnormal f32 as zero in every floating-point mode. Results differ from those of other
//! instruction sets where a number under 1.2e-38 matters.

use super::columns::add_halves_dsp;
use super::pairs::add_pairs_dsp;
#[cfg(any(test, not(feature = "helium")))]
use super::rows::add_rows_dsp;
#[cfg(feature = "helium")]
use super::rows::add_rows_helium;
use crate::kernels::generic::{ColumnHalves, Lanes, SlotPairs};
#[cfg(any(test, not(feature = "helium")))]
use crate::kernels::isa::Dsp;
#[cfg(feature = "helium")]
use crate::kernels::isa::Helium;
use crate::kernels::isa::Scalar;

/// Implements [`Lanes`] as for [`Scalar`], except for [`Lanes::add_rows_i8`],
/// [`Lanes::add_halves_i8`] and [`Lanes::add_pairs_i8`].
macro_rules! lanes {
    ($name:ident, $add_rows:ident, $add_halves:ident, $add_pairs:ident) => {
        impl Lanes for $name {
            type V = [f32; 16];
            const MANY_ROWS: bool = Scalar::MANY_ROWS;
            const SUMS: usize = Scalar::SUMS;

            #[inline(always)]
            fn splat(self, x: f32) -> [f32; 16] {
                Scalar.splat(x)
            }

            #[inline(always)]
            fn load(self, x: &[f32; 16]) -> [f32; 16] {
                Scalar.load(x)
            }

            #[inline(always)]
            fn load_f16(self, x: &[u16; 16]) -> [f32; 16] {
                Scalar.load_f16(x)
            }

            #[inline(always)]
            fn load_i8(self, x: &[i8; 16]) -> [f32; 16] {
                Scalar.load_i8(x)
            }

            #[inline(always)]
            fn add_rows_i8(
                self,
                mut acc: [f32; 16],
                factors: &[f32],
                x: &[i8],
                stride: usize,
            ) -> [f32; 16] {
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
                Scalar.store_f16(v, out);
            }

            #[inline(always)]
            fn store(self, v: [f32; 16], out: &mut [f32; 16]) {
                Scalar.store(v, out);
            }

            #[inline(always)]
            fn add(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
                Scalar.add(a, b)
            }

            #[inline(always)]
            fn sub(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
                Scalar.sub(a, b)
            }

            #[inline(always)]
            fn mul(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
                Scalar.mul(a, b)
            }

            #[inline(always)]
            fn div(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
                Scalar.div(a, b)
            }

            #[inline(always)]
            fn max(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
                Scalar.max(a, b)
            }

            #[inline(always)]
            fn clamp(self, x: [f32; 16], low: f32, high: f32) -> [f32; 16] {
                Scalar.clamp(x, low, high)
            }

            #[inline(always)]
            fn exp2_int(self, n: [f32; 16]) -> [f32; 16] {
                Scalar.exp2_int(n)
            }
        }
    };
}

#[cfg(any(test, not(feature = "helium")))]
lanes!(Dsp, add_rows_dsp, add_halves_dsp, add_pairs_dsp);

#[cfg(feature = "helium")]
lanes!(Helium, add_rows_helium, add_halves_dsp, add_pairs_dsp);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::Noise;

    const DSP: Dsp = Dsp::of_target();

    #[test]
    fn rows_are_added_as_the_reference_does() {
        let mut noise = Noise(9);
        let x: std::vec::Vec<i8> = (0..40 * 32).map(|_| noise.next() as i8).collect();
        for count in 0..=32 {
            for (stride, first) in [(32, 0), (32, 16), (16, 0), (40, 5)] {
                let factors: std::vec::Vec<f32> = (0..count).map(|_| noise.normal()).collect();
                let acc: [f32; 16] = core::array::from_fn(|_| noise.normal());
                let expected = Scalar.add_rows_i8(acc, &factors, &x[first..], stride);
                assert_eq!(
                    DSP.add_rows_i8(acc, &factors, &x[first..], stride),
                    expected
                );
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
        let weights: std::vec::Vec<[f32; 16]> = (0..9)
            .map(|_| core::array::from_fn(|_| noise.normal()))
            .collect();
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
            Scalar.add_halves_i8(&mut expected, halves);
            DSP.add_halves_i8(&mut got, halves);
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
        DSP.add_halves_i8(&mut [0.0; 16], halves);
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
                Scalar.add_pairs_i8(pairs, &mut expected);
                DSP.add_pairs_i8(pairs, &mut got);
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
        DSP.add_pairs_i8(pairs, &mut [0.0; 4]);
    }

    #[test]
    #[should_panic]
    fn rows_past_the_end_are_refused() {
        let _ = DSP.add_rows_i8([0.0; 16], &[1.0; 3], &[1; 47], 16);
    }
}

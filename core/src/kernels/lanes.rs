//! A vector of sixteen f32, the same on every instruction set: the algorithms of [`super::ops`] are written once over it.
//!
//! Sixteen because that is one AVX-512 register, two of AVX2 and four of NEON; whatever has order (sums over lanes) is defined for
//! sixteen and so gives the same bits everywhere. Products and sums are never fused.

/// Operations on vectors of sixteen f32. The implementor is a zero-size token, so that having one proves that its instructions
/// may run.
pub(crate) trait Lanes: Copy {
    /// Sixteen f32.
    type V: Copy;
    /// Whether there are registers enough to work on several query rows at a time.
    const MANY_ROWS: bool;
    /// Vectors of sums that fit the registers beside what makes them.
    const SUMS: usize;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// Sixteen values from memory.
    fn load(self, x: &[f32; 16]) -> Self::V;
    /// Up to sixteen values from memory, zeros after them.
    #[inline(always)]
    fn load_part(self, x: &[f32]) -> Self::V {
        let mut padded = [0.0; 16];
        for (to, from) in padded.iter_mut().zip(x) {
            *to = *from;
        }
        self.load(&padded)
    }
    /// Sixteen f16, widened exactly.
    fn load_f16(self, x: &[u16; 16]) -> Self::V;
    /// Sixteen i8, converted exactly.
    fn load_i8(self, x: &[i8; 16]) -> Self::V;
    /// `acc + Σ factors[n] · x[n · stride..][..16]`, one row after the other, each product rounded before it is added.
    ///
    /// # Panics
    /// If `x` has not sixteen elements for every factor.
    #[inline(always)]
    fn add_rows_i8(self, mut acc: Self::V, factors: &[f32], x: &[i8], stride: usize) -> Self::V {
        for (n, factor) in factors.iter().enumerate() {
            let Some(row) = x[n * stride..].first_chunk() else {
                panic!("a row has sixteen elements")
            };
            acc = self.add(acc, self.mul(self.splat(*factor), self.load_i8(row)));
        }
        acc
    }
    /// `acc += weights · (x · scale)`, each step rounded.
    #[inline(always)]
    fn add_scaled_i8(self, acc: &mut Self::V, weights: &[f32; 16], x: &[i8; 16], scale: &Self::V) {
        let value = self.mul(self.load_i8(x), *scale);
        *acc = self.add(*acc, self.mul(self.load(weights), value));
    }
    /// Rounds to f16 (to the nearest, ties to even) and writes.
    fn store_f16(self, v: Self::V, out: &mut [u16; 16]);
    /// Writes the lanes to memory.
    fn store(self, v: Self::V, out: &mut [f32; 16]);
    /// Writes the first lanes to memory, as many as there is room for.
    #[inline(always)]
    fn store_part(self, v: Self::V, out: &mut [f32]) {
        let mut lanes = [0.0; 16];
        self.store(v, &mut lanes);
        for (to, from) in out.iter_mut().zip(lanes) {
            *to = from;
        }
    }
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger; neither may be NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; neither may be NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `2^n` for integers `n` from -126 to 127, given as f32.
    fn exp2_int(self, n: Self::V) -> Self::V;
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct ScalarLanes;

#[inline(always)]
fn zip(a: [f32; 16], b: [f32; 16], f: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    core::array::from_fn(|i| f(a[i], b[i]))
}

impl Lanes for ScalarLanes {
    type V = [f32; 16];
    const MANY_ROWS: bool = false;
    const SUMS: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 16] {
        [x; 16]
    }

    #[inline(always)]
    fn load(self, x: &[f32; 16]) -> [f32; 16] {
        *x
    }

    #[inline(always)]
    fn load_f16(self, x: &[u16; 16]) -> [f32; 16] {
        x.map(widen_f16)
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; 16]) -> [f32; 16] {
        x.map(f32::from)
    }

    #[inline(always)]
    fn store_f16(self, v: [f32; 16], out: &mut [u16; 16]) {
        *out = v.map(|x| half::f16::from_f32(x).to_bits());
    }

    #[inline(always)]
    fn store(self, v: [f32; 16], out: &mut [f32; 16]) {
        *out = v;
    }

    #[inline(always)]
    fn add(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn max(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn exp2_int(self, n: [f32; 16]) -> [f32; 16] {
        n.map(|n| f32::from_bits(((n as i32 + 127) << 23) as u32))
    }
}

/// f16 to f32 in integers and one product: exact for every finite value, subnormals included.
///
/// The product scales the exponent from f16's bias (15) to f32's (127); infinities and NaNs keep their exponent of all ones.
#[cfg(not(all(target_arch = "arm", feature = "dsp")))]
#[inline(always)]
pub(crate) fn widen_f16(h: u16) -> f32 {
    let magnitude = u32::from(h & 0x7FFF) << 13;
    let sign = u32::from(h & 0x8000) << 16;
    let scaled = f32::from_bits(magnitude) * f32::from_bits((254 - 15) << 23);
    let bits = if h & 0x7C00 == 0x7C00 {
        magnitude | 0x7F80_0000
    } else {
        scaled.to_bits()
    };
    f32::from_bits(bits | sign)
}

#[cfg(all(target_arch = "arm", feature = "dsp"))]
pub(crate) use super::arch::widen_f16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_widens_as_the_half_crate_says() {
        for h in 0..=u16::MAX {
            let (ours, theirs) = (widen_f16(h), half::f16::from_bits(h).to_f32());
            assert!(
                ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()),
                "{h:#x}"
            );
        }
    }
}

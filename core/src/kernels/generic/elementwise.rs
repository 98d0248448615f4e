//! Sums and conversions, value by value.

use super::{Lanes, Op, load_padded, map_in_place};

/// Computes `x += y`; both have the same length.
pub(crate) struct Add<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) y: &'a [f32],
}

impl Op for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<L: Lanes>(self, l: L) {
        let Add { x, y } = self;
        assert!(x.len() == y.len());
        map_in_place!(l, x, |v, at| l.add(v, load_padded(l, y, at)));
    }
}

/// Rounds values to f16, as bits; both slices have the same length.
pub(crate) struct Narrow<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) out: &'a mut [u16],
}

impl Op for Narrow<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<L: Lanes>(self, l: L) {
        let Narrow { x, out } = self;
        assert!(x.len() == out.len());
        let (chunks, rest) = out.as_chunks_mut::<16>();
        let whole = chunks.len() * 16;
        for (i, chunk) in chunks.iter_mut().enumerate() {
            l.store_f16(load_padded(l, x, i * 16), chunk);
        }
        if !rest.is_empty() {
            let mut padded = [0; 16];
            l.store_f16(load_padded(l, x, whole), &mut padded);
            rest.copy_from_slice(&padded[..rest.len()]);
        }
    }
}

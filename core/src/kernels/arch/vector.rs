//! The vector algorithms ([`super::super::ops`], [`super::super::attend`]) instantiated for every instruction set, and the choice
//! among them.

use core::ops::Range;

use super::super::attend::raw::{self, RawKeys};
use super::super::attend::tile_sums::{self, Map, Summed, TileWeights};
use super::super::attend::{self, Job, Output, Row, TileStore};
#[cfg(not(all(target_arch = "arm", feature = "dsp", not(test))))]
use super::super::lanes::ScalarLanes;
pub use super::super::ops::{Activation, Scaling};
use super::super::{Isa, ops};
use crate::nn::rope::Pairs;

/// Defines the entry points of one instruction set: plain calls into the generic algorithms, compiled with its features.
macro_rules! entries {
    ($module:ident, $lanes:expr, $(#[$feature:meta])*) => {
        mod $module {
            use super::*;

            $(#[$feature])*
            pub(super) fn norm(x: &[f32], norm: Scaling<'_>, out: &mut [f32]) {
                ops::norm($lanes, x, norm, out);
            }

            $(#[$feature])*
            pub(super) fn norm_in_place(x: &mut [f32], norm: Scaling<'_>) {
                ops::norm_in_place($lanes, x, norm);
            }

            $(#[$feature])*
            pub(super) fn norm_then_add(x: &mut [f32], norm: Scaling<'_>, y: &mut [f32]) {
                ops::norm_then_add($lanes, x, norm, y);
            }

            $(#[$feature])*
            pub(super) fn activate(f: Activation, x: &mut [f32], up: &[f32]) {
                ops::activate($lanes, f, x, up);
            }

            $(#[$feature])*
            pub(super) fn soft_cap(x: &mut [f32], cap: f32) {
                ops::soft_cap($lanes, x, cap);
            }

            $(#[$feature])*
            pub(super) fn softmax(scores: &mut [f32]) -> f32 {
                ops::softmax($lanes, scores)
            }

            $(#[$feature])*
            pub(super) fn leave_out(weights: &mut [f32], least: f32) {
                ops::leave_out(weights, least);
            }

            $(#[$feature])*
            pub(super) fn add(x: &mut [f32], y: &[f32]) {
                ops::add($lanes, x, y);
            }

            $(#[$feature])*
            pub(super) fn rotate(heads: &mut [f32], head_dim: usize, table: &[[f32; 2]], pairs: Pairs) {
                ops::rotate(heads, head_dim, table, pairs);
            }

            $(#[$feature])*
            pub(super) fn narrow(x: &[f32], out: &mut [u16]) {
                ops::narrow($lanes, x, out);
            }

            $(#[$feature])*
            pub(super) fn raw_scores(
                keys: &RawKeys<'_>,
                slots: Range<usize>,
                bases: &[[f32; 2]],
                queries: &[&[f32]],
                out: (&mut [f32], usize),
                scratch: &mut [f32],
            ) {
                raw::raw_scores($lanes, keys, slots, bases, queries, out, scratch);
            }

            $(#[$feature])*
            pub(super) fn tile_sums(summed: &Summed<'_>, weights: TileWeights<'_>, out: (&mut [f32], usize)) {
                tile_sums::tile_sums($lanes, summed, weights, out);
            }

            $(#[$feature])*
            pub(super) fn expand(
                store: &TileStore<'_>,
                tiles: Range<usize>,
                map: Map<'_>,
                out: &mut [f32],
                add: bool,
            ) {
                tile_sums::expand($lanes, store, tiles, map, out, add);
            }

            $(#[$feature])*
            pub(super) fn attend(
                job: &Job<'_>,
                rows: &[Row<'_>],
                scratch: &mut [f32],
                out: &mut dyn Output,
            ) {
                attend::attend($lanes, job, rows, scratch, out);
            }
        }
    };
}

#[cfg(not(all(target_arch = "arm", feature = "dsp", not(test))))]
entries!(scalar, ScalarLanes,);
#[cfg(target_arch = "x86_64")]
entries!(
    avx2,
    super::super::vector_x86::Avx2Lanes::with_features(),
    #[target_feature(enable = "avx2,fma,f16c")]
);
#[cfg(target_arch = "x86_64")]
entries!(
    avx512,
    super::super::vector_x86::Avx512Lanes::with_features(),
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
);
#[cfg(target_arch = "aarch64")]
entries!(
    neon,
    super::super::vector_aarch64::NeonLanes::with_features(),
    #[target_feature(enable = "neon")]
);
#[cfg(all(target_arch = "arm", feature = "dsp", any(test, not(feature = "helium"))))]
entries!(dsp, super::super::vector_arm::DspLanes,);
#[cfg(all(target_arch = "arm", feature = "helium"))]
entries!(helium, super::super::vector_arm::HeliumLanes,);

/// Calls `$function` of the instruction set's module.
macro_rules! choose {
    ($isa:expr, $function:ident($($argument:expr),*)) => {
        match $isa {
            #[cfg(not(all(target_arch = "arm", feature = "dsp", not(test))))]
            Isa::Scalar => scalar::$function($($argument),*),
            // One instance, for the sake of flash: the bits are the same.
            #[cfg(all(target_arch = "arm", feature = "dsp", not(feature = "helium"), not(test)))]
            Isa::Scalar => dsp::$function($($argument),*),
            #[cfg(all(target_arch = "arm", feature = "helium", not(test)))]
            Isa::Scalar | Isa::Dsp(_) => helium::$function($($argument),*),
            #[cfg(all(target_arch = "arm", feature = "dsp", any(test, not(feature = "helium"))))]
            Isa::Dsp(_) => dsp::$function($($argument),*),
            #[cfg(all(target_arch = "arm", feature = "helium"))]
            Isa::Helium(_) => helium::$function($($argument),*),
            // SAFETY: the token inside the variant exists only where the processor has the features.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => unsafe { avx2::$function($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => unsafe { avx512::$function($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) | Isa::NeonDotprod(_) => unsafe { neon::$function($($argument),*) },
        }
    };
}

/// Norms the row `x` into `out`.
///
/// # Panics
/// If the lengths differ.
pub fn norm(isa: Isa, x: &[f32], norm: Scaling<'_>, out: &mut [f32]) {
    assert!(x.len() == norm.weight.len() && x.len() == out.len());
    choose!(isa, norm(x, norm, out));
}

/// Norms the row `x`.
///
/// # Panics
/// If there are not as many weights.
pub(crate) fn norm_in_place(isa: Isa, x: &mut [f32], norm: Scaling<'_>) {
    assert!(x.len() == norm.weight.len());
    choose!(isa, norm_in_place(x, norm));
}

/// Norms the row `x` into `y`, then adds to `x` what `y` held.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn norm_then_add(isa: Isa, x: &mut [f32], norm: Scaling<'_>, y: &mut [f32]) {
    assert!(x.len() == norm.weight.len() && x.len() == y.len());
    choose!(isa, norm_then_add(x, norm, y));
}

/// `x = f(x)`, times `up` if that is not empty: with [`Activation::Silu`] SwiGLU (Shazeer, arXiv 2002.05202, equation 6).
///
/// # Panics
/// If `up` is neither empty nor as long as `x`.
pub fn activate(isa: Isa, f: Activation, x: &mut [f32], up: &[f32]) {
    assert!(up.is_empty() || x.len() == up.len());
    choose!(isa, activate(f, x, up));
}

/// See [`ops::soft_cap`].
pub(crate) fn soft_cap(isa: Isa, x: &mut [f32], cap: f32) {
    choose!(isa, soft_cap(x, cap));
}

/// Turns scores into unnormalised probabilities `e^(s - max)` in place and returns 1 over their sum: the softmax is their product.
/// Differences from the maximum count to 87 only.
pub fn softmax(isa: Isa, scores: &mut [f32]) -> f32 {
    choose!(isa, softmax(scores))
}

/// See [`ops::leave_out`].
pub(crate) fn leave_out(isa: Isa, weights: &mut [f32], least: f32) {
    choose!(isa, leave_out(weights, least));
}

/// See [`ops::add`].
///
/// # Panics
/// If the lengths differ.
pub(crate) fn add(isa: Isa, x: &mut [f32], y: &[f32]) {
    assert!(x.len() == y.len());
    choose!(isa, add(x, y));
}

/// Rotates heads of `head_dim` values in place by the cosines and sines of `table`, one for each of the `pairs` (RoPE, Su et al.,
/// arXiv 2104.09864, equation 34). Values of a head past the pairs stay as they are.
///
/// # Panics
/// If `heads` is not whole heads of `head_dim`, or the table has more pairs than a head.
pub fn rotate(isa: Isa, heads: &mut [f32], head_dim: usize, table: &[[f32; 2]], pairs: Pairs) {
    assert!(heads.len().is_multiple_of(head_dim) && table.len() * 2 <= head_dim);
    choose!(isa, rotate(heads, head_dim, table, pairs));
}

/// Rounds to f16, as bits.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn narrow(isa: Isa, x: &[f32], out: &mut [u16]) {
    assert!(x.len() == out.len());
    choose!(isa, narrow(x, out));
}

/// See [`attend::attend`].
pub(crate) fn attend(isa: Isa, job: &Job<'_>, rows: &[Row<'_>], scratch: &mut [f32], out: &mut dyn Output) {
    choose!(isa, attend(job, rows, scratch, out));
}

/// See [`raw::raw_scores`].
pub(crate) fn raw_scores(
    isa: Isa,
    keys: &RawKeys<'_>,
    slots: Range<usize>,
    bases: &[[f32; 2]],
    queries: &[&[f32]],
    out: (&mut [f32], usize),
    scratch: &mut [f32],
) {
    choose!(isa, raw_scores(keys, slots, bases, queries, out, scratch));
}

/// See [`tile_sums::tile_sums`].
pub(crate) fn tile_sums(isa: Isa, summed: &Summed<'_>, weights: TileWeights<'_>, out: (&mut [f32], usize)) {
    choose!(isa, tile_sums(summed, weights, out));
}

/// See [`tile_sums::expand`].
pub(crate) fn expand(
    isa: Isa,
    store: &TileStore<'_>,
    tiles: Range<usize>,
    map: Map<'_>,
    out: &mut [f32],
    add: bool,
) {
    choose!(isa, expand(store, tiles, map, out, add));
}

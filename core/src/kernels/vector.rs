//! The vector algorithms as functions of an instruction set.

use core::ops::Range;

use super::Isa;
use super::attend::{self, Job, Map, Output, RawKeys, Row, Summed, TileStore, TileWeights};
use super::generic::{
    self, Activate, Add, LeaveOut, Narrow, Norm, NormInPlace, NormThenAdd, Rotate, SoftCap, Softmax,
};
use crate::nn::rope::Pairs;
pub(crate) use generic::{Activation, Scaling};

pub(crate) fn norm(isa: Isa, x: &[f32], scaling: Scaling<'_>, out: &mut [f32]) {
    isa.run(Norm { x, scaling, out });
}

pub(crate) fn norm_in_place(isa: Isa, x: &mut [f32], scaling: Scaling<'_>) {
    isa.run(NormInPlace { x, scaling });
}

pub(crate) fn norm_then_add(isa: Isa, x: &mut [f32], scaling: Scaling<'_>, y: &mut [f32]) {
    isa.run(NormThenAdd { x, scaling, y });
}

pub(crate) fn activate(isa: Isa, function: Activation, x: &mut [f32], up: &[f32]) {
    isa.run(Activate { function, x, up });
}

pub(crate) fn soft_cap(isa: Isa, x: &mut [f32], cap: f32) {
    isa.run(SoftCap { x, cap });
}

pub(crate) fn softmax(isa: Isa, scores: &mut [f32]) -> f32 {
    isa.run(Softmax { scores })
}

pub(crate) fn leave_out(isa: Isa, weights: &mut [f32], least: f32) {
    isa.run(LeaveOut { weights, least });
}

pub(crate) fn add(isa: Isa, x: &mut [f32], y: &[f32]) {
    isa.run(Add { x, y });
}

pub(crate) fn rotate(isa: Isa, heads: &mut [f32], head_dim: usize, table: &[[f32; 2]], pairs: Pairs) {
    isa.run(Rotate {
        heads,
        head_dim,
        table,
        pairs,
    });
}

pub(crate) fn narrow(isa: Isa, x: &[f32], out: &mut [u16]) {
    isa.run(Narrow { x, out });
}

pub(crate) fn attend(isa: Isa, job: &Job<'_>, rows: &[Row<'_>], scratch: &mut [f32], out: &mut dyn Output) {
    isa.run(attend::Attend {
        job,
        rows,
        scratch,
        out,
    });
}

pub(crate) fn raw_scores(
    isa: Isa,
    keys: &RawKeys<'_>,
    slots: Range<usize>,
    bases: &[[f32; 2]],
    queries: &[&[f32]],
    (out, stride): (&mut [f32], usize),
    scratch: &mut [f32],
) {
    isa.run(attend::SlimScores {
        keys,
        slots,
        bases,
        queries,
        out,
        stride,
        scratch,
    });
}

pub(crate) fn tile_sums(
    isa: Isa,
    summed: &Summed<'_>,
    weights: TileWeights<'_>,
    (out, stride): (&mut [f32], usize),
) {
    isa.run(attend::SlimSums {
        summed,
        weights,
        out,
        stride,
    });
}

pub(crate) fn expand(
    isa: Isa,
    store: &TileStore<'_>,
    tiles: Range<usize>,
    map: Map<'_>,
    out: &mut [f32],
    add: bool,
) {
    isa.run(attend::Expand {
        store,
        tiles,
        map,
        out,
        add,
    });
}

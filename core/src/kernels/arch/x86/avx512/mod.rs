//! AVX-512 with VNNI and VBMI: 16 rows in a group, chunks of 4 blocks.

mod float;
mod unpack;

use core::arch::x86_64::*;

use self::unpack::{Masks, headers, load_four, unpack};
use super::super::Avx512;
use super::{FLOAT_ROWS, Float, Kernels, Layout, MAX_PANEL_ROWS, Panel, Q8Activation};
use crate::quant::BLOCK;

/// Rows of a group: 32-bit lanes of a register.
const ROWS: usize = 16;
/// Groups of a panel.
const GROUPS: usize = 2;
/// Blocks of a chunk: 128-bit lanes of a register.
const CHUNK: usize = 4;

impl Kernels for Avx512 {
    const LANES: usize = ROWS;
    // An activation that is loaded once multiplies two registers of weights; 6 tokens make 12 sums, which hide one another's latency
    // and fit the registers.
    const GROUPS: usize = GROUPS;
    const TOKENS: usize = 6;

    #[inline]
    fn decode<B: Layout>(self, blocks: &[B], x: &[Q8Activation], out: &mut [f32]) {
        // SAFETY: the token says that the processor has the features.
        unsafe { decode(blocks, x, out) }
    }

    #[inline]
    fn fill<B: Layout>(self, blocks: &[B], panel: &mut Panel<'_>) {
        // SAFETY: the token says that the processor has the features.
        unsafe { fill(blocks, panel) }
    }

    #[inline]
    fn tile<B: Layout, const T: usize>(
        self,
        panel: &Panel<'_>,
        x: &[Q8Activation],
    ) -> [[f32; MAX_PANEL_ROWS]; T] {
        // SAFETY: the token says that the processor has the features.
        unsafe { tile::<B, T>(panel, x) }
    }

    #[inline]
    fn dots<W: Float, const T: usize>(self, w: &[W], x: &[f32], out: &mut [[f32; FLOAT_ROWS]; T]) {
        // SAFETY: the token says that the processor has the features.
        unsafe { float::dots(w, x, out) }
    }

    #[inline]
    fn quantize(self, x: &[f32], out: &mut [Q8Activation]) {
        // SAFETY: the token says that the processor has the features.
        unsafe { quantize(x, out) }
    }
}

/// Sums of each 128-bit lane's four integers: register `j`'s to 32-bit lane `j` of the 128-bit lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_lanes([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
}

/// Transposes a 4 x 4 matrix of 128-bit lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_lanes([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let ab = (
        _mm512_shuffle_i32x4::<0x44>(a, b),
        _mm512_shuffle_i32x4::<0xEE>(a, b),
    );
    let cd = (
        _mm512_shuffle_i32x4::<0x44>(c, d),
        _mm512_shuffle_i32x4::<0xEE>(c, d),
    );
    [
        _mm512_shuffle_i32x4::<0x88>(ab.0, cd.0),
        _mm512_shuffle_i32x4::<0xDD>(ab.0, cd.0),
        _mm512_shuffle_i32x4::<0x88>(ab.1, cd.1),
        _mm512_shuffle_i32x4::<0xDD>(ab.1, cd.1),
    ]
}

/// Transposes the 4 x 4 matrix of 32-bit values in each 128-bit lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_in_lanes([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let ab = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab.0, cd.0),
        _mm512_unpackhi_epi64(ab.0, cd.0),
        _mm512_unpacklo_epi64(ab.1, cd.1),
        _mm512_unpackhi_epi64(ab.1, cd.1),
    ]
}

/// 16 bytes of each of a chunk's activations, from byte `at`: block `k` in 128-bit lane `k`. Lanes past the end repeat the last.
#[inline]
#[target_feature(enable = "avx512f")]
fn activations<const AT: usize>(x: &[Q8Activation]) -> __m512i {
    const { assert!(AT + 16 <= size_of::<Q8Activation>()) };
    let lane = |k: usize| {
        let x = &raw const x[k.min(x.len() - 1)];
        // SAFETY: the 16 bytes lie inside one activation (asserted above).
        unsafe { _mm_loadu_si128(x.cast::<u8>().add(AT).cast()) }
    };
    let x = _mm512_castsi128_si512(lane(0));
    let x = _mm512_inserti32x4::<1>(x, lane(1));
    let x = _mm512_inserti32x4::<2>(x, lane(2));
    _mm512_inserti32x4::<3>(x, lane(3))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
fn decode<B: Layout>(blocks: &[B], x: &[Q8Activation], out: &mut [f32]) {
    assert!(blocks.len() == ROWS * x.len() && out.len() == ROWS);
    let mut acc = _mm512_setzero_ps();
    let (chunks, rest) = x.as_chunks::<CHUNK>();
    for (chunk, now) in chunks.iter().enumerate() {
        prefetch(blocks, chunk);
        // SAFETY: `x` has a whole chunk there, and `blocks` 16 rows as long as `x`.
        for term in unsafe { terms::<B, true>(blocks, x.len(), CHUNK * chunk, now) } {
            acc = _mm512_add_ps(acc, term);
        }
    }
    if !rest.is_empty() {
        prefetch(blocks, chunks.len());
        // SAFETY: `rest` are the blocks of `x` from there on, and `blocks` 16 rows as long as `x`.
        let terms = unsafe { terms::<B, false>(blocks, x.len(), CHUNK * chunks.len(), rest) };
        for term in &terms[..rest.len()] {
            acc = _mm512_add_ps(acc, *term);
        }
    }
    // SAFETY: `out` is 16 floats.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), acc) }
}

/// What each block of a chunk adds to the sums of 16 rows.
///
/// # Safety
/// `blocks` are 16 rows of `row_blocks` blocks, which have at least `x.len()` from `block` on; `x` has 1 to 4, and 4 if `WHOLE`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
unsafe fn terms<B: Layout, const WHOLE: bool>(
    blocks: &[B],
    row_blocks: usize,
    block: usize,
    x: &[Q8Activation],
) -> [__m512; 4] {
    let masks = Masks::new::<B>(x.len());
    let header = activations::<0>(x);
    let scale = _mm512_castsi512_ps(_mm512_shuffle_epi32::<0x00>(header));
    let scaled_sum = _mm512_castsi512_ps(_mm512_shuffle_epi32::<0x55>(header));
    let bias = _mm512_mullo_epi32(_mm512_shuffle_epi32::<0xAA>(header), _mm512_set1_epi32(B::BIAS));
    let (x_low, x_high) = (activations::<12>(x), activations::<28>(x));
    let mut terms = [_mm512_setzero_si512(); 4];
    for (i, term) in terms.iter_mut().enumerate() {
        // SAFETY: rows 4i to 4i + 3 < 16 are in `blocks`; the masks are those of `x.len()` blocks.
        let rows = unsafe { load_four::<B, WHOLE>(blocks, row_blocks, 4 * i, block, &masks) };
        let mut sums = [_mm512_setzero_si512(); 4];
        for j in 0..4 {
            let (low, high) = unpack::<B>(&rows[j]);
            sums[j] = _mm512_dpbusd_epi32(sums[j], low, x_low);
            sums[j] = _mm512_dpbusd_epi32(sums[j], high, x_high);
        }
        let mut sum = sum_lanes(sums);
        if B::BIAS != 0 {
            sum = _mm512_sub_epi32(sum, bias);
        }
        let (w_scale, w_min) = headers::<B>(&rows);
        let mut value = _mm512_mul_ps(_mm512_mul_ps(w_scale, scale), _mm512_cvtepi32_ps(sum));
        if B::HAS_MIN {
            value = _mm512_add_ps(value, _mm512_mul_ps(w_min, scaled_sum));
        }
        *term = _mm512_castps_si512(value);
    }
    transpose_lanes(terms).map(|term| _mm512_castsi512_ps(term))
}

/// Asks for the part of the next group of rows that corresponds to this chunk, so that it is there when its turn comes: the
/// group is read in 16 streams at once, which the processor's own prefetchers do not follow.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch<B: Layout>(blocks: &[B], chunk: usize) {
    // 16 rows of 4 blocks are as many lines of 64 bytes as a block has bytes.
    let lines = size_of::<B>();
    let next = blocks
        .as_ptr_range()
        .end
        .cast::<i8>()
        .wrapping_add(PREFETCH_AHEAD + chunk * lines * 64);
    for line in 0..lines {
        _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(64 * line));
    }
}

/// Bytes beyond the next group's corresponding part.
const PREFETCH_AHEAD: usize = 4096;

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn fill<B: Layout>(blocks: &[B], panel: &mut Panel<'_>) {
    let row_blocks = blocks.len() / ROWS;
    let (quants, _) = panel.quants.as_chunks_mut::<{ ROWS * BLOCK }>();
    let (scales, _) = panel.scales.as_chunks_mut::<{ ROWS * 2 }>();
    assert!(row_blocks * ROWS == blocks.len() && quants.len() == row_blocks && scales.len() == row_blocks);
    let chunks = quants.chunks_mut(CHUNK).zip(scales.chunks_mut(CHUNK));
    for (chunk, (quants, scales)) in chunks.enumerate() {
        prefetch(blocks, chunk);
        let masks = Masks::new::<B>(quants.len());
        let zero = [_mm512_setzero_si512(); 4];
        // Of four rows: [columns / 4][rows / 4], block `k` in 128-bit lane `k`.
        let (mut columns, mut scale, mut min) = ([zero; 8], zero, zero);
        for i in 0..4 {
            // SAFETY: rows 4i to 4i + 3 < 16 of `row_blocks` blocks each are in `blocks`; the masks end where the row does.
            let rows = unsafe { load_four::<B, false>(blocks, row_blocks, 4 * i, CHUNK * chunk, &masks) };
            let (mut low, mut high) = (zero, zero);
            for j in 0..4 {
                (low[j], high[j]) = unpack::<B>(&rows[j]);
            }
            let (low, high) = (transpose_in_lanes(low), transpose_in_lanes(high));
            for j in 0..4 {
                columns[j][i] = low[j];
                columns[j + 4][i] = high[j];
            }
            let (w_scale, w_min) = headers::<B>(&rows);
            (scale[i], min[i]) = (_mm512_castps_si512(w_scale), _mm512_castps_si512(w_min));
        }
        for (j, columns) in columns.into_iter().enumerate() {
            for (quants, rows) in quants.iter_mut().zip(transpose_lanes(columns)) {
                // SAFETY: 64 bytes at 64·j, j < 8, of 512.
                unsafe { _mm512_storeu_si512(quants.as_mut_ptr().add(64 * j).cast(), rows) };
            }
        }
        for (scales, (scale, min)) in scales
            .iter_mut()
            .zip(transpose_lanes(scale).into_iter().zip(transpose_lanes(min)))
        {
            // SAFETY: 32 floats.
            unsafe {
                _mm512_storeu_si512(scales.as_mut_ptr().cast(), scale);
                _mm512_storeu_si512(scales.as_mut_ptr().add(ROWS).cast(), min);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn tile<B: Layout, const T: usize>(panel: &Panel<'_>, x: &[Q8Activation]) -> [[f32; MAX_PANEL_ROWS]; T] {
    let (quants, _) = panel.quants.as_chunks::<{ ROWS * BLOCK }>();
    let (scales, _) = panel.scales.as_chunks::<{ ROWS * 2 }>();
    let row_blocks = quants.len() / GROUPS;
    assert!(x.len() == T * row_blocks && quants.len() == GROUPS * row_blocks && scales.len() == quants.len());
    let mut acc = [[_mm512_setzero_ps(); GROUPS]; T];
    for block in 0..row_blocks {
        // SAFETY: token t < T of `row_blocks` activations each, block < row_blocks.
        let x = |t: usize| unsafe { x.get_unchecked(t * row_blocks + block) };
        // SAFETY: group g < GROUPS of `row_blocks` blocks each in both, block < row_blocks.
        let (quants, scales) = unsafe {
            (
                [0, 1].map(|g: usize| quants.get_unchecked(g * row_blocks + block)),
                [0, 1].map(|g: usize| scales.get_unchecked(g * row_blocks + block)),
            )
        };
        let mut sums = [[_mm512_setzero_si512(); GROUPS]; T];
        if B::BIAS != 0 {
            // One instruction for `-BIAS · x.sum`, for both groups: the product of 16-bit pairs, whose low halves are those two.
            let bias = _mm512_set1_epi32(-B::BIAS & 0xFFFF);
            for (t, sums) in sums.iter_mut().enumerate() {
                *sums = [_mm512_dpwssd_epi32(sums[0], bias, _mm512_set1_epi32(x(t).sum)); GROUPS];
            }
        }
        for j in 0..BLOCK / 4 {
            // SAFETY: 64 bytes at 64·j, j < 8, of 512.
            let w = unsafe {
                [
                    _mm512_loadu_si512(quants[0].as_ptr().add(64 * j).cast()),
                    _mm512_loadu_si512(quants[1].as_ptr().add(64 * j).cast()),
                ]
            };
            for (t, sums) in sums.iter_mut().enumerate() {
                let (four, _) = x(t).q.as_chunks::<4>();
                let four = _mm512_set1_epi32(i32::from_le_bytes(four[j].map(|q| q as u8)));
                sums[0] = _mm512_dpbusd_epi32(sums[0], w[0], four);
                sums[1] = _mm512_dpbusd_epi32(sums[1], w[1], four);
            }
        }
        for g in 0..GROUPS {
            // SAFETY: 32 floats.
            let (w_scale, w_min) = unsafe {
                (
                    _mm512_loadu_ps(scales[g].as_ptr()),
                    _mm512_loadu_ps(scales[g].as_ptr().add(ROWS)),
                )
            };
            for t in 0..T {
                let x = x(t);
                let scale = _mm512_mul_ps(w_scale, _mm512_set1_ps(x.scale));
                let mut term = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sums[t][g]));
                if B::HAS_MIN {
                    term = _mm512_add_ps(term, _mm512_mul_ps(w_min, _mm512_set1_ps(x.scaled_sum)));
                }
                acc[t][g] = _mm512_add_ps(acc[t][g], term);
            }
        }
    }
    let mut out = [[0.0; MAX_PANEL_ROWS]; T];
    for (out, acc) in out.iter_mut().zip(acc) {
        for (out, acc) in out.as_chunks_mut::<ROWS>().0.iter_mut().zip(acc) {
            // SAFETY: 16 floats.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), acc) };
        }
    }
    out
}

/// The two halves of what folding the upper 256 bits onto the lower ones with `$op` gives.
macro_rules! fold_lanes {
    ($op:ident, $v:expr) => {{
        let half = $op(_mm512_castsi512_si256($v), _mm512_extracti64x4_epi64::<1>($v));
        (_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
    }};
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn quantize(x: &[f32], out: &mut [Q8Activation]) {
    let (blocks, _) = x.as_chunks::<BLOCK>();
    let (fours, rest) = blocks.as_chunks::<4>();
    let (out_fours, out_rest) = out.as_chunks_mut::<4>();
    for (x, out) in fours.iter().zip(out_fours) {
        quantize_four(x, out);
    }
    // The last one to three, filled up to four.
    let (mut last, mut last_out) = ([[0.0; BLOCK]; 4], [Q8Activation::ZERO; 4]);
    last[..rest.len()].copy_from_slice(rest);
    if !rest.is_empty() {
        quantize_four(&last, &mut last_out);
        out_rest.copy_from_slice(&last_out[..rest.len()]);
    }
}

/// Four blocks at once, so that their largest values and their sums are found together.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn quantize_four(x: &[[f32; BLOCK]; 4], out: &mut [Q8Activation; 4]) {
    let zero = _mm512_setzero_ps();
    let (mut values, mut maxima) = ([[zero; 2]; 4], [_mm512_setzero_si512(); 4]);
    for (k, x) in x.iter().enumerate() {
        // SAFETY: 32 floats.
        values[k] = unsafe { [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16))] };
        // The instruction gives its second operand where one is NaN: NaN counts for nothing, as in the reference.
        let max = _mm512_max_ps(_mm512_abs_ps(values[k][0]), zero);
        maxima[k] = _mm512_castps_si512(_mm512_max_ps(_mm512_abs_ps(values[k][1]), max));
    }
    // None of them is negative, so that they are ordered as the integers with the same bits are.
    let [a, b, c, d] = maxima;
    let ab = _mm512_max_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_max_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let max = _mm512_max_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let (low, high) = fold_lanes!(_mm256_max_epi32, max);
    let max = _mm_castsi128_ps(_mm_max_epi32(low, high));

    let inverse = _mm_div_ps(_mm_set1_ps(127.0), max);
    let finite = _mm_cmp_ps_mask::<_CMP_LT_OQ>(inverse, _mm_set1_ps(f32::INFINITY));
    let mut inverses = [0.0; 4];
    // SAFETY: 4 floats.
    unsafe { _mm_storeu_ps(inverses.as_mut_ptr(), _mm_maskz_mov_ps(finite, inverse)) };
    let mut sums = [_mm512_setzero_si512(); 4];
    for (k, out) in out.iter_mut().enumerate() {
        let inverse = _mm512_set1_ps(inverses[k]);
        let mut q = [_mm512_setzero_si512(); 2];
        for (q, x) in q.iter_mut().zip(values[k]) {
            let x = _mm512_mul_ps(x, inverse);
            *q = _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask::<_CMP_ORD_Q>(x, x), x);
        }
        sums[k] = _mm512_add_epi32(q[0], q[1]);
        // SAFETY: 32 bytes.
        unsafe {
            _mm_storeu_si128(out.q.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(q[0]));
            _mm_storeu_si128(out.q.as_mut_ptr().add(16).cast(), _mm512_cvtepi32_epi8(q[1]));
        }
    }
    let (low, high) = fold_lanes!(_mm256_add_epi32, sum_lanes(sums));
    let sum = _mm_add_epi32(low, high);
    let scale = _mm_div_ps(max, _mm_set1_ps(127.0));
    let scaled_sum = _mm_mul_ps(scale, _mm_cvtepi32_ps(sum));
    let (mut scales, mut scaled_sums, mut integers) = ([0.0; 4], [0.0; 4], [0; 4]);
    // SAFETY: 4 numbers each.
    unsafe {
        _mm_storeu_ps(scales.as_mut_ptr(), scale);
        _mm_storeu_ps(scaled_sums.as_mut_ptr(), scaled_sum);
        _mm_storeu_si128(integers.as_mut_ptr().cast(), sum);
    }
    for (k, out) in out.iter_mut().enumerate() {
        (out.scale, out.scaled_sum, out.sum) = (scales[k], scaled_sums[k], integers[k]);
    }
}

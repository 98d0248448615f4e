//! Layout and loads of the elements of a store.

use core::ops::Range;

use super::super::Lanes;
use crate::nn::float16;
use crate::quant::BLOCK;

/// Slots in a tile of keys.
pub const TILE: usize = 32;

/// Columns interleaved in tiles of slots; see the module for the layout.
#[derive(Clone, Copy)]
pub struct Tiles<'a, E> {
    /// `capacity · columns` elements.
    pub elements: &'a [E],
    /// Scales of 8-bit elements, f16 as bits; else empty.
    pub scales: &'a [u16],
    /// Number of slots that fit.
    pub capacity: usize,
    /// Columns of a slot, all heads together.
    pub columns: usize,
}

/// Row-major columns.
#[derive(Clone, Copy)]
pub struct Rows<'a, E> {
    /// `capacity · columns` elements.
    pub elements: &'a [E],
    /// Scales of 8-bit elements, f16 as bits; else empty.
    pub scales: &'a [u16],
    /// Columns of a slot, all heads together.
    pub columns: usize,
}

/// Keys and values of one layer in elements of type `E`.
#[derive(Clone, Copy)]
pub struct Planes<'a, E> {
    /// Keys.
    pub keys: Tiles<'a, E>,
    /// Values.
    pub values: Rows<'a, E>,
}

/// Keys and values of one layer.
#[derive(Clone, Copy)]
pub enum Store<'a> {
    /// f32 elements.
    F32(Planes<'a, f32>),
    /// f16 elements, as bits.
    F16(Planes<'a, u16>),
    /// 8-bit elements.
    Q8(Planes<'a, i8>),
}

/// Interleaved columns of one layer, of any meaning.
#[derive(Clone, Copy)]
pub enum TileStore<'a> {
    /// f32 elements.
    F32(Tiles<'a, f32>),
    /// f16 elements, as bits.
    F16(Tiles<'a, u16>),
    /// 8-bit elements.
    Q8(Tiles<'a, i8>),
}

/// Slots of the ring in the order of their tokens: from `first` on and, after the last slot, from
/// the first one past the sinks.
#[derive(Clone, Copy, Debug)]
pub struct SlotRun {
    /// Slot of the first token.
    pub first: usize,
    /// First slot past the sinks.
    pub wrap_to: usize,
    /// Slots of the ring.
    pub capacity: usize,
}

impl SlotRun {
    /// The slot of token `index`.
    #[inline(always)]
    pub fn slot(&self, index: usize) -> usize {
        let slot = self.first + index;
        if slot < self.capacity {
            slot
        } else {
            slot - self.capacity + self.wrap_to
        }
    }

    /// The first `tokens` tokens as runs `(slots, index of the first token)` in the order of slots,
    /// so that wrapped tokens come first.
    #[inline(always)]
    pub(crate) fn runs(&self, tokens: usize) -> [(Range<usize>, usize); 2] {
        let straight = tokens.min(self.capacity - self.first);
        let wrapped = tokens - straight;
        [
            (self.wrap_to..self.wrap_to + wrapped, straight),
            (self.first..self.first + straight, 0),
        ]
    }
}

/// Panics for an element type that the build does not have; a plan refuses such a type before.
pub(crate) fn not_built() -> ! {
    panic!("this build has no cache of this element type")
}

/// Elements and scales of a tile: the `width` slots from `start` on.
#[inline(always)]
pub(super) fn tile_of<'a, E: Element>(
    tiles: &Tiles<'a, E>,
    start: usize,
    width: usize,
) -> (&'a [E], &'a [u16]) {
    let blocks = tiles.columns.div_ceil(BLOCK);
    let scales = if E::SCALED {
        &tiles.scales[start * blocks..][..width * blocks]
    } else {
        &[]
    };
    (
        &tiles.elements[start * tiles.columns..][..width * tiles.columns],
        scales,
    )
}

/// Loads of an element type.
pub(super) trait Element: Copy + 'static {
    /// True if there is a scale per block of 32 columns.
    const SCALED: bool;
    const ZERO: Self;
    fn load<L: Lanes>(l: L, x: &[Self; 16]) -> L::V;
    fn widen(self) -> f32;
    /// Returns the elements if they are of 8 bits.
    #[inline(always)]
    fn bytes(_: &[Self]) -> Option<&[i8]> {
        None
    }
    /// `acc + Σ factors[n] · x[n · stride..][..16]`, row after row: see [`Lanes::add_rows_i8`].
    #[inline(always)]
    fn add_rows<L: Lanes>(l: L, mut acc: L::V, factors: &[f32], x: &[Self], stride: usize) -> L::V {
        for (n, factor) in factors.iter().enumerate() {
            let Some(row) = x[n * stride..].first_chunk() else {
                unreachable!("a row has sixteen elements")
            };
            acc = l.add(acc, l.mul(l.splat(*factor), Self::load(l, row)));
        }
        acc
    }
    /// Computes `acc += weights · (x · scale)` for elements that have a scale.
    #[inline(always)]
    fn add_scaled<L: Lanes>(
        l: L,
        acc: &mut L::V,
        weights: &[f32; 16],
        x: &[Self; 16],
        scale: &L::V,
    ) {
        let value = l.mul(Self::load(l, x), *scale);
        *acc = l.add(*acc, l.mul(l.load(weights), value));
    }
}

impl Element for f32 {
    const SCALED: bool = false;
    const ZERO: f32 = 0.0;

    #[inline(always)]
    fn load<L: Lanes>(l: L, x: &[f32; 16]) -> L::V {
        l.load(x)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Element for u16 {
    const SCALED: bool = false;
    const ZERO: u16 = 0;

    #[inline(always)]
    fn load<L: Lanes>(l: L, x: &[u16; 16]) -> L::V {
        l.load_f16(x)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        float16::widen(self)
    }
}

impl Element for i8 {
    const SCALED: bool = true;
    const ZERO: i8 = 0;

    #[inline(always)]
    fn load<L: Lanes>(l: L, x: &[i8; 16]) -> L::V {
        l.load_i8(x)
    }

    #[inline(always)]
    fn add_rows<L: Lanes>(l: L, acc: L::V, factors: &[f32], x: &[i8], stride: usize) -> L::V {
        l.add_rows_i8(acc, factors, x, stride)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }

    #[inline(always)]
    fn bytes(x: &[i8]) -> Option<&[i8]> {
        Some(x)
    }
}

/// One tile.
pub(super) struct View<'a, E> {
    pub(super) elements: &'a [E],
    pub(super) scales: &'a [u16],
    pub(super) width: usize,
}

impl<E> Clone for View<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for View<'_, E> {}

/// Tile `tile` of a plane.
#[inline(always)]
pub(super) fn view<'a, E: Element>(tiles: &Tiles<'a, E>, tile: usize) -> View<'a, E> {
    let start = tile * TILE;
    let width = TILE.min(tiles.capacity - start);
    let (elements, scales) = tile_of(tiles, start, width);
    View {
        elements,
        scales,
        width,
    }
}

/// Loads sixteen elements of a column, widened; zeros past a narrow tile's end.
#[inline(always)]
pub(super) fn load<L: Lanes, E: Element, const WHOLE: bool>(
    l: L,
    tile: View<'_, E>,
    column: usize,
    half: usize,
) -> L::V {
    if WHOLE {
        let columns = tile.elements.as_chunks::<16>().0.as_chunks::<2>().0;
        return E::load(l, &columns[column][half]);
    }
    let mut padded = [E::ZERO; 16];
    let column = &tile.elements[column * tile.width..][..tile.width];
    for (to, from) in padded
        .iter_mut()
        .zip(&column[(half * 16).min(tile.width)..])
    {
        *to = *from;
    }
    E::load(l, &padded)
}

/// Loads sixteen slots' scales of a block of columns.
#[inline(always)]
pub(super) fn load_scale<L: Lanes, const WHOLE: bool>(
    l: L,
    scales: &[u16],
    width: usize,
    block: usize,
    half: usize,
) -> L::V {
    if WHOLE {
        return l.load_f16(&scales.as_chunks::<16>().0.as_chunks::<2>().0[block][half]);
    }
    let mut padded = [0; 16];
    let block = &scales[block * width..][..width];
    for (to, from) in padded.iter_mut().zip(&block[(half * 16).min(width)..]) {
        *to = *from;
    }
    l.load_f16(&padded)
}

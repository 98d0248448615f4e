//! One caller-owned buffer: carving it into the parts of a plan, and sharing a part among threads.
//!
//! This module alone holds four kinds of unsafe code:
//! - viewing raw bytes as numbers ([`Carver`]),
//! - giving disjoint parts of one slice to several threads ([`Shared`], which checks at run time
//!   that no part is held twice),
//! - lending a static's memory once ([`StaticArena`], [`StaticTable`]),
//! - reading the bytes at an address in flash ([`Flash`]).
//!
//! On processors without compare-and-swap (Cortex-M0, RISC-V without the extension A) the crate
//! `portable-atomic` stands in for it, in the way that the firmware chooses: see the feature
//! `critical-section`.
#![allow(
    unsafe_code,
    reason = "carving and sharing one buffer is this module's purpose"
)]

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut, Range};
#[cfg(target_has_atomic = "32")]
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

#[cfg(not(target_has_atomic = "32"))]
use portable_atomic::{AtomicBool, AtomicU32, Ordering};

/// Alignment of an arena and of every part of it, in bytes: a cache line and an AVX-512 vector.
pub const ALIGN: usize = 64;

/// Returns the bytes of `count` values of `each` bytes, with the padding to [`ALIGN`]; saturates.
pub(crate) const fn padded(count: usize, each: usize) -> usize {
    match count.saturating_mul(each).checked_next_multiple_of(ALIGN) {
        Some(bytes) => bytes,
        None => usize::MAX,
    }
}

/// Types for which every bit pattern is a valid value.
///
/// # Safety
/// The implementor must be inhabited by every bit pattern, hold no padding, no pointer and no
/// interior mutability, and have an alignment of at most [`ALIGN`].
pub unsafe trait Pod: Copy + Send + Sync + 'static {}

// SAFETY: plain numbers.
unsafe impl Pod for u8 {}
// SAFETY: plain numbers.
unsafe impl Pod for i8 {}
// SAFETY: plain numbers.
unsafe impl Pod for u16 {}
// SAFETY: plain numbers.
unsafe impl Pod for u32 {}
// SAFETY: plain numbers.
unsafe impl Pod for i32 {}
// SAFETY: plain numbers.
unsafe impl Pod for u64 {}
// SAFETY: plain numbers.
unsafe impl Pod for usize {}
// SAFETY: plain numbers.
unsafe impl Pod for f32 {}
// SAFETY: an array's elements follow one another without padding, at the alignment of one.
unsafe impl<T: Pod, const N: usize> Pod for [T; N] {}

/// Bytes of an arena with the alignment that [`Carver::new`] asks for, for statics:
/// `static A: Aligned<{ PLAN.bytes() }>`.
#[repr(C, align(64))]
pub struct Aligned<const N: usize>(pub [u8; N]);

/// Mark that a static's memory is lent, for [`Lender`].
pub struct Lent(AtomicBool);

impl Lent {
    /// Creates the mark of memory that is not lent yet.
    pub const fn new() -> Self {
        Lent(AtomicBool::new(false))
    }

    /// Returns true to the first caller, and false to every later one.
    fn first(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

impl Default for Lent {
    fn default() -> Self {
        Self::new()
    }
}

/// Memory of an arena in a static, for [`Lender`]: `N` bytes, no more. It takes RAM and no flash.
#[repr(transparent)]
pub struct Room<const N: usize>(UnsafeCell<MaybeUninit<Aligned<N>>>);

// SAFETY: the bytes are reached through a `Lender` alone, which gives them to one caller, whichever
// thread or interrupt asks.
unsafe impl<const N: usize> Sync for Room<N> {}

impl<const N: usize> Room<N> {
    /// Creates the memory.
    pub const fn new() -> Self {
        Room(UnsafeCell::new(MaybeUninit::zeroed()))
    }
}

impl<const N: usize> Default for Room<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Lends a static's bytes once, for ever.
#[derive(Clone, Copy)]
pub struct Lender {
    lent: &'static Lent,
    start: *mut u8,
    len: usize,
}

// SAFETY: all copies share one mark, which lets one caller have the bytes, whichever thread asks.
unsafe impl Send for Lender {}
// SAFETY: as above.
unsafe impl Sync for Lender {}

impl Lender {
    /// Lends the bytes of `room`, and marks in `lent` that they are lent. The two may lie in
    /// different memories: only `lent` must be as it was made when the program starts.
    ///
    /// # Safety
    /// No other lender is made of `room`.
    pub const unsafe fn new<const N: usize>(lent: &'static Lent, room: &'static Room<N>) -> Self {
        Lender {
            lent,
            start: room.0.get().cast(),
            len: N,
        }
    }

    /// Number of bytes.
    pub const fn bytes(&self) -> usize {
        self.len
    }

    /// Returns the bytes to the first caller, as zeros, and `None` to every later one.
    pub fn claim(&self) -> Option<&'static mut [u8]> {
        if !self.lent.first() {
            return None;
        }
        // SAFETY: the mark was not set, and this is the only lender over the room (`new`), so
        // nobody else has come or will come here, and this is the only reference that is ever made.
        // The bytes live as long as the static that holds them, and are written before they are
        // read.
        unsafe {
            self.start.write_bytes(0, self.len);
            Some(core::slice::from_raw_parts_mut(self.start, self.len))
        }
    }
}

/// An arena in a static, for firmware: its bytes are lent once, for ever.
///
/// It takes RAM and no flash: `N` bytes, and [`ALIGN`] more for the mark that the bytes are lent.
#[repr(C)]
pub struct StaticArena<const N: usize> {
    room: Room<N>,
    lent: Lent,
}

impl<const N: usize> StaticArena<N> {
    /// Creates an arena that is not lent yet.
    pub const fn new() -> Self {
        StaticArena {
            room: Room::new(),
            lent: Lent::new(),
        }
    }

    /// Returns the lender of the bytes. All lenders of an arena share one mark.
    pub const fn lender(&'static self) -> Lender {
        Lender {
            lent: &self.lent,
            start: self.room.0.get().cast(),
            len: N,
        }
    }

    /// Returns the bytes to the first caller, as zeros, and `None` to every later one.
    pub fn claim(&'static self) -> Option<&'static mut [u8]> {
        self.lender().claim()
    }
}

impl<const N: usize> Default for StaticArena<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// A table in a static that is filled once, item by item in its place, so that no stack holds it:
/// `StaticTable<[MaybeUninit<T>; N]>`, or `StaticTable<[MaybeUninit<T>]>` for any length.
pub struct StaticTable<I: ?Sized> {
    lent: Lent,
    items: UnsafeCell<I>,
}

// SAFETY: the items are reached through `fill` alone, which one caller passes, whichever thread or
// interrupt asks.
unsafe impl<I: ?Sized + Send> Sync for StaticTable<I> {}

impl<T, const N: usize> StaticTable<[MaybeUninit<T>; N]> {
    /// Creates a table without items.
    pub const fn new() -> Self {
        StaticTable {
            lent: Lent::new(),
            items: UnsafeCell::new([const { MaybeUninit::uninit() }; N]),
        }
    }
}

impl<T, const N: usize> Default for StaticTable<[MaybeUninit<T>; N]> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> StaticTable<[MaybeUninit<T>]> {
    /// Fills the table with `item` of each index, and lends it to the first caller; `None` to every
    /// later one.
    ///
    /// # Errors
    /// The first of `item`; the table is then lost.
    pub fn fill<E>(
        &'static self,
        mut item: impl FnMut(usize) -> Result<T, E>,
    ) -> Option<Result<&'static [T], E>> {
        if !self.lent.first() {
            return None;
        }
        // SAFETY: the mark was not set, so this is the only call that comes here, and the only
        // reference that is ever made. The items live as long as the static.
        let items = unsafe { &mut *self.items.get() };
        for (i, place) in items.iter_mut().enumerate() {
            match item(i) {
                Ok(value) => place.write(value),
                Err(error) => return Some(Err(error)),
            };
        }
        // SAFETY: the loop has written every item, and `MaybeUninit<T>` has the layout of `T`.
        Some(Ok(unsafe {
            core::slice::from_raw_parts(items.as_ptr().cast(), items.len())
        }))
    }
}

/// Bytes of flash at an address, for [`crate::firmware::Flashed`].
#[derive(Clone, Copy, Debug)]
pub struct Flash {
    address: usize,
    len: usize,
}

impl Flash {
    /// Names the `len` bytes at `address`.
    ///
    /// # Safety
    /// The address is not zero, all the bytes can be read, and nothing writes them while the
    /// program runs.
    pub const unsafe fn new(address: usize, len: usize) -> Self {
        Flash { address, len }
    }

    /// Address of the first byte.
    pub const fn address(self) -> usize {
        self.address
    }

    /// The bytes.
    pub fn bytes(self) -> &'static [u8] {
        let start = core::ptr::with_exposed_provenance(self.address);
        // SAFETY: the caller of `new` promised that these bytes can be read and do not change;
        // every bit pattern is a valid `u8`.
        unsafe { core::slice::from_raw_parts(start, self.len) }
    }
}

/// Takes parts off the front of a buffer, each aligned to [`ALIGN`].
pub struct Carver<'a> {
    rest: &'a mut [u8],
}

impl<'a> Carver<'a> {
    /// Creates a carver at the front of `buffer`; `None` if `buffer` is not aligned to [`ALIGN`].
    pub fn new(buffer: &'a mut [u8]) -> Option<Self> {
        buffer
            .as_ptr()
            .addr()
            .is_multiple_of(ALIGN)
            .then_some(Carver { rest: buffer })
    }

    /// Number of bytes that `len` values of `T` take from the buffer, including the padding to the
    /// next part.
    pub const fn part_bytes<T: Pod>(len: usize) -> Option<usize> {
        match len.checked_mul(size_of::<T>()) {
            Some(bytes) => bytes.checked_next_multiple_of(ALIGN),
            None => None,
        }
    }

    /// Takes the next `len` values of `T`, with the bytes that are there; `None` if the buffer is
    /// too short.
    pub fn take<T: Pod>(&mut self, len: usize) -> Option<&'a mut [T]> {
        let bytes = Self::part_bytes::<T>(len)?;
        if bytes > self.rest.len() {
            return None;
        }
        let (part, rest) = core::mem::take(&mut self.rest).split_at_mut(bytes);
        self.rest = rest;
        // SAFETY: `part` starts at a multiple of `ALIGN` (the buffer does, and every part before it
        // is a multiple long), which `Pod` types' alignment divides; it holds at least
        // `len * size_of::<T>()` bytes; every bit pattern is a valid `T`; the exclusive borrow of
        // the bytes moves into the result and is used for nothing else.
        Some(unsafe { core::slice::from_raw_parts_mut(part.as_mut_ptr().cast::<T>(), len) })
    }
}

/// Largest number of parts that a [`Shared`] can be divided into.
pub const MAX_PARTS: usize = 256;

/// A row-major matrix that several threads write at once, each its own range of columns.
///
/// [`Shared::take`] hands out each column range to at most one holder at a time. One atomic bit per
/// range checks this, so the interface is safe for any caller.
pub struct Shared<'a, T> {
    ptr: *mut T,
    rows: usize,
    stride: usize,
    chunk: usize,
    claimed: [AtomicU32; MAX_PARTS / 32],
    _owns: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Shared` only gives out `Columns`, which never overlap (see `take`); sending those to
// other threads is sending `&mut [T]`, which is sound for `T: Send`.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above; it owns the exclusive borrow it was made from.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Divides `matrix`, rows of `stride` values, into ranges of `chunk` columns (the last may be
    /// narrower).
    ///
    /// # Panics
    /// If `matrix` is not whole rows, or there would be more than [`MAX_PARTS`] ranges.
    pub fn new(matrix: &'a mut [T], stride: usize, chunk: usize) -> Self {
        assert!(stride > 0 && chunk > 0 && matrix.len().is_multiple_of(stride));
        assert!(stride.div_ceil(chunk) <= MAX_PARTS);
        Shared {
            rows: matrix.len() / stride,
            ptr: matrix.as_mut_ptr(),
            stride,
            chunk,
            claimed: [const { AtomicU32::new(0) }; MAX_PARTS / 32],
            _owns: PhantomData,
        }
    }

    /// Number of column ranges.
    pub fn parts(&self) -> usize {
        self.stride.div_ceil(self.chunk)
    }

    /// Takes column range `part`, in all rows.
    ///
    /// # Panics
    /// If there is no such range or it is held already.
    pub fn take(&self, part: usize) -> Columns<'_, T> {
        self.take_several(part, 1)
    }

    /// Takes column ranges `first..first + count`, which lie side by side, in all rows.
    ///
    /// # Panics
    /// If `count` is 0, if there are no such ranges, or if one is held already.
    pub fn take_several(&self, first: usize, count: usize) -> Columns<'_, T> {
        let parts = self.parts();
        let is_there = first < parts && (1..=parts - first).contains(&count);
        assert!(is_there, "no such part");
        let mut claim = Claim {
            words: &self.claimed,
            parts: first..first,
        };
        while claim.parts.end < first + count {
            let from = claim.parts.end;
            let (word, mask, end) = bits(from..first + count);
            // Acquire pairs with the release in `drop`: the next holder sees what the last one
            // wrote.
            let held = self.claimed[word].fetch_or(mask, Ordering::Acquire) & mask;
            if held != 0 {
                // What others hold stays theirs; `claim` gives back the words before.
                self.claimed[word].fetch_and(!(mask & !held), Ordering::Release);
                panic!("part is held already");
            }
            claim.parts.end = end;
        }
        let start = first * self.chunk;
        Columns {
            // SAFETY: `first < parts`, so `start < stride`, and the pointer stays inside the matrix
            // (or at its end if it has no rows).
            ptr: unsafe { self.ptr.add(if self.rows == 0 { 0 } else { start }) },
            rows: self.rows,
            stride: self.stride,
            width: (count * self.chunk).min(self.stride - start),
            _claim: Some(claim),
            _borrow: PhantomData,
        }
    }
}

/// Parts of a [`Shared`] that are held; given back when dropped.
struct Claim<'a> {
    words: &'a [AtomicU32],
    parts: Range<usize>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let Range { mut start, end } = self.parts;
        while start < end {
            let (word, mask, next) = bits(start..end);
            self.words[word].fetch_and(!mask, Ordering::Release);
            start = next;
        }
    }
}

/// The word with the first of `parts`, the bits of all of them that it has, and the part after
/// those. `parts` is not empty.
fn bits(parts: Range<usize>) -> (usize, u32, usize) {
    let word = parts.start / 32;
    let end = parts.end.min(32 * (word + 1));
    let mask = u32::MAX >> (32 - (end - parts.start)) << (parts.start % 32);
    (word, mask, end)
}

/// A range of columns of a row-major matrix, exclusively held.
pub struct Columns<'a, T> {
    ptr: *mut T,
    rows: usize,
    stride: usize,
    width: usize,
    _claim: Option<Claim<'a>>,
    _borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Columns` is an exclusive borrow of values (two `Columns` never overlap), plus a shared
// atomic.
unsafe impl<T: Send> Send for Columns<'_, T> {}

impl<'a, T> Columns<'a, T> {
    /// All columns of `matrix`, rows of `stride` values.
    ///
    /// # Panics
    /// If `matrix` is not whole rows.
    pub fn all(matrix: &'a mut [T], stride: usize) -> Self {
        assert!(stride > 0 && matrix.len().is_multiple_of(stride));
        let rows = matrix.len() / stride;
        Columns {
            ptr: matrix.as_mut_ptr(),
            rows,
            stride,
            width: stride,
            _claim: None,
            _borrow: PhantomData,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns in the range.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The range's values in row `row`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows);
        // SAFETY: the `width` values at `ptr + row * stride` lie inside the matrix that the
        // `Shared` or `all` borrowed exclusively, and in this range of columns, which no other
        // `Columns` holds; `&mut self` keeps the result unique.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.add(row * self.stride), self.width) }
    }
}

impl<T> Deref for Columns<'_, T> {
    type Target = [T];

    /// The values of the first row: for a matrix of one row, all of them.
    fn deref(&self) -> &[T] {
        assert!(self.rows > 0);
        // SAFETY: as in `row_mut`, for row 0, shared.
        unsafe { core::slice::from_raw_parts(self.ptr, self.width) }
    }
}

impl<T> DerefMut for Columns<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.row_mut(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carves_aligned_parts_until_the_end() {
        let mut buffer = Aligned([0u8; 256]);
        let mut carver = Carver::new(&mut buffer.0).unwrap();
        let a = carver.take::<f32>(5).unwrap();
        let b = carver.take::<u8>(65).unwrap();
        assert!(b.as_ptr().addr().is_multiple_of(ALIGN));
        assert_eq!(b.as_ptr().addr() - a.as_ptr().addr(), 64);
        assert!(carver.take::<u64>(9).is_none());
        assert!(carver.take::<u64>(8).is_some());
    }

    #[test]
    fn parts_have_one_holder_at_a_time() {
        use std::panic::{AssertUnwindSafe, catch_unwind};

        let mut matrix = std::vec![0u16; 2 * 995];
        let shared = Shared::new(&mut matrix, 995, 10);
        assert_eq!(shared.parts(), 100);
        let refused = |first, count| {
            let taken = catch_unwind(AssertUnwindSafe(|| {
                shared.take_several(first, count).width()
            }));
            assert!(taken.is_err(), "{first}, {count}");
        };
        let mut held = shared.take_several(20, 50);
        assert_eq!((held.rows(), held.width()), (2, 500));
        for (first, count) in [(0, 21), (69, 1), (60, 40), (30, 2), (0, 100)] {
            refused(first, count);
        }
        for (first, count) in [(5, 0), (100, 1), (99, 2), (0, usize::MAX)] {
            refused(first, count);
        }
        // A refusal keeps nothing of what was free, and gives back nothing of what is held.
        shared.take_several(0, 20).row_mut(1).fill(1);
        let mut last = shared.take_several(70, 30);
        assert_eq!(last.width(), 295);
        last.row_mut(0).fill(2);
        refused(20, 1);
        held.row_mut(1).fill(3);
        drop((held, last));
        drop(shared.take_several(0, 100));
        assert_eq!([&matrix[994..996], &matrix[1194..1196]], [[2, 1], [1, 3]]);
    }

    #[test]
    fn a_static_arena_is_lent_once() {
        static ARENA: StaticArena<128> = StaticArena::new();
        let lent: std::vec::Vec<_> = std::thread::scope(|scope| {
            let threads: std::vec::Vec<_> = (0..4).map(|_| scope.spawn(|| ARENA.claim())).collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(lent.len(), 1);
        assert!(lent[0].iter().all(|byte| *byte == 0) && lent[0].len() == 128);
        assert!(lent[0].as_ptr().addr().is_multiple_of(ALIGN));
        assert!(ARENA.claim().is_none());
    }

    #[test]
    fn room_and_mark_may_be_statics_of_their_own() {
        static LENT: Lent = Lent::new();
        static ROOM: Room<192> = Room::new();
        // SAFETY: nothing else names these statics.
        static LENDER: Lender = unsafe { Lender::new(&LENT, &ROOM) };
        assert_eq!((LENDER.bytes(), size_of_val(&ROOM)), (192, 192));
        let other = LENDER;
        let bytes = LENDER.claim().unwrap();
        assert!(bytes.len() == 192 && bytes.as_ptr().addr().is_multiple_of(ALIGN));
        bytes.fill(7);
        assert!(other.claim().is_none() && LENDER.claim().is_none());
        assert!(bytes.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_table_is_filled_once() {
        static FIRST: StaticTable<[MaybeUninit<usize>; 3]> = StaticTable::new();
        static SECOND: StaticTable<[MaybeUninit<usize>; 3]> = StaticTable::new();
        let first: &StaticTable<[MaybeUninit<usize>]> = &FIRST;
        let filled = first.fill(|i| Ok::<_, ()>(10 * i)).unwrap();
        assert_eq!(filled, Ok(&[0, 10, 20][..]));
        assert!(first.fill(Ok::<_, ()>).is_none());
        let second: &StaticTable<[MaybeUninit<usize>]> = &SECOND;
        let failed = second.fill(|i| if i < 2 { Ok(i) } else { Err("no third item") });
        assert_eq!(failed, Some(Err("no third item")));
        assert!(second.fill(Ok::<_, ()>).is_none());
    }

    #[test]
    fn columns_are_disjoint_and_return() {
        let mut data = [0; 3 * 10];
        let shared = Shared::new(&mut data, 10, 4);
        assert_eq!(shared.parts(), 3);
        for part in 0..3 {
            let mut columns = shared.take(part);
            assert_eq!(columns.width(), [4, 4, 2][part]);
            for row in 0..3 {
                columns.row_mut(row).fill(10 * part + row + 1);
            }
        }
        drop(shared.take(1));
        assert_eq!(data[..10], [1, 1, 1, 1, 11, 11, 11, 11, 21, 21]);
        assert_eq!(data[20..], [3, 3, 3, 3, 13, 13, 13, 13, 23, 23]);
    }

    #[test]
    #[should_panic(expected = "held already")]
    fn a_part_cannot_be_held_twice() {
        let mut data = [0; 8];
        let shared = Shared::new(&mut data, 8, 4);
        let _one = shared.take(1);
        let _two = shared.take(1);
    }
}

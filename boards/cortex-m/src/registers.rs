//! Reads and writes at addresses: registers of peripherals, and the stack's paint.
#![allow(
    unsafe_code,
    reason = "peripherals and the stack are memory that Rust knows nothing of"
)]

use core::ptr::{
    read_volatile, with_exposed_provenance, with_exposed_provenance_mut, write_volatile,
};

/// Registers of one peripheral: words at offsets from a base address.
pub struct Registers(usize);

impl Registers {
    /// Those at `base`.
    ///
    /// # Safety
    /// A peripheral has its registers there, of at least 4 KiB; reading and writing them touches no
    /// memory of this program.
    pub const unsafe fn new(base: usize) -> Self {
        Registers(base)
    }

    /// Reads the register at `offset`, a multiple of 4.
    ///
    /// # Panics
    /// If the offset is beyond 4 KiB or odd.
    pub fn read(&self, offset: usize) -> u32 {
        // SAFETY: an aligned word of the peripheral.
        unsafe { read_volatile(with_exposed_provenance(self.address(offset))) }
    }

    /// Writes the register at `offset`, a multiple of 4.
    ///
    /// # Panics
    /// If the offset is beyond 4 KiB or odd.
    pub fn write(&self, offset: usize, value: u32) {
        // SAFETY: an aligned word of the peripheral, which is no memory of this program.
        unsafe { write_volatile(with_exposed_provenance_mut(self.address(offset)), value) }
    }

    fn address(&self, offset: usize) -> usize {
        assert!(offset < 4096 && offset.is_multiple_of(4));
        self.0 + offset
    }
}

/// Bytes of the stack used since the start, and bytes of the whole stack.
///
/// cortex-m-rt paints it before `main`; the lowest word that is no longer paint marks the greatest
/// depth of the stack.
pub fn stack() -> (usize, usize) {
    unsafe extern "C" {
        static _stack_end: u32;
        static _stack_start: u32;
    }
    let (low, high) = (&raw const _stack_end, &raw const _stack_start);
    let words = (high.addr() - low.addr()) / 4;
    let painted = (0..words)
        .take_while(|&word| {
            // SAFETY: the linker script puts both symbols around the stack's memory, which is whole
            // words, can be read, and is volatile since calls below this one change it.
            let value = unsafe { read_volatile(low.wrapping_add(word)) };
            value == cortex_m_rt::STACK_PAINT_VALUE
        })
        .count();
    (4 * (words - painted), 4 * words)
}

//! The log, on the chip's second serial port: the first is for the story alone.

use core::fmt;

use safe_mmio::{UniqueMmioPointer, field, field_shared};

use crate::peripherals::Auxiliary;

/// 115,200 bits per second while the core's clock is at 250 MHz.
const SPEED: u32 = 250_000_000 / (8 * 115_200) - 1;

/// AUX_MU_LSR: there is room for a byte.
const ROOM: u32 = 1 << 5;

/// The mini UART, which only sends here.
pub struct Log {
    device: UniqueMmioPointer<'static, Auxiliary>,
}

impl Log {
    /// The log on a port that [`Log::open`] may have opened or not.
    pub const fn new(device: UniqueMmioPointer<'static, Auxiliary>) -> Self {
        Log { device }
    }

    /// Opens the port. It is given no pin: the two of the header are the first port's.
    pub fn open(&mut self) {
        field!(self.device, enables).modify(|enables| enables | 1);
        field!(self.device, line_control).write(3);
        field!(self.device, speed).write(SPEED);
    }

    fn send(&mut self, byte: u8) {
        while field_shared!(self.device, line_status).read() & ROOM == 0 {}
        field!(self.device, data).write(byte.into());
    }
}

impl fmt::Write for Log {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.send(byte));
        Ok(())
    }
}

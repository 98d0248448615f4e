//! The UART of Arm's Cortex-M system design kit (APB UART, Arm DDI 0479, section 4.3).

use core::convert::Infallible;

use embedded_io::{ErrorType, Write};

use crate::data;
use crate::registers::Registers;

const DATA: usize = 0x00;
const STATE: usize = 0x04;
const CTRL: usize = 0x08;
const INTERRUPT: usize = 0x0C;
const BAUD_DIVIDER: usize = 0x10;

/// STATE: the transmitter's buffer is full; the receiver's holds a byte.
const TX_FULL: u32 = 1 << 0;
const RX_FULL: u32 = 1 << 1;
/// CTRL: transmitter, receiver, and the receiver's interrupt.
const TX_ON: u32 = 1 << 0;
const RX_ON: u32 = 1 << 1;
const RX_INTERRUPT: u32 = 1 << 3;
/// INTERRUPT: the receiver's.
const RECEIVED: u32 = 1 << 1;

/// Bits a second.
const BAUD: u32 = 115_200;

/// A UART that sends; bytes that it receives are read by [`receive`].
pub struct Uart(Registers);

impl Uart {
    /// Switches the UART on. With `listens` it receives, too, and asks for an interrupt at every
    /// byte.
    pub fn new(registers: Registers, listens: bool) -> Self {
        registers.write(BAUD_DIVIDER, (data::CLOCK / BAUD).max(16));
        let receiver = if listens { RX_ON | RX_INTERRUPT } else { 0 };
        registers.write(CTRL, TX_ON | receiver);
        Uart(registers)
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        for byte in bytes {
            while self.0.read(STATE) & TX_FULL != 0 {}
            self.0.write(DATA, (*byte).into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        while self.0.read(STATE) & TX_FULL != 0 {}
        Ok(())
    }
}

/// The byte that the UART holds, if it does; for its interrupt.
pub fn receive(registers: &Registers) -> Option<u8> {
    registers.write(INTERRUPT, RECEIVED);
    (registers.read(STATE) & RX_FULL != 0).then(|| registers.read(DATA) as u8)
}

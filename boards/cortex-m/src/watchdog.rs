//! The watchdog of Arm's Cortex-M system design kit (APB watchdog, Arm DDI 0479, section 4.5):
//! after the first countdown it raises an interrupt, after the second it resets the board.

use crate::data;
use crate::registers::Registers;

const LOAD: usize = 0x00;
const CONTROL: usize = 0x08;
const CLEAR: usize = 0x0C;
const LOCK: usize = 0xC00;

/// CONTROL: count down; reset after the second countdown.
const COUNT: u32 = 1 << 0;
const RESET: u32 = 1 << 1;
/// LOCK: lets the other registers be written.
const KEY: u32 = 0x1ACC_E551;

/// Resets the board unless it is fed.
pub struct Watchdog(Registers);

impl Watchdog {
    /// Not running yet.
    pub fn new(registers: Registers) -> Self {
        Watchdog(registers)
    }

    /// Starts it.
    pub fn start(&mut self) {
        // Half of the time until the interrupt, which has no handler, and half until the reset.
        let ticks = u64::from(data::WATCHDOG_CLOCK) * u64::from(data::WATCHDOG_SECONDS) / 2;
        self.unlocked(|registers| {
            registers.write(LOAD, u32::try_from(ticks).unwrap_or(u32::MAX));
            registers.write(CONTROL, COUNT | RESET);
        });
    }

    /// Starts its time afresh.
    pub fn feed(&mut self) {
        self.unlocked(|registers| registers.write(CLEAR, 1));
    }

    /// Stops it.
    pub fn stop(&mut self) {
        self.unlocked(|registers| registers.write(CONTROL, 0));
    }

    fn unlocked(&mut self, change: impl FnOnce(&Registers)) {
        self.0.write(LOCK, KEY);
        change(&self.0);
        self.0.write(LOCK, 0);
    }
}

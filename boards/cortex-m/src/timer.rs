//! A clock that counts the processor's cycles: SysTick, which every Cortex-M has.

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;

/// SysTick counts down through 24 bits.
const MASK: u32 = 0xFF_FFFF;

/// Cycles since the start, if it is read at least once every 2^24 cycles.
pub struct Timer {
    systick: SYST,
    last: u32,
    cycles: u32,
}

impl Timer {
    /// Starts it.
    pub fn new(mut systick: SYST) -> Self {
        systick.set_clock_source(SystClkSource::Core);
        systick.set_reload(MASK);
        systick.clear_current();
        systick.enable_counter();
        Timer {
            systick,
            last: MASK,
            cycles: 0,
        }
    }

    /// Cycles, wrapping at 2^32.
    pub fn now(&mut self) -> u32 {
        let count = self.systick.cvr.read();
        let passed = self.last.wrapping_sub(count) & MASK;
        self.last = count;
        self.cycles = self.cycles.wrapping_add(passed);
        self.cycles
    }
}

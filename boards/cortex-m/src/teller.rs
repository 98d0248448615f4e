//! The board as the story sees it.

use brooklet_firmware::{Board, Event};
use embedded_io::Write;

use crate::interrupt::{self, Peripherals};
use crate::registers::stack;
use crate::timer::Timer;
use crate::uart::Uart;
use crate::watchdog::Watchdog;

/// Tokens between two progress lines of the log.
const REPORT: u32 = 100;

/// Speaks and listens on the UART, logs, and feeds the watchdog.
pub struct Teller {
    uart: Uart,
    watchdog: Watchdog,
    timer: Timer,
    said: u32,
}

impl Teller {
    /// Starts the log and the watchdog.
    pub fn new(peripherals: Peripherals) -> Self {
        let Peripherals {
            uart,
            log,
            mut watchdog,
            timer,
        } = peripherals;
        crate::log::start(log);
        watchdog.start();
        Teller {
            uart,
            watchdog,
            timer,
            said: 0,
        }
    }

    /// Stops the watchdog and waits for ever: after an error that a restart would only repeat.
    pub fn halt(mut self) -> ! {
        self.watchdog.stop();
        loop {
            cortex_m::asm::wfi();
        }
    }

    fn report(&mut self, ticks: u32) {
        let (used, room) = stack();
        defmt::info!(
            "{=u32} tokens, {=u32} cycles the last, stack {=usize} of {=usize} bytes",
            self.said,
            ticks,
            used,
            room
        );
    }
}

impl Board for Teller {
    fn say(&mut self, text: &str) {
        let Ok(()) = self.uart.write_all(text.as_bytes());
    }

    fn heard(&mut self) -> Option<u8> {
        let lost = interrupt::lost();
        if lost > 0 {
            defmt::warn!(
                "{=u32} bytes came faster than they were read, and are lost",
                lost
            );
        }
        interrupt::typed()
    }

    fn ticks(&mut self) -> u32 {
        self.timer.now()
    }

    fn event(&mut self, event: Event) {
        self.watchdog.feed();
        match event {
            Event::Prompt { tokens } => defmt::info!("a prompt of {=usize} tokens", tokens),
            Event::TooLong => {
                defmt::warn!(
                    "a line longer than {=usize} bytes is thrown away",
                    brooklet_firmware::LINE
                );
            }
            Event::Prefilled { tokens, ticks } => {
                defmt::debug!(
                    "{=usize} tokens of the prompt took {=u32} cycles",
                    tokens,
                    ticks
                );
            }
            Event::Said { id, ticks } => {
                defmt::trace!("token {=u32} took {=u32} cycles", id, ticks);
                self.said = self.said.wrapping_add(1);
                if self.said.is_multiple_of(REPORT) {
                    self.report(ticks);
                }
            }
        }
    }
}

//! Typed bytes: the UART's interrupt puts them in a queue, from which the program takes them.
#![allow(
    unsafe_code,
    reason = "the base addresses of peripherals, and switching an interrupt on"
)]

use core::cell::RefCell;

use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;
use cortex_m_rt::exception;
use critical_section::Mutex;
use heapless::spsc::Queue;

use crate::data;
use crate::registers::Registers;
use crate::timer::Timer;
use crate::uart::{self, Uart};
use crate::watchdog::Watchdog;

/// Bytes that wait; more than a line, so that one can be typed while a token is computed.
const WAITING: usize = 256;

static TYPED: Mutex<RefCell<Typed>> = Mutex::new(RefCell::new(Typed {
    queue: Queue::new(),
    lost: 0,
}));

struct Typed {
    queue: Queue<u8, WAITING>,
    lost: u32,
}

/// An interrupt of this board, by number.
#[derive(Clone, Copy)]
struct Interrupt(u16);

// SAFETY: the number is the board's and does not change.
unsafe impl InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self.0
    }
}

/// The UART that listens and speaks, the one for the log, and the watchdog: once.
pub struct Peripherals {
    /// For the story.
    pub uart: Uart,
    /// For the log.
    pub log: Uart,
    /// Not running yet.
    pub watchdog: Watchdog,
    /// Counting from now on.
    pub timer: Timer,
}

impl Peripherals {
    /// Switches them on; `None` to all who ask after the first.
    pub fn take() -> Option<Self> {
        // The core's own peripherals are lent once, and so are these.
        let core = cortex_m::Peripherals::take()?;
        // SAFETY: these are the base addresses of the peripherals in boards.toml.
        let [uart, log, watchdog] = [data::UART, data::LOG_UART, data::WATCHDOG]
            .map(|base| unsafe { Registers::new(base) });
        let peripherals = Peripherals {
            uart: Uart::new(uart, true),
            log: Uart::new(log, false),
            watchdog: Watchdog::new(watchdog),
            timer: Timer::new(core.SYST),
        };
        // SAFETY: the handler below may run from now on; all that it shares with the rest is behind
        // a critical section.
        unsafe { NVIC::unmask(Interrupt(data::UART_IRQ as u16)) };
        Some(peripherals)
    }
}

/// The oldest byte in the queue, which is removed.
pub fn typed() -> Option<u8> {
    critical_section::with(|cs| TYPED.borrow_ref_mut(cs).queue.dequeue())
}

/// Number of bytes lost since the last call because the queue was full.
pub fn lost() -> u32 {
    critical_section::with(|cs| core::mem::take(&mut TYPED.borrow_ref_mut(cs).lost))
}

/// All interrupts come here; only the UART's is switched on.
///
/// # Safety
/// Called by the processor alone.
#[exception]
unsafe fn DefaultHandler(number: i16) {
    if number != data::UART_IRQ {
        return;
    }
    // SAFETY: boards.toml says that the UART has its registers there. `Uart` only sends and
    // this handler only receives: neither changes what the other one reads.
    let registers = unsafe { Registers::new(data::UART) };
    while let Some(byte) = uart::receive(&registers) {
        critical_section::with(|cs| {
            let mut typed = TYPED.borrow_ref_mut(cs);
            if typed.queue.enqueue(byte).is_err() {
                typed.lost += 1;
            }
        });
    }
}

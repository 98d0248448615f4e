//! The board as a program sees it.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTVCT_EL0, Readable};
use arm_pl011_uart::{DataBits, LineConfig, Parity, StopBits};
use safe_mmio::{field, field_shared};

use crate::log::Log;
use crate::peripherals::Peripherals;
use crate::start;

/// Speed of the serial port, in bits per second.
const BAUD: u32 = 115_200;

/// The serial port's clock: what the board's firmware sets unless config.txt says otherwise
/// (`init_uart_clock`).
const UART_CLOCK: u32 = 48_000_000;

/// A watchdog register is written with this in its highest byte.
const PASSWORD: u32 = 0x5A00_0000;

/// PM_RSTC: the field of the action on timeout, and its value for a reset of the whole chip.
const ON_TIMEOUT: u32 = 0x30;
const FULL_RESET: u32 = 0x20;

/// Time that the watchdog is given when fed: its longest, nearly 16 s.
const WATCHDOG_TIME: u32 = 0xF_FFFF;

/// Time until a reset that is asked for, in units of 2^-16 s.
const AT_ONCE: u32 = 10;

/// Result of a read from the serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing was sent here.
    Nothing,
    /// A byte.
    Byte(u8),
    /// A byte was damaged on the wire, or the port's buffer was full.
    Damage,
}

/// A Raspberry Pi 3: serial port on pins 14 and 15, log, clock, watchdog, stack.
pub struct Board {
    devices: Peripherals,
}

impl Board {
    /// The board, with its serial ports open and its stack painted, to the first who asks; `None`
    /// to all others.
    pub fn claim() -> Option<Board> {
        start::paint_stack();
        let mut board = Board {
            devices: Peripherals::claim()?,
        };
        board.open_serial();
        board.devices.log.open();
        Some(board)
    }

    /// Gives the pins to the serial port and sets its speed.
    fn open_serial(&mut self) {
        // Pins 14 and 15 get their function ALT0 (0b100 each), the PL011's lines.
        field!(self.devices.gpio, function_1).modify(|pins| pins & !(0o77 << 12) | 0o44 << 12);
        // No pull on either: set, wait 150 cycles, clock it in, wait, release.
        field!(self.devices.gpio, pull).write(0);
        pause();
        field!(self.devices.gpio, pull_clock).write(1 << 14 | 1 << 15);
        pause();
        field!(self.devices.gpio, pull_clock).write(0);
        let line = LineConfig {
            data_bits: DataBits::Bits8,
            parity: Parity::None,
            stop_bits: StopBits::One,
        };
        self.devices
            .uart
            .enable(line, BAUD, UART_CLOCK)
            .expect("the clock divides to this speed");
    }

    /// Takes what was sent here next. The port itself holds 16 bytes: bytes are lost if the pause
    /// between two calls is longer than the time to send those, 1.4 ms at this speed.
    pub fn heard(&mut self) -> Heard {
        match self.devices.uart.read_word() {
            Ok(None) => Heard::Nothing,
            Ok(Some(byte)) => Heard::Byte(byte),
            Err(_) => Heard::Damage,
        }
    }

    /// The log, for text that is not part of the story.
    pub fn log(&mut self) -> &mut Log {
        &mut self.devices.log
    }

    /// Tells the watchdog that all is well; without another call within 16 s the board resets. Does
    /// nothing without the feature `watchdog`.
    pub fn feed_watchdog(&mut self) {
        if cfg!(feature = "watchdog") {
            self.arm(WATCHDOG_TIME);
        }
    }

    /// Resets the board once all is sent.
    pub fn reset(mut self) -> ! {
        while self.devices.uart.is_busy() {}
        self.arm(AT_ONCE);
        loop {
            core::hint::spin_loop();
        }
    }

    /// Has the chip reset itself after `time`, in units of 2^-16 s.
    fn arm(&mut self, time: u32) {
        field!(self.devices.power, watchdog).write(PASSWORD | time);
        let control = field_shared!(self.devices.power, reset_control).read();
        field!(self.devices.power, reset_control)
            .write(PASSWORD | control & 0x00FF_FFFF & !ON_TIMEOUT | FULL_RESET);
    }
}

impl Write for Board {
    /// Sends `text`, with a carriage return before each line feed, as terminals expect.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            match part.strip_suffix('\n') {
                Some(line) => {
                    self.devices.uart.write_str(line)?;
                    self.devices.uart.write_str("\r\n")?;
                }
                None => self.devices.uart.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// The low half of the counter, which [`microseconds`] converts.
pub fn ticks() -> u32 {
    CNTVCT_EL0.get() as u32
}

/// Converts a difference of [`ticks`] to microseconds.
pub fn microseconds(ticks: u32) -> u64 {
    u64::from(ticks) * 1_000_000 / CNTFRQ_EL0.get().max(1)
}

/// Bytes of the stack: the most that were in use since the board was claimed, and all.
pub fn stack_used() -> (usize, usize) {
    start::stack_used()
}

/// Says over the serial port what went wrong and resets: what a program's panic handler calls.
pub fn report_and_reset(info: &PanicInfo<'_>) -> ! {
    Peripherals::seize(|devices| {
        let mut board = Board { devices };
        board.open_serial();
        // The port cannot fail; a `Display` in the message that does costs only the rest of the
        // message.
        let _ = writeln!(board, "\n{info}");
        board.reset()
    })
}

/// Waits more than 150 cycles of the pins' clock.
fn pause() {
    for _ in 0..1000 {
        core::hint::spin_loop();
    }
}

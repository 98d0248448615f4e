//! The chip's devices that are used, as registers (Broadcom, BCM2835 ARM Peripherals; the Pi 3 has
//! them at 0x3F000000), and the control of access to them.
#![allow(
    unsafe_code,
    reason = "a device is an address that only this file can vouch for"
)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use arm_pl011_uart::{PL011Registers, Uart};
use safe_mmio::UniqueMmioPointer;
use safe_mmio::fields::{ReadPure, ReadPureWrite, WriteOnly};

use crate::log::Log;

const POWER: usize = 0x3F10_0000;
const GPIO: usize = 0x3F20_0000;
const UART0: usize = 0x3F20_1000;
const AUXILIARY: usize = 0x3F21_5000;

/// Power management, of which this is the watchdog. A write counts only with the password in its
/// highest byte.
#[repr(C)]
pub struct Power {
    _before: [u8; 0x1c],
    /// PM_RSTC: what the watchdog does when it runs out.
    pub reset_control: ReadPureWrite<u32>,
    _between: [u8; 4],
    /// PM_WDOG: time left, in units of 2^-16 s.
    pub watchdog: ReadPureWrite<u32>,
}

/// Pins, of which these are the registers of pins 10 to 19 and of the pulls (chapter 6).
#[repr(C)]
pub struct Gpio {
    _function_0: u32,
    /// GPFSEL1: functions of pins 10 to 19, three bits each.
    pub function_1: ReadPureWrite<u32>,
    _between: [u8; 0x94 - 0x08],
    /// GPPUD: the pull to set.
    pub pull: ReadPureWrite<u32>,
    /// GPPUDCLK0: the pins, of 0 to 31, to set it for.
    pub pull_clock: WriteOnly<u32>,
}

/// Auxiliary devices, of which this is the mini UART (chapter 2).
#[repr(C)]
pub struct Auxiliary {
    _interrupt: u32,
    /// AUX_ENABLES: bit 0 turns the mini UART on, and its other registers with it.
    pub enables: ReadPureWrite<u32>,
    _between: [u8; 0x40 - 0x08],
    /// AUX_MU_IO: the next byte to send. Reading it would take a byte out.
    pub data: WriteOnly<u32>,
    _interrupts: [u32; 2],
    /// AUX_MU_LCR: both low bits set for bytes of 8 bits.
    pub line_control: ReadPureWrite<u32>,
    _modem_control: u32,
    /// AUX_MU_LSR: bit 5 says that there is room for a byte. Reading it clears bit 1, which nobody
    /// asks for.
    pub line_status: ReadPure<u32>,
    _others: [u32; 4],
    /// AUX_MU_BAUD: the speed is the core's clock by 8 times one more than this.
    pub speed: ReadPureWrite<u32>,
}

const _: () = {
    assert!(core::mem::offset_of!(Power, watchdog) == 0x24);
    assert!(core::mem::offset_of!(Gpio, pull_clock) == 0x98);
    assert!(core::mem::offset_of!(Auxiliary, data) == 0x40);
    assert!(core::mem::offset_of!(Auxiliary, line_status) == 0x54);
    assert!(core::mem::offset_of!(Auxiliary, speed) == 0x68);
};

/// The devices, each exclusively held.
pub struct Peripherals {
    pub power: UniqueMmioPointer<'static, Power>,
    pub gpio: UniqueMmioPointer<'static, Gpio>,
    pub uart: Uart<'static>,
    pub log: Log,
}

impl Peripherals {
    /// The devices, to the first who asks; `None` to all others.
    pub fn claim() -> Option<Peripherals> {
        static CLAIMED: AtomicBool = AtomicBool::new(false);
        if CLAIMED.swap(true, Ordering::Relaxed) {
            return None;
        }
        // SAFETY: this comes here once, so nobody has the devices yet; `seize` is the only other
        // way to them.
        Some(unsafe { Self::new() })
    }

    /// Gives the devices, whoever has them, to `last`, which does not return.
    pub fn seize(last: impl FnOnce(Peripherals) -> core::convert::Infallible) -> ! {
        // SAFETY: one core runs, with interrupts masked, and control never leaves `last`: the
        // former owner of the devices never runs again. A register access that was cut short leaves
        // the device as if it was not made.
        match last(unsafe { Self::new() }) {}
    }

    /// # Safety
    /// No other value of this type may be used from now on.
    unsafe fn new() -> Peripherals {
        // SAFETY: these are the chip's addresses of these devices, which the page table of `start`
        // maps as device memory for as long as the program runs; the four do not overlap, and the
        // caller promises that nothing else reaches them.
        unsafe {
            Peripherals {
                power: device(POWER),
                gpio: device(GPIO),
                uart: Uart::new(device::<PL011Registers>(UART0)),
                log: Log::new(device(AUXILIARY)),
            }
        }
    }
}

/// # Safety
/// `address` must be that of a device with the registers `T`, mapped for ever, that nobody else
/// reaches.
unsafe fn device<T>(address: usize) -> UniqueMmioPointer<'static, T> {
    let registers = NonNull::new(core::ptr::with_exposed_provenance_mut(address));
    // SAFETY: the caller's promise is what `new` asks for.
    unsafe { UniqueMmioPointer::new(registers.expect("no device is at address 0")) }
}

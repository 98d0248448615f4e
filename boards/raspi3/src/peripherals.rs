//! The chip's devices that are used, as registers (Broadcom, BCM2835 ARM Peripherals; the Pi 3 has them at 0x3F000000), and who
//! may touch them.
#![allow(
    unsafe_code,
    reason = "a device is an address that only this file can vouch for"
)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use arm_pl011_uart::{PL011Registers, Uart};
use safe_mmio::UniqueMmioPointer;
use safe_mmio::fields::{ReadPureWrite, WriteOnly};

const POWER: usize = 0x3F10_0000;
const GPIO: usize = 0x3F20_0000;
const UART0: usize = 0x3F20_1000;

/// Power management, of which this is the watchdog. A write counts only with the password in its highest byte.
#[repr(C)]
pub struct Power {
    _before: [u8; 0x1c],
    /// PM_RSTC: what the watchdog does when it runs out.
    pub reset_control: ReadPureWrite<u32>,
    /// PM_RSTS: what the boot ROM finds after a reset.
    pub reset_status: ReadPureWrite<u32>,
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

const _: () = {
    assert!(core::mem::offset_of!(Power, watchdog) == 0x24);
    assert!(core::mem::offset_of!(Gpio, pull_clock) == 0x98);
};

/// The devices, each exclusively held.
pub struct Peripherals {
    pub power: UniqueMmioPointer<'static, Power>,
    pub gpio: UniqueMmioPointer<'static, Gpio>,
    pub uart: Uart<'static>,
}

impl Peripherals {
    /// The devices, to the first who asks; `None` to all others.
    pub fn claim() -> Option<Peripherals> {
        static CLAIMED: AtomicBool = AtomicBool::new(false);
        if CLAIMED.swap(true, Ordering::Relaxed) {
            return None;
        }
        // SAFETY: this comes here once, so nobody has the devices yet; `seize` is the only other way to them.
        Some(unsafe { Self::new() })
    }

    /// Gives the devices, whoever has them, to `last`, which does not return.
    pub fn seize(last: impl FnOnce(Peripherals) -> core::convert::Infallible) -> ! {
        // SAFETY: one core runs, with interrupts masked, and control never leaves `last`: whoever has the devices is not heard of
        // again. A register access that was cut short leaves the device as if it was not made.
        match last(unsafe { Self::new() }) {}
    }

    /// # Safety
    /// No other value of this type may be used from now on.
    unsafe fn new() -> Peripherals {
        // SAFETY: these are the chip's addresses of these devices, which the page table of `start` maps as device memory for as
        // long as the program runs; the three do not overlap, and the caller promises that nothing else reaches them.
        unsafe {
            Peripherals {
                power: device(POWER),
                gpio: device(GPIO),
                uart: Uart::new(device::<PL011Registers>(UART0)),
            }
        }
    }
}

/// # Safety
/// `address` must be that of a device with the registers `T`, mapped for ever, that nobody else reaches.
unsafe fn device<T>(address: usize) -> UniqueMmioPointer<'static, T> {
    let registers = NonNull::new(core::ptr::with_exposed_provenance_mut(address));
    // SAFETY: the caller's promise is what `new` asks for.
    unsafe { UniqueMmioPointer::new(registers.expect("no device is at address 0")) }
}

//! The log: defmt's frames on a UART of their own, decoded on the host with the image's symbols.
//! Panics and faults are logged, too.

use core::panic::PanicInfo;

use cortex_m::peripheral::SCB;
use static_cell::StaticCell;

use crate::uart::Uart;

/// Sends the log to `uart` from now on.
///
/// # Panics
/// If it has been called before.
pub fn start(uart: Uart) {
    static LOG: StaticCell<Uart> = StaticCell::new();
    defmt_serial::defmt_serial(LOG.init(uart));
}

/// Logs place and message of a panic, and resets the board. The message is logged only if it has no
/// values: formatting them would take as much flash as all of attention.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let (file, line) = info
        .location()
        .map_or(("somewhere", 0), |at| (at.file(), at.line()));
    let words = info
        .message()
        .as_str()
        .unwrap_or("its words have values in them");
    defmt::error!("panic at {=str}:{=u32}: {=str}", file, line, words);
    defmt::flush();
    SCB::sys_reset()
}

/// Faults end here as panics do.
#[cortex_m_rt::exception(trampoline = true)]
#[allow(unsafe_code, reason = "a handler of faults is unsafe to call")]
unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
    defmt::error!(
        "hard fault at {=u32:#010x}, called from {=u32:#010x}",
        frame.pc(),
        frame.lr()
    );
    defmt::flush();
    SCB::sys_reset()
}

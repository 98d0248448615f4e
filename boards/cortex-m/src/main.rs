//! Firmware for Arm's MPS2 board with the AN386 image (Cortex-M4F), as QEMU emulates it.
//!
//! Everything is decided by the compiler: it reads the model file that lies in flash and checks it with the parser that hosts use.
#![no_std]
#![no_main]
#![allow(long_running_const_eval, reason = "the compiler reads a whole model file")]

use brooklet_core::gguf::Gguf;
use core::panic::PanicInfo;
use cortex_m as _;
use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};

static MODEL_FILE: &[u8] = include_bytes!(env!("BROOKLET_MODEL"));

const GGUF: Gguf<'static> = match Gguf::parse(MODEL_FILE) {
    Ok(gguf) => gguf,
    Err(_) => panic!("BROOKLET_MODEL is not a whole GGUF file"),
};

#[entry]
fn main() -> ! {
    hprintln!(
        "model: {} tensors, data at byte {}",
        GGUF.tensor_count(),
        GGUF.data_start()
    );
    exit(debug::EXIT_SUCCESS)
}

/// Ends the program under a debugger or an emulator, and stays put on a board without one.
fn exit(status: debug::ExitStatus) -> ! {
    debug::exit(status);
    loop {
        cortex_m::asm::wfi();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    hprintln!("{}", info);
    exit(debug::EXIT_FAILURE)
}

//! Firmware for Arm's MPS2 board with the AN386 image (Cortex-M4F), as QEMU emulates it.
//!
//! Everything is decided by the compiler: it checks the model file that lies in flash with the parser that hosts use, finds the
//! weights, and plans the arena. A file that is broken, or an arena over its budget, is a compile error. No number of the model
//! stands in this source: another file in `BROOKLET_MODEL` makes another image.
#![no_std]
#![no_main]
#![allow(long_running_const_eval, reason = "the compiler reads a whole model file")]

use brooklet_core::embed_model;
use brooklet_core::kernels::Isa;
use core::panic::PanicInfo;
use cortex_m as _;
use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};

const BUDGET: usize = match usize::from_str_radix(env!("BROOKLET_BUDGET"), 10) {
    Ok(bytes) => bytes,
    Err(_) => panic!("BROOKLET_BUDGET is not a number of bytes"),
};

embed_model!(static EMBEDDED = env!("BROOKLET_MODEL"), brooklet_demo::options, budget: BUDGET);

#[entry]
fn main() -> ! {
    let Some(arena) = EMBEDDED.arena.claim() else {
        hprintln!("error: the arena was claimed before");
        exit(debug::EXIT_FAILURE)
    };
    match brooklet_demo::run(
        EMBEDDED.model,
        &EMBEDDED.vocab,
        &EMBEDDED.plan,
        arena,
        Isa::of_target(),
    ) {
        Ok(transcript) => {
            hprintln!("{}", transcript);
            exit(debug::EXIT_SUCCESS)
        }
        Err(error) => {
            hprintln!("error: {}", error);
            exit(debug::EXIT_FAILURE)
        }
    }
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

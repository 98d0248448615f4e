//! Parts of the firmware: one board's constants, its registers, interrupts, UARTs, watchdog and
//! log.
//!
//! A board is an entry of `boards.toml`; the build script makes [`data`] of it. The peripherals are
//! those of Arm's Cortex-M system design kit, which all four boards have.
#![no_std]

pub mod interrupt;
pub mod log;
pub mod registers;
pub mod teller;
pub mod timer;
pub mod uart;
pub mod watchdog;

/// The board, as `boards.toml` has it.
pub mod data {
    include!(concat!(env!("OUT_DIR"), "/board.rs"));
}

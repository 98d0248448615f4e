//! A Raspberry Pi 3 without an operating system: start-up, the serial port, time, the watchdog and
//! the stack.
//!
//! One core runs at EL1 with the MMU and the caches on; the other three sleep. What a program needs
//! is a [`Board`](board::Board) and, once, `aarch64_rt::entry!`; this crate brings the page table
//! and the handlers of exceptions, and in [`Teller`](teller::Teller) the operations that the
//! story needs from a board.
#![no_std]

pub mod board;
pub mod log;
mod peripherals;
pub mod setup;
mod start;
pub mod teller;

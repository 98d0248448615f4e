//! Firmware for the Raspberry Pi 3: the model in the image, planned by the compiler, its text over the serial port.
//!
//! No number of the model stands in this source: another file in `BROOKLET_MODEL` makes another image.
#![no_std]
#![no_main]
#![allow(long_running_const_eval, reason = "the compiler reads a whole model file")]

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use aarch64_rt::entry;
use brooklet_core::embed_model;
use brooklet_core::kernels::Isa;
use brooklet_raspi3::board::{self, Board};

const BUDGET: usize = match usize::from_str_radix(env!("BROOKLET_BUDGET"), 10) {
    Ok(bytes) => bytes,
    Err(_) => panic!("BROOKLET_BUDGET is not a number of bytes"),
};

/// Of 4 KiB each.
const STACK_PAGES: usize = 16;

embed_model!(static EMBEDDED = env!("BROOKLET_MODEL"), brooklet_demo::options, budget: BUDGET);

entry!(main, STACK_PAGES);
fn main(_: u64, _: u64, _: u64, _: u64) -> ! {
    let mut board = Board::claim().expect("main runs once");
    report(&mut board).expect("the serial port cannot fail");
    board.power_off()
}

/// Runs the demonstration; sends what it said, the kernels that ran, the time it took and the deepest stack.
fn report(board: &mut Board) -> fmt::Result {
    let arena = EMBEDDED.arena.claim().expect("main runs once");
    let isa = Isa::of_target();
    board.feed_watchdog();
    let start = board::ticks();
    match brooklet_demo::run(EMBEDDED.model, &EMBEDDED.vocab, &EMBEDDED.plan, arena, isa) {
        Ok(transcript) => writeln!(board, "{transcript}")?,
        Err(error) => return writeln!(board, "error: {error}"),
    }
    let microseconds = board::nanoseconds(board::ticks() - start) / 1000;
    let (used, all) = board::stack_used();
    writeln!(
        board,
        "kernels {}, {microseconds} us, stack {used} of {all} bytes",
        isa.name()
    )
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    board::report_and_reset(info)
}

//! Firmware for the Raspberry Pi 3: tells stories over the serial port for ever and begins a new
//! one with each typed line.
//!
//! The compiler checks the model, which is a part of the image, and plans the arena. This source
//! has no number of the model: another file in `BROOKLET_MODEL` makes another image.
#![no_std]
#![no_main]

use core::convert::Infallible;
use core::panic::PanicInfo;

use aarch64_rt::entry;
use brooklet_core::embed_model;
use brooklet_core::kernels::Isa;
use brooklet_core::plan::Options;
use brooklet_core::tokenizer::Vocab;
use brooklet_firmware::{Setup, Story, StoryError};
use brooklet_raspi3::board::{self, Board};
use brooklet_raspi3::setup::{self, OPENING};
use brooklet_raspi3::teller::Teller;

const BUDGET: usize = match usize::from_str_radix(env!("BROOKLET_BUDGET"), 10) {
    Ok(bytes) => bytes,
    Err(_) => panic!("BROOKLET_BUDGET is not a number of bytes"),
};

const TEMPERATURE_PERCENT: u16 = match u16::from_str_radix(env!("BROOKLET_TEMPERATURE_PERCENT"), 10)
{
    Ok(percent) => percent,
    Err(_) => panic!("BROOKLET_TEMPERATURE_PERCENT is not a whole number"),
};

const SETUP: Setup = Setup {
    temperature: TEMPERATURE_PERCENT as f32 / 100.0,
    ..setup::SETUP
};

/// Of 4 KiB each.
const STACK_PAGES: usize = 16;

embed_model!(static MODEL = env!("BROOKLET_MODEL"), options, budget: BUDGET);

const fn options(vocab: &Vocab<'_>) -> Options {
    SETUP.options(vocab)
}

entry!(main, STACK_PAGES);
fn main(_: u64, _: u64, _: u64, _: u64) -> ! {
    let board = Board::claim().expect("main runs once");
    let Err(error) = tell(&mut Teller::new(board));
    panic!("{error}")
}

/// Lays the engine out and says stories.
fn tell(teller: &mut Teller) -> Result<Infallible, StoryError> {
    let arena = MODEL.arena.claim().expect("main runs once");
    let isa = Isa::of_target();
    teller.log(format_args!(
        "{} kernels, {} layers, an arena of {} bytes",
        isa.name(),
        MODEL.model.config.layers,
        MODEL.plan.bytes()
    ));
    Story::new(SETUP, MODEL.model, MODEL.vocab, &MODEL.plan, arena, isa)?.run(OPENING, teller)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    board::report_and_reset(info)
}

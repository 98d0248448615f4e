//! Firmware for Cortex-M boards: says stories on a UART for ever, and begins another with every line that somebody types.
//!
//! Everything is decided by the compiler: it checks the model file with the parser that hosts use, finds the weights, makes the
//! tokenizer's tables and plans the arena. A file that is broken, or an arena over its budget, is a compile error. No number of the
//! model or of a board stands in this source: they are those of `boards.toml`.
#![no_std]
#![no_main]
#![allow(long_running_const_eval, reason = "the compiler reads a whole model file")]

use brooklet_core::kernels::Isa;
use brooklet_core::plan::Options;
use brooklet_core::tokenizer::Vocab;
use brooklet_cortex_m::data::{OPENING, SETUP};
use brooklet_cortex_m::interrupt::Peripherals;
use brooklet_cortex_m::teller::Teller;
use brooklet_story::Story;
use cortex_m_rt::entry;

/// `embed_model!` over the board's file.
#[cfg_attr(model_apart, allow(unsafe_code, reason = "boards.toml says where the model lies in flash"))]
mod model {
    use brooklet_core::embed_model;
    use brooklet_cortex_m::data::BUDGET;

    use super::options;

    include!(concat!(env!("OUT_DIR"), "/model.rs"));
}
use model::MODEL;

const fn options(vocab: &Vocab<'_>) -> Options {
    SETUP.options(vocab)
}

#[entry]
fn main() -> ! {
    let Some(peripherals) = Peripherals::take() else {
        unreachable!("nobody else asks for them")
    };
    let mut teller = Teller::new(peripherals);
    let Some(arena) = MODEL.arena.claim() else {
        unreachable!("nobody else asks for it")
    };
    #[cfg(model_apart)]
    let found = match MODEL.find() {
        Ok(found) => found,
        Err(error) => {
            defmt::error!("no model: {}", error);
            teller.halt()
        }
    };
    #[cfg(model_apart)]
    let (vocab, model) = match found.model() {
        Ok(model) => (found.vocab, model),
        Err(error) => {
            defmt::error!("no model: {}", error);
            teller.halt()
        }
    };
    #[cfg(not(model_apart))]
    let (vocab, model) = (MODEL.vocab, MODEL.model);

    defmt::info!(
        "{=str} kernels, {=usize} layers, an arena of {=usize} bytes",
        Isa::of_target().name(),
        model.config.layers,
        MODEL.plan.bytes()
    );
    let story = Story::new(SETUP, model, vocab, &MODEL.plan, arena, Isa::of_target());
    match story.and_then(|mut story| story.run(OPENING, &mut teller)) {
        Ok(never) => match never {},
        Err(error) => {
            defmt::error!("{}", error);
            teller.halt()
        }
    }
}

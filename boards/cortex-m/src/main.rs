//! Firmware for Cortex-M boards: tells stories on a UART for ever and begins a new one with each
//! typed line.
//!
//! Everything is decided by the compiler: it checks the model file with the parser that hosts use,
//! finds the weights, makes the tokenizer's tables and plans the arena. A file that is broken, or
//! an arena over its budget, is a compile error. All numbers of the model and of a board come from
//! `boards.toml`, none from this source.
#![no_std]
#![no_main]

#[cfg(model_apart)]
use brooklet_core::firmware::FlashError;
use brooklet_core::kernels::Isa;
use brooklet_core::model::Model;
use brooklet_core::plan::Options;
use brooklet_core::tokenizer::{IndexedVocab, Vocab};
use brooklet_cortex_m::data::{OPENING, SETUP};
use brooklet_cortex_m::interrupt::Peripherals;
use brooklet_cortex_m::teller::Teller;
use brooklet_firmware::{Story, StoryError};
use cortex_m_rt::entry;
use static_cell::StaticCell;

/// `embed_model!` over the board's file.
#[cfg_attr(
    model_apart,
    allow(unsafe_code, reason = "boards.toml says where the model lies in flash")
)]
mod model {
    use brooklet_core::embed_model;
    use brooklet_cortex_m::data::BUDGET;

    use super::{IndexedVocab, Model, Trouble, options};

    include!(concat!(env!("OUT_DIR"), "/model.rs"));

    /// The model, which is a part of the image.
    #[cfg(not(model_apart))]
    pub fn find() -> Result<(Model<'static>, IndexedVocab<'static>), Trouble> {
        Ok((MODEL.model, MODEL.vocab))
    }

    /// The model, if it is where it should be.
    #[cfg(model_apart)]
    #[inline(never)]
    pub fn find() -> Result<(Model<'static>, IndexedVocab<'static>), Trouble> {
        let found = MODEL.find().map_err(Trouble::NoModel)?;
        Ok((found.model, found.vocab))
    }
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
    match start() {
        Ok(story) => match story.run(OPENING, &mut teller) {
            Ok(never) => match never {},
            Err(error) => defmt::error!("{}", error),
        },
        Err(error) => defmt::error!("{}", error),
    }
    teller.halt()
}

/// Finds the model and lays the engine out. In a function of its own, so that the model's facts are
/// not on the stack while stories are told.
#[inline(never)]
fn start() -> Result<&'static mut Story<'static>, Trouble> {
    let (model, vocab) = model::find()?;
    prepare(model, vocab)
}

/// Lays the engine out. In a function of its own, and the story in a static, so that the
/// temporaries of its construction are not on the stack while stories are told.
#[inline(never)]
fn prepare(
    model: Model<'static>,
    vocab: IndexedVocab<'static>,
) -> Result<&'static mut Story<'static>, Trouble> {
    static STORY: StaticCell<Story<'static>> = StaticCell::new();
    let Some(arena) = MODEL.arena.claim() else {
        unreachable!("nobody else asks for it")
    };
    defmt::info!(
        "{=str} kernels, {=usize} layers, an arena of {=usize} bytes",
        Isa::of_target().name(),
        model.config.layers,
        MODEL.plan.bytes()
    );
    let isa = Isa::of_target();
    Story::place(STORY.uninit(), SETUP, model, vocab, &MODEL.plan, arena, isa)
        .map_err(Trouble::Story)
}

/// Reason that no story is told.
#[derive(defmt::Format)]
enum Trouble {
    /// The model is not in flash.
    #[cfg(model_apart)]
    NoModel(FlashError),
    /// The engine.
    Story(StoryError),
}

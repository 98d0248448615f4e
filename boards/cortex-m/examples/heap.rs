//! An application with a heap of its own beside the model's arena: it counts the words of a story
//! in a map that grows.
//!
//! The engine never allocates; the heap cannot take memory from the arena, nor the arena from the
//! heap.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a heap must be given its memory")]

extern crate alloc;

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;

use brooklet_core::embed_model;
use brooklet_core::kernels::Isa;
use brooklet_core::plan::Options;
use brooklet_core::tokenizer::Vocab;
use brooklet_cortex_m::data::{OPENING, SETUP};
use brooklet_cortex_m::interrupt::Peripherals;
use brooklet_cortex_m::teller::Teller;
use brooklet_firmware::{Board, Event, Setup, Story, StoryError};
use cortex_m_rt::entry;
use embedded_alloc::LlffHeap as Heap;
use static_cell::StaticCell;

#[global_allocator]
static HEAP: Heap = Heap::empty();

/// Bytes of the application's heap.
const HEAP_BYTES: usize = 8 << 10;

/// Tokens of which words are counted.
const TOKENS: usize = 64;

/// A window that leaves room for the heap.
const SMALL: Setup = Setup {
    window: 60,
    ..SETUP
};

embed_model!(
    static MODEL = "../../../models/stories/tiny-k-q8_0.gguf",
    options,
    budget: 64 << 10
);

const fn options(vocab: &Vocab<'_>) -> Options {
    SMALL.options(vocab)
}

/// The board, and what it has said.
struct Listener {
    teller: Teller,
    text: String,
}

impl Board for Listener {
    fn say(&mut self, text: &str) {
        self.text.push_str(text);
        self.teller.say(text);
    }

    fn heard(&mut self) -> Option<u8> {
        self.teller.heard()
    }

    fn ticks(&mut self) -> u32 {
        self.teller.ticks()
    }

    fn event(&mut self, event: Event) {
        self.teller.event(event);
    }
}

#[entry]
fn main() -> ! {
    // SAFETY: this runs once, before anything allocates.
    unsafe {
        embedded_alloc::init!(HEAP, HEAP_BYTES);
    }
    let Some(peripherals) = Peripherals::take() else {
        unreachable!("nobody else asks for them")
    };
    let mut listener = Listener {
        teller: Teller::new(peripherals),
        text: String::new(),
    };
    if let Err(error) = tell(&mut listener) {
        defmt::error!("{}", error);
        listener.teller.halt()
    }
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for word in listener.text.split_whitespace() {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    let (used, free) = (HEAP.used(), HEAP.free());
    defmt::info!(
        "{=usize} tokens, {=usize} different words, {=usize} bytes of heap used, {=usize} free",
        TOKENS,
        counts.len(),
        used,
        free
    );
    listener.teller.halt()
}

/// Tells a story's beginning.
fn tell(listener: &mut Listener) -> Result<(), StoryError> {
    let story = prepare()?;
    story.begin(OPENING.as_bytes(), listener)?;
    (0..TOKENS).try_for_each(|_| story.step(listener))
}

/// The engine in a static, so that what it takes to make one is not on the stack while it works.
#[inline(never)]
fn prepare() -> Result<&'static mut Story<'static>, StoryError> {
    static STORY: StaticCell<Story<'static>> = StaticCell::new();
    let Some(arena) = MODEL.arena.claim() else {
        unreachable!("nobody else asks for it")
    };
    let isa = Isa::of_target();
    Story::place(
        STORY.uninit(),
        SMALL,
        MODEL.model,
        MODEL.vocab,
        &MODEL.plan,
        arena,
        isa,
    )
}

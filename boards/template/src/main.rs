//! Says a story over semihosting: text in, text out.
#![no_std]
#![no_main]

use brooklet_core::generate::{NoStops, Request, Session, Step};
use brooklet_core::kernels::Isa;
use brooklet_core::sampler::SamplerOptions;
use brooklet_core::stream::Stream;
use brooklet_core::threads::SingleThread;
use brooklet_core::tokenizer::{EncodeOptions, Tokenizer};
use cortex_m_semihosting::{debug, hprint, hprintln};
use heapless::Vec;
use model::MODEL;
use panic_semihosting as _;

const PROMPT: &str = "Once upon a time";

#[cortex_m_rt::entry]
fn main() -> ! {
    let arena = MODEL.arena.claim().expect("main runs once");
    let (engine, window) = MODEL.plan.split(arena).expect("it has the planned size");
    let isa = Isa::of_target();
    let stream = Stream::new(MODEL.model, &MODEL.plan, engine, isa, &SingleThread)
        .expect("the plan is this model's");
    let tokenizer = Tokenizer::over(MODEL.vocab, window).expect("the window is planned");
    let mut session: Session<'_, NoStops> = Session::new(stream, tokenizer);
    let request = Request {
        limit: Some(64),
        ..Request::default()
    };
    session.begin(SamplerOptions::default(), request);

    let mut ids: Vec<u32, 64> = Vec::new();
    session
        .tokenizer()
        .encode(PROMPT.as_bytes(), EncodeOptions::default(), &mut |id| {
            ids.push(id).expect("the prompt is short");
        });
    let mut left = &ids[..];
    while !left.is_empty() {
        let fed = session.prefill(left).expect("the ids are the model's");
        left = &left[fed..];
    }
    hprint!("{}", PROMPT);
    let mut say = |text: &str| hprint!("{}", text);
    while let Step::Token(_) = session.next(&mut say).expect("it goes on for ever") {}
    hprintln!();
    debug::exit(debug::EXIT_SUCCESS);
    unreachable!("the emulator has ended");
}

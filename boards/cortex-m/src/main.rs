//! Firmware for Arm's MPS2 board with the AN386 image (Cortex-M4F), as QEMU emulates it.
//!
//! Everything is decided by the compiler: it checks the model file that lies in flash with the parser that hosts use, finds the
//! weights, and plans the arena. A file that is broken, or an arena over its budget, is a compile error. No number of the model
//! stands in this source: another file in `BROOKLET_MODEL` makes another image.
#![no_std]
#![no_main]
#![allow(long_running_const_eval, reason = "the compiler reads a whole model file")]

use brooklet_core::arena::Aligned;
use brooklet_core::gguf::Gguf;
use brooklet_core::kernels::Isa;
use brooklet_core::model::{Config, Layer, Model, layers};
use brooklet_core::plan::Plan;
use brooklet_core::tokenizer::Vocab;
use core::panic::PanicInfo;
use cortex_m as _;
use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};

/// The value of a `Result`, or a compile error that says `$otherwise`.
macro_rules! compile_time {
    ($result:expr, $otherwise:literal) => {
        match $result {
            Ok(value) => value,
            Err(_) => panic!($otherwise),
        }
    };
}

static MODEL_FILE: &[u8] = include_bytes!(env!("BROOKLET_MODEL"));

const GGUF: Gguf<'static> = compile_time!(Gguf::parse(MODEL_FILE), "BROOKLET_MODEL is not a whole GGUF file");

const CONFIG: Config = compile_time!(
    Config::from_gguf(&GGUF),
    "BROOKLET_MODEL is of no family that brooklet knows: `brooklet inspect` says why"
);

static LAYERS: [Layer<'static>; CONFIG.layers] = compile_time!(
    layers(&GGUF, &CONFIG),
    "a layer of BROOKLET_MODEL does not fit the rest: `brooklet inspect` says why"
);

static MODEL: Model<'static> = compile_time!(
    Model::new(&GGUF, &LAYERS),
    "the tensors of BROOKLET_MODEL do not fit its metadata: `brooklet inspect` says why"
);

static VOCAB: Vocab<'static> = compile_time!(
    Vocab::from_gguf(&GGUF),
    "BROOKLET_MODEL has no tokenizer that brooklet knows: `brooklet inspect` says why"
);

const BUDGET: usize = compile_time!(
    usize::from_str_radix(env!("BROOKLET_BUDGET"), 10),
    "BROOKLET_BUDGET is not a number of bytes"
);

const PLAN: Plan = match Plan::within(&CONFIG, &brooklet_demo::options(&VOCAB), BUDGET) {
    Ok(plan) => plan,
    Err(error) => panic!("{}", error.message().as_str()),
};

#[entry]
fn main() -> ! {
    static mut ARENA: Aligned<{ PLAN.bytes() }> = Aligned([0; PLAN.bytes()]);
    match brooklet_demo::run(MODEL, &VOCAB, &PLAN, &mut ARENA.0, Isa::of_target()) {
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

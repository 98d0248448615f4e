//! A model in a firmware image: read, checked and planned by the compiler, with an arena of exactly the planned size.

use crate::arena::StaticArena;
use crate::gguf::Gguf;
use crate::model::{Config, Layer, Model, layers};
use crate::plan::{Options, Plan};
use crate::tokenizer::Vocab;

/// The value of a `Result`, or a compile error that says `$otherwise`: an error's own words cannot be put together in `const`.
macro_rules! or_refuse {
    ($result:expr, $otherwise:literal) => {
        match $result {
            Ok(value) => value,
            Err(_) => panic!($otherwise),
        }
    };
}

/// What [`embed_model!`](crate::embed_model) makes of a file.
pub struct Embedded<const ARENA: usize> {
    /// The weights, where they lie in flash.
    pub model: Model<'static>,
    /// The vocabulary, likewise.
    pub vocab: Vocab<'static>,
    /// What every byte of the arena is for.
    pub plan: Plan,
    /// The arena, a static of its own: [`StaticArena::claim`] lends it once.
    pub arena: &'static StaticArena<ARENA>,
}

/// For [`embed_model!`](crate::embed_model).
///
/// # Panics
/// If `file` is no whole GGUF file.
#[doc(hidden)]
pub const fn gguf_of(file: &'static [u8]) -> Gguf<'static> {
    or_refuse!(Gguf::parse(file), "the model is not a whole GGUF file")
}

/// For [`embed_model!`](crate::embed_model).
///
/// # Panics
/// If the model is of another family.
#[doc(hidden)]
pub const fn config_of(file: &Gguf<'static>) -> Config {
    or_refuse!(
        Config::from_gguf(file),
        "the model is of no family that brooklet knows: `brooklet inspect` says why"
    )
}

/// For [`embed_model!`](crate::embed_model).
///
/// # Panics
/// If a tensor does not fit.
#[doc(hidden)]
pub const fn layers_of<const N: usize>(file: &Gguf<'static>, config: &Config) -> [Layer<'static>; N] {
    or_refuse!(
        layers(file, config),
        "a layer of the model does not fit the rest: `brooklet inspect` says why"
    )
}

/// For [`embed_model!`](crate::embed_model).
///
/// # Panics
/// If a tensor does not fit.
#[doc(hidden)]
pub const fn model_of(file: &Gguf<'static>, layers: &'static [Layer<'static>]) -> Model<'static> {
    or_refuse!(
        Model::new(file, layers),
        "the model's tensors do not fit its metadata: `brooklet inspect` says why"
    )
}

/// For [`embed_model!`](crate::embed_model).
///
/// # Panics
/// If the tokenizer is of another kind.
#[doc(hidden)]
pub const fn vocab_of(file: &Gguf<'static>) -> Vocab<'static> {
    or_refuse!(
        Vocab::from_gguf(file),
        "the model has no tokenizer that brooklet knows: `brooklet inspect` says why"
    )
}

/// For [`embed_model!`](crate::embed_model).
///
/// # Panics
/// If the plan does not fit `budget` bytes, with the numbers.
#[doc(hidden)]
pub const fn plan_of(file: &'static [u8], options: &Options, budget: usize) -> Plan {
    match Plan::within(&config_of(&gguf_of(file)), options, budget) {
        Ok(plan) => plan,
        Err(error) => panic!("{}", error.message().as_str()),
    }
}

/// Declares a `static` that is a model: `embed_model!(pub static NAME = PATH, options, budget: BYTES)`.
///
/// `PATH` names a GGUF file (absolute, or relative to the source, as for `include_bytes!`), `options` is a `const fn(&Vocab) ->`
/// [`Options`](crate::plan::Options), and `BYTES` is what the arena may take. The compiler parses the file with the parser that
/// hosts use and plans the arena; a file that is broken or of an unknown family, or a plan over the budget, is a compile error
/// that says so. The file lies in flash as it is, the arena in zeroed RAM ([`Embedded`]).
///
/// The compiler reads the whole header: crates that embed larger models allow the lint `long_running_const_eval`.
///
/// ```
/// # #![allow(long_running_const_eval)]
/// use brooklet_core::{kernels::Isa, plan::Options, sampler::argmax, stream::Stream, threads::SingleThread, tokenizer::Vocab};
///
/// const fn options(_: &Vocab<'_>) -> Options {
///     Options::sink(4, 60)
/// }
///
/// brooklet_core::embed_model!(static TINY = "../../boards/cortex-m/model/random.gguf", options, budget: 256 << 10);
///
/// let arena = TINY.arena.claim().expect("nobody else asks");
/// let (engine, _) = TINY.plan.split(arena).expect("it has the planned size");
/// let mut stream = Stream::new(TINY.model, &TINY.plan, engine, Isa::of_target(), &SingleThread)?;
/// let token = argmax(stream.feed(&[1, 2, 3])?);
/// assert!(TINY.arena.claim().is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A budget that is too small does not compile:
///
/// ```compile_fail
/// # #![allow(long_running_const_eval)]
/// # use brooklet_core::{plan::Options, tokenizer::Vocab};
/// # const fn options(_: &Vocab<'_>) -> Options { Options::sink(4, 60) }
/// brooklet_core::embed_model!(static TINY = "../../boards/cortex-m/model/random.gguf", options, budget: 1000);
/// ```
#[macro_export]
macro_rules! embed_model {
    ($visibility:vis static $name:ident = $path:expr, $options:path, budget: $budget:expr $(,)?) => {
        $visibility static $name: $crate::firmware::Embedded<
            {
                const FILE: &[u8] = include_bytes!($path);
                const OPTIONS: $crate::plan::Options =
                    $options(&$crate::firmware::vocab_of(&$crate::firmware::gguf_of(FILE)));
                $crate::firmware::plan_of(FILE, &OPTIONS, $budget).bytes()
            },
        > = {
            static FILE: $crate::arena::Aligned<{ include_bytes!($path).len() }> =
                $crate::arena::Aligned(*include_bytes!($path));
            const GGUF: $crate::gguf::Gguf<'static> = $crate::firmware::gguf_of(&FILE.0);
            const CONFIG: $crate::model::Config = $crate::firmware::config_of(&GGUF);
            const OPTIONS: $crate::plan::Options = $options(&$crate::firmware::vocab_of(&GGUF));
            static LAYERS: [$crate::model::Layer<'static>; CONFIG.layers] =
                $crate::firmware::layers_of(&GGUF, &CONFIG);
            const PLAN: $crate::plan::Plan = $crate::firmware::plan_of(&FILE.0, &OPTIONS, $budget);
            // Apart from the rest, which stays in flash.
            static ARENA: $crate::arena::StaticArena<{ PLAN.bytes() }> = $crate::arena::StaticArena::new();
            $crate::firmware::Embedded {
                model: $crate::firmware::model_of(&GGUF, &LAYERS),
                vocab: $crate::firmware::vocab_of(&GGUF),
                plan: PLAN,
                arena: &ARENA,
            }
        };
    };
}

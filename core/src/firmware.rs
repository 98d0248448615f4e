//! A model in a firmware image, or at a fixed address in flash. The compiler reads, checks and
//! plans it; the arena has exactly the planned size, and the tokenizer's tables lie in flash.

use core::fmt;

use crate::arena::{Flash, StaticArena};
use crate::gguf::Gguf;
use crate::model::{Config, Layer, Model, ModelError, layers};
use crate::plan::{Options, Plan};
use crate::tokenizer::{IndexedVocab, Tables, Vocab};

/// CRC-32 of Ethernet and zip files; a static, so that its table lies in flash and is not built on
/// the stack.
static CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// Evaluates to the value of a `Result`, or stops the build with the text `$otherwise`: `const`
/// code cannot format the error's own text.
macro_rules! or_refuse {
    ($result:expr, $otherwise:literal) => {
        match $result {
            Ok(value) => value,
            Err(_) => panic!($otherwise),
        }
    };
}

/// A model in the image, made from a file by [`embed_model!`](crate::embed_model).
pub struct Embedded<const ARENA: usize> {
    /// The model, with its weights in flash.
    pub model: Model<'static>,
    /// The vocabulary and its tables, also in flash.
    pub vocab: IndexedVocab<'static>,
    /// Plan of the arena: the purpose of every byte.
    pub plan: Plan,
    /// The arena, a static of its own: [`StaticArena::claim`] lends it once.
    pub arena: &'static StaticArena<ARENA>,
}

/// Parses `file`, for [`embed_model!`](crate::embed_model).
///
/// # Panics
/// If `file` is not a whole GGUF file.
#[doc(hidden)]
pub const fn gguf_of(file: &'static [u8]) -> Gguf<'static> {
    or_refuse!(Gguf::parse(file), "the model is not a whole GGUF file")
}

/// Reads the facts of the model in `file`, for [`embed_model!`](crate::embed_model).
///
/// # Panics
/// If the model is not supported.
#[doc(hidden)]
pub const fn config_of(file: &Gguf<'static>) -> Config {
    or_refuse!(
        Config::from_gguf(file),
        "brooklet does not support this model: `brooklet inspect` says why"
    )
}

/// Number of layers of the model in `file`: the last parameter of [`Flashed`] and [`Found`].
///
/// # Panics
/// If `file` is not a whole GGUF file, or the model is not supported.
pub const fn layers_in(file: &'static [u8]) -> usize {
    config_of(&gguf_of(file)).layers_in_file()
}

/// Finds the tensors of all layers, for [`embed_model!`](crate::embed_model).
///
/// # Panics
/// If a tensor does not fit the metadata.
#[doc(hidden)]
pub const fn layers_of<const N: usize>(
    file: &Gguf<'static>,
    config: &Config,
) -> [Layer<'static>; N] {
    or_refuse!(
        layers(file, config),
        "a layer of the model does not fit the rest: `brooklet inspect` says why"
    )
}

/// Makes the model over its layers, for [`embed_model!`](crate::embed_model).
///
/// # Panics
/// If a tensor does not fit the metadata.
#[doc(hidden)]
pub const fn model_of(file: &Gguf<'static>, layers: &'static [Layer<'static>]) -> Model<'static> {
    or_refuse!(
        Model::new(file, layers),
        "the model's tensors do not fit its metadata: `brooklet inspect` says why"
    )
}

/// Reads the vocabulary of `file`, for [`embed_model!`](crate::embed_model).
///
/// # Panics
/// If the tokenizer is not supported.
#[doc(hidden)]
pub const fn vocab_of(file: &Gguf<'static>) -> Vocab<'static> {
    or_refuse!(
        Vocab::from_gguf(file),
        "brooklet does not support the model's tokenizer: `brooklet inspect` says why"
    )
}

/// Builds the tokenizer's tables, for [`embed_model!`](crate::embed_model).
///
/// # Panics
/// If too many of the vocabulary's strings collide in the tables.
#[doc(hidden)]
pub const fn tables_of<const N: usize>(vocab: &Vocab<'static>) -> Tables<N> {
    or_refuse!(
        Tables::build(vocab),
        "too many strings of the model's vocabulary collide in the hash table"
    )
}

/// Plans the arena, for [`embed_model!`](crate::embed_model).
///
/// # Panics
/// If the plan does not fit `budget` bytes; the message has the numbers.
#[doc(hidden)]
pub const fn plan_of(file: &'static [u8], options: &Options, budget: usize) -> Plan {
    match Plan::within(&config_of(&gguf_of(file)), options, budget) {
        Ok(plan) => plan,
        Err(error) => panic!("{}", error.message().as_str()),
    }
}

/// Everything but the file of a model that will lie at a fixed address, made by
/// [`embed_model!`](crate::embed_model).
pub struct Flashed<const ARENA: usize, const TABLES: usize, const LAYERS: usize> {
    /// Address and length of the file.
    memory: Flash,
    /// CRC-32 of the file.
    checksum: u32,
    /// Plan of the arena: the purpose of every byte.
    pub plan: Plan,
    /// The arena, a static of its own: [`StaticArena::claim`] lends it once.
    pub arena: &'static StaticArena<ARENA>,
    tables: &'static Tables<TABLES>,
}

/// A file that was found at its address, ready for [`Model::new`].
pub struct Found<const LAYERS: usize> {
    /// The file.
    pub file: Gguf<'static>,
    /// Its layers, for [`Model::new`].
    pub layers: [Layer<'static>; LAYERS],
    /// Its vocabulary, and the tables, which lie in the image.
    pub vocab: IndexedVocab<'static>,
}

impl<const ARENA: usize, const TABLES: usize, const LAYERS: usize> Flashed<ARENA, TABLES, LAYERS> {
    /// Describes `file`, which will lie in `memory`, for [`embed_model!`](crate::embed_model).
    #[doc(hidden)]
    pub const fn new(
        memory: Flash,
        file: &[u8],
        plan: Plan,
        arena: &'static StaticArena<ARENA>,
        tables: &'static Tables<TABLES>,
    ) -> Self {
        Flashed {
            memory,
            checksum: CRC.checksum(file),
            plan,
            arena,
            tables,
        }
    }

    /// Reads the whole file at its address, checks its checksum and finds its tensors.
    ///
    /// # Errors
    /// If the bytes are not exactly those of the file that the compiler planned for.
    pub fn find(&self) -> Result<Found<LAYERS>, FlashError> {
        let bytes = self.memory.bytes();
        let found = CRC.checksum(bytes);
        if found != self.checksum {
            let (address, planned) = (self.memory.address(), self.checksum);
            return Err(FlashError::Checksum {
                address,
                planned,
                found,
            });
        }
        let file = gguf_of(bytes);
        let layers = layers(&file, &config_of(&file)).map_err(FlashError::Model)?;
        let vocab = self.tables.over(vocab_of(&file));
        Ok(Found {
            file,
            layers,
            vocab,
        })
    }
}

impl<const LAYERS: usize> Found<LAYERS> {
    /// Makes the model over these layers.
    ///
    /// # Errors
    /// If a tensor does not fit, which the checksum makes impossible.
    pub fn model(&self) -> Result<Model<'_>, FlashError> {
        Model::new(&self.file, &self.layers).map_err(FlashError::Model)
    }
}

/// Reason why the model in flash cannot be used.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FlashError {
    /// The address holds another file, or a damaged one.
    Checksum {
        /// Address of the file.
        address: usize,
        /// CRC-32 of the file that the firmware was made for.
        planned: u32,
        /// CRC-32 of the bytes at the address.
        found: u32,
    },
    /// Its tensors do not fit the metadata.
    Model(ModelError),
}

impl fmt::Display for FlashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlashError::Checksum {
                address,
                planned,
                found,
            } => write!(
                f,
                "the bytes at {address:#x} are not the model that this firmware was made for: checksum {found:#010x} instead of {planned:#010x}"
            ),
            FlashError::Model(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for FlashError {}

/// Declares a `static` with a model:
/// `embed_model!(pub static NAME = PATH, options, budget: BYTES)`.
///
/// `PATH` names a GGUF file (absolute, or relative to the source, as for `include_bytes!`),
/// `options` is a `const fn(&Vocab) ->` [`Options`](crate::plan::Options), and `BYTES` is the
/// largest size of the arena. The compiler parses the file with the same parser as on hosts, and
/// plans the arena. A broken file, an unsupported model, or a plan over the budget is a compile
/// error that says so. The file lies in flash unchanged, the tokenizer's tables beside it, and the
/// arena in zeroed RAM ([`Embedded`]).
///
/// `embed_model!(static NAME = PATH, options, budget: BYTES, at: unsafe { ADDRESS })` plans for a
/// file that is not part of the image but is programmed into flash separately, at `ADDRESS`. The
/// compiler reads the same file, and at boot the firmware checks that exactly this file lies at the
/// address ([`Flashed::find`]). With `unsafe` the caller promises that as many bytes as the file
/// has can be read there, and that nothing writes them while the firmware runs.
///
/// The compiler reads the whole header: crates that embed larger models allow the lint
/// `long_running_const_eval`.
///
/// ```
/// # #![allow(long_running_const_eval)]
/// use brooklet_core::{kernels::Isa, plan::Options, sampler::argmax, stream::Stream};
/// use brooklet_core::{threads::SingleThread, tokenizer::Vocab};
///
/// const fn options(_: &Vocab<'_>) -> Options {
///     Options::sink(4, 60)
/// }
///
/// brooklet_core::embed_model!(
///     static TINY = "../tests/data/random.gguf", options, budget: 256 << 10
/// );
///
/// let arena = TINY.arena.claim().expect("nobody else asks");
/// let (engine, _) = TINY.plan.split(arena).expect("it has the planned size");
/// let mut stream = Stream::new(TINY.model, &TINY.plan, engine, Isa::of_target(), &SingleThread)?;
/// let token = argmax(stream.feed(&[1, 2, 3])?);
/// assert!((token as usize) < TINY.vocab.vocab().len());
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
/// brooklet_core::embed_model!(static TINY = "../tests/data/random.gguf", options, budget: 1000);
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
            static LAYERS: [$crate::model::Layer<'static>; CONFIG.layers_in_file()] =
                $crate::firmware::layers_of(&GGUF, &CONFIG);
            const PLAN: $crate::plan::Plan = $crate::firmware::plan_of(&FILE.0, &OPTIONS, $budget);
            const VOCAB: $crate::tokenizer::Vocab<'static> = $crate::firmware::vocab_of(&GGUF);
            static TABLES: $crate::tokenizer::Tables<{ $crate::tokenizer::IndexedVocab::words(&VOCAB) }> =
                $crate::firmware::tables_of(&VOCAB);
            // A static of its own: everything else stays in flash.
            static ARENA: $crate::arena::StaticArena<{ PLAN.bytes() }> = $crate::arena::StaticArena::new();
            $crate::firmware::Embedded {
                model: $crate::firmware::model_of(&GGUF, &LAYERS),
                vocab: TABLES.over(VOCAB),
                plan: PLAN,
                arena: &ARENA,
            }
        };
    };
    (
        $visibility:vis static $name:ident = $path:expr,
        $options:path,budget:
        $budget:expr,at:unsafe { $address:expr } $(,)?
    ) => {
        $visibility static $name: $crate::firmware::Flashed<
            {
                const FILE: &[u8] = include_bytes!($path);
                const OPTIONS: $crate::plan::Options =
                    $options(&$crate::firmware::vocab_of(&$crate::firmware::gguf_of(FILE)));
                $crate::firmware::plan_of(FILE, &OPTIONS, $budget).bytes()
            },
            {
                const FILE: &[u8] = include_bytes!($path);
                const VOCAB: $crate::tokenizer::Vocab<'static> =
                    $crate::firmware::vocab_of(&$crate::firmware::gguf_of(FILE));
                $crate::tokenizer::IndexedVocab::words(&VOCAB)
            },
            { $crate::firmware::layers_in(include_bytes!($path)) },
        > = {
            // Only the compiler reads it: none of its bytes are in the image.
            const FILE: &[u8] = include_bytes!($path);
            const VOCAB: $crate::tokenizer::Vocab<'static> =
                $crate::firmware::vocab_of(&$crate::firmware::gguf_of(FILE));
            const OPTIONS: $crate::plan::Options = $options(&VOCAB);
            const PLAN: $crate::plan::Plan = $crate::firmware::plan_of(FILE, &OPTIONS, $budget);
            static TABLES: $crate::tokenizer::Tables<{ $crate::tokenizer::IndexedVocab::words(&VOCAB) }> =
                $crate::firmware::tables_of(&VOCAB);
            static ARENA: $crate::arena::StaticArena<{ PLAN.bytes() }> = $crate::arena::StaticArena::new();
            // SAFETY: the `unsafe` in the macro's arguments promises that this memory can be read
            // and that nothing writes it.
            let memory = unsafe { $crate::arena::Flash::new($address, FILE.len()) };
            $crate::firmware::Flashed::new(memory, FILE, PLAN, &ARENA, &TABLES)
        };
    };
}

//! A model in a firmware image, or at a fixed address in flash. The compiler reads, checks and
//! plans it; the arena has exactly the planned size, and the tokenizer's tables lie in flash.

use core::fmt;
use core::mem::MaybeUninit;

use crate::arena::{Flash, Lender, StaticTable};
use crate::gguf::Gguf;
use crate::model::{Config, Layer, Model, ModelError, layers};
use crate::plan::{Options, Plan};
use crate::tokenizer::{IndexedVocab, Tables, TablesView, Vocab};

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
pub struct Embedded {
    /// The model, with its weights in flash.
    pub model: Model<'static>,
    /// The vocabulary and its tables, also in flash.
    pub vocab: IndexedVocab<'static>,
    /// Plan of the arena: the purpose of every byte.
    pub plan: Plan,
    /// The arena, which lies in a static of its own: [`Lender::claim`] lends it once.
    pub arena: Lender,
}

/// All that a file says beside its weights, for [`embed_model!`](crate::embed_model), which has the
/// compiler read it once.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Parsed {
    file: Gguf<'static>,
    config: Config,
    pub vocab: Vocab<'static>,
}

#[doc(hidden)]
impl Parsed {
    /// Reads a file.
    ///
    /// # Panics
    /// If `file` is not a whole GGUF file, or the model or its tokenizer is not supported.
    #[inline]
    pub const fn read(file: &'static [u8]) -> Parsed {
        Parsed::of(or_refuse!(
            Gguf::parse(file),
            "the model is not a whole GGUF file"
        ))
    }

    /// Reads a file that the compiler has read before.
    #[inline]
    fn again(file: &'static [u8]) -> Parsed {
        Parsed::of(or_refuse!(
            Gguf::parse_again(file),
            "the model is not a whole GGUF file"
        ))
    }

    #[inline]
    const fn of(file: Gguf<'static>) -> Parsed {
        let config = or_refuse!(
            Config::from_gguf(&file),
            "brooklet does not support this model: `brooklet inspect` says why"
        );
        let vocab = or_refuse!(
            Vocab::from_gguf(&file),
            "brooklet does not support the model's tokenizer: `brooklet inspect` says why"
        );
        Parsed {
            file,
            config,
            vocab,
        }
    }

    /// Number of layers in the file.
    pub const fn layer_count(&self) -> usize {
        self.config.layers_in_file()
    }

    /// Number of words of the tokenizer's tables.
    pub const fn words(&self) -> usize {
        IndexedVocab::words(&self.vocab)
    }

    /// Finds the tensors of all layers.
    ///
    /// # Panics
    /// If a tensor does not fit the metadata.
    pub const fn layers<const N: usize>(&self) -> [Layer<'static>; N] {
        or_refuse!(
            layers(&self.file, &self.config),
            "a layer of the model does not fit the rest: `brooklet inspect` says why"
        )
    }

    /// Makes the model over its layers.
    ///
    /// # Panics
    /// If a tensor does not fit the metadata.
    pub const fn model(&self, layers: &'static [Layer<'static>]) -> Model<'static> {
        or_refuse!(
            Model::with_config(&self.file, self.config, layers),
            "the model's tensors do not fit its metadata: `brooklet inspect` says why"
        )
    }

    /// Builds the tokenizer's tables.
    ///
    /// # Panics
    /// If too many of the vocabulary's strings collide in the tables.
    pub const fn tables<const N: usize>(&self) -> Tables<N> {
        or_refuse!(
            Tables::build(&self.vocab),
            "too many strings of the model's vocabulary collide in the hash table"
        )
    }

    /// Plans the arena.
    ///
    /// # Panics
    /// If the plan does not fit `budget` bytes; the message has the numbers.
    pub const fn plan(&self, options: &Options, budget: usize) -> Plan {
        match Plan::within(&self.config, options, budget) {
            Ok(plan) => plan,
            Err(error) => panic!("{}", error.message().as_str()),
        }
    }
}

/// Named by every [`embed_model!`](crate::embed_model), so that the compiler warns there if a
/// processor's instructions lie idle: cargo shows no warnings of a dependency.
#[doc(hidden)]
#[cfg_attr(
    all(
        target_arch = "arm",
        target_os = "none",
        target_abi = "eabihf",
        not(feature = "dsp")
    ),
    deprecated(
        note = "brooklet-core's feature `dsp` is off: a Cortex-M4, M7 or M33 with the DSP extension takes about 2.5 times the instructions for a token without it; for a core that lacks the extension, allow(deprecated)"
    )
)]
pub const SCALAR_KERNELS: () = ();

/// Everything but the file of a model that will lie at a fixed address, made by
/// [`embed_model!`](crate::embed_model).
pub struct Flashed {
    /// Address and length of the file.
    memory: Flash,
    /// CRC-32 of the file.
    checksum: u32,
    /// Plan of the arena: the purpose of every byte.
    pub plan: Plan,
    /// The arena, which lies in a static of its own: [`Lender::claim`] lends it once.
    pub arena: Lender,
    tables: TablesView<'static>,
    /// Place of the layers, for when the file is found.
    layers: &'static LayerTable,
}

/// A static's place for layers, of any number.
#[doc(hidden)]
pub type LayerTable = StaticTable<[MaybeUninit<Layer<'static>>]>;

/// A model that was found at its address.
pub struct Found {
    /// The model.
    pub model: Model<'static>,
    /// Its vocabulary, and the tables, which lie in the image.
    pub vocab: IndexedVocab<'static>,
}

impl Flashed {
    /// Describes `file`, which will lie in `memory`, for [`embed_model!`](crate::embed_model).
    #[doc(hidden)]
    pub const fn new(
        memory: Flash,
        file: &[u8],
        plan: Plan,
        arena: Lender,
        tables: TablesView<'static>,
        layers: &'static LayerTable,
    ) -> Self {
        Flashed {
            memory,
            checksum: CRC.checksum(file),
            plan,
            arena,
            tables,
            layers,
        }
    }

    /// Reads the whole file at its address, checks its checksum and finds its tensors. The table of
    /// layers is written in a static, never on the stack.
    ///
    /// # Errors
    /// If the bytes are not exactly those of the file that the compiler planned for, or the model
    /// was found before.
    pub fn find(&self) -> Result<Found, FlashError> {
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
        let parsed = Parsed::again(bytes);
        let Parsed { file, config, .. } = &parsed;
        let layers = self
            .layers
            .fill(|i| Layer::read(file, config, i))
            .ok_or(FlashError::FoundBefore)?
            .map_err(FlashError::Model)?;
        Ok(Found {
            model: Model::with_config(file, *config, layers).map_err(FlashError::Model)?,
            vocab: self.tables.over(parsed.vocab),
        })
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
    /// The model was found before: its table of layers is there once.
    FoundBefore,
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
            FlashError::FoundBefore => write!(f, "the model was found before"),
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
/// arena in RAM ([`Embedded`]). Attributes before `pub` go to the static.
///
/// The compiler reads the whole header, and does it again whenever the crate with the macro
/// changes: put the macro in a crate of its own, with nothing but the model
/// (`boards/template/model` is one).
///
/// # The arena's memory
///
/// `embed_model!(static NAME = PATH, options, budget: BYTES, arena: #[unsafe(link_section =
/// ".psram")])` puts the attributes in the brackets on the static of the arena, here into a section
/// of the linker's script. The section takes exactly the planned bytes. Its memory must work before
/// [`Lender::claim`] is called; what it holds before that does not matter.
///
/// # A model apart from the image
///
/// `embed_model!(static NAME = PATH, options, budget: BYTES, at: unsafe { ADDRESS })` plans for a
/// file that is not part of the image but is programmed into flash separately, at `ADDRESS`. The
/// compiler reads the same file, and at boot the firmware checks that exactly this file lies at the
/// address ([`Flashed::find`]). With `unsafe` the caller promises that as many bytes as the file
/// has can be read there, and that nothing writes them while the firmware runs. (`at` comes after
/// `arena`, if both are there.)
///
/// # Example
///
/// ```
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
/// ```compile_fail,E0080
/// # use brooklet_core::{plan::Options, tokenizer::Vocab};
/// # const fn options(_: &Vocab<'_>) -> Options { Options::sink(4, 60) }
/// brooklet_core::embed_model!(static TINY = "../tests/data/random.gguf", options, budget: 1000);
/// ```
///
/// Attributes reach the model and the arena:
///
/// ```
/// # use brooklet_core::{plan::Options, tokenizer::Vocab};
/// # const fn options(_: &Vocab<'_>) -> Options { Options::sink(4, 60) }
/// brooklet_core::embed_model!(
///     /// The model of this program.
///     #[allow(non_upper_case_globals)]
///     pub static tiny = "../tests/data/random.gguf",
///     options,
///     budget: 256 << 10,
///     arena: #[cfg_attr(target_os = "linux", unsafe(link_section = ".bss.apart"))]
/// );
/// assert_eq!(tiny.arena.bytes(), tiny.plan.bytes());
/// assert_eq!(tiny.arena.claim().map(|bytes| bytes.len()), Some(tiny.plan.bytes()));
/// ```
#[macro_export]
macro_rules! embed_model {
    (
        $(#[$attribute:meta])*
        $visibility:vis static $name:ident = $path:expr,
        $options:path,
        budget: $budget:expr
        $(, arena: $(#[$place:meta])+)? $(,)?
    ) => {
        $(#[$attribute])*
        #[allow(long_running_const_eval, reason = "the compiler reads a whole model file")]
        $visibility static $name: $crate::firmware::Embedded = {
            const _: () = $crate::firmware::SCALAR_KERNELS;
            static FILE: $crate::arena::Aligned<{ include_bytes!($path).len() }> =
                $crate::arena::Aligned(*include_bytes!($path));
            const PARSED: $crate::firmware::Parsed = $crate::firmware::Parsed::read(&FILE.0);
            const PLAN: $crate::plan::Plan = PARSED.plan(&$options(&PARSED.vocab), $budget);
            static LAYERS: [$crate::model::Layer<'static>; PARSED.layer_count()] = PARSED.layers();
            static TABLES: $crate::tokenizer::Tables<{ PARSED.words() }> = PARSED.tables();
            $crate::firmware::Embedded {
                model: PARSED.model(&LAYERS),
                vocab: TABLES.over(PARSED.vocab),
                plan: PLAN,
                arena: $crate::embed_model!(@arena { PLAN.bytes() } $($(#[$place])+)?),
            }
        };
    };
    (
        $(#[$attribute:meta])*
        $visibility:vis static $name:ident = $path:expr,
        $options:path,
        budget: $budget:expr
        $(, arena: $(#[$place:meta])+)?,
        at: unsafe { $address:expr } $(,)?
    ) => {
        $(#[$attribute])*
        #[allow(long_running_const_eval, reason = "the compiler reads a whole model file")]
        $visibility static $name: $crate::firmware::Flashed = {
            const _: () = $crate::firmware::SCALAR_KERNELS;
            // Only the compiler reads it: none of its bytes are in the image.
            const FILE: &[u8] = include_bytes!($path);
            const PARSED: $crate::firmware::Parsed = $crate::firmware::Parsed::read(FILE);
            const PLAN: $crate::plan::Plan = PARSED.plan(&$options(&PARSED.vocab), $budget);
            static TABLES: $crate::tokenizer::Tables<{ PARSED.words() }> = PARSED.tables();
            static LAYERS: $crate::arena::StaticTable<
                [::core::mem::MaybeUninit<$crate::model::Layer<'static>>; PARSED.layer_count()],
            > = $crate::arena::StaticTable::new();
            // SAFETY: the `unsafe` in the macro's arguments promises that this memory can be read
            // and that nothing writes it.
            let memory = unsafe { $crate::arena::Flash::new($address, FILE.len()) };
            let arena = $crate::embed_model!(@arena { PLAN.bytes() } $($(#[$place])+)?);
            $crate::firmware::Flashed::new(memory, FILE, PLAN, arena, TABLES.view(), &LAYERS)
        };
    };
    // A static of its own: everything else stays in flash.
    (@arena $bytes:block) => {{
        static ARENA: $crate::arena::StaticArena<$bytes> = $crate::arena::StaticArena::new();
        ARENA.lender()
    }};
    (@arena $bytes:block $(#[$place:meta])+) => {{
        static LENT: $crate::arena::Lent = $crate::arena::Lent::new();
        $(#[$place])+
        static ARENA: $crate::arena::Room<$bytes> = $crate::arena::Room::new();
        // SAFETY: only this block names the room.
        unsafe { $crate::arena::Lender::new(&LENT, &ARENA) }
    }};
}

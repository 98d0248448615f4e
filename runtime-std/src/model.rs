//! A model file, opened once: its bytes, the facts that were checked, the tokenizer's index and the
//! threads, shared by all sessions.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use brooklet_core::arena::Carver;
use brooklet_core::cache::{ElementType, Layout};
use brooklet_core::gguf::Gguf;
use brooklet_core::model::{Config, Layer, Model as CoreModel, ModelError};
use brooklet_core::plan::{Options, Plan};
use brooklet_core::tokenizer::{EncodeOptions, IndexedVocab, Tokenizer, TokenizerError, Vocab};
use brooklet_core::transcribe::SpeechTokens;
use self_cell::{MutBorrow, self_cell};

use crate::Error;
use crate::notice::{Notice, Percent};
use crate::planning::{Needs, Settings};
use crate::stated::{self, SlimErrors};
use crate::system::mmap::{Access, ArenaMemory, ModelFile};
use crate::system::pool::{MAX_WORKERS, Pool};

/// Longest word, or run of blanks, that the tokenizer sees whole, in bytes.
const LONGEST_WORD: usize = 4096;

/// Options of opening a model.
///
/// ```no_run
/// use brooklet::ModelOptions;
/// use brooklet::system::mmap::Access;
///
/// let model = ModelOptions::new().access(Access::Read).workers(2).open("model.gguf")?;
/// # Ok::<(), brooklet::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ModelOptions {
    access: Access,
    workers: usize,
}

impl Default for ModelOptions {
    fn default() -> Self {
        ModelOptions::new()
    }
}

impl ModelOptions {
    /// A mapped file, and a worker for each processor.
    pub fn new() -> ModelOptions {
        ModelOptions {
            access: Access::default(),
            workers: Pool::default_workers(),
        }
    }

    /// Maps or reads the file.
    pub fn access(self, access: Access) -> ModelOptions {
        ModelOptions { access, ..self }
    }

    /// Workers that compute, the calling thread included: from 1 to [`MAX_WORKERS`]. All sessions
    /// share them.
    pub fn workers(self, workers: usize) -> ModelOptions {
        ModelOptions {
            workers: workers.clamp(1, MAX_WORKERS),
            ..self
        }
    }

    /// Opens the file at `path` and checks everything that is needed to run it.
    ///
    /// # Errors
    /// [`Error::Read`]; as [`ModelOptions::check`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Model, Error> {
        let path = path.as_ref();
        let file = ModelFile::open(path, self.access).map_err(|error| Error::Read {
            path: path.to_path_buf(),
            error,
        })?;
        self.check(file)
    }

    /// As [`ModelOptions::open`], of a file that is open.
    ///
    /// # Errors
    /// [`Error::Model`] with the first thing that is wrong. A tokenizer that is missing or unknown
    /// is an error only where text is asked for.
    pub fn check(self, file: ModelFile) -> Result<Model, Error> {
        let checked = CheckedFile::try_new(file, |file| Contents::read(file))?;
        Ok(Model(Arc::new(Shared {
            checked: Arc::new(checked),
            index: OnceLock::new(),
            workers: self.workers,
            pool: Mutex::new(None),
        })))
    }
}

/// A model, opened.
///
/// It is a handle: clones and sessions share one map of the file, one index of the tokenizer and
/// one set of threads, which are made when they are first needed.
///
/// ```
/// use brooklet::Model;
///
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/stories/tiny-q8_0.gguf");
/// let model = Model::open(path)?;
/// assert_eq!(model.config().family.name(), "llama");
/// # Ok::<(), brooklet::Error>(())
/// ```
#[derive(Clone)]
pub struct Model(Arc<Shared>);

struct Shared {
    checked: Arc<CheckedFile>,
    index: OnceLock<Result<Index, IndexError>>,
    workers: usize,
    pool: Mutex<Option<Arc<Pool>>>,
}

self_cell! {
    struct CheckedFile {
        owner: ModelFile,
        #[covariant]
        dependent: Contents,
    }
}

/// The checked contents of a file; borrows its bytes.
struct Contents<'f> {
    gguf: Gguf<'f>,
    config: Config,
    layers: Vec<Layer<'f>>,
    vocab: Result<Vocab<'f>, TokenizerError>,
}

/// Checks all that is checked of a file until it writes text: its model, its tokenizer with the
/// index, and the tokens of a speech model.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check_file(file: &ModelFile) -> Result<(), Error> {
    let Contents {
        gguf,
        config,
        vocab,
        ..
    } = Contents::read(file)?;
    if config.encoder.get().is_some() {
        SpeechTokens::from_gguf(&gguf, config.vocab).map_err(|error| Error::Model {
            path: file.path().to_path_buf(),
            error,
        })?;
    }
    vocab
        .map_err(IndexError::Vocab)
        .and_then(|vocab| {
            let bytes = table_bytes(&vocab);
            let mut tables = ArenaMemory::new(bytes).map_err(IndexError::memory(bytes))?;
            fill(&vocab, tables.bytes()).map_err(IndexError::Vocab)?;
            Ok(())
        })
        .map_err(|error| error.of(file))
}

/// Lends the tokenizer of a file that need not be a whole model.
///
/// # Errors
/// If the file is no GGUF file, its tokenizer is missing or unknown, or the system gives no memory.
pub fn with_tokenizer_of<T>(
    file: &ModelFile,
    work: impl FnOnce(&mut Tokenizer<'_>) -> T,
) -> Result<T, Error> {
    let gguf = Gguf::parse(file).map_err(|error| Error::Model {
        path: file.path().to_path_buf(),
        error: ModelError::Gguf(error),
    })?;
    let refused = |error| IndexError::Vocab(error).of(file);
    let vocab = Vocab::from_gguf(&gguf).map_err(refused)?;
    let bytes = vocab.index_bytes(LONGEST_WORD);
    let mut memory = ArenaMemory::new(bytes).map_err(|error| no_memory(bytes, error))?;
    let mut tokenizer = Tokenizer::new(&vocab, memory.bytes()).map_err(refused)?;
    Ok(work(&mut tokenizer))
}

impl<'f> Contents<'f> {
    fn read(file: &'f ModelFile) -> Result<Contents<'f>, Error> {
        let fail = |error| Error::Model {
            path: file.path().to_path_buf(),
            error,
        };
        let gguf = Gguf::parse(file).map_err(|error| fail(ModelError::Gguf(error)))?;
        let config = Config::from_gguf(&gguf).map_err(fail)?;
        let layers: Result<Vec<_>, _> = (0..config.layers_in_file())
            .map(|layer| Layer::read(&gguf, &config, layer))
            .collect();
        let layers = layers.map_err(fail)?;
        CoreModel::new(&gguf, &layers).map_err(fail)?;
        Ok(Contents {
            vocab: Vocab::from_gguf(&gguf),
            gguf,
            config,
            layers,
        })
    }
}

self_cell! {
    struct Index {
        owner: IndexMemory,
        #[covariant]
        dependent: IndexedVocab,
    }
}

struct IndexMemory {
    file: Arc<CheckedFile>,
    tables: MutBorrow<ArenaMemory>,
}

/// The reason why there is no index.
#[derive(Clone, Copy)]
pub(crate) enum IndexError {
    Vocab(TokenizerError),
    Memory { bytes: usize, kind: io::ErrorKind },
}

impl IndexError {
    /// Returns the error of memory for an index of so many bytes.
    fn memory(bytes: usize) -> impl FnOnce(io::Error) -> IndexError {
        move |error| IndexError::Memory {
            bytes,
            kind: error.kind(),
        }
    }

    /// Returns the library's error about `file`.
    fn of(self, file: &ModelFile) -> Error {
        match self {
            IndexError::Vocab(error) => Error::Tokenizer {
                path: file.path().to_path_buf(),
                error,
            },
            IndexError::Memory { bytes, kind } => no_memory(bytes, kind.into()),
        }
    }
}

impl Index {
    fn build(file: &Arc<CheckedFile>) -> Result<Index, IndexError> {
        let vocab = file.borrow_dependent().vocab.as_ref();
        let bytes = table_bytes(vocab.map_err(|error| IndexError::Vocab(*error))?);
        let tables = ArenaMemory::new(bytes).map_err(IndexError::memory(bytes))?;
        let memory = IndexMemory {
            file: Arc::clone(file),
            tables: MutBorrow::new(tables),
        };
        Index::try_new(memory, IndexMemory::fill).map_err(IndexError::Vocab)
    }
}

impl IndexMemory {
    fn fill(&self) -> Result<IndexedVocab<'_>, TokenizerError> {
        let vocab = self.file.borrow_dependent().vocab?;
        fill(&vocab, self.tables.borrow_mut().bytes())
    }
}

/// Builds the index of `vocab` in `tables`.
fn fill<'f>(vocab: &Vocab<'f>, tables: &'f mut [u8]) -> Result<IndexedVocab<'f>, TokenizerError> {
    let short = TokenizerError::OutOfMemory {
        needed: table_bytes(vocab),
        given: tables.len(),
    };
    let words = IndexedVocab::words(vocab);
    let tables = Carver::new(tables).and_then(|mut carver| carver.take(words));
    IndexedVocab::build(vocab, tables.ok_or(short)?)
}

/// Bytes of an index.
fn table_bytes(vocab: &Vocab<'_>) -> usize {
    IndexedVocab::words(vocab) * size_of::<u32>()
}

impl Model {
    /// Opens the file at `path` with the [default options](ModelOptions::new).
    ///
    /// # Errors
    /// As [`ModelOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Model, Error> {
        ModelOptions::new().open(path)
    }

    fn contents(&self) -> &Contents<'_> {
        self.0.checked.borrow_dependent()
    }

    /// The file.
    pub fn file(&self) -> &ModelFile {
        self.0.checked.borrow_owner()
    }

    /// The file's metadata and tensors.
    pub fn gguf(&self) -> &Gguf<'_> {
        &self.contents().gguf
    }

    /// The facts of the model.
    pub fn config(&self) -> &Config {
        &self.contents().config
    }

    /// The weights of every layer.
    pub fn layers(&self) -> &[Layer<'_>] {
        &self.contents().layers
    }

    /// The whole model, as core takes it.
    ///
    /// # Errors
    /// None: it was checked when the model was opened.
    pub fn weights(&self) -> Result<CoreModel<'_>, Error> {
        let Contents { gguf, layers, .. } = self.contents();
        CoreModel::new(gguf, layers).map_err(|error| Error::Model {
            path: self.file().path().to_path_buf(),
            error,
        })
    }

    /// The vocabulary with its index, which is built when it is first asked for.
    ///
    /// # Errors
    /// If the file's tokenizer is missing or unknown, or the system gives no memory for the index.
    pub fn vocab(&self) -> Result<IndexedVocab<'_>, Error> {
        self.index().map_err(|error| self.index_error(error))
    }

    pub(crate) fn index(&self) -> Result<IndexedVocab<'_>, IndexError> {
        let index = self.0.index.get_or_init(|| Index::build(&self.0.checked));
        match index {
            Ok(index) => Ok(*index.borrow_dependent()),
            Err(error) => Err(*error),
        }
    }

    pub(crate) fn index_error(&self, error: IndexError) -> Error {
        error.of(self.file())
    }

    /// Bytes of the tokenizer's index, which all sessions share; 0 if the file's tokenizer is
    /// missing or unknown.
    pub fn index_bytes(&self) -> usize {
        self.contents().vocab.as_ref().map_or(0, table_bytes)
    }

    /// Bytes in which a session's tokenizer works, in its arena.
    fn window_bytes(&self) -> usize {
        self.contents()
            .vocab
            .as_ref()
            .map_or(0, |vocab| vocab.window_bytes(LONGEST_WORD))
    }

    /// The tokens of a text, for which no session is needed.
    ///
    /// # Errors
    /// As [`Model::vocab`].
    pub fn tokenize(&self, text: &[u8], options: EncodeOptions) -> Result<Vec<u32>, Error> {
        self.with_tokenizer(|tokenizer| {
            let mut tokens = Vec::new();
            tokenizer.encode(text, options, &mut |token| tokens.push(token));
            tokens
        })
    }

    /// Lends a tokenizer, without a session.
    ///
    /// # Errors
    /// As [`Model::vocab`].
    pub fn with_tokenizer<T>(
        &self,
        work: impl FnOnce(&mut Tokenizer<'_>) -> T,
    ) -> Result<T, Error> {
        let vocab = self.vocab()?;
        let bytes = self.window_bytes();
        let mut memory = ArenaMemory::new(bytes).map_err(|error| no_memory(bytes, error))?;
        let tokenizer = Tokenizer::over(vocab, memory.bytes());
        let mut tokenizer =
            tokenizer.map_err(|error| self.index_error(IndexError::Vocab(error)))?;
        Ok(work(&mut tokenizer))
    }

    /// Workers that compute.
    pub fn workers(&self) -> usize {
        self.0.workers
    }

    /// The same file, with other threads.
    pub fn with_workers(&self, workers: usize) -> Model {
        Model(Arc::new(Shared {
            checked: Arc::clone(&self.0.checked),
            index: OnceLock::new(),
            workers: workers.clamp(1, MAX_WORKERS),
            pool: Mutex::new(None),
        }))
    }

    /// The threads, which are started when they are first asked for.
    ///
    /// # Errors
    /// If the system starts no more.
    pub fn pool(&self) -> Result<Arc<Pool>, Error> {
        let mut pool = self.0.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = &*pool {
            return Ok(Arc::clone(pool));
        }
        let workers = self.workers();
        let started = Pool::new(workers).map_err(|error| Error::System {
            what: format!("{workers} threads"),
            error,
        })?;
        Ok(Arc::clone(pool.insert(Arc::new(started))))
    }

    /// The plan of a session's arena.
    ///
    /// # Errors
    /// As [`Settings::plan`].
    pub fn plan(&self, settings: &Settings) -> Result<Plan, Error> {
        let plan = settings.plan(&Needs {
            tokenizer_bytes: self.window_bytes(),
            ..self.needs_with_index()
        })?;
        self.check_slim(&plan).map(|_| plan)
    }

    /// The plan of a session that is the only one: its arena, and the tokenizer's index.
    ///
    /// # Errors
    /// As [`Settings::plan`].
    pub fn plan_with_index(&self, settings: &Settings) -> Result<Plan, Error> {
        let plan = settings.plan(&self.needs_with_index())?;
        self.check_slim(&plan).map(|_| plan)
    }

    /// Returns the notices about a plan of this model: a slim file that is not made for its cache,
    /// but near enough.
    pub fn notices(&self, plan: &Plan) -> Vec<Notice> {
        self.check_slim(plan).unwrap_or_default()
    }

    /// Holds a plan against what a slim file states about its layers.
    ///
    /// # Errors
    /// [`Error::SlimCache`] if they err far more than was accepted.
    fn check_slim(&self, plan: &Plan) -> Result<Vec<Notice>, Error> {
        let (config, options) = (self.config(), plan.options());
        let is_slim = |layer| matches!(options.layout_of(config, layer), Layout::KR { .. });
        if !(0..config.layers).any(is_slim) {
            return Ok(Vec::new());
        }
        let Some(errors) = SlimErrors::of(self.gguf()) else {
            return Ok(vec![Notice::SlimUnstated]);
        };
        let mut notices = Vec::new();
        let (cache_type, accepted) = (options.cache_type, errors.accepted);
        let error = errors.with(cache_type);
        let (percent, of_accepted) = (Percent::of(error), Percent::of(accepted));
        if error > accepted.max(MOST_ERROR) {
            let holds = |of: &ElementType| errors.with(*of) <= accepted;
            let smallest_first = [ElementType::Q8_0, ElementType::F16];
            let best = smallest_first.into_iter().find(holds);
            let best = best.unwrap_or(ElementType::F32);
            return Err(Error::SlimCache {
                cache_type: cache_type.name(),
                percent,
                accepted: of_accepted,
                best: best.name(),
                of_best: Percent::of(errors.with(best)),
            });
        }
        if error > accepted {
            notices.push(Notice::SlimError {
                cache_type: cache_type.name(),
                percent,
                accepted: of_accepted,
            });
        }
        let (measured, kept) = (self.sinks().unwrap_or(0), options.policy.sinks());
        if kept < measured {
            notices.push(Notice::SlimSinks { measured, kept });
        }
        Ok(notices)
    }

    /// The sinks that the model needs, if the file says so.
    pub fn sinks(&self) -> Option<usize> {
        stated::sinks(self.gguf())
    }

    /// The needs of a plan [with the index](Model::plan_with_index).
    pub fn needs_with_index(&self) -> Needs<'_> {
        Needs {
            config: self.config(),
            tokenizer_bytes: self.index_bytes() + self.window_bytes(),
            workers: self.workers(),
        }
    }

    /// The part of a plan that is a session's own.
    pub(crate) fn own_plan(&self, plan: &Plan) -> Result<Plan, Error> {
        let options = Options {
            tokenizer_bytes: self.window_bytes(),
            ..plan.options()
        };
        Plan::new(self.config(), &options).map_err(|error| Error::Plan {
            error,
            hint: String::new(),
        })
    }
}

/// The error of a slim file's layers from which on a cache that it was not made for is refused:
/// a quarter of the attention output is noise.
const MOST_ERROR: f32 = 0.25;

/// The system gives no memory of that many bytes.
pub(crate) fn no_memory(bytes: usize, error: io::Error) -> Error {
    Error::System {
        what: format!("{bytes} bytes of memory"),
        error,
    }
}

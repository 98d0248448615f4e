//! From a model file to an engine, in the steps whose results borrow one another.

use std::path::{Path, PathBuf};

use brooklet_core::gguf::Gguf;
use brooklet_core::model::{Config, Layer, Model, ModelError};
use brooklet_core::plan::Plan;
use brooklet_core::stream::{Stream, StreamError};
use brooklet_core::tokenizer::{EncodeOptions, Mark, Tokenizer, TokenizerError, Vocab};

use crate::Error;
use crate::planning::Settings;
use crate::system::mmap::{ArenaMemory, ModelFile};
use crate::system::pool::{Pool, detect_isa};

/// Longest word, or run of blanks, that the tokenizer sees whole, in bytes.
const LONGEST_WORD: usize = 4096;

/// A model file, checked; borrows its bytes.
pub struct Weights<'f> {
    path: PathBuf,
    file: Gguf<'f>,
    config: Config,
    layers: Vec<Layer<'f>>,
    vocab: Result<Vocab<'f>, TokenizerError>,
}

impl<'f> Weights<'f> {
    /// Checks everything that is needed to run the model.
    ///
    /// # Errors
    /// [`Error::Model`] with the first thing that is wrong. A tokenizer that is missing or unknown is an error only where text is
    /// asked for.
    pub fn read(file: &'f ModelFile) -> Result<Weights<'f>, Error> {
        let path = file.path().to_path_buf();
        let fail = |error| Error::Model {
            path: path.clone(),
            error,
        };
        let gguf = Gguf::parse(file).map_err(|error| fail(ModelError::Gguf(error)))?;
        let config = Config::from_gguf(&gguf).map_err(fail)?;
        let layers: Result<Vec<_>, _> = (0..config.layers)
            .map(|layer| Layer::read(&gguf, &config, layer))
            .collect();
        let layers = layers.map_err(fail)?;
        let vocab = Vocab::from_gguf(&gguf);
        let weights = Weights {
            path,
            file: gguf,
            config,
            layers,
            vocab,
        };
        weights.model()?;
        Ok(weights)
    }

    /// The whole model.
    ///
    /// # Errors
    /// None once [`Weights::read`] has given none.
    pub fn model(&self) -> Result<Model<'_>, Error> {
        Model::new(&self.file, &self.layers).map_err(|error| Error::Model {
            path: self.path.clone(),
            error,
        })
    }

    /// The facts of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The weights of every layer.
    pub fn layers(&self) -> &[Layer<'f>] {
        &self.layers
    }

    /// The file's metadata and tensors.
    pub fn gguf(&self) -> &Gguf<'f> {
        &self.file
    }

    /// Bytes that the tokenizer takes from the arena: none if the file has no usable one.
    pub fn tokenizer_bytes(&self) -> usize {
        self.vocab
            .as_ref()
            .map_or(0, |vocab| vocab.index_bytes(LONGEST_WORD))
    }

    fn tokenizer_error(&self, error: TokenizerError) -> Error {
        Error::Tokenizer {
            path: self.path.to_path_buf(),
            error,
        }
    }
}

/// The memory and the threads of an engine, as planned.
pub struct Resources {
    plan: Plan,
    arena: ArenaMemory,
    pool: Pool,
}

impl Resources {
    /// Plans for `weights`, and takes from the system what the plan says.
    ///
    /// # Errors
    /// As [`Settings::plan`], and if the system refuses memory or threads.
    pub fn new(weights: &Weights<'_>, settings: &Settings) -> Result<Resources, Error> {
        let plan = settings.plan(&weights.config, weights.tokenizer_bytes())?;
        let refused = |what: String| move |error| Error::System { what, error };
        let arena =
            ArenaMemory::new(plan.bytes()).map_err(refused(format!("{} bytes of memory", plan.bytes())))?;
        let pool = Pool::new(settings.workers).map_err(refused(format!("{} threads", settings.workers)))?;
        Ok(Resources { plan, arena, pool })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}

/// A model at work.
pub struct Engine<'a> {
    stream: Stream<'a>,
    tokenizer: Result<Tokenizer<'a>, TokenizerError>,
    path: &'a Path,
}

impl<'a> Engine<'a> {
    /// Lays the engine out in its memory. Nothing is allocated by it after this.
    ///
    /// # Errors
    /// If `BROOKLET_ISA` names an instruction set that is not there.
    pub fn new(weights: &'a Weights<'_>, resources: &'a mut Resources) -> Result<Engine<'a>, Error> {
        let Resources { plan, arena, pool } = resources;
        let model = weights.model()?;
        let isa = detect_isa()?;
        let (engine, index) = plan.split(arena.bytes()).ok_or(StreamError::Arena {
            needed: plan.bytes(),
            given: 0,
        })?;
        let tokenizer = weights.vocab.and_then(|vocab| Tokenizer::new(&vocab, index));
        let stream = Stream::new(model, plan, engine, isa, pool)?;
        Ok(Engine {
            stream,
            tokenizer,
            path: &weights.path,
        })
    }

    /// The stream: tokens in, logits out.
    pub fn stream(&mut self) -> &mut Stream<'a> {
        &mut self.stream
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// If the file has none that is known here.
    pub fn tokenizer(&mut self) -> Result<&mut Tokenizer<'a>, Error> {
        let path = self.path;
        self.tokenizer.as_mut().map_err(|error| Error::Tokenizer {
            path: path.to_path_buf(),
            error: *error,
        })
    }

    /// The tokens of a prompt, with the start-of-sequence token where the model asks for one. Tokens written out in the text are not
    /// obeyed. An empty prompt is that token alone, where the model has one.
    ///
    /// # Errors
    /// If the file has no tokenizer that is known here.
    pub fn encode(&mut self, text: &[u8]) -> Result<Vec<u32>, Error> {
        let bos = if text.is_empty() {
            Mark::Always
        } else {
            Mark::Model
        };
        let mut tokens = Vec::new();
        self.tokenizer()?.encode(
            text,
            EncodeOptions {
                bos,
                ..EncodeOptions::default()
            },
            &mut |token| tokens.push(token),
        );
        Ok(tokens)
    }

    /// The stream and the tokenizer.
    ///
    /// # Errors
    /// As [`Engine::tokenizer`].
    pub fn parts(&mut self) -> Result<(&mut Stream<'a>, &mut Tokenizer<'a>), Error> {
        match &mut self.tokenizer {
            Ok(tokenizer) => Ok((&mut self.stream, tokenizer)),
            Err(error) => Err(Error::Tokenizer {
                path: self.path.to_path_buf(),
                error: *error,
            }),
        }
    }
}

/// The tokens of a text, for which no weights are needed.
///
/// # Errors
/// If the file has no tokenizer that is known here.
pub fn tokenize(weights: &Weights<'_>, text: &[u8], options: EncodeOptions) -> Result<Vec<u32>, Error> {
    with_tokenizer(weights, |tokenizer| {
        let mut tokens = Vec::new();
        tokenizer.encode(text, options, &mut |token| tokens.push(token));
        tokens
    })
}

/// Builds a tokenizer on its own, without an engine.
///
/// # Errors
/// As [`tokenize`].
pub fn with_tokenizer<T>(
    weights: &Weights<'_>,
    work: impl FnOnce(&mut Tokenizer<'_>) -> T,
) -> Result<T, Error> {
    let fail = |error| weights.tokenizer_error(error);
    let vocab = weights.vocab.map_err(fail)?;
    let bytes = vocab.index_bytes(LONGEST_WORD);
    let mut memory = ArenaMemory::new(bytes).map_err(|error| Error::System {
        what: format!("{bytes} bytes of memory"),
        error,
    })?;
    let mut tokenizer = Tokenizer::new(&vocab, memory.bytes()).map_err(fail)?;
    Ok(work(&mut tokenizer))
}

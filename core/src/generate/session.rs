//! A generation with its stream, tokenizer and sampler.

use super::{AtEnd, Generation, Parts, Step};
use crate::sampler::{Sampler, SamplerOptions};
use crate::stream::{Stream, StreamError};
use crate::tokenizer::Tokenizer;

/// Type of stop texts of which there are none, for firmware: the code that looks for them is left
/// out of the image.
#[derive(Clone, Copy, Debug)]
pub enum NoStops {}

impl AsRef<str> for NoStops {
    fn as_ref(&self) -> &str {
        match *self {}
    }
}

/// Conditions that end a text.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r, S = &'r str> {
    /// Largest number of tokens; `None` is without end.
    pub limit: Option<u64>,
    /// Treatment of tokens that end a text.
    pub at_end: AtEnd,
    /// Texts before which the text ends.
    pub stops: &'r [S],
}

impl<S> Default for Request<'_, S> {
    fn default() -> Self {
        Request {
            limit: None,
            at_end: AtEnd::default(),
            stops: &[],
        }
    }
}

/// A stream with its tokenizer and its sampler: text in, text out.
///
/// ```
/// # use brooklet_core::{kernels::Isa, plan::Options, stream::Stream, threads::SingleThread};
/// # const fn options(vocab: &Vocab<'_>) -> Options {
/// #     Options { tokenizer_bytes: vocab.window_bytes(64), ..Options::sink(4, 60) }
/// # }
/// # brooklet_core::embed_model!(
/// #     static TINY = "../../tests/data/random.gguf", options, budget: 256 << 10
/// # );
/// # let arena = TINY.arena.claim().expect("nobody else asks");
/// # let (engine, window) = TINY.plan.split(arena).expect("it has the planned size");
/// # let stream = Stream::new(TINY.model, &TINY.plan, engine, Isa::of_target(), &SingleThread)?;
/// use brooklet_core::generate::{Request, Session, Step};
/// use brooklet_core::sampler::SamplerOptions;
/// use brooklet_core::tokenizer::{EncodeOptions, Tokenizer, Vocab};
///
/// let tokenizer = Tokenizer::over(TINY.vocab, window)?;
/// let mut session: Session = Session::new(stream, tokenizer);
/// let request = Request { limit: Some(20), stops: &["\n\n", "The end"], ..Request::default() };
/// session.begin(SamplerOptions::default(), request);
/// let mut prompt = Vec::new();
/// let encoding = EncodeOptions::default();
/// session.tokenizer().encode(b"The sea was", encoding, &mut |token| prompt.push(token));
/// let mut left = &prompt[..];
/// while !left.is_empty() {
///     let fed = session.prefill(left)?;
///     left = &left[fed..];
/// }
/// let mut text = String::new();
/// while let Step::Token(_) = session.next(&mut |piece| text.push_str(piece))? {
///     // For ever, if there is no limit; to cancel, ask no more.
/// }
/// assert!(session.generation().tokens() <= 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Session<'a, S = &'a str> {
    stream: Stream<'a>,
    tokenizer: Tokenizer<'a>,
    sampler: Sampler,
    generation: Generation,
    stops: &'a [S],
}

impl<'a, S: AsRef<str>> Session<'a, S> {
    // Inline, so that a board's stack need not hold a stream that is then moved.
    /// Creates a session without a request: greedy, until the model ends the text.
    /// [`Session::begin`] changes this.
    #[inline(always)]
    pub fn new(stream: Stream<'a>, tokenizer: Tokenizer<'a>) -> Self {
        let Request {
            limit,
            at_end,
            stops,
        } = Request::<'a, S>::default();
        Session {
            stream,
            tokenizer,
            sampler: Sampler::new(SamplerOptions::default()),
            generation: Generation::new(limit, at_end),
            stops,
        }
    }

    /// Begins a new text after everything that was fed before; call [`Session::reset`] first to
    /// forget that.
    pub fn begin(&mut self, sampling: SamplerOptions, request: Request<'a, S>) {
        self.sampler.restart(sampling);
        self.generation = self.generation.followed_by(request.limit, request.at_end);
        self.stops = request.stops;
    }

    /// Forgets all tokens.
    pub fn reset(&mut self) {
        self.stream.reset();
        self.generation = Generation::new(None, AtEnd::default());
    }

    /// Feeds the first chunk of the rest of a prompt, and returns the number of its tokens.
    ///
    /// # Errors
    /// As [`Generation::prefill`].
    pub fn prefill(&mut self, prompt: &[u32]) -> Result<usize, StreamError> {
        self.generation
            .prefill(&mut self.stream, &mut self.sampler, prompt)
    }

    /// Chooses the next token, and calls `emit` with the text that is now certain.
    ///
    /// # Errors
    /// As [`Generation::next_token`].
    pub fn next(&mut self, emit: &mut dyn FnMut(&str)) -> Result<Step, StreamError> {
        let mut parts = Parts {
            feed: &mut self.stream,
            tokenizer: &self.tokenizer,
            sampler: &mut self.sampler,
            stops: self.stops,
        };
        self.generation.next(&mut parts, emit)
    }

    /// Ends the text when the caller stops early; see [`Generation::flush`].
    pub fn flush(&mut self, emit: &mut dyn FnMut(&str)) {
        self.generation.flush(self.stops, emit);
    }

    /// Current generation.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Stream of the session; [`Session::reset`] forgets its tokens.
    pub fn stream(&mut self) -> &mut Stream<'a> {
        &mut self.stream
    }

    /// Tokenizer of the session.
    pub fn tokenizer(&mut self) -> &mut Tokenizer<'a> {
        &mut self.tokenizer
    }
}

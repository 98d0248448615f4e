//! Text after a prompt, until something ends it: core's [`Generation`] with a clock and an output.
//! Allocates nothing once the first token is out.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use brooklet_core::generate::{AtEnd, Generation, Parts, Step};
pub use brooklet_core::generate::{Feed, Finish, Next};
use brooklet_core::sampler::Sampler;
use brooklet_core::tokenizer::Tokenizer;

use crate::Error;
use crate::logits::{Adjusted, Adjustments};
use crate::text::TextSink;

/// Bytes of text of one token that are expected at most. A longer one costs an allocation.
const LONGEST_PIECE: usize = 1024;

/// Conditions that end the text.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Most tokens; none for ever.
    pub limit: Option<u64>,
    /// Never sample tokens that end a text, instead of ending at one.
    pub past_end: bool,
    /// Texts to end before.
    pub stops: Vec<String>,
    /// Tokens to end before: control tokens, whose text is never written.
    pub stop_tokens: Vec<u32>,
    /// Changes of the logits before a token is chosen.
    pub adjustments: Adjustments,
    /// Ends the text between two tokens.
    pub cancel: Cancel,
}

/// Ends a text from anywhere, another thread for example: clones are handles of one wish, which is
/// not taken back.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A wish that nobody has made yet.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Ends the text after the token, or the chunk of its prompt, that is being computed.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True once [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl From<Arc<AtomicBool>> for Cancel {
    /// A wish that is made by setting a flag, as signal handlers can.
    fn from(flag: Arc<AtomicBool>) -> Self {
        Cancel(flag)
    }
}

/// The result of a generation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Time that they took.
    pub prompt_time: Duration,
    /// Tokens sampled, the one that ended the text not counted.
    pub tokens: u64,
    /// Time that they took, sampling and output included.
    pub time: Duration,
    /// The reason why it has ended.
    pub finish: Finish,
    /// The last token sampled, unless it ended the text: it was not fed, because nothing followed.
    pub pending: Option<u32>,
}

/// A text that is to be written: into what, by what, and until when.
pub struct Writing<'w, 'a> {
    /// The receiver of tokens.
    pub feed: &'w mut dyn Feed,
    /// The model's tokenizer.
    pub tokenizer: &'w Tokenizer<'a>,
    /// The sampler that chooses tokens.
    pub sampler: &'w mut Sampler,
    /// Conditions that end the text.
    pub request: &'w Request,
}

impl Writing<'_, '_> {
    /// Continues `prompt`, passing the text to `sink` token by token.
    ///
    /// # Errors
    /// If a token of the prompt is not in the vocabulary, the prompt is empty or does not fit a
    /// dense cache, or the sink fails ([`Error::Sink`]).
    pub fn run(self, prompt: &[u32], sink: &mut dyn TextSink) -> Result<Report, Error> {
        let Writing {
            feed,
            tokenizer,
            sampler,
            request,
        } = self;
        let mut adjusted;
        let feed = if request.adjustments.is_empty() {
            feed
        } else {
            adjusted = Adjusted::new(feed, &request.adjustments);
            &mut adjusted
        };
        let start = Instant::now();
        let at_end = if request.past_end {
            AtEnd::Avoid
        } else {
            AtEnd::Finish
        };
        let mut generation = Generation::new(request.limit, at_end);
        let mut writer = Writer::new(request, sink);
        let mut fed = 0;
        while !request.cancel.is_cancelled() {
            fed += generation.prefill(feed, sampler, &prompt[fed..])?;
            if fed == prompt.len() {
                break;
            }
        }
        let prompt_time = start.elapsed();
        let mut parts = Parts {
            feed,
            tokenizer,
            sampler,
            stops: &request.stops,
        };
        let mut ended_by_token = false;
        let finish = loop {
            let is_cancelled = fed < prompt.len()
                || (generation.finish().is_none() && request.cancel.is_cancelled());
            if is_cancelled {
                generation.flush(&request.stops, &mut |text| writer.piece.push_str(text));
                break Finish::Interrupted;
            }
            match generation.next(&mut parts, &mut |text| writer.piece.push_str(text))? {
                Step::Token(token) if request.stop_tokens.contains(&token) => {
                    generation.flush(&request.stops, &mut |text| writer.piece.push_str(text));
                    ended_by_token = true;
                    break Finish::Stop;
                }
                Step::Token(_) => writer.pass_on()?,
                Step::Finished(finish) => break finish,
            }
        };
        writer.pass_on()?;
        Ok(Report {
            prompt_tokens: fed,
            prompt_time,
            tokens: generation.tokens() - u64::from(ended_by_token),
            time: start.elapsed() - prompt_time,
            finish,
            pending: generation.pending(),
        })
    }
}

/// The text of a token on its way to the sink, in one piece.
struct Writer<'s> {
    piece: String,
    sink: &'s mut dyn TextSink,
}

impl<'s> Writer<'s> {
    fn new(request: &Request, sink: &'s mut dyn TextSink) -> Self {
        // What is held back of a stop text may come with the next token's.
        let longest_stop = request.stops.iter().map(String::len).max().unwrap_or(0);
        Writer {
            piece: String::with_capacity(longest_stop + LONGEST_PIECE),
            sink,
        }
    }

    fn pass_on(&mut self) -> Result<(), Error> {
        let passed: io::Result<()> = self.sink.text(&self.piece).and_then(|()| self.sink.token());
        self.piece.clear();
        passed.map_err(Error::Sink)
    }
}

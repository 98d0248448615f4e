//! `brooklet run`: continues raw text.
//!
//! From the first token to the last nothing is allocated here, statistics included: numbers are
//! formatted straight into unbuffered standard error and into the output's own buffer.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use brooklet_core::plan::Plan;
use brooklet_core::sampler::{Sampler, SamplerOptions};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;

use super::cache::{CacheArguments, RamArguments};
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::json::{Said, write_json_text};
use super::model::OptionalModelArguments;
use super::names::Named;
use super::numbers::{Open, limit};
use super::prompt::{self, Source, SpecialArguments};
use super::sampling::SamplingArguments;
use crate::Error;
use crate::embedded::OPENING;
use crate::generate::{Finish, Report, Request, Writing};
use crate::notice::{Notice, Notices};
use crate::planning::Settings;
use crate::system::memory::MemoryUse;
use crate::text::TextSink;

/// Arguments of `brooklet run`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: OptionalModelArguments,
    /// A model, unless -m names one: a name that `brooklet models` lists, hf:..., or a file whose
    /// name ends in .gguf. Any other word is the text
    #[arg(value_name = "MODEL")]
    first: Option<String>,
    /// The text to continue; standard input if it is not given here, with -p or with -f, less one
    /// line break at its end. Optional if no model is given
    #[arg(value_name = "TEXT")]
    second: Option<String>,
    /// The text to continue, instead of a word
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// A file with the text to continue; - for standard input
    #[arg(short, long)]
    file: Option<PathBuf>,
    #[command(flatten)]
    special: SpecialArguments,
    /// Tokens to generate, -1 for ever. By default the embedded model goes on for ever, and others
    /// until they end the text
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", value_parser = limit)]
    tokens: Option<Open>,
    #[command(flatten)]
    ram: RamArguments,
    #[command(flatten)]
    cache: CacheArguments,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// End before this text, or this control token; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Print the text that is continued, too
    #[arg(long)]
    echo: bool,
    /// Never let the model end the text
    #[arg(long)]
    ignore_eos: bool,
    /// Print statistics to standard error at the end
    #[arg(long)]
    stats: bool,
    /// Print one JSON object instead of the bare text
    #[arg(long)]
    json: bool,
}

/// Continues a text.
pub fn run(
    arguments: &Arguments,
    mut notices: Notices,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let named = Named::read(
        arguments.model.model.as_deref(),
        arguments.first.as_deref(),
        arguments.second.as_deref(),
    )?;
    let source = Source::of(
        named.text.as_deref(),
        arguments.prompt.as_deref(),
        arguments.file.as_ref(),
    )?;
    // The embedded model begins a text by itself, and continues for ever.
    let own = named.model.is_none();
    let limit = arguments.tokens.and_then(|tokens| tokens.0);
    let options = arguments.sampling.options();
    let open = arguments.model.open_named(named.model.as_deref())?;
    let (model, manifest) = open.check_text(arguments.cache.compute.workers())?;
    let adjustments = arguments.sampling.adjustments(model.config().vocab)?;
    let settings = Settings {
        budget: arguments.ram.budget(),
        sampling: !options.is_greedy(),
        ..arguments.cache.settings(manifest.as_ref())?
    };
    let plan = model.plan_with_index(&settings)?;
    log_choices(&plan, &options);
    let mut session = model.session_as_planned(&plan)?;
    let mut text = if own && source.is_terminal() {
        Vec::new()
    } else {
        source.read("the prompt")?
    };
    if own && text.is_empty() {
        text = OPENING.into();
    }
    let (prompt, stop_tokens) = session.with(|engine| {
        let tokenizer = engine.tokenizer()?;
        let special = arguments.special.special;
        let prompt = prompt::encode(tokenizer, &text, special, &mut notices);
        let stops = arguments.stop.iter();
        let stops = stops.filter_map(|stop| tokenizer.special(stop.as_bytes()));
        Ok::<_, Error>((prompt, stops.collect()))
    })?;
    if prompt.is_empty() {
        return Err(Failure::Input(
            "the prompt is empty, and this model has no token to start with".into(),
        ));
    }
    Notice::of_prompt(&plan, prompt.len())
        .into_iter()
        .for_each(|cut| notices.add(cut));
    let interrupt = Interrupt::catch()?;
    let request = Request {
        limit,
        past_end: own || arguments.ignore_eos || arguments.tokens == Some(Open(None)),
        stops: arguments.stop.clone(),
        stop_tokens,
        adjustments,
        cancel: interrupt.cancel(),
    };
    let mut page = Page {
        out,
        json: arguments.json,
    };
    page.begin().map_err(Failure::Output)?;
    if arguments.echo {
        let text = String::from_utf8_lossy(&text);
        page.text(&text).map_err(Failure::Output)?;
    }
    let mut sampler = Sampler::new(options);
    let report = session.with(|engine| {
        let (feed, tokenizer) = engine.parts()?;
        let writing = Writing {
            feed,
            tokenizer,
            sampler: &mut sampler,
            request: &request,
        };
        writing.run(&prompt, &mut page)
    })?;
    source.note_unread(&mut notices);
    let end = Statistics::new(&report, &plan, session.position(), options.seed);
    page.end(&end, &notices).map_err(Failure::Output)?;
    if arguments.stats || report.finish == Finish::Interrupted {
        // Standard error may be closed; the text is out already.
        let _ = end.write(&plan, &mut io::stderr().lock());
    }
    Ok(())
}

/// The tokens that a policy keeps, in words.
pub struct Kept {
    /// Name of the policy.
    pub policy: &'static str,
    /// First tokens that stay.
    pub sinks: usize,
    /// Last tokens.
    pub window: usize,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kept { sinks, window, .. } = self;
        match self.policy {
            "sink" => write!(f, "{sinks} sinks and a window of {window}"),
            "dense" => write!(f, "all, {window} at most"),
            _ => write!(f, "a window of {window}"),
        }
    }
}

/// Logs what was chosen: a line, and for -vv the arena's parts.
pub fn log_choices(plan: &Plan, sampling: &SamplerOptions) {
    log_plan(plan);
    tracing::debug!(?sampling, "chose the sampler's options");
}

/// Logs a plan: a line, and for -vv its parts.
pub fn log_plan(plan: &Plan) {
    let options = plan.options();
    tracing::info!(
        policy = options.policy.name(),
        sinks = options.policy.sinks(),
        window = options.policy.window(),
        cache = options.cache_type.name(),
        chunk = options.chunk,
        threads = options.workers,
        bytes = plan.bytes(),
        "planned the arena"
    );
    for (part, bytes) in plan.parts() {
        tracing::debug!(bytes, "arena: {}", part.name());
    }
}

/// The generated text on its way to the output: bare, or the first member of a JSON object that is
/// written as it grows.
struct Page<'o> {
    out: &'o mut dyn Write,
    json: bool,
}

impl Page<'_> {
    fn begin(&mut self) -> io::Result<()> {
        if self.json {
            self.out.write_all(b"{\"text\":\"")
        } else {
            Ok(())
        }
    }

    fn end(&mut self, statistics: &Statistics, notices: &Notices) -> io::Result<()> {
        if self.json {
            self.out.write_all(b"\",\"statistics\":")?;
            serde_json::to_writer(&mut *self.out, statistics)?;
            self.out.write_all(b",\"notices\":")?;
            serde_json::to_writer(&mut *self.out, &Said(notices))?;
            self.out.write_all(b"}\n")?;
        }
        self.out.flush()
    }
}

impl TextSink for Page<'_> {
    fn text(&mut self, text: &str) -> io::Result<()> {
        if self.json {
            write_json_text(self.out, text)
        } else {
            self.out.write_all(text.as_bytes())
        }
    }

    fn token(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The statistics at the end.
#[derive(Serialize)]
struct Statistics {
    finish: &'static str,
    prompt_tokens: usize,
    prompt_tps: f64,
    tokens: u64,
    tps: f64,
    position: u64,
    policy: &'static str,
    sinks: usize,
    window: usize,
    cache_type: &'static str,
    arena_bytes: usize,
    seed: u64,
    memory: Option<MemoryUse>,
}

impl Statistics {
    fn new(report: &Report, plan: &Plan, position: u64, seed: u64) -> Self {
        let rate = |tokens: f64, seconds: f64| if seconds > 0.0 { tokens / seconds } else { 0.0 };
        let options = plan.options();
        Statistics {
            finish: report.finish.name(),
            prompt_tokens: report.prompt_tokens,
            prompt_tps: rate(
                report.prompt_tokens as f64,
                report.prompt_time.as_secs_f64(),
            ),
            tokens: report.tokens,
            tps: rate(report.tokens as f64, report.time.as_secs_f64()),
            position,
            policy: options.policy.name(),
            sinks: options.policy.sinks(),
            window: options.policy.window(),
            cache_type: options.cache_type.name(),
            arena_bytes: plan.bytes(),
            seed,
            memory: MemoryUse::now(),
        }
    }

    /// Writes them as text. `brooklet plan` shows the arena's parts.
    fn write(&self, plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "\nprompt      {} tokens, {:.1} tokens/s",
            self.prompt_tokens, self.prompt_tps
        )?;
        writeln!(
            out,
            "generation  {} tokens, {:.1} tokens/s, seed {}",
            self.tokens, self.tps, self.seed
        )?;
        let capacity = plan.capacity();
        let kept = Kept {
            policy: self.policy,
            sinks: self.sinks,
            window: self.window,
        };
        writeln!(
            out,
            "position    {} ({}: {}, {capacity} tokens in {})",
            self.position, self.policy, kept, self.cache_type
        )?;
        if let Some(memory) = self.memory {
            let MemoryUse {
                anonymous_kib,
                file_kib,
                swap_kib,
                ..
            } = memory;
            writeln!(
                out,
                "memory      {anonymous_kib} KiB anonymous, {file_kib} KiB of files, {swap_kib} KiB swapped"
            )?;
        }
        writeln!(out, "arena       {} bytes", self.arena_bytes)
    }
}

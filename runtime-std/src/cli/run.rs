//! `brooklet run`: continues raw text.
//!
//! From the first token to the last nothing is allocated here, statistics included: numbers are
//! formatted straight into unbuffered standard error and into the output's own buffer.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use brooklet_core::plan::Plan;
use brooklet_core::sampler::Sampler;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;

use super::cache::{CacheArguments, RamArguments};
use super::failure::Failure;
use super::interrupt::{Interrupt, SIGINT};
use super::json::{Page, Said};
use super::model::OptionalModelArguments;
use super::names::Named;
use super::numbers::{Open, limit};
use super::prompt::{self, Source, SpecialArguments};
use super::sampling::SamplingArguments;
use crate::Error;
use crate::embedded::OPENING;
use crate::generate::{Finish, Report, Request, Writing};
use crate::model::Model;
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
    let model = arguments.cache.compute.tuned(model, &mut notices)?;
    let adjustments = arguments.sampling.adjustments(model.config().vocab)?;
    let settings = Settings {
        budget: arguments.ram.budget(),
        sampling: !options.is_greedy(),
        ..arguments.cache.settings(&model, manifest.as_ref())?
    };
    let plan = planned(&model, &settings, &mut notices)?;
    tracing::debug!(?options, "chose the sampler's options");
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
    let mut page = Page::begin(out, arguments.json).map_err(Failure::Output)?;
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
    let end = Members {
        statistics: Statistics::new(&report, &plan, session.position(), options.seed),
        notices: Said(&notices),
    };
    page.end(&end).map_err(Failure::Output)?;
    if arguments.stats || report.finish == Finish::Interrupted {
        // Standard error may be closed; the text is out already.
        let _ = end.statistics.write(&plan, &mut io::stderr().lock());
    }
    let is_endless = request.limit.is_none() && request.past_end;
    match interrupt.failure() {
        // Nothing else ends an endless text.
        Some(Failure::Interrupted(SIGINT)) if is_endless => Ok(()),
        Some(failure) if report.finish == Finish::Interrupted => Err(failure),
        _ => Ok(()),
    }
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

/// The plan of a model that no other session shares. What is to be known of it is noted, and it is
/// logged: a line, and for -vv its parts.
pub fn planned(model: &Model, settings: &Settings, notices: &mut Notices) -> Result<Plan, Failure> {
    let plan = model.plan_with_index(settings)?;
    for notice in model.notices(&plan) {
        notices.add(notice);
    }
    log(&plan);
    Ok(plan)
}

fn log(plan: &Plan) {
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

/// Members after the text, in JSON.
#[derive(Serialize)]
struct Members<'n> {
    statistics: Statistics,
    notices: Said<'n>,
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

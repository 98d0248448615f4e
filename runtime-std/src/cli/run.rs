//! `brooklet run`: continues raw text.
//!
//! From the first token to the last nothing is allocated here, statistics included: numbers are
//! formatted straight into unbuffered standard error and into the output's own buffer.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use brooklet_core::plan::Plan;
use brooklet_core::sampler::Sampler;
use clap::Args;
use serde::Serialize;

use super::cache::{CacheArguments, RamArguments};
use super::failure::Failure;
use super::input;
use super::interrupt::{Interrupt, SIGINT};
use super::json::write_json_text;
use super::model::OptionalModelArguments;
use super::sampling::SamplingArguments;
use super::terminal::Paper;
use crate::embedded::OPENING;
use crate::generate::{Finish, Report, Request, Writing};
use crate::planning::Settings;
use crate::system::memory::MemoryUse;
use crate::text::TextSink;

/// Arguments of `brooklet run`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: OptionalModelArguments,
    /// The text to continue; standard input if neither it nor a file is given. Optional if
    /// no model is given
    prompt: Option<String>,
    /// A file with the text to continue; - for standard input
    #[arg(short, long, conflicts_with = "prompt")]
    file: Option<PathBuf>,
    /// Tokens to generate, -1 for ever. By default the embedded model goes on for ever, and others
    /// until they end the text
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    tokens: Option<i64>,
    #[command(flatten)]
    ram: RamArguments,
    #[command(flatten)]
    cache: CacheArguments,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
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
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Failure> {
    // The embedded model begins a text by itself, and continues for ever.
    let own = arguments.model.model.is_none();
    let limit = match arguments.tokens {
        None | Some(-1) => None,
        Some(n) => match u64::try_from(n) {
            Ok(n) => Some(n),
            Err(_) => {
                return Err(Failure::Usage(format!(
                    "-n must be 0 or more, or -1 for ever, not {n}"
                )));
            }
        },
    };
    let options = arguments.sampling.options()?;
    let open = arguments.model.open()?;
    let (model, manifest) = open.check_text(arguments.cache.compute.workers()?)?;
    let settings = Settings {
        budget: arguments.ram.budget(),
        sampling: !options.is_greedy(),
        ..arguments.cache.settings(manifest.as_ref())?
    };
    let plan = model.plan_with_index(&settings)?;
    let mut session = model.session_as_planned(&plan)?;
    let nothing =
        arguments.prompt.is_none() && arguments.file.is_none() && io::stdin().is_terminal();
    let mut text = if own && nothing {
        Vec::new()
    } else {
        input::text(
            arguments.prompt.as_deref(),
            arguments.file.as_ref(),
            "the prompt",
        )?
    };
    if own && text.is_empty() {
        text = OPENING.into();
    }
    let prompt = session.with(|engine| engine.encode(&text))?;
    if prompt.is_empty() {
        return Err(Failure::Input(
            "the prompt is empty, and this model has no token to start with".into(),
        ));
    }
    let interrupt = Interrupt::catch()?;
    let request = Request {
        limit,
        past_end: own || arguments.ignore_eos || arguments.tokens == Some(-1),
        stops: arguments.stop.clone(),
        cancel: interrupt.cancel(),
    };
    let mut page = Page {
        out,
        paper: Paper::new(),
        json: arguments.json,
    };
    page.begin().map_err(Failure::Output)?;
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
    let end = Statistics::new(&report, &plan, session.position(), options.seed);
    page.end(&end).map_err(Failure::Output)?;
    if arguments.stats || report.finish == Finish::Interrupted {
        // Standard error may be closed; the text is out already.
        let _ = end.write(&plan, &mut io::stderr().lock());
    }
    let is_endless = request.limit.is_none() && request.past_end;
    match interrupt.failure() {
        // Nothing else ends an endless text.
        Some(Failure::Interrupted(SIGINT)) if is_endless => Ok(()),
        Some(failure) if report.finish == Finish::Interrupted => Err(failure),
        _ => Ok(()),
    }
}

/// The generated text on its way to the output: bare, or the first member of a JSON object that is
/// written as it grows.
struct Page<'o> {
    out: &'o mut dyn Write,
    paper: Paper,
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

    fn end(&mut self, statistics: &Statistics) -> io::Result<()> {
        if self.json {
            self.out.write_all(b"\",\"statistics\":")?;
            serde_json::to_writer(&mut *self.out, statistics)?;
            self.out.write_all(b"}\n")?;
        } else {
            self.paper.end(self.out)?;
        }
        self.out.flush()
    }
}

impl TextSink for Page<'_> {
    fn text(&mut self, text: &str) -> io::Result<()> {
        if self.json {
            write_json_text(self.out, text)
        } else {
            self.paper.write(text, self.out)
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

    /// Writes them as text, with the arena's bytes by purpose.
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
        writeln!(
            out,
            "position    {} ({}: {} sinks and a window of {}, {capacity} tokens in {})",
            self.position, self.policy, self.sinks, self.window, self.cache_type
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
        writeln!(out, "arena       {} bytes", self.arena_bytes)?;
        for (part, bytes) in plan.parts() {
            writeln!(out, "{bytes:>12}  {}", part.name())?;
        }
        Ok(())
    }
}

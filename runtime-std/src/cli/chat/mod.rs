//! `brooklet chat`: a conversation on a terminal, or through a pipe, for as long as it takes.

mod commands;
mod history;
mod lines;
mod pace;
mod transcript;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use brooklet_core::gguf::Gguf;
use brooklet_core::plan::Plan;
use brooklet_core::sampler::{Sampler, SamplerOptions};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;

use super::cache::{ComputeArguments, RamArguments};
use super::failure::Failure;
use super::interrupt::{Interrupt, SIGINT};
use super::json::{Page, Said, write_json};
use super::model::AccessArguments;
use super::names::Named;
use super::numbers::{Open, limit};
use super::output::{Files, Output, Record};
use super::recommend;
use super::run::planned;
use super::sampling::SamplingArguments;
use super::terminal::note;
use crate::chat::{Chat, Cut, LiveMessage, Role, Template, builtin};
use crate::generate::{Finish, Report, Request};
use crate::model::Model;
use crate::models::manifest::Manifest;
use crate::notice::{Notice, Notices};
use crate::planning::Settings;
use crate::size::Size;
use crate::system::memory::MemoryUse;
use crate::text::TextSink;
use commands::{Line, Then};
use lines::{Input, Lines};
use pace::Pace;
use transcript::Transcript;

/// The model where none is named.
const CHAT_MODEL: &str = "smollm2-135m";

/// Arguments of `brooklet chat`.
#[derive(Args)]
pub struct Arguments {
    /// A GGUF file, a name that `brooklet models` lists, or hf:OWNER/REPO/FILE.gguf; pulled on
    /// first use. Without it, smollm2-135m
    #[arg(short, long)]
    model: Option<String>,
    /// A model, unless -m names one: a name that `brooklet models` lists, hf:..., or a file whose
    /// name ends in .gguf. Any other word is the first message
    #[arg(value_name = "MODEL")]
    first: Option<String>,
    /// The first message; more follow on the terminal or through the pipe
    #[arg(value_name = "MESSAGE")]
    second: Option<String>,
    /// The first message, instead of a word
    #[arg(short, long, value_name = "MESSAGE", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Chat template: a built-in one by its name, or a file; without it, the model's own
    #[arg(long, value_name = "NAME|FILE")]
    chat_template: Option<String>,
    #[command(flatten)]
    access: AccessArguments,
    /// System prompt, which is never evicted
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Ask a model that thinks aloud before it answers (Qwen 3) to answer at once
    #[arg(long)]
    no_thinking: bool,
    #[command(flatten)]
    ram: RamArguments,
    #[command(flatten)]
    compute: ComputeArguments,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// Most tokens of an answer, -1 for no limit but the window's
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", default_value = "1024", value_parser = limit)]
    tokens: Open,
    /// End an answer before this text, or this control token; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// After every exchange, add a line of JSON to FILE: the messages in the window, read from the
    /// cache
    #[arg(long, value_name = "FILE")]
    ctx_dump: Option<PathBuf>,
    /// Replace that file if it exists
    #[arg(long, requires = "ctx_dump")]
    force: bool,
    /// Print each answer as a line of JSON: its text, its numbers, and what was cut or ignored
    #[arg(long)]
    json: bool,
    /// Neither read nor keep messages of other chats, which the arrow keys bring back on a terminal
    #[arg(long)]
    no_history: bool,
}

/// Talks until the person leaves.
pub fn chat(
    arguments: &Arguments,
    mut notices: Notices,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let named = Named::read(
        arguments.model.as_deref(),
        arguments.first.as_deref(),
        arguments.second.as_deref(),
    )?;
    let message = match (named.text, &arguments.prompt) {
        (Some(_), Some(_)) => {
            return Err(Failure::Usage(
                "the first message is given twice: as a word and with -p".into(),
            ));
        }
        (text, prompt) => text.or_else(|| prompt.clone()),
    };
    if arguments.tokens.0 == Some(0) {
        return Err(Failure::Usage(
            "an answer has at least one token: -n must be 1 or more, or -1 for no end".into(),
        ));
    }
    let options = arguments.sampling.options();
    if named.model.is_none() {
        notices.add(Notice::DefaultModel {
            name: CHAT_MODEL.into(),
            advice: recommend::advice(CHAT_MODEL),
        });
    }
    let open = arguments
        .access
        .open(named.model.as_deref().unwrap_or(CHAT_MODEL))?;
    let mut files = Files::new(arguments.force).reads_model(&open.file);
    let (model, manifest) = open.check_text(arguments.compute.workers())?;
    let model = arguments.compute.tuned(model, &mut notices)?;
    let mut template = template(
        &model,
        manifest.as_ref(),
        arguments.chat_template.as_deref(),
    )?;
    if arguments.no_thinking {
        template = template.with_thinking(false)?;
        if !template.knows_thinking() {
            notices.add(Notice::OptionIgnored {
                option: "--no-thinking".into(),
                reason: "the chat template takes no notice of it",
            });
        }
    }
    let adjustments = arguments.sampling.adjustments(model.config().vocab)?;
    let stops = arguments.stop.iter();
    let stop_tokens = model.with_tokenizer(|tokenizer| {
        stops
            .filter_map(|stop| tokenizer.special(stop.as_bytes()))
            .collect()
    })?;
    let settings = Settings {
        budget: arguments.ram.budget(),
        sampling: !options.is_greedy(),
        ..arguments.compute.settings(manifest.as_ref())?
    };
    let dump = files.may_create(arguments.ctx_dump.as_ref())?;
    let plan = planned(&model, &settings, &mut notices)?;
    tracing::debug!(?options, "chose the sampler's options");
    let session = model.session_as_planned(&plan)?;
    let chat = Chat::new(session, template, arguments.system.clone())?;
    let interrupt = Interrupt::catch()?;
    let lines = Lines::new(!arguments.no_history)?;
    if lines.is_terminal() {
        // There it ends an answer, not the chat.
        interrupt.spare_ctrl_c();
    }
    let mut conversation = Conversation {
        chat,
        plan,
        sampler: Sampler::new(options),
        sampling: options,
        request: Request {
            limit: arguments.tokens.0,
            stops: arguments.stop.clone(),
            stop_tokens,
            adjustments,
            cancel: interrupt.cancel(),
            ..Request::default()
        },
        interrupt,
        lines,
        pace: Pace::new(),
        transcript: Transcript::default(),
        // Only now: until here an old one may stay.
        dump: dump.map(Output::grow).transpose()?,
        json: arguments.json,
        notices,
        has_forgotten: false,
    };
    conversation.greet();
    if let Some(message) = message {
        let is_over = conversation.exchange(&message, out)? == Finish::Interrupted;
        if is_over && !conversation.lines.is_terminal() {
            return Ok(());
        }
    }
    conversation.talk(out)
}

/// The template that is asked for; else the file's own, or the one that its manifest names.
fn template(
    model: &Model,
    manifest: Option<&Manifest>,
    wanted: Option<&str>,
) -> Result<Template, Failure> {
    let of_file = |gguf: &Gguf<'_>| {
        let source = gguf.get("tokenizer.chat_template")?.as_str()?;
        Some(source.to_owned())
    };
    let of_manifest = || Some(builtin::find(&manifest?.template)?.to_owned());
    let source = match wanted {
        Some(wanted) => wanted_template(wanted)?,
        None => of_file(model.gguf()).or_else(of_manifest).ok_or_else(|| {
            Failure::Input(format!(
                "this model has no chat template, so it does not know messages: `brooklet run` continues its text, and --chat-template gives one: a file, or {}",
                builtin::names()
            ))
        })?,
    };
    tracing::debug!(source, "the chat template");
    let [bos, eos] = model.with_tokenizer(|tokenizer| {
        [tokenizer.bos(), tokenizer.eos()].map(|token| {
            let bytes: Vec<u8> = token
                .into_iter()
                .flat_map(|id| tokenizer.piece(id, true))
                .collect();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    })?;
    Ok(Template::new(&source, &bos, &eos)?)
}

/// The source of a built-in template, or of one in a file.
fn wanted_template(wanted: &str) -> Result<String, Failure> {
    if let Some(source) = builtin::find(wanted) {
        return Ok(source.to_owned());
    }
    if !wanted.contains(['/', '.', std::path::MAIN_SEPARATOR]) && !Path::new(wanted).exists() {
        return Err(Failure::Usage(format!(
            "there is no chat template named \"{}\": there are {}, and files",
            wanted.escape_debug(),
            builtin::names()
        )));
    }
    let bytes = super::input::read(Path::new(wanted))?;
    String::from_utf8(bytes).map_err(|_| {
        Failure::Input(format!(
            "{}: the chat template is not UTF-8",
            wanted.escape_debug()
        ))
    })
}

/// A conversation with all that belongs to it.
struct Conversation {
    chat: Chat,
    plan: Plan,
    sampler: Sampler,
    sampling: SamplerOptions,
    request: Request,
    interrupt: Interrupt,
    lines: Lines,
    pace: Pace,
    transcript: Transcript,
    dump: Option<Record>,
    /// True if answers are printed as JSON.
    json: bool,
    /// Notices from before the first answer.
    notices: Notices,
    /// True once it was said that old messages leave the window.
    has_forgotten: bool,
}

impl Conversation {
    /// Tells a person what to know before the first word.
    fn greet(&self) {
        if self.lines.is_terminal() {
            note(&format!(
                "{} tokens in {}; /help for help\n",
                self.plan.capacity(),
                Size(self.plan.bytes())
            ));
        }
    }

    fn talk(&mut self, out: &mut dyn Write) -> Result<(), Failure> {
        // True right after a Ctrl-C: the next one leaves.
        let mut leaving = false;
        loop {
            let input = self.interrupt.waiting(|| self.lines.next())?;
            let text = match input {
                Input::Text(text) => text,
                Input::Interrupted if !leaving => {
                    leaving = true;
                    note("Ctrl-C again ends the chat\n");
                    continue;
                }
                Input::Interrupted | Input::End => return Ok(()),
            };
            leaving = false;
            let words = match Line::of(text.trim()) {
                Line::Message("") => continue,
                Line::Message(words) => words.to_owned(),
                Line::Command(name, rest) => match self.command(name, rest)? {
                    Then::GoOn => continue,
                    Then::Say(words) => words,
                    Then::End => return Ok(()),
                },
            };
            self.lines.obey_ctrl_c(true)?;
            let finish = self.exchange(&words, out)?;
            self.lines.obey_ctrl_c(false)?;
            if finish == Finish::Interrupted {
                match self.interrupt.failure() {
                    Some(Failure::Interrupted(SIGINT)) | None if self.lines.is_terminal() => {
                        self.interrupt.clear();
                        leaving = true;
                    }
                    failure => return failure.map_or(Ok(()), Err),
                }
            } else if self.lines.is_terminal() {
                // A Ctrl-C that came too late for the answer.
                self.interrupt.clear();
            }
        }
    }

    /// Sends a message and prints the answer; returns the reason why the answer ended.
    fn exchange(&mut self, words: &str, out: &mut dyn Write) -> Result<Finish, Failure> {
        self.pace.begin();
        let mut answer = Answer {
            page: Page::begin(out, self.json).map_err(Failure::Output)?,
            pace: &mut self.pace,
            text: String::new(),
        };
        let said = self
            .chat
            .say(words, &self.request, &mut self.sampler, &mut answer)?;
        let Answer { mut page, text, .. } = answer;
        if page.is_bare() {
            // The next answer begins in a line of its own.
            page.text("\n").map_err(Failure::Output)?;
        }
        let notices = std::mem::take(&mut self.notices);
        let members = Members {
            turn: self.chat.turn(),
            finish: said.report.finish.name(),
            prompt_tokens: said.report.prompt_tokens,
            tokens: said.report.tokens,
            position: self.chat.session().position(),
            cut: said.cut,
            notices: Said(&notices),
        };
        page.end(&members).map_err(Failure::Output)?;
        self.tell(&said.report, &said.cut);
        self.transcript.add(Role::User, words);
        self.transcript.add(Role::Assistant, &text);
        if let Some(dump) = &mut self.dump {
            write_window(dump, &self.chat, &said.cut)?;
        }
        Ok(said.report.finish)
    }

    /// Tells what an exchange has cut short.
    fn tell(&mut self, report: &Report, cut: &Cut) {
        let capacity = self.plan.capacity();
        let Cut {
            message,
            left_out,
            left,
            forgotten,
        } = *cut;
        if forgotten > 0 && !self.has_forgotten {
            self.has_forgotten = true;
            note(&format!(
                "(the window of {capacity} tokens is full: the oldest messages leave it from now on)\n"
            ));
        }
        if left_out > 0 {
            note(&format!(
                "(of the message's {message} tokens the first {left_out} were left out: the window has {capacity}; --ram or --window makes it larger)\n"
            ));
        }
        if left > 0 {
            note(&format!(
                "(of the message's {message} tokens {left} have left the window of {capacity} while it was answered)\n"
            ));
        }
        match report.finish {
            Finish::Length => note(&format!("({} tokens; -n sets the limit)\n", report.tokens)),
            Finish::Full => note(&format!(
                "(the window of {capacity} tokens is full: the answer ends after {})\n",
                report.tokens
            )),
            _ => {}
        }
    }

    fn statistics(&self) {
        let session = self.chat.session();
        let ring = session.ring();
        let live = self.chat.live();
        let (capacity, pinned) = (ring.capacity(), ring.sinks().min(ring.live()));
        let mut text = format!(
            "tokens seen  {}\nexchanges    {}\nmessages     {} in the window\nwindow       {} of {capacity}, {pinned} pinned\n",
            session.position(),
            self.chat.turn(),
            live.len(),
            ring.live(),
        );
        if let Some((first, last)) = self.pace.medians() {
            text += &format!(
                "per token    {:.2} ms, first {:.2}\n",
                last.as_secs_f64() * 1e3,
                first.as_secs_f64() * 1e3
            );
        }
        if let Some(memory) = MemoryUse::now() {
            text += &format!(
                "memory       {} KiB anonymous\n",
                memory.anonymous_kib + memory.swap_kib
            );
        }
        text += &format!("arena        {} bytes\n", self.plan.bytes());
        for (part, bytes) in self.plan.parts() {
            text += &format!("{bytes:>11}  {}\n", part.name());
        }
        note(&text);
    }
}

/// Output of an answer, which is kept for the transcript.
struct Answer<'o> {
    page: Page<'o>,
    pace: &'o mut Pace,
    text: String,
}

impl TextSink for Answer<'_> {
    fn text(&mut self, text: &str) -> io::Result<()> {
        self.text += text;
        self.page.text(text)
    }

    fn token(&mut self) -> io::Result<()> {
        self.pace.token(Instant::now());
        self.page.token()
    }
}

/// Members of an answer after its text, in JSON.
#[derive(Serialize)]
struct Members<'n> {
    turn: u64,
    finish: &'static str,
    prompt_tokens: usize,
    tokens: u64,
    position: u64,
    cut: Cut,
    notices: Said<'n>,
}

/// The window, as dumped after every exchange.
#[derive(Serialize)]
struct DumpLine {
    turn: u64,
    position: u64,
    capacity: usize,
    live: usize,
    pinned: String,
    messages: Vec<LiveMessage>,
    cut: Cut,
}

/// Adds the window to the dump.
fn write_window(dump: &mut Record, chat: &Chat, cut: &Cut) -> Result<(), Failure> {
    let ring = chat.session().ring();
    let line = DumpLine {
        turn: chat.turn(),
        position: chat.session().position(),
        capacity: ring.capacity(),
        live: ring.live(),
        pinned: chat.pinned(),
        messages: chat.live(),
        cut: *cut,
    };
    let mut text = Vec::new();
    write_json(&mut text, &line)?;
    dump.add(&text)
}

//! `brooklet chat`: a conversation on a terminal, or through a pipe, for as long as it takes.

mod lines;
mod pace;
mod transcript;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use brooklet_core::gguf::Gguf;
use brooklet_core::plan::Plan;
use brooklet_core::sampler::Sampler;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;

use super::cache::{ComputeArguments, RamArguments};
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::json::write_json;
use super::model::AccessArguments;
use super::names::Named;
use super::numbers::{Open, limit};
use super::output::Output;
use super::recommend;
use super::run::log_choices;
use super::sampling::SamplingArguments;
use crate::chat::{Chat, LiveMessage, Role, Template, builtin};
use crate::generate::{Finish, Request};
use crate::model::Model;
use crate::models::manifest::Manifest;
use crate::notice::{Notice, Notices};
use crate::planning::Settings;
use crate::size::Size;
use crate::system::memory::MemoryUse;
use crate::text::TextSink;
use lines::{Input, Lines};
use pace::Pace;
use transcript::Transcript;

/// The model where none is named.
const CHAT_MODEL: &str = "smollm2-135m";

/// Lines of at most 40 characters.
const HELP: &str = "\
/help          show this help
/reset         forget the conversation
/stats         memory, window and speed
/system TEXT   set the system prompt
/system        show the system prompt
/save FILE     write the conversation
/exit          end the chat (or Ctrl-D)
A \\ at the end of a line, or Ctrl-J,
continues in the next line. Ctrl-C
stops an answer; twice ends the chat.
";

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
    /// Most tokens of an answer, -1 for no limit
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", default_value = "1024", value_parser = limit)]
    tokens: Open,
    /// End an answer before this text, or this control token; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// After every exchange, add a line of JSON to FILE: the messages in the window, read from the
    /// cache
    #[arg(long, value_name = "FILE")]
    ctx_dump: Option<PathBuf>,
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
    let (model, manifest) = open.check_text(arguments.compute.workers())?;
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
    let dump = arguments
        .ctx_dump
        .as_deref()
        .map(Output::create)
        .transpose()?;
    let plan = model.plan_with_index(&settings)?;
    log_choices(&plan, &options);
    let session = model.session_as_planned(&plan)?;
    let chat = Chat::new(session, template, arguments.system.clone())?;
    let interrupt = Interrupt::catch()?;
    let mut conversation = Conversation {
        chat,
        plan,
        sampler: Sampler::new(options),
        request: Request {
            limit: arguments.tokens.0,
            stops: arguments.stop.clone(),
            stop_tokens,
            adjustments,
            cancel: interrupt.cancel(),
            ..Request::default()
        },
        interrupt,
        lines: Lines::new()?,
        pace: Pace::new(),
        transcript: Transcript::default(),
        dump,
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
    request: Request,
    interrupt: Interrupt,
    lines: Lines,
    pace: Pace,
    transcript: Transcript,
    dump: Option<Output>,
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
            self.interrupt.clear();
            let text = match self.lines.next()? {
                Input::Text(text) => text,
                Input::Interrupted if !leaving => {
                    leaving = true;
                    note("Ctrl-C again ends the chat\n");
                    continue;
                }
                Input::Interrupted | Input::End => return Ok(()),
            };
            leaving = false;
            let words = text.trim();
            if words.starts_with('/') && !words.contains('\n') {
                if self.command(words)? {
                    return Ok(());
                }
            } else if !words.is_empty() {
                leaving = self.exchange(words, out)? == Finish::Interrupted;
                if leaving && !self.lines.is_terminal() {
                    return Ok(());
                }
            }
        }
    }

    /// Sends a message and prints the answer; returns the reason why the answer ended.
    fn exchange(&mut self, words: &str, out: &mut dyn Write) -> Result<Finish, Failure> {
        self.pace.begin();
        let mut page = Page {
            out,
            pace: &mut self.pace,
            text: String::new(),
        };
        let report = self
            .chat
            .say(words, &self.request, &mut self.sampler, &mut page)?;
        let answer = std::mem::take(&mut page.text);
        writeln!(out)
            .and_then(|()| out.flush())
            .map_err(Failure::Output)?;
        if report.finish == Finish::Length {
            note(&format!("({} tokens; -n sets the limit)\n", report.tokens));
        }
        self.transcript.add(Role::User, words);
        self.transcript.add(Role::Assistant, &answer);
        if let Some(dump) = &mut self.dump {
            write_window(dump, &self.chat)?;
        }
        Ok(report.finish)
    }

    /// Executes a command; returns true if it ends the chat.
    fn command(&mut self, words: &str) -> Result<bool, Failure> {
        let (name, rest) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
        let rest = rest.trim();
        match (name, rest) {
            ("/exit" | "/quit", "") => return Ok(true),
            ("/help", "") => note(HELP),
            ("/reset", "") => {
                self.chat.reset()?;
                self.transcript.clear();
                note("messages forgotten\n");
            }
            ("/stats", "") => self.statistics(),
            ("/system", "") => note(&format!("{}\n", self.chat.system().unwrap_or("(not set)"))),
            ("/system", text) => match self.chat.set_system(Some(text.to_owned())) {
                Ok(()) => {
                    self.transcript.clear();
                    note("system prompt set, messages forgotten\n");
                }
                Err(error) => note(&format!("{error}\n")),
            },
            ("/save", "") => note("/save needs the name of a file\n"),
            ("/save", path) => match self.transcript.save(Path::new(path), self.chat.system()) {
                Ok(messages) => note(&format!("saved {messages} messages\n")),
                Err(error) => note(&format!("{error}\n")),
            },
            _ => note(&format!("{words} is not a command: see /help\n")),
        }
        Ok(false)
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

/// Writes a note of the program itself to standard error, which may be closed.
fn note(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Output of the answer.
struct Page<'o> {
    out: &'o mut dyn Write,
    pace: &'o mut Pace,
    text: String,
}

impl TextSink for Page<'_> {
    fn text(&mut self, text: &str) -> io::Result<()> {
        self.text += text;
        self.out.write_all(text.as_bytes())
    }

    fn token(&mut self) -> io::Result<()> {
        self.pace.token(Instant::now());
        self.out.flush()
    }
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
}

/// Adds the window to the dump.
fn write_window(dump: &mut Output, chat: &Chat) -> Result<(), Failure> {
    let ring = chat.session().ring();
    let line = DumpLine {
        turn: chat.turn(),
        position: chat.session().position(),
        capacity: ring.capacity(),
        live: ring.live(),
        pinned: chat.pinned(),
        messages: chat.live(),
    };
    let mut text = Vec::new();
    write_json(&mut text, &line)?;
    dump.write(&text)?;
    dump.flush()
}

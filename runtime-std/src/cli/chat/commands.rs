//! The commands of a conversation.

use std::path::{Path, PathBuf};

use brooklet_core::sampler::{Sampler, SamplerOptions};

use super::super::failure::Failure;
use super::super::output::Files;
use super::super::terminal::{note, shown, shown_line};
use super::Conversation;
use super::transcript::Transcript;

/// Lines of at most 40 characters.
const HELP: &str = "\
/help           show this help
/clear, /reset  forget the conversation
/undo           forget the last exchange
/regenerate     answer the last message
                once more
/system [TEXT]  show the system prompt,
                or set it and forget
/set [NAME N]   show or change: temp,
                top-k, top-p, min-p,
                repeat-penalty, seed,
                tokens
/save FILE      write the conversation
/save -f FILE   the same over a file
                that is there
/load FILE      go on with a saved one
/stats          memory, window and speed
/bye            end the chat, as Ctrl-D
//TEXT          say /TEXT
A \\ at the end of a line, or Ctrl-J,
continues in the next line. Tab
completes commands. Ctrl-C stops an
answer; twice ends the chat. What you
write is remembered, for the arrow keys,
in ~/.local/state/brooklet/chat-history
(--no-history).
";

/// All names, for completion. `/reset` is another word for `/clear`, `/exit` and `/quit` for
/// `/bye`.
pub const NAMES: [&str; 14] = [
    "/bye",
    "/clear",
    "/exit",
    "/help",
    "/load ",
    "/quit",
    "/regenerate",
    "/reset",
    "/save ",
    "/set ",
    "/stats",
    "/system ",
    "/system",
    "/undo",
];

/// A line by its meaning.
pub enum Line<'l> {
    /// A message.
    Message(&'l str),
    /// A command and what follows its name.
    Command(&'l str, &'l str),
}

impl<'l> Line<'l> {
    /// A line that begins with one `/` and is one line is a command; `//` begins a message with
    /// `/`.
    pub fn of(words: &'l str) -> Line<'l> {
        if words.starts_with("//") {
            return Line::Message(&words[1..]);
        }
        if !words.starts_with('/') || words.contains('\n') {
            return Line::Message(words);
        }
        let (name, rest) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
        Line::Command(name, rest.trim())
    }
}

/// The next step after a command.
pub enum Then {
    /// Wait for the next line.
    GoOn,
    /// Say this to the model.
    Say(String),
    /// End the chat.
    End,
}

impl Conversation {
    /// Executes a command.
    pub(super) fn command(&mut self, name: &str, rest: &str) -> Result<Then, Failure> {
        match (name, rest) {
            ("/exit" | "/quit" | "/bye", "") => return Ok(Then::End),
            ("/help" | "/?", "") => note(HELP),
            ("/clear" | "/reset", "") => {
                self.chat.reset()?;
                self.transcript.clear();
                note("messages forgotten\n");
            }
            ("/undo", "") => match self.undo()? {
                Some(_) => note("last exchange forgotten\n"),
                None => note("there is nothing to undo\n"),
            },
            ("/regenerate", "") => match self.undo()? {
                Some(words) => return Ok(Then::Say(words)),
                None => note("there is no message to answer\n"),
            },
            ("/stats", "") => self.statistics(),
            ("/system", "") => {
                note(&format!(
                    "{}\n",
                    shown(self.chat.system().unwrap_or("(not set)"))
                ));
            }
            ("/system", text) => self.set_system(text),
            ("/set", "") => note(&show(&self.sampling, self.request.limit)),
            ("/set", text) => match self.set(text) {
                Ok(line) | Err(line) => note(&line),
            },
            ("/save" | "/load", "") => note(&format!("{name} needs a file's name\n")),
            ("/save", file) => match self.save(file) {
                Ok(messages) => note(&format!("saved {messages} messages\n")),
                Err(error) => note(&format!("{}\n", shown_line(&error.to_string()))),
            },
            ("/load", file) => match Transcript::load(&home(file)) {
                Ok(loaded) => self.load(loaded)?,
                Err(error) => note(&format!("{}\n", shown_line(&error.to_string()))),
            },
            _ => note(&format!(
                "{} is not a command: see /help\n",
                shown_line(name)
            )),
        }
        Ok(Then::GoOn)
    }

    /// Forgets the last exchange; returns its message.
    fn undo(&mut self) -> Result<Option<String>, Failure> {
        let Some(words) = self.transcript.pop() else {
            return Ok(None);
        };
        self.chat.undo()?;
        Ok(Some(words))
    }

    fn set_system(&mut self, text: &str) {
        match self.chat.set_system(Some(text.to_owned())) {
            Ok(()) => {
                self.transcript.clear();
                note("system prompt set, messages forgotten\n");
            }
            Err(error) => note(&format!("{}\n", shown_line(&error.to_string()))),
        }
    }

    /// Writes the conversation to a file, over one that exists only after `-f`.
    fn save(&self, file: &str) -> Result<usize, Failure> {
        let (file, replace) = match file.split_once(char::is_whitespace) {
            Some(("-f", file)) => (file.trim_start(), true),
            _ => (file, false),
        };
        let mut files = Files::new(replace).reads_model(self.chat.session().model().file());
        if let Some(record) = &self.dump {
            files = files.reads(record.path());
        }
        let output = files.create(&home(file)).map_err(|failure| match failure {
            Failure::Exists(path) => Failure::Input(format!(
                "{} exists: /save -f FILE replaces it",
                path.display()
            )),
            failure => failure,
        })?;
        self.transcript.save(output, self.chat.system())
    }

    /// Goes on with a conversation that was saved.
    fn load(&mut self, loaded: Transcript) -> Result<(), Failure> {
        if let Err(error) = self.chat.set_system(loaded.system().map(str::to_owned)) {
            note(&format!("{}\n", shown_line(&error.to_string())));
            return Ok(());
        }
        let mut cut = 0;
        for (words, answer) in loaded.exchanges() {
            let lost = self.chat.recall(words, answer)?;
            cut += lost.forgotten + usize::from(lost.left_out + lost.left > 0);
        }
        note(&format!("loaded {} messages\n", loaded.messages()));
        if cut > 0 {
            note(&format!(
                "({cut} of them are not or not wholly in the window of {} tokens)\n",
                self.plan.capacity()
            ));
        }
        self.transcript = loaded;
        Ok(())
    }

    /// Changes a setting; the sentence that says so, or why not.
    fn set(&mut self, text: &str) -> Result<String, String> {
        let (name, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let value = value.trim();
        let name = name.trim_start_matches('-');
        let mut options = self.sampling;
        let mut limit = self.request.limit;
        match name {
            "temp" | "temperature" => options.temperature = within(name, value, 0.0, f32::MAX)?,
            "top-k" => options.top_k = whole(name, value)? as usize,
            "top-p" => options.top_p = within(name, value, 0.0, 1.0)?,
            "min-p" => options.min_p = within(name, value, 0.0, 1.0)?,
            "repeat-penalty" => {
                options.repeat_penalty = within(name, value, f32::MIN_POSITIVE, f32::MAX)?;
            }
            "seed" => options.seed = whole(name, value)?,
            "n" | "tokens" if value == "-1" => limit = None,
            "n" | "tokens" => match whole(name, value)? {
                0 => return Err(format!("{name} must be 1 or more, or -1 for no limit\n")),
                tokens => limit = Some(tokens),
            },
            _ => {
                return Err(format!(
                    "{} is not a setting: see /help\n",
                    shown_line(name)
                ));
            }
        }
        if !options.is_greedy() && !self.plan.options().sampling {
            return Err(
                "the chat was started with --temp 0, which takes no memory for choices: start it with another temperature\n"
                    .into(),
            );
        }
        if options != self.sampling {
            self.sampler = Sampler::new(options);
        }
        (self.sampling, self.request.limit) = (options, limit);
        Ok(format!("{name} is {value} from now on\n"))
    }
}

/// The settings, one a line.
fn show(options: &SamplerOptions, limit: Option<u64>) -> String {
    format!(
        "temp            {}\ntop-k           {}\ntop-p           {}\nmin-p           {}\nrepeat-penalty  {}\nseed            {}\ntokens          {}\n",
        options.temperature,
        options.top_k,
        options.top_p,
        options.min_p,
        options.repeat_penalty,
        options.seed,
        limit.map_or("-1".into(), |limit| limit.to_string()),
    )
}

fn within(name: &str, value: &str, least: f32, most: f32) -> Result<f32, String> {
    let number = value.parse().ok().filter(|x: &f32| {
        // Infinity and NaN are no numbers here.
        x.is_finite() && (least..=most).contains(x)
    });
    number.ok_or_else(|| {
        let range = match (least, most) {
            (_, 1.0) => "from 0 to 1",
            (0.0, _) => "0 or more",
            _ => "more than 0",
        };
        format!("{name} must be {range}, not \"{}\"\n", shown_line(value))
    })
}

fn whole(name: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| {
        format!(
            "{name} must be a whole number, 0 or more, not \"{}\"\n",
            shown_line(value)
        )
    })
}

/// A file's path, in which `~` is the person's home.
fn home(file: &str) -> PathBuf {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    match (file.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.into(),
        (Some(rest), Some(home)) if rest.starts_with('/') => {
            Path::new(&home).join(rest.trim_start_matches('/'))
        }
        _ => file.into(),
    }
}

//! A model's own chat template (Jinja, as Hugging Face's tokenizers have it), asked for one message
//! at a time.
//!
//! A template turns a whole conversation into one text. A chat that lasts for ever has no whole
//! conversation: what has left the window is gone. So the template is rendered over a few stand-in
//! messages, and what a real message adds is cut out of that: the text that frames it, with the
//! words in their place. The work for a message does not depend on how many came before it.
//!
//! The template is untrusted: its steps, its memory and its output are bounded (`bounded.rs`), and
//! it sees nothing but the messages and the time at which it was compiled.

use std::ops::Range;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, Value, context};

use super::{bounded, functions};

/// Stand-ins: characters that no template writes of itself, and no blank at either end to be
/// trimmed.
const SYSTEM: &str = "\u{F0001}\u{F0010}";
const FIRST: &str = "\u{F0001}\u{F0011}";
const ANSWER: &str = "\u{F0001}\u{F0012}";
const WORDS: &str = "\u{F0001}\u{F0013}";
const OTHER: &str = "\u{F0001}\u{F0014}";

/// The ChatML template, for files that bring none and a manifest that says so.
pub const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The reason why a chat template cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// It is not a template, fails, or does not end.
    #[error("the model's chat template fails: {0}")]
    Jinja(#[from] Error),
    /// A message changes the text of the messages before it, or is left out.
    #[error("the model's chat template does not write a conversation message by message")]
    NotByMessage,
}

/// Text for the tokenizer, and which of its bytes are somebody's words, in which control tokens are
/// not obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed {
    /// The text.
    pub text: String,
    /// The words within it.
    pub words: Range<usize>,
}

impl Framed {
    /// A text with nobody's words in it.
    pub fn plain(text: &str) -> Framed {
        Framed {
            text: text.to_owned(),
            words: 0..0,
        }
    }
}

/// A chat template, compiled.
pub struct Template {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
    knows_system: bool,
    /// The end of every text that asks for no answer, messages or not (Phi-3 puts the end of the
    /// text there).
    tail: String,
    /// The template's `enable_thinking`, if it is set.
    thinking: Option<bool>,
}

impl Template {
    /// Compiles `source`; `bos` and `eos` are the texts of the tokens that the template may name.
    ///
    /// # Errors
    /// [`TemplateError`] if it is not a template, or cannot be asked for single messages.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Template, TemplateError> {
        let mut environment = bounded::environment();
        // As Hugging Face's tokenizers have it.
        environment.set_syntax(
            SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .build()?,
        );
        functions::add(&mut environment, SystemTime::now());
        let mut template = Template {
            environment,
            source: functions::source(source),
            bos: bos.to_owned(),
            eos: eos.to_owned(),
            knows_system: true,
            tail: String::new(),
            thinking: None,
        };
        let with_system = template.render(Some(SYSTEM), &[FIRST], true);
        template.knows_system = with_system.is_ok_and(|text| text.contains(SYSTEM));
        template.find_tail()?;
        match template.check() {
            // A system prompt that moves, to the last message for example, cannot be pinned: it
            // opens the first message instead.
            Err(TemplateError::NotByMessage) if template.knows_system => {
                template.knows_system = false;
                template.find_tail()?;
                template.check()?;
            }
            checked => checked?,
        }
        Ok(template)
    }

    /// True if the template takes notice of [`Template::with_thinking`].
    pub fn knows_thinking(&self) -> bool {
        let opening = |thinking| self.render_thinking(None, &[FIRST], true, thinking).ok();
        opening(Some(false)) != opening(Some(true))
    }

    /// Tells templates that know `enable_thinking` (Qwen 3's) whether the model is to think aloud
    /// before it answers; others take no notice.
    ///
    /// # Errors
    /// [`TemplateError`] if the template fails then.
    pub fn with_thinking(mut self, thinking: bool) -> Result<Template, TemplateError> {
        self.thinking = Some(thinking);
        self.check()?;
        Ok(self)
    }

    /// Renders every part once.
    fn check(&self) -> Result<(), TemplateError> {
        self.prefix(Some("x"))?;
        self.question(None, true, "x")?;
        self.question(None, false, "x")?;
        self.open(None)?;
        self.close(None)?;
        Ok(())
    }

    fn find_tail(&mut self) -> Result<(), TemplateError> {
        let ended = self.render(None, &[FIRST], false)?;
        let asking = self.render(None, &[FIRST], true)?;
        if !asking.starts_with(&ended)
            && let Some(before) = ended.strip_suffix(&self.eos)
            && asking.starts_with(before)
        {
            self.tail = self.eos.clone();
        }
        Ok(())
    }

    /// The text before all messages: the system prompt in its frame, or what the template says
    /// without one. May be empty.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn prefix(&self, system: Option<&str>) -> Result<Framed, TemplateError> {
        let stand_in = system.map(|_| SYSTEM);
        let one = self.render(stand_in, &[WORDS], false)?;
        let other = self.render(stand_in, &[OTHER], false)?;
        let common = one.split_once(WORDS).ok_or(TemplateError::NotByMessage)?.0;
        if !other.starts_with(common) {
            return Err(TemplateError::NotByMessage);
        }
        // The frame of a later message tells which part of this belongs to the first message.
        let later = self.later_question(stand_in)?;
        let header = later
            .split_once(WORDS)
            .ok_or(TemplateError::NotByMessage)?
            .0;
        // Some templates write a line break before every message but the first.
        let prefix = common
            .strip_suffix(header)
            .or_else(|| {
                common.strip_suffix(Some(header.trim_start()).filter(|header| !header.is_empty())?)
            })
            .unwrap_or(common);
        let words = system.unwrap_or_default();
        match system {
            Some(_) => frame(prefix, SYSTEM, words),
            None => Ok(Framed::plain(prefix)),
        }
    }

    /// A person's message; `first` if it follows the prefix.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn question(
        &self,
        system: Option<&str>,
        first: bool,
        words: &str,
    ) -> Result<Framed, TemplateError> {
        let stand_in = system.map(|_| SYSTEM);
        let text = if first {
            let prefix = self.prefix(stand_in)?.text;
            let whole = self.render(stand_in, &[WORDS], false)?;
            let rest = whole.strip_prefix(&prefix);
            rest.ok_or(TemplateError::NotByMessage)?.to_owned()
        } else {
            self.later_question(stand_in)?
        };
        frame(&text, WORDS, words)
    }

    /// The text before an answer of the model.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn open(&self, system: Option<&str>) -> Result<String, TemplateError> {
        let system = system.map(|_| SYSTEM);
        let before = self.render(system, &[FIRST], false)?;
        let whole = self.render(system, &[FIRST], true)?;
        let header = whole.strip_prefix(&before);
        Ok(header.ok_or(TemplateError::NotByMessage)?.to_owned())
    }

    /// The text after an answer of the model. May be empty: where more follows, it may begin the
    /// next question.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn close(&self, system: Option<&str>) -> Result<String, TemplateError> {
        let system = system.map(|_| SYSTEM);
        let last = self.after_answer(system, &[FIRST, ANSWER])?;
        let goes_on = self.after_answer(system, &[FIRST, ANSWER, WORDS])?;
        // The end of the last answer of all may be another than the end of one that is followed
        // by a question (gpt-oss).
        Ok(if goes_on.starts_with(&last) {
            last
        } else {
            String::new()
        })
    }

    /// The question [`WORDS`] after an exchange. What stands before the answer may change by it:
    /// Qwen 3 leaves out what was thought.
    fn later_question(&self, system: Option<&str>) -> Result<String, TemplateError> {
        let after = self.after_answer(system, &[FIRST, ANSWER, WORDS])?;
        let rest = after.strip_prefix(&self.close(system)?);
        Ok(rest.ok_or(TemplateError::NotByMessage)?.to_owned())
    }

    /// The text after [`ANSWER`] in a conversation.
    fn after_answer(
        &self,
        system: Option<&str>,
        messages: &[&str],
    ) -> Result<String, TemplateError> {
        let text = self.render(system, messages, false)?;
        let (_, after) = text
            .rsplit_once(ANSWER)
            .ok_or(TemplateError::NotByMessage)?;
        Ok(after.to_owned())
    }

    /// Renders a system prompt and messages of person and model in turn. Where the template has no
    /// place for a system prompt, it opens the first message.
    fn render(
        &self,
        system: Option<&str>,
        messages: &[&str],
        answer: bool,
    ) -> Result<String, TemplateError> {
        self.render_thinking(system, messages, answer, self.thinking)
    }

    fn render_thinking(
        &self,
        system: Option<&str>,
        messages: &[&str],
        answer: bool,
        thinking: Option<bool>,
    ) -> Result<String, TemplateError> {
        let opened;
        let mut all = Vec::new();
        let mut messages = messages.to_vec();
        if let (Some(system), true) = (system, self.knows_system) {
            all.push(message("system", system));
        } else if let (Some(system), Some(first)) = (system, messages.first_mut()) {
            opened = format!("{system}\n\n{first}");
            *first = &opened;
        }
        let role = |i: usize| {
            if i.is_multiple_of(2) {
                "user"
            } else {
                "assistant"
            }
        };
        all.extend(
            messages
                .into_iter()
                .enumerate()
                .map(|(i, content)| message(role(i), content)),
        );
        let values = context! {
            messages => all,
            add_generation_prompt => answer,
            bos_token => &*self.bos,
            eos_token => &*self.eos,
            enable_thinking => thinking.map_or(Value::UNDEFINED, Value::from),
            // As transformers renders a conversation without them.
            tools => Value::from(()),
            documents => Value::from(()),
        };
        let mut text = bounded::render(&self.environment, &self.source, values)?;
        if !answer && text.ends_with(&self.tail) {
            text.truncate(text.len() - self.tail.len());
        }
        Ok(text)
    }
}

fn message(role: &str, content: &str) -> Value {
    context! { role, content }
}

/// Puts `words` where `stand_in` is, which must be in one place.
fn frame(text: &str, stand_in: &str, words: &str) -> Result<Framed, TemplateError> {
    let (before, after) = text
        .split_once(stand_in)
        .ok_or(TemplateError::NotByMessage)?;
    if after.contains(stand_in) {
        return Err(TemplateError::NotByMessage);
    }
    Ok(Framed {
        text: [before, words, after].concat(),
        words: before.len()..before.len() + words.len(),
    })
}

#[cfg(test)]
mod tests;

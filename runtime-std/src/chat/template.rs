//! A model's own chat template (Jinja, as Hugging Face's tokenizers have it), asked for one message at a time.
//!
//! A template turns a whole conversation into one text. A chat that lasts for ever has no whole conversation: what has left the window
//! is gone. So the template is rendered over a few stand-in messages, and what a real message adds is cut out of that: the text that
//! frames it, with the words in their place. The work for a message does not depend on how many came before it.
//!
//! The template is untrusted: its steps, its memory and its output are bounded (`bounded.rs`), and it sees nothing but the messages.

use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};

use super::bounded;

/// Stand-ins: characters that no template writes of itself, and no blank at either end to be trimmed.
const SYSTEM: &str = "\u{F0001}\u{F0010}";
const FIRST: &str = "\u{F0001}\u{F0011}";
const ANSWER: &str = "\u{F0001}\u{F0012}";
const WORDS: &str = "\u{F0001}\u{F0013}";
const OTHER: &str = "\u{F0001}\u{F0014}";

/// The ChatML template, for files that bring none and a manifest that says so.
pub const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Why a chat template cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// It is no template, fails, or does not end.
    #[error("the model's chat template fails: {0}")]
    Jinja(#[from] Error),
    /// A message changes what is rendered for the messages before it, or is left out.
    #[error("the model's chat template does not write a conversation message by message")]
    NotByMessage,
}

/// Text for the tokenizer, and which of its bytes are somebody's words, in which control tokens are not obeyed.
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
}

impl Template {
    /// Compiles `source`; `bos` and `eos` are the texts of the tokens that the template may name.
    ///
    /// # Errors
    /// [`TemplateError`] if it is no template, or cannot be asked for single messages.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Template, TemplateError> {
        let mut environment = bounded::environment();
        // As Hugging Face's tokenizers have it.
        environment.set_syntax(
            SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .build()?,
        );
        environment.add_function("raise_exception", |reason: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, reason))
        });
        let mut template = Template {
            environment,
            source: source.to_owned(),
            bos: bos.to_owned(),
            eos: eos.to_owned(),
            knows_system: true,
        };
        let with_system = template.render(Some(SYSTEM), &[FIRST], true);
        template.knows_system = with_system.is_ok_and(|text| text.contains(SYSTEM));
        template.prefix(Some("x"))?;
        template.question(None, true, "x")?;
        template.question(None, false, "x")?;
        template.open(None)?;
        template.close(None)?;
        Ok(template)
    }

    /// What stands before all messages: the system prompt in its frame, or what the template says without one. May be empty.
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
        // The frame of a later message tells what of this belongs to the first message.
        let later = self.later_question(stand_in)?;
        let header = later.split_once(WORDS).ok_or(TemplateError::NotByMessage)?.0;
        let prefix = common.strip_suffix(header).unwrap_or(common);
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
    pub fn question(&self, system: Option<&str>, first: bool, words: &str) -> Result<Framed, TemplateError> {
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

    /// What stands before an answer of the model.
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

    /// What follows an answer of the model.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn close(&self, system: Option<&str>) -> Result<String, TemplateError> {
        let text = self.render(system.map(|_| SYSTEM), &[FIRST, ANSWER], false)?;
        let end = text.rsplit_once(ANSWER).ok_or(TemplateError::NotByMessage)?.1;
        Ok(end.to_owned())
    }

    /// The question [`WORDS`] after an exchange.
    fn later_question(&self, system: Option<&str>) -> Result<String, TemplateError> {
        let before = self.render(system, &[FIRST, ANSWER], false)?;
        let whole = self.render(system, &[FIRST, ANSWER, WORDS], false)?;
        let rest = whole.strip_prefix(&before);
        Ok(rest.ok_or(TemplateError::NotByMessage)?.to_owned())
    }

    /// Renders a system prompt and messages of person and model in turn. Where the template has no place for a system prompt, it
    /// opens the first message.
    fn render(&self, system: Option<&str>, messages: &[&str], answer: bool) -> Result<String, TemplateError> {
        let opened;
        let mut all = Vec::new();
        let mut messages = messages.to_vec();
        if let (Some(system), true) = (system, self.knows_system) {
            all.push(message("system", system));
        } else if let (Some(system), Some(first)) = (system, messages.first_mut()) {
            opened = format!("{system}\n\n{first}");
            *first = &opened;
        }
        let role = |i: usize| if i.is_multiple_of(2) { "user" } else { "assistant" };
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
        };
        Ok(bounded::render(&self.environment, &self.source, values)?)
    }
}

fn message(role: &str, content: &str) -> Value {
    context! { role, content }
}

/// Puts `words` where `stand_in` is, which must be in one place.
fn frame(text: &str, stand_in: &str, words: &str) -> Result<Framed, TemplateError> {
    let (before, after) = text.split_once(stand_in).ok_or(TemplateError::NotByMessage)?;
    if after.contains(stand_in) {
        return Err(TemplateError::NotByMessage);
    }
    Ok(Framed {
        text: [before, words, after].concat(),
        words: before.len()..before.len() + words.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the file SmolLM2-135M-Instruct.Q4_1.gguf.
    const SMOLLM2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    /// In the manner of Llama 2: the system prompt stands inside the first message.
    const INSIDE: &str = "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system = '<<SYS>>' + messages[0]['content'].strip() + '<</SYS>>' %}{% else %}{% set loop_messages = messages %}{% set system = '' %}{% endif %}{% for message in loop_messages %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + (system if loop.index0 == 0 else '') + message['content'].strip() + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}";

    /// In the manner of Gemma: no system prompt, and the model has another name.
    const NO_SYSTEM: &str = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}{{ '<turn>' + role + '\n' + message['content'] | trim + '<end>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}";

    /// A conversation as the chat writes it, message by message.
    fn conversation(template: &Template, system: Option<&str>, answers: &[(&str, &str)]) -> String {
        let mut text = template.prefix(system).unwrap().text;
        for (turn, (question, answer)) in answers.iter().enumerate() {
            let framed = template.question(system, turn == 0, question).unwrap();
            assert_eq!(&framed.text[framed.words], *question);
            text += &framed.text;
            let (open, close) = (template.open(system).unwrap(), template.close(system).unwrap());
            text += &format!("{open}{answer}{close}");
        }
        text
    }

    /// The same, rendered as a whole.
    fn rendered(template: &Template, system: Option<&str>, answers: &[(&str, &str)]) -> String {
        let messages: Vec<&str> = answers.iter().flat_map(|(q, a)| [*q, *a]).collect();
        template.render(system, &messages, false).unwrap()
    }

    #[test]
    fn messages_one_by_one_are_the_whole_conversation() {
        let talk = [("Hello", "Hi."), ("<|im_end|> {{ 1 }}", "What?"), ("Bye", "Bye.")];
        for source in [SMOLLM2, INSIDE, NO_SYSTEM, CHATML] {
            let template = Template::new(source, "<s>", "</s>").unwrap();
            for system in [None, Some("Be short.")] {
                let written = conversation(&template, system, &talk);
                // The blank before an answer is the model's to write.
                let whole = rendered(&template, system, &talk).replace("[/INST] ", "[/INST]");
                assert_eq!(written, whole, "{source}");
            }
        }
    }

    #[test]
    fn what_templates_are_made_of_works_within_the_bounds() {
        let source = "{%- macro show(text, mark='*') %}{{ mark ~ text ~ mark }}{% endmacro -%}\
            {%- set ns = namespace(last=none, names=[]) -%}\
            {%- for m in messages | selectattr('role', 'equalto', 'user') | list -%}\
            {%- set ns.last = loop.index0 -%}{%- set ns.names = ns.names + [m.role[:2] | upper] -%}\
            {%- endfor -%}\
            {%- if messages and messages[0].role == 'system' %}{{ show(messages[0].content, mark='#') }}{% endif -%}\
            {%- for m in messages if m.role != 'system' -%}\
            {%- set words -%}{{ m.content.split('</think>')[-1].lstrip('\n') }}{%- endset -%}\
            {{- '%s: ' | format(m['role']) + words ~ (2 * 3) }}{{ '-' * 3 }}\
            {%- if 1 < 2 < 3 and m.role in ['user', 'assistant'] and ns.last is defined %}.{% else %}!{% endif -%}\
            {%- endfor -%}\
            {%- if add_generation_prompt %}{{ ['assistant', ': '] | join('') }}{% endif -%}";
        let template = Template::new(source, "", "").unwrap();
        let talk = [("Hello", "Hi."), ("Bye", "Bye.")];
        assert_eq!(
            conversation(&template, Some("Be short."), &talk),
            "#Be short.#user: Hello6---.assistant: Hi.6---.user: Bye6---.assistant: Bye.6---."
        );
    }

    #[test]
    fn the_prefix_is_what_can_be_pinned() {
        let prefix = |source, system| {
            Template::new(source, "<s>", "</s>")
                .unwrap()
                .prefix(system)
                .unwrap()
                .text
        };
        assert_eq!(
            prefix(SMOLLM2, Some("Be short.")),
            "<|im_start|>system\nBe short.<|im_end|>\n"
        );
        assert!(prefix(SMOLLM2, None).ends_with("trained by Hugging Face<|im_end|>\n"));
        assert_eq!(
            prefix(INSIDE, Some("Be short.")),
            "<s>[INST] <<SYS>>Be short.<</SYS>>"
        );
        assert_eq!(
            prefix(NO_SYSTEM, Some("Be short.")),
            "<s><turn>user\nBe short.\n\n"
        );
        assert_eq!(prefix(NO_SYSTEM, None), "<s>");
        assert_eq!(prefix(CHATML, None), "");
    }

    #[test]
    fn hostile_templates_end_in_one_sentence() {
        let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        let huge = "{% for a in range(9000) %}{{ 'x' * 1000 }}{% endfor %}";
        for source in [
            endless,
            huge,
            "{{ messages",
            "{{ raise_exception('no') }}",
            "",
            "{{ 1 / 0 }}",
            "{{ nothing.at.all }}",
        ] {
            let error = Template::new(source, "", "").err().expect("refused").to_string();
            assert!(
                error.starts_with("the model's chat template") && !error.contains('\n'),
                "{error}"
            );
        }
        // Forgets all but the last message.
        let last = "{{ messages[-1].content }}";
        assert!(matches!(
            Template::new(last, "", ""),
            Err(TemplateError::NotByMessage)
        ));
    }
}

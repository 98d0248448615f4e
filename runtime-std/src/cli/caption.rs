//! `brooklet caption`: writes down what is said in a sound.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use brooklet_core::cache::{CrossLayout, ElementType, LayoutChoice};
use clap::Args;

use super::cache::{Choices, ELEMENT_TYPES, LAYOUTS, Names, choice_of, one_of, threads, workers};
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::json::write_json;
use super::model::ModelArguments;
use super::progress::{Counter, say};
use crate::Error;
use crate::audio::{RawFormat, Sound};
use crate::captions::{Caption, CaptionOptions, Captions};
use crate::planning::Settings;
use crate::size::Size;

/// Names of the formats, and their help.
const FORMATS: Choices<Format> = &[
    (
        "txt",
        "The text, a line for each caption: the default",
        Format::Text,
    ),
    ("srt", "SubRip subtitles", Format::Srt),
    ("vtt", "WebVTT subtitles", Format::Vtt),
    (
        "jsonl",
        "A JSON object for each caption, with its start and end in seconds",
        Format::JsonLines,
    ),
];

/// Names of the layouts of cross-attention's cache, and their help.
const CROSS_LAYOUTS: Names = &[
    (
        "e",
        "The encoder's output, once for all layers: the default",
    ),
    ("kv", "Keys and values of every layer"),
];

/// Names of the tasks, and their help.
const TASKS: Choices<Task> = &[
    (
        "transcribe",
        "Write what is said: the default",
        Task::Transcribe,
    ),
    ("translate", "Translate it to English", Task::Translate),
];

/// Names of raw formats of sound, and their help.
const RAW_FORMATS: Choices<RawFormat> = &[
    ("s16le", "16-bit integers, little-endian", RawFormat::S16le),
    ("f32le", "32-bit floats, little-endian", RawFormat::F32le),
];

/// Arguments of `brooklet caption`.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// A file with sound; - for standard input
    file: PathBuf,
    /// The sound is raw: one channel of 16,000 samples a second, in this format
    #[arg(long, value_name = "FORMAT", value_parser = choice_of(RAW_FORMATS))]
    raw: Option<RawFormat>,
    /// Code of the language that is spoken, for example en; auto lets the model find it in the
    /// first half minute
    #[arg(long, value_name = "CODE", default_value = "auto")]
    language: String,
    /// Write down or translate
    #[arg(long, value_parser = choice_of(TASKS), default_value = "transcribe", hide_possible_values = false)]
    task: Task,
    /// Form of the captions
    #[arg(long, value_parser = choice_of(FORMATS), default_value = "txt", hide_possible_values = false)]
    format: Format,
    /// A text that the model takes as said before every half minute: names, and a style
    #[arg(long, value_name = "TEXT", default_value = "")]
    prompt: String,
    /// Most memory of the arena, for example 64MiB; what is left over a minimum makes it faster
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    ram: Option<Size>,
    /// Rows that are kept of the encoder's output
    #[arg(long, value_name = "LAYOUT", value_parser = one_of::<CrossLayout>(CROSS_LAYOUTS), default_value = "e", hide_possible_values = false)]
    cross_cache: CrossLayout,
    /// Cache layout of the text so far
    #[arg(long, value_name = "LAYOUT", value_parser = one_of::<LayoutChoice>(LAYOUTS), default_value = "auto", hide_possible_values = false)]
    cache: LayoutChoice,
    /// Element type of the caches
    #[arg(long, value_name = "TYPE", value_parser = one_of::<ElementType>(ELEMENT_TYPES), default_value = "f16")]
    cache_type: ElementType,
    /// Threads that compute; as many as there are big cores unless given
    #[arg(short, long, value_parser = threads())]
    threads: Option<usize>,
    /// Keep activations in f32 instead of int8: slow, for tests
    #[arg(long, hide = true)]
    f32_activations: bool,
    /// Print what the arena and the sound took to standard error at the end
    #[arg(long)]
    stats: bool,
}

/// Forms of captions.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Text,
    Srt,
    Vtt,
    JsonLines,
}

/// Kinds of captions.
#[derive(Clone, Copy, PartialEq)]
enum Task {
    Transcribe,
    Translate,
}

/// Writes captions.
pub fn caption(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Failure> {
    let (model, _) = arguments.model.open()?.check(workers(arguments.threads))?;
    let settings = Settings {
        budget: arguments.ram.map(|size| size.0),
        cache_type: arguments.cache_type,
        layout: arguments.cache,
        cross: arguments.cross_cache,
        f32_activations: arguments.f32_activations,
        // All positions of a transcript, or none: a smaller cache would cut it.
        window: Some(model.config().context),
        ..Settings::of_speech()
    };
    let options = CaptionOptions {
        language: (arguments.language != "auto").then(|| arguments.language.clone()),
        translate: arguments.task == Task::Translate,
        prompt: arguments.prompt.clone(),
    };
    if model.config().encoder.get().is_none() {
        return Err(Error::NoSpeech.into());
    }
    let mut sound = open(&arguments.file, arguments.raw)?;
    let mut session = model.session(&settings).map_err(|error| match error {
        // The hint is about smaller windows, which a transcript cannot have.
        Error::Plan { error, .. } => Error::Plan {
            error,
            hint: String::new(),
        },
        error => error,
    })?;
    let plan = *session.plan();
    let interrupt = Interrupt::catch()?;
    let cancel = interrupt.cancel();
    let counter = sound
        .seconds()
        .map(|total| Counter::new("caption", total as usize));
    let mut page = Page::new(out, arguments.format);
    page.begin()?;
    session.with(|engine| -> Result<(), Failure> {
        let mut captions = Captions::new(engine, &model, options)?;
        let mut read = |samples: &mut [f32]| {
            sound.read(samples).map_err(|error| Failure::Sound {
                path: arguments.file.clone(),
                error,
            })
        };
        while !cancel.is_cancelled()
            && captions.hear_next(&cancel, &mut read, &mut |caption| page.write(&caption))?
        {
            if let Some(counter) = &counter {
                counter.set(captions.seconds() as usize);
            }
        }
        drop(counter);
        if captions.seconds() == 0.0 && !cancel.is_cancelled() {
            say("the sound is empty: there is nothing to write down");
        }
        if captions.cut() > 0 {
            say(&format!(
                "{} captions were cut: the model wrote more words there than can be said",
                captions.cut()
            ));
        }
        if arguments.stats {
            let language = captions.language()?;
            say(&format!(
                "sound       {:.1} s, of which {:.1} s were taken as silence{}",
                captions.seconds(),
                captions.silence(),
                language.map_or(String::new(), |code| format!(", language {code}"))
            ));
            say(&format!("arena       {} bytes", plan.bytes()));
            for (part, bytes) in plan.parts() {
                say(&format!("{bytes:>12}  {}", part.name()));
            }
        }
        Ok(())
    })?;
    page.end()?;
    interrupt.failure().map_or(Ok(()), Err)
}

/// Opens the sound.
fn open(path: &Path, raw: Option<RawFormat>) -> Result<Sound, Failure> {
    let is_input = path.as_os_str() == "-";
    if let Some(format) = raw {
        return Ok(if is_input {
            Sound::raw(io::stdin(), format)
        } else {
            let file = std::fs::File::open(path).map_err(|error| Failure::Read {
                path: path.to_owned(),
                error,
            })?;
            Sound::raw(file, format)
        });
    }
    let sound = if is_input {
        Sound::stream(io::stdin())
    } else {
        Sound::open(path)
    };
    sound.map_err(|error| Failure::Sound {
        path: path.to_owned(),
        error,
    })
}

/// Captions on their way to the output.
struct Page<'o> {
    out: &'o mut dyn Write,
    format: Format,
    count: usize,
}

impl<'o> Page<'o> {
    fn new(out: &'o mut dyn Write, format: Format) -> Self {
        Page {
            out,
            format,
            count: 0,
        }
    }

    fn begin(&mut self) -> Result<(), Failure> {
        if self.format == Format::Vtt {
            self.out.write_all(b"WEBVTT\n\n").map_err(Failure::Output)?;
        }
        Ok(())
    }

    fn write(&mut self, caption: &Caption) -> Result<(), Failure> {
        self.count += 1;
        let Caption { start, end, text } = caption;
        if self.format == Format::JsonLines {
            write_json(self.out, caption)?;
        }
        let written = match self.format {
            Format::Text => writeln!(self.out, "{text}"),
            Format::Srt => {
                let (start, end) = (time(*start, ','), time(*end, ','));
                writeln!(self.out, "{}\n{start} --> {end}\n{text}\n", self.count)
            }
            Format::Vtt => {
                let (start, end) = (time(*start, '.'), time(*end, '.'));
                writeln!(self.out, "{start} --> {end}\n{}\n", escaped(text))
            }
            Format::JsonLines => Ok(()),
        };
        written
            .and_then(|()| self.out.flush())
            .map_err(Failure::Output)
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::Output)
    }
}

/// A time as subtitles have it, with `point` before the milliseconds.
fn time(seconds: f64, point: char) -> String {
    let ms = (seconds * 1000.0).round() as u64;
    let (s, ms) = (ms / 1000, ms % 1000);
    format!(
        "{:02}:{:02}:{:02}{point}{ms:03}",
        s / 3600,
        s / 60 % 60,
        s % 60
    )
}

/// Text without the characters that WebVTT reads as marks (its specification, section 6.4).
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(format: Format) -> String {
        let mut out = Vec::new();
        let mut page = Page::new(&mut out, format);
        page.begin().unwrap();
        let caption = Caption {
            start: 3_725.5,
            end: 3_727.000_4,
            text: "a < b".into(),
        };
        page.write(&caption).unwrap();
        page.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn captions_have_the_form_that_was_asked_for() {
        assert_eq!(page(Format::Text), "a < b\n");
        assert_eq!(
            page(Format::Srt),
            "1\n01:02:05,500 --> 01:02:07,000\na < b\n\n"
        );
        assert_eq!(
            page(Format::Vtt),
            "WEBVTT\n\n01:02:05.500 --> 01:02:07.000\na &lt; b\n\n"
        );
        assert_eq!(
            page(Format::JsonLines),
            "{\"start\":3725.5,\"end\":3727.0004,\"text\":\"a < b\"}\n"
        );
    }
}

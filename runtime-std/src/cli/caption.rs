//! `brooklet caption`: writes down what is said in sounds.

mod cues;
mod page;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use brooklet_core::cache::{CrossLayout, ElementType, LayoutChoice};
use clap::Args;

use super::cache::{Choices, ELEMENT_TYPES, LAYOUTS, choice_of, one_of, threads, workers};
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::model::ModelArguments;
use super::output::Files;
use super::progress::{Counter, say};
use super::terminal::shown_line;
use crate::audio::{RawFormat, Sound};
use crate::captions::{CaptionOptions, Captions};
use crate::engine::Engine;
use crate::generate::Cancel;
use crate::planning::{CrossChoice, Settings};
use crate::size::Size;
use crate::{Error, Model};
use page::{Facts, Format, Page, Sink};

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
        "json",
        "One JSON object with all captions, the language and the length",
        Format::Json,
    ),
    (
        "jsonl",
        "A JSON object for each caption, with its start and end in seconds",
        Format::JsonLines,
    ),
];

/// Names of the layouts of cross-attention's cache, and their help.
const CROSS_LAYOUTS: Choices<CrossChoice> = &[
    (
        "auto",
        "kv where it fits --ram, or takes 32 MiB more at most; else e: the default",
        CrossChoice::Auto,
    ),
    (
        "kv",
        "Keys and values of every layer: fewer operations a token",
        CrossChoice::Layout(CrossLayout::Kv),
    ),
    (
        "e",
        "The encoder's output, once for all layers: less memory",
        CrossChoice::Layout(CrossLayout::E),
    ),
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
    /// Files with sound; - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// File to write the captions to as they come, or a folder for a file of each sound
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Write the captions of each sound to a file beside it: talk.srt beside talk.mp3
    #[arg(long, conflicts_with = "output")]
    beside: bool,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
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
    /// Tell Whisper what it wrote of the half minutes before
    #[arg(long)]
    carry: bool,
    /// Keep the most probable text of a half minute even if it is a loop, or Whisper unsure of it
    #[arg(long)]
    once: bool,
    /// Most memory of the arena, for example 64MiB; what is left over a minimum makes it faster
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    ram: Option<Size>,
    /// Rows that are kept of the encoder's output
    #[arg(long, value_name = "LAYOUT", value_parser = choice_of(CROSS_LAYOUTS), default_value = "auto", hide_possible_values = false)]
    cross_cache: CrossChoice,
    /// Cache layout of the text so far
    #[arg(long, value_name = "LAYOUT", value_parser = one_of::<LayoutChoice>(LAYOUTS), default_value = "auto", hide_possible_values = false)]
    cache: LayoutChoice,
    /// Element type of the caches that the decoder reads
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
    if model.config().encoder.get().is_none() {
        return Err(Error::NoSpeech.into());
    }
    let places = places(arguments)?;
    let mut session = model.session(&settings).map_err(|error| match error {
        // The hint is about smaller windows, which a transcript cannot have.
        Error::Plan { error, .. } => Error::Plan {
            error,
            hint: String::new(),
        },
        error => error,
    })?;
    let plan = *session.plan();
    // What is wrong with the options is said once, before anything is written.
    session.with(|engine| Captions::new(engine, &model, arguments.options()).map(|_| ()))?;
    let mut files = Files::new(arguments.force).reads_model(model.file());
    for file in &arguments.files {
        files = files.reads(file);
    }
    let interrupt = Interrupt::catch()?;
    let cancel = interrupt.cancel();
    let mut failures = 0;
    for (file, place) in arguments.files.iter().zip(&places) {
        let work = Work {
            arguments,
            file,
            place: place.as_deref(),
            cancel: &cancel,
        };
        let written = session.with(|engine| work.write(engine, &model, &mut files, out));
        match written {
            // One sound that cannot be heard does not keep the others waiting.
            Err(failure) if arguments.files.len() > 1 && of_one_sound(&failure) => {
                failures += 1;
                say(&format!("brooklet: {}", shown_line(&failure.to_string())));
            }
            result => result?,
        }
        if cancel.is_cancelled() {
            break;
        }
    }
    if arguments.stats {
        say(&format!("arena       {} bytes", plan.bytes()));
        for (part, bytes) in plan.parts() {
            say(&format!("{bytes:>12}  {}", part.name()));
        }
    }
    if let Some(failure) = interrupt.failure() {
        return Err(failure);
    }
    if failures > 0 {
        let all = arguments.files.len();
        return Err(Failure::Input(format!("{failures} of {all} sounds failed")));
    }
    Ok(())
}

/// True for failures that say nothing of other sounds.
fn of_one_sound(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Sound { .. } | Failure::Read { .. } | Failure::Exists(_) | Failure::Input(_)
    )
}

/// The file to write for each sound; `None` for standard output.
fn places(arguments: &Arguments) -> Result<Vec<Option<PathBuf>>, Failure> {
    let several = arguments.files.len() > 1;
    let folder = match &arguments.output {
        _ if arguments.beside => None,
        Some(path) if path.is_dir() => Some(path),
        Some(_) | None if several => {
            return Err(Failure::Usage(
                "several sounds need a file each: give --beside, or -o with a folder".into(),
            ));
        }
        Some(path) => return Ok(vec![Some(path.clone())]),
        None => return Ok(vec![None]),
    };
    let place = |file: &PathBuf| {
        if file.as_os_str() == "-" {
            return Err(Failure::Usage(
                "standard input has no name for a file of captions: give -o with one".into(),
            ));
        }
        let name = file.with_extension(arguments.format.ending());
        let place = match folder {
            Some(folder) => folder.join(name.file_name().unwrap_or_default()),
            None => name,
        };
        Ok(Some(place))
    };
    let places: Vec<Option<PathBuf>> = arguments
        .files
        .iter()
        .map(place)
        .collect::<Result<_, _>>()?;
    for (i, place) in places.iter().enumerate() {
        if let Some(twice) = place.as_ref().filter(|_| places[..i].contains(place)) {
            return Err(Failure::Usage(format!(
                "the captions of two sounds would be one file, {}: give them in two runs, with other folders",
                twice.display()
            )));
        }
    }
    Ok(places)
}

/// One sound and its captions.
struct Work<'w> {
    arguments: &'w Arguments,
    file: &'w Path,
    place: Option<&'w Path>,
    cancel: &'w Cancel,
}

impl Work<'_> {
    fn write(
        &self,
        engine: &mut Engine<'_>,
        model: &Model,
        files: &mut Files,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let arguments = self.arguments;
        let mut captions = Captions::new(engine, model, arguments.options())?;
        let mut sound = open(self.file, arguments.raw)?;
        let sink = match self.place {
            None => Sink::Standard(out),
            Some(place) => {
                let is_there = place.symlink_metadata().is_ok();
                let new = files.create(place)?;
                if is_there {
                    Sink::Replacement(new)
                } else {
                    Sink::File(new.grow()?)
                }
            }
        };
        let counter = sound
            .seconds()
            .map(|total| Counter::new("caption", total as usize));
        let mut page = Page::begin(sink, arguments.format)?;
        let mut read = |samples: &mut [f32]| {
            sound.read(samples).map_err(|error| Failure::Sound {
                path: self.file.to_owned(),
                error,
            })
        };
        let mut written = Ok(true);
        while matches!(written, Ok(true)) && !self.cancel.is_cancelled() {
            written =
                captions.hear_next(self.cancel, &mut read, &mut |caption| page.write(&caption));
            if let Some(counter) = &counter {
                counter.set(captions.seconds() as usize);
            }
        }
        drop(counter);
        let facts = Facts {
            language: captions.language()?,
            seconds: captions.seconds(),
            silence: captions.silence(),
            cut: captions.cut(),
            complete: written.is_ok() && !self.cancel.is_cancelled(),
        };
        let ended = page.end(&facts);
        written?;
        ended?;
        if let Some(place) = self.place.filter(|_| facts.complete) {
            say(&shown_line(&place.display().to_string()));
        }
        self.report(&captions, &facts);
        Ok(())
    }

    /// Says what a reader of the captions should know.
    fn report(&self, captions: &Captions<'_, '_>, facts: &Facts) {
        if facts.seconds == 0.0 && !self.cancel.is_cancelled() {
            say("the sound is empty: there is nothing to write down");
        }
        if facts.cut > 0 {
            say(&format!(
                "{} captions were cut: the model wrote more words there than can be said, or the same again and again",
                facts.cut
            ));
        }
        if self.arguments.stats {
            let language = facts.language.as_ref();
            say(&format!(
                "sound       {:.1} s, of which {:.1} s were taken as silence{}",
                facts.seconds,
                facts.silence,
                language.map_or(String::new(), |code| format!(", language {code}"))
            ));
            let effort = captions.effort();
            let writing = effort.writing.as_secs_f64();
            say(&format!(
                "work        encoder {:.2} s for {} parts; decoder {writing:.2} s for {} tokens, {:.2} ms each",
                effort.hearing.as_secs_f64(),
                effort.parts,
                effort.tokens,
                writing * 1000.0 / effort.tokens.max(1) as f64
            ));
            if captions.again() > 0 {
                say(&format!(
                    "again       {} half minutes were written more than once: the first text was a loop, or too unsure",
                    captions.again()
                ));
            }
        }
    }
}

impl Arguments {
    fn options(&self) -> CaptionOptions {
        CaptionOptions {
            language: (self.language != "auto").then(|| self.language.clone()),
            translate: self.task == Task::Translate,
            prompt: self.prompt.clone(),
            carry: self.carry,
            once: self.once,
        }
    }
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

//! Captions on their way to an output, in the form that was asked for.

use std::fmt::Write as _;
use std::io::Write;

use super::cues::cues;
use crate::captions::Caption;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, Record};

/// Forms of captions.
#[derive(Clone, Copy, PartialEq)]
pub enum Format {
    Text,
    Srt,
    Vtt,
    Json,
    JsonLines,
}

impl Format {
    /// The ending of the name of a file.
    pub fn ending(self) -> &'static str {
        match self {
            Format::Text => "txt",
            Format::Srt => "srt",
            Format::Vtt => "vtt",
            Format::Json => "json",
            Format::JsonLines => "jsonl",
        }
    }
}

/// The output of captions.
pub enum Sink<'o> {
    /// Gets each caption at once.
    Standard(&'o mut dyn Write),
    /// Gets each caption at once.
    File(Record),
    /// Takes the place of another file when it is whole.
    Replacement(Output),
}

impl Sink<'_> {
    fn add(&mut self, text: &str) -> Result<(), Failure> {
        match self {
            Sink::Standard(out) => out
                .write_all(text.as_bytes())
                .and_then(|()| out.flush())
                .map_err(Failure::Output),
            Sink::File(file) => file.add(text.as_bytes()),
            Sink::Replacement(file) => file.add(text.as_bytes()),
        }
    }
}

/// Facts about a sound, after its captions, in JSON.
#[derive(serde::Serialize)]
pub struct Facts {
    /// Code of the language, of models that know several.
    pub language: Option<String>,
    /// Seconds of the sound.
    pub seconds: f64,
    /// Seconds that were taken as silence.
    pub silence: f64,
    /// Captions that end where the model wrote more than can be said.
    pub cut: usize,
    /// False if the end of the sound was not reached: by an error, or because that was asked for.
    pub complete: bool,
}

/// Captions of one sound.
pub struct Page<'o> {
    out: Sink<'o>,
    format: Format,
    count: usize,
    /// End of the last cue, in milliseconds.
    end: u64,
}

impl<'o> Page<'o> {
    /// Writes what stands before all captions.
    pub fn begin(out: Sink<'o>, format: Format) -> Result<Page<'o>, Failure> {
        let mut page = Page {
            out,
            format,
            count: 0,
            end: 0,
        };
        match format {
            Format::Vtt => page.out.add("WEBVTT\n\n")?,
            Format::Json => page.out.add("{\"captions\":[")?,
            Format::Text | Format::Srt | Format::JsonLines => {}
        }
        Ok(page)
    }

    pub fn write(&mut self, caption: &Caption) -> Result<(), Failure> {
        let mut text = String::new();
        match self.format {
            Format::Text => text = format!("{}\n", caption.text),
            Format::JsonLines => text = json_of(caption)? + "\n",
            Format::Json => {
                let before = if self.count > 0 { ",\n" } else { "\n" };
                text = format!("{before}{}", json_of(caption)?);
                self.count += 1;
            }
            Format::Srt | Format::Vtt => {
                for cue in cues(caption, self.end) {
                    self.count += 1;
                    self.end = cue.end;
                    let point = if self.format == Format::Srt { ',' } else { '.' };
                    let times = format!("{} --> {}", time(cue.start, point), time(cue.end, point));
                    // Into a string: that cannot fail.
                    let _ = if self.format == Format::Srt {
                        let lines = cue.lines.join("\n");
                        writeln!(text, "{}\n{times}\n{lines}\n", self.count)
                    } else {
                        let lines = escaped(&cue.lines.join("\n"));
                        writeln!(text, "{times}\n{lines}\n")
                    };
                }
            }
        }
        self.out.add(&text)
    }

    /// Writes what stands after all captions.
    pub fn end(mut self, facts: &Facts) -> Result<(), Failure> {
        let is_complete = facts.complete;
        if self.format == Format::Json {
            let facts = json_of(facts)?;
            // The members of one object after the member of the other.
            self.out.add(&format!("\n],{}\n", &facts[1..]))?;
        }
        match self.out {
            // What was there is better than a part.
            Sink::Replacement(file) if is_complete => file.finish(),
            _ => Ok(()),
        }
    }
}

fn json_of(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::Output(error.into()))
}

/// A time as subtitles have it, with `point` before the milliseconds.
fn time(ms: u64, point: char) -> String {
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
        let mut page = Page::begin(Sink::Standard(&mut out), format).unwrap();
        for start in [3_725.5, 3_727.0] {
            let caption = Caption {
                start,
                end: start + 1.500_4,
                text: "a < b".into(),
            };
            page.write(&caption).unwrap();
        }
        let facts = Facts {
            language: None,
            seconds: 1.5,
            silence: 0.0,
            cut: 0,
            complete: true,
        };
        page.end(&facts).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn captions_have_the_form_that_was_asked_for() {
        assert_eq!(page(Format::Text), "a < b\na < b\n");
        assert_eq!(
            page(Format::Srt),
            "1\n01:02:05,500 --> 01:02:07,000\na < b\n\n2\n01:02:07,000 --> 01:02:08,500\na < b\n\n"
        );
        assert!(
            page(Format::Vtt).starts_with(
                "WEBVTT\n\n01:02:05.500 --> 01:02:07.000\na &lt; b\n\n01:02:07.000 --> "
            )
        );
        assert!(
            page(Format::JsonLines)
                .starts_with("{\"start\":3725.5,\"end\":3727.0004,\"text\":\"a < b\"}\n{")
        );
        let json: serde_json::Value = serde_json::from_str(&page(Format::Json)).unwrap();
        assert_eq!(json["captions"].as_array().unwrap().len(), 2);
        assert_eq!(
            (&json["language"], &json["seconds"]),
            (&().into(), &1.5.into())
        );
    }
}
